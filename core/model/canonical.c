/*
 * canonical.c - weights under TransformerLens's names: see model.h
 *
 * The file's matrices are [out, in] with heads one after another; the field
 * writes W_Q [head, d_model, d_head] and multiplies from the left. Each is
 * made when asked for, in float32, from the weight that the forward uses, so
 * that row maps and transpositions are undone the same way.
 */
#include "config.h"

#include "model/model.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

typedef enum kind {
    AS_IT_IS,                   /* [n, k] */
    FLIPPED,                    /* [k, n] */
    IN_HEADS,                   /* [head, k, d_head]; rows are heads */
    IN_KV_HEADS,
    OUT_HEADS,                  /* [head, d_head, n]; columns are heads */
    VECTOR,                     /* [n] */
    HEAD_VECTOR, KV_HEAD_VECTOR /* [head, d_head] */
} kind;

static const struct row {
    const char *name;           /* in a block, without "blocks.<n>." */
    bool in_block, is_bias;
    kind kind;
    size_t offset;              /* of the qkv_linear, qkv_weight or tensor */
    const char *axes[3];
} rows[] = {
#define STACK(field) offsetof(qkv_stack, field)
#define BLOCK(field) offsetof(qkv_block, field)
    {"W_E", false, false, AS_IT_IS, STACK(embed), {"vocab", "d_model"}},
    {"W_pos", false, false, AS_IT_IS, STACK(positions), {"pos", "d_model"}},
    {"W_token_type", false, false, AS_IT_IS, STACK(types),
     {"type", "d_model"}},
    {"W_U", false, false, FLIPPED, STACK(unembed), {"d_model", "vocab"}},
    {"b_U", false, true, VECTOR, STACK(unembed.bias), {"vocab"}},
    {"embed.ln.w", false, true, VECTOR, STACK(embed_norm.gain), {"d_model"}},
    {"embed.ln.b", false, true, VECTOR, STACK(embed_norm.bias), {"d_model"}},
    {"ln_final.w", false, true, VECTOR, STACK(ln_final.gain), {"d_model"}},
    {"ln_final.b", false, true, VECTOR, STACK(ln_final.bias), {"d_model"}},
    {"ln1.w", true, true, VECTOR, BLOCK(ln1.gain), {"d_model"}},
    {"ln1.b", true, true, VECTOR, BLOCK(ln1.bias), {"d_model"}},
    {"attn.W_Q", true, false, IN_HEADS, BLOCK(q),
     {"head", "d_model", "d_head"}},
    {"attn.W_K", true, false, IN_KV_HEADS, BLOCK(k),
     {"kv_head", "d_model", "d_head"}},
    {"attn.W_V", true, false, IN_KV_HEADS, BLOCK(v),
     {"kv_head", "d_model", "d_head"}},
    {"attn.q_norm.w", true, true, VECTOR, BLOCK(q_norm.gain), {"d_head"}},
    {"attn.q_norm.b", true, true, VECTOR, BLOCK(q_norm.bias), {"d_head"}},
    {"attn.k_norm.w", true, true, VECTOR, BLOCK(k_norm.gain), {"d_head"}},
    {"attn.k_norm.b", true, true, VECTOR, BLOCK(k_norm.bias), {"d_head"}},
    {"attn.W_O", true, false, OUT_HEADS, BLOCK(o),
     {"head", "d_head", "d_model"}},
    {"attn.b_Q", true, true, HEAD_VECTOR, BLOCK(q.bias), {"head", "d_head"}},
    {"attn.b_K", true, true, KV_HEAD_VECTOR, BLOCK(k.bias),
     {"kv_head", "d_head"}},
    {"attn.b_V", true, true, KV_HEAD_VECTOR, BLOCK(v.bias),
     {"kv_head", "d_head"}},
    {"attn.b_O", true, true, VECTOR, BLOCK(o.bias), {"d_model"}},
    {"ln2.w", true, true, VECTOR, BLOCK(ln2.gain), {"d_model"}},
    {"ln2.b", true, true, VECTOR, BLOCK(ln2.bias), {"d_model"}},
    {"mlp.W_gate", true, false, FLIPPED, BLOCK(gate), {"d_model", "d_mlp"}},
    {"mlp.W_in", true, false, FLIPPED, BLOCK(in), {"d_model", "d_mlp"}},
    {"mlp.W_out", true, false, FLIPPED, BLOCK(out), {"d_mlp", "d_model"}},
    {"mlp.b_gate", true, true, VECTOR, BLOCK(gate.bias), {"d_mlp"}},
    {"mlp.b_in", true, true, VECTOR, BLOCK(in.bias), {"d_mlp"}},
    {"mlp.b_out", true, true, VECTOR, BLOCK(out.bias), {"d_model"}},
#undef STACK
#undef BLOCK
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

/* A matrix's row points at its qkv_weight: a qkv_linear begins with one. */
static const void *place(const qkv_stack *s, const struct row *r,
                         int64_t layer)
{
    const char *base = r->in_block ? (const char *)&s->blocks[layer]
        : (const char *)s;
    return base + r->offset;
}

static bool is_there(const qkv_stack *s, const struct row *r, int64_t layer)
{
    const void *at = place(s, r, layer);
    if (r->is_bias)
        return *(qkv_tensor *const *)at != NULL;
    return qkv_weight_is_there((const qkv_weight *)at);
}

static qkv_tensor *finish(qkv_tensor *view, qkv_error *err)
{
    qkv_tensor *t = view != NULL ? qkv_tensor_clone(view, err) : NULL;
    qkv_tensor_release(view);
    return t;
}

/* flat [head * d_head, k] -> [head, k, d_head], or [n, head * d_head] ->
 * [head, d_head, n]. */
static qkv_tensor *by_heads(qkv_tensor *flat, const struct row *r, int64_t n,
                            int64_t d_head, qkv_error *err)
{
    const bool out = r->kind == OUT_HEADS;
    const int64_t shape[] = {out ? flat->shape[0] : n, out ? n : d_head,
                             out ? d_head : flat->shape[1]};
    const char *axes[] = {out ? r->axes[2] : r->axes[0],
                          out ? r->axes[0] : r->axes[2],
                          out ? r->axes[1] : r->axes[1]};
    const int order[] = {out ? 1 : 0, 2, out ? 0 : 1};
    qkv_tensor *split = qkv_tensor_reshape(flat, 3, shape, axes, err);
    qkv_tensor *t = split != NULL ? qkv_tensor_permute(split, order, err)
        : NULL;
    qkv_tensor_release(split);
    return finish(t, err);
}

static qkv_tensor *vector_of(const qkv_tensor *bias, const struct row *r,
                             int64_t n, int64_t d_head, qkv_error *err)
{
    const int64_t flat = bias->shape[0], both[] = {n, d_head};
    return finish(r->kind == VECTOR
                  ? qkv_tensor_reshape(bias, 1, &flat, r->axes, err)
                  : qkv_tensor_reshape(bias, 2, both, r->axes, err), err);
}

static qkv_tensor *make(const qkv_stack *s, const struct row *r, int64_t layer,
                        qkv_error *err)
{
    const qkv_config *c = &s->config;
    const bool kv = r->kind == IN_KV_HEADS || r->kind == KV_HEAD_VECTOR;
    const int64_t n = kv ? c->n_kv_heads : c->n_heads;
    const void *at = place(s, r, layer);
    if (r->is_bias)
        return vector_of(*(qkv_tensor *const *)at, r, n, c->d_head, err);
    qkv_tensor *flat = qkv_weight_float((const qkv_weight *)at, err);
    qkv_tensor *t = NULL;
    if (flat == NULL)
        return NULL;
    if (r->kind == AS_IT_IS || r->kind == FLIPPED) {
        const int64_t shape[] = {flat->shape[0], flat->shape[1]};
        const char *axes[] = {r->axes[r->kind == FLIPPED],
                              r->axes[r->kind != FLIPPED]};
        t = qkv_tensor_reshape(flat, 2, shape, axes, err);
        if (t != NULL && r->kind == FLIPPED) {
            qkv_tensor *turned = qkv_tensor_transpose(t, 0, 1, err);
            qkv_tensor_release(t);
            t = finish(turned, err);
        }
    } else {
        t = by_heads(flat, r, n, c->d_head, err);
    }
    qkv_tensor_release(flat);
    return t;
}

qkv_tensor *qkv_model_weight(const qkv_model *m, const char *name,
                             qkv_error *err)
{
    const qkv_stack *s = &m->stacks[0];
    qkv_tensor *stored = qkv_store_tensor(&m->store, name, err);
    if (stored != NULL || err->code != QKV_ENOTFOUND)
        return stored;
    long long layer = 0;
    int used = 0;
    if (sscanf(name, "blocks.%lld.%n", &layer, &used) == 1 && used > 0
        && (layer < 0 || layer >= s->config.n_layers)) {
        qkv_fail(err, QKV_ENOTFOUND, "layer %lld of %lld: layers run 0..%lld",
                 layer, (long long)s->config.n_layers,
                 (long long)s->config.n_layers - 1);
        return NULL;
    }
    const char *near[N_ROWS];
    size_t n = 0;
    for (int i = 0; i < N_ROWS; i++) {
        if (rows[i].in_block != (used > 0)
            || !is_there(s, &rows[i], layer))
            continue;
        if (strcmp(rows[i].name, name + used) == 0)
            return make(s, &rows[i], layer, err);
        near[n++] = rows[i].name;
    }
    const char *meant = qkv_text_nearest(name + used, near, n);
    if (meant != NULL)
        qkv_fail(err, QKV_ENOTFOUND, "no weight '%.96s'; did you mean "
                 "'%.*s%s'?", name, used, name, meant);
    else
        qkv_fail(err, QKV_ENOTFOUND, "no weight '%.96s'; m:weights() lists "
                 "them all", name);
    return NULL;
}

bool qkv_model_canonical_names(const qkv_model *m,
                               bool (*each)(void *context, const char *name),
                               void *context)
{
    const qkv_stack *s = &m->stacks[0];
    for (int i = 0; i < N_ROWS; i++) {
        const int64_t layers = rows[i].in_block ? s->config.n_layers : 1;
        for (int64_t layer = 0; layer < layers; layer++) {
            char name[64];
            if (!is_there(s, &rows[i], layer))
                continue;
            if (rows[i].in_block)
                snprintf(name, sizeof name, "blocks.%lld.%s",
                         (long long)layer, rows[i].name);
            else
                snprintf(name, sizeof name, "%s", rows[i].name);
            if (!each(context, name))
                return false;
        }
    }
    return true;
}
