/*
 * model.c - questions to a model that is open: see model.h
 */
#include "config.h"

#include "model/model.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "model/norm.h"
#include "tensor/quant.h"

/* What the unembedding reads: x [rows, d_model] after the final norm or the
 * masked head, in a new array [rows, d_model], the caller's; NULL: failed. */
static float *head_of(const qkv_model *m, const float *x, int64_t rows,
                      qkv_error *err)
{
    const qkv_stack *s = &m->stacks[0];
    const qkv_config *c = &s->config;
    const int64_t d = c->d_model;
    float *y = qkv_alloc((size_t)(rows * (d + 1)) * sizeof *y, err);
    if (y == NULL)
        return NULL;
    if (c->head == QKV_HEAD_MASKED) {
        if (!qkv_masked_head(y, x, rows, s, err)) {
            qkv_free(y);
            return NULL;
        }
    } else if (c->final_norm) {
        qkv_norm_scale(y + rows * d, x, rows, c);
        qkv_norm_apply(y, x, y + rows * d, rows, &s->ln_final, c);
    } else {
        memcpy(y, x, (size_t)(rows * d) * sizeof *y);
    }
    return y;
}

bool qkv_model_unembed(float *out, const qkv_model *m, const float *x,
                       int64_t rows, qkv_error *err)
{
    const qkv_stack *s = &m->stacks[0];
    float *y = head_of(m, x, rows, err);
    const bool done = y != NULL
        && qkv_product(out, s->config.d_vocab, y, s->config.d_model, rows,
                       &s->unembed.w, qkv_optional(s->unembed.bias), err);
    qkv_free(y);
    return done;
}

bool qkv_model_unembed_tokens(float *out, const qkv_model *m, const float *x,
                              int64_t rows, const int64_t *tokens,
                              int64_t n_tokens, qkv_error *err)
{
    const qkv_stack *s = &m->stacks[0];
    float *y = head_of(m, x, rows, err);
    const bool done = y != NULL
        && qkv_product_rows(out, n_tokens, y, s->config.d_model, rows,
                            &s->unembed.w, tokens, n_tokens,
                            qkv_optional(s->unembed.bias), err);
    qkv_free(y);
    return done;
}

/* Count what is not finite in one tensor; row by row, so that quantised ones
 * are never unpacked whole. */
static bool count_bad(int64_t *bad, int64_t *place, const qkv_tensor *t,
                      qkv_error *err)
{
    const int64_t row = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
    const int64_t block = qkv_dtypes[t->dtype].block;
    const size_t row_bytes = (size_t)(row / block * qkv_dtypes[t->dtype].bytes);
    const char *at = qkv_tensor_data(t);
    *bad = 0;
    if (row == 0)
        return true;
    float *x = qkv_alloc((size_t)row * sizeof *x, err);
    if (x == NULL)
        return false;
    bool done = true;
    for (int64_t i = 0; done && i < qkv_tensor_count(t) / row; i++) {
        qkv_unpack(x, t->dtype, at + (size_t)i * row_bytes, row);
        for (int64_t j = 0; j < row; j++)
            if (!isfinite(x[j]) && (*bad)++ == 0)
                *place = i * row + j;
        done = (i & 255) != 0 || qkv_check(err);
    }
    qkv_free(x);
    return done;
}

bool qkv_model_check(const qkv_model *m, qkv_error *err)
{
    for (int64_t i = 0; i < qkv_store_count(&m->store); i++) {
        const char *name = qkv_store_name(&m->store, i);
        qkv_error skip;
        qkv_tensor *t = qkv_store_tensor(&m->store, name, &skip);
        if (t == NULL)
            continue;           /* of a type that no model needs */
        int64_t bad = 0, place = 0;
        const bool floats = qkv_is_float(t->dtype)
            || qkv_is_quantised(t->dtype);
        const bool done = !floats || count_bad(&bad, &place, t, err);
        qkv_tensor_release(t);
        if (!done)
            return false;
        if (bad > 0)
            return qkv_fail(err, QKV_EFORMAT, "'%s' holds %lld values that are "
                            "not finite, the first at element %lld", name,
                            (long long)bad, (long long)place);
    }
    return true;
}
