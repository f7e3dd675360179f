/*
 * family.h - what differs between architectures, as rows of two tables
 *
 * A row of qkv_families holds facts of computing; a row of qkv_dialects, one
 * for each family and file format, holds facts of files: what its tensors are
 * called and how they lie. A new family is a new row in each and its oracle.
 */
#ifndef QKV_FAMILY_H
#define QKV_FAMILY_H
#include "model/hyper.h"

typedef struct qkv_family {
    const char *name;           /* config.json's model_type, GGUF's
                                 * general.architecture; more after '|' */
    qkv_norm_kind norm;
    qkv_layout layout;
    qkv_head_kind head;
    bool causal, gated, rotary, learned_positions, token_types, embed_norm,
        final_norm, tied,       /* tied: unless the file says otherwise */
        parallel,               /* the same; see hyper.h for what these mean */
        shared_norm, qk_norm;
    int64_t position_offset;
    bool skips_pads;            /* positions count from pad_token_id + 1, and
                                 * not over that token */
    bool windowed;              /* a sliding window is honoured */
    bool window_is_optional;    /* ... if use_sliding_window says so */
    int64_t window, window_from;        /* when the file does not say */
    double rotary_share;        /* of d_head, the same; 0: all */
    const char *activation;     /* when the file does not say */
    const char *head_activation;        /* NULL: the blocks' */
    double eps;                 /* when the file does not say */
    /* Settings that would change the numbers and are not built: "name=value"
     * pairs that must hold if the name is there, separated by ' '. */
    const char *must;
} qkv_family;

/* What a tensor is for. A role's bias has its name with .weight -> .bias. */
typedef enum qkv_role {
    QKV_ROLE_EMBED, QKV_ROLE_POSITIONS, QKV_ROLE_TYPES, QKV_ROLE_EMBED_NORM,
    QKV_ROLE_LN1, QKV_ROLE_Q, QKV_ROLE_K, QKV_ROLE_V, QKV_ROLE_O,
    QKV_ROLE_Q_NORM, QKV_ROLE_K_NORM,
    QKV_ROLE_LN2, QKV_ROLE_GATE, QKV_ROLE_IN, QKV_ROLE_OUT,
    QKV_ROLE_LN_FINAL, QKV_ROLE_UNEMBED,
    QKV_ROLE_MLM_DENSE, QKV_ROLE_MLM_NORM, QKV_ROLE_MLM_BIAS,
    QKV_ROLE_POOLER, QKV_ROLE_NEXT_SENTENCE, QKV_ROLE_ROPE_FREQS,
    QKV_ROLE_ROPE_SHORT,
    QKV_N_ROLES
} qkv_role;

typedef enum qkv_format { QKV_FORMAT_HF, QKV_FORMAT_GGUF } qkv_format;

/* How q, k and v lie in the file. */
typedef enum qkv_fusion {
    QKV_APART,                  /* three matrices */
    QKV_STACKED,                /* role Q names one: all q, all k, all v */
    QKV_BY_HEAD                 /* the same: q, k, v of each head in turn */
} qkv_fusion;

typedef struct qkv_dialect {
    const char *family;         /* first names of families, separated by '|' */
    qkv_format format;
    /* Stand for '~' in names; tried in order against the embedding's name,
     * separated by '|' ("model.|"). */
    const char *prefixes;
    bool transposed;            /* block matrices are stored [in, out] */
    bool pairs;                 /* q, k rows in neighbour order */
    qkv_fusion fusion;
    bool fused_gate;            /* role GATE names gate, then in, in one */
    /* "~h.%d.ln_1.weight": %d is the layer; alternatives after '|'. */
    const char *name[QKV_N_ROLES];
} qkv_dialect;

/* NULL with EUNSUPPORTED that lists the families there are. */
const qkv_family *qkv_family_named(const char *name, qkv_error *err);
const qkv_dialect *qkv_dialect_of(const qkv_family *family, qkv_format format,
                                  qkv_error *err);

#endif
