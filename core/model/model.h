/*
 * model.h - a model that was opened: stacks of blocks with their weights
 *
 * One or more stacks {site prefix, configuration, stem, blocks, head}: GPT-2
 * and BERT have one; T5 and CLIP will have two. Weights are views of the
 * mapped file (weight.h); gains and biases, which are small, are float
 * copies. The structs are open to read for the forward and the probes; only
 * model.c and load.c write them.
 */
#ifndef QKV_MODEL_H
#define QKV_MODEL_H
#include "model/family.h"
#include "model/hyper.h"
#include "model/store.h"
#include "tensor/weight.h"
#include "text/tokenizer.h"

typedef struct qkv_linear {     /* y [n] = W [n, k] x + bias */
    qkv_weight w;
    qkv_tensor *bias;           /* f32 [n], or NULL */
} qkv_linear;

typedef struct qkv_norm {
    qkv_tensor *gain, *bias;    /* f32 [d], or NULL */
} qkv_norm;

typedef struct qkv_block {
    qkv_norm ln1, ln2;
    qkv_linear q;               /* [n_heads * d_head, d_model] */
    qkv_linear k, v;            /* [n_kv_heads * d_head, d_model] */
    qkv_norm q_norm, k_norm;    /* over d_head, before they turn; or none */
    qkv_linear o;               /* [d_model, n_heads * d_head] */
    qkv_linear gate;            /* [d_mlp, d_model]; w.stored NULL: not gated */
    qkv_linear in;              /* [d_mlp, d_model]; gated: the linear branch */
    qkv_linear out;             /* [d_model, d_mlp] */
    float scale;                /* scores = scale q.k */
    int64_t window;             /* a query sees so many positions, itself
                                 * included; 0: all that are before it */
    const float *rotary;        /* [rotary_dim / 2] radians a position, lent
                                 * by the stack; NULL: not rotary */
} qkv_block;

typedef struct qkv_stack {
    const char *prefix;         /* of site names: "", "encoder." */
    qkv_config config;
    qkv_weight embed;           /* [d_vocab, d_model] */
    qkv_weight positions;       /* [n_ctx + position_offset, d_model], or
                                 * none */
    qkv_weight types;           /* [n_types, d_model], or none */
    qkv_norm embed_norm;
    qkv_block *blocks;          /* [n_layers] */
    qkv_norm ln_final;
    qkv_linear unembed;         /* [d_vocab, d_model]; bias for masked heads */
    qkv_linear mlm_dense;       /* [d_model, d_model], or none */
    qkv_norm mlm_norm;
    qkv_linear pooler;          /* [d_model, d_model], or none */
    qkv_linear next_sentence;   /* [2, d_model], or none */
    qkv_tensor *rotary;         /* f32 [rotary_dim / 2], or NULL */
} qkv_stack;

typedef struct qkv_model {
    int refs;
    char *path, *name;          /* the file or folder; what it calls itself */
    qkv_format format;
    qkv_store store;
    size_t weight_bytes;        /* as stored */
    const char *dtype;          /* of most weight bytes: "q4_1" */
    uint64_t revision;          /* of the weights; grows when they change */
    int n_stacks;
    qkv_stack *stacks;
    qkv_tokenizer *tokenizer;   /* read at first use: qkv_model_tokenizer */
} qkv_model;

static inline bool qkv_weight_is_there(const qkv_weight *w)
{
    return w->stored != NULL;
}

/* The numbers of a gain or bias, NULL where there is none. */
static inline const float *qkv_optional(const qkv_tensor *t)
{
    return t != NULL ? qkv_tensor_data(t) : NULL;
}

/* A .gguf, or a Hugging Face directory (config.json, model.safetensors or its
 * index, tokenizer.json). Weights are mapped, not read. A model that does not
 * fit this machine's memory is refused unless `large`. */
qkv_model *qkv_model_open(const char *path, bool large, qkv_error *err);
qkv_model *qkv_model_retain(qkv_model *m);
void qkv_model_release(qkv_model *m);       /* NULL is allowed */

/* The model's tokenizer, read at the first call; lent. NULL when its files
 * have none, or one of a kind that is not built. */
qkv_tokenizer *qkv_model_tokenizer(qkv_model *m, qkv_error *err);

/* A weight by the file's name, as stored; or by TransformerLens's name
 * ("blocks.3.attn.W_Q" [head, d_model, d_head]), f32, made now:
 *   W_E [vocab, d_model]  W_pos [pos, d_model]  W_U [d_model, vocab]  b_U
 *   blocks.L.attn.W_Q, W_K, W_V [head, d_model, d_head]  b_Q ... [head, d_head]
 *   blocks.L.attn.W_O [head, d_head, d_model]  b_O [d_model]
 *   blocks.L.mlp.W_in, W_gate [d_model, d_mlp]  W_out [d_mlp, d_model]  b_in ...
 *   blocks.L.ln1.w, .b  ln2  ln_final [d_model]
 * head counts key-value heads in W_K, W_V, b_K, b_V. */
qkv_tensor *qkv_model_weight(const qkv_model *m, const char *name,
                             qkv_error *err);
/* Every canonical name that the model has, one call each. */
bool qkv_model_canonical_names(const qkv_model *m,
                               bool (*each)(void *context, const char *name),
                               void *context);

/* Look through all weights for NaN and infinities: true if there are none,
 * else EFORMAT naming the first tensor, its count and a place. */
bool qkv_model_check(const qkv_model *m, qkv_error *err);

/* out [rows, d_vocab]: final norm (or masked head) and unembedding of x
 * [rows, d_model]. What the logit lens reads. */
bool qkv_model_unembed(float *out, const qkv_model *m, const float *x,
                       int64_t rows, qkv_error *err);
/* The same of some tokens only: out [rows, n_tokens]. */
bool qkv_model_unembed_tokens(float *out, const qkv_model *m, const float *x,
                              int64_t rows, const int64_t *tokens,
                              int64_t n_tokens, qkv_error *err);

#endif
