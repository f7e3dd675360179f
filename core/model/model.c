/*
 * model.c - questions to a model that is open: see model.h
 */
#include "config.h"

#include "model/model.h"

#include <math.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "model/norm.h"
#include "tensor/quant.h"

bool qkv_model_unembed(float *out, const qkv_model *m, const float *x,
                       int64_t rows, qkv_error *err)
{
    const qkv_stack *s = &m->stacks[0];
    const qkv_config *c = &s->config;
    const int64_t d = c->d_model;
    float *y = qkv_alloc((size_t)(rows * (d + 1)) * sizeof *y, err);
    if (y == NULL)
        return false;
    bool done = true;
    if (c->head == QKV_HEAD_MASKED) {
        done = qkv_masked_head(y, x, rows, s, err);
    } else if (c->final_norm) {
        qkv_norm_scale(y + rows * d, x, rows, c);
        qkv_norm_apply(y, x, y + rows * d, rows, &s->ln_final, c);
    }
    done = done
        && qkv_product(out, c->d_vocab, y, d, rows, &s->unembed.w,
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
