/*
 * hyper.h - a stack's configuration: sizes, and facts of computing
 *
 * Everything that the forward needs to know about an architecture, read at
 * load from the family's row (family.h) and the file's facts (facts.h). The
 * forward never sees a family. (The file is not called config.h, which is
 * autoconf's.)
 */
#ifndef QKV_HYPER_H
#define QKV_HYPER_H
#include <stdbool.h>
#include <stdint.h>

#include "model/facts.h"

typedef enum qkv_norm_kind {
    QKV_NORM_LAYER,             /* (x - mean) / sqrt(var + eps) g + b */
    QKV_NORM_RMS                /* x / sqrt(mean square + eps) g */
} qkv_norm_kind;

typedef enum qkv_layout {
    QKV_PRE_NORM,               /* x + attn(ln1 x), then + mlp(ln2 .) */
    QKV_POST_NORM               /* ln1(x + attn x), then ln2(. + mlp .) */
} qkv_layout;

typedef enum qkv_head_kind {
    QKV_HEAD_UNEMBED,           /* final norm, then the unembedding */
    QKV_HEAD_MASKED             /* dense, activation, norm, unembedding + bias */
} qkv_head_kind;

typedef enum qkv_activation {
#define QKV_ACTIVATION(id, kernel, names) QKV_ACT_##id,
#include "model/activation.def"
#undef QKV_ACTIVATION
    QKV_N_ACTIVATIONS
} qkv_activation;

typedef struct qkv_config {
    char family[24];            /* for printing only */
    int64_t n_layers, n_heads, n_kv_heads;
    int64_t d_model, d_head, d_mlp, d_vocab;
    int64_t n_ctx;              /* positions the model was made for */
    int64_t n_types;            /* token types; 0: none */
    qkv_norm_kind norm;
    double eps;
    qkv_layout layout;
    qkv_head_kind head;
    qkv_activation activation;
    qkv_activation head_activation;     /* of a masked head */
    bool gated;
    bool causal;
    bool parallel;              /* x + attn(ln1 x) + mlp(ln2 x) */
    bool shared_norm;           /* ln1 serves the MLP too */
    bool qk_norm;               /* a norm over d_head of q and k, same gain
                                 * for all heads, before they turn */
    bool learned_positions;     /* a table of n_ctx + position_offset rows,
                                 * added */
    int64_t position_offset;    /* the first position's row in it */
    int64_t uncounted;          /* a token that takes no position (its row is
                                 * position_offset - 1); -1: none */
    bool embed_norm;            /* a norm over the summed embeddings */
    bool final_norm;
    bool tied;                  /* the unembedding is the embedding */
    double attn_scale;          /* scores = attn_scale q.k */
    bool scale_by_layer;        /* ... / (layer + 1) */
    /* A query sees `window` positions, itself included; 0: all before it. */
    int64_t window;
    int64_t window_from;        /* ... in layers from this one on */
    /* Rotary: the first rotary_dim dimensions of a head turn, i with
     * i + rotary_dim / 2, by pos * rotary_freq[i]. 0: none. */
    int64_t rotary_dim;
    double rotary_base;
    enum { QKV_ROPE_DEFAULT, QKV_ROPE_LINEAR, QKV_ROPE_LLAMA3, QKV_ROPE_YARN,
           QKV_ROPE_LONG } rope_type;
    double rope_factor, rope_original;
    double rope_low, rope_high; /* llama3's bands; yarn: the dimensions
                                 * between which it mixes */
    double rotary_scale;        /* of cos and sin */
} qkv_config;

struct qkv_family;

/* Fill c from a family's row and a file's facts; sizes are checked against
 * each other. What the file asks for and we have not built is EUNSUPPORTED,
 * naming it. d_vocab may stay 0: the embedding's shape tells. */
bool qkv_config_read(qkv_config *c, const struct qkv_family *family,
                     const qkv_facts *f, qkv_error *err);

/* The window of one layer: the file's list of layer types if it has one, else
 * what c says. */
bool qkv_config_window(int64_t *window, const qkv_config *c,
                       const qkv_facts *f, int64_t layer, qkv_error *err);

/* Longrope: texts up to the original context take one set of divisors, longer
 * ones another for all their positions, so that no two of their prefixes
 * agree. Those are refused: n_ctx ends with the original context. */
void qkv_config_keep_short(qkv_config *c);

/* divisors [rotary_dim / 2] of the frequencies, where the file's facts list
 * them (longrope's short_factor, Ding et al., arXiv:2402.13753). */
bool qkv_config_divisors(float *divisors, const qkv_config *c,
                         const qkv_facts *f, qkv_error *err);

/* freq [rotary_dim / 2]: radians a position. divisors [rotary_dim / 2] (a
 * GGUF's rope_freqs; NULL: none) divide them. Su et al., arXiv:2104.09864;
 * yarn: Peng et al., arXiv:2309.00071; these and llama3's bands as in Hugging
 * Face's modeling_rope_utils. */
void qkv_config_rotary(float *freq, const qkv_config *c,
                       const float *divisors);

const char *qkv_activation_name(qkv_activation a);

#endif
