/*
 * segment.c - chains of keys and values: see segment.h
 */
#include "config.h"

#include "model/segment.h"

#include "base/alloc.h"

qkv_chain *qkv_chain_new(qkv_chain *parent, int64_t p0, int64_t l0,
                         int64_t n_layers, int64_t capacity, int64_t width,
                         qkv_error *err)
{
    int64_t rows, floats;
    if (!qkv_int_mul(&rows, n_layers - l0, capacity)
        || !qkv_int_mul(&floats, rows, width)
        || floats > INT64_MAX / (int64_t)(2 * sizeof(float))) {
        qkv_fail(err, QKV_ENOMEM, "keys and values of %lld positions",
                 (long long)capacity);
        return NULL;
    }
    qkv_chain *c = qkv_alloc_zero(1, sizeof *c, err);
    if (c == NULL)
        return NULL;
    *c = (qkv_chain){.refs = 1, .p0 = p0, .n = p0, .l0 = l0,
                     .n_layers = n_layers, .capacity = capacity,
                     .width = width};
    c->k = qkv_alloc((size_t)floats * sizeof *c->k, err);
    c->v = c->k != NULL ? qkv_alloc((size_t)floats * sizeof *c->v, err) : NULL;
    if (c->v == NULL) {
        qkv_chain_release(c);
        return NULL;
    }
    c->parent = parent != NULL ? qkv_chain_retain(parent) : NULL;
    return c;
}

qkv_chain *qkv_chain_retain(qkv_chain *c)
{
    c->refs++;
    return c;
}

void qkv_chain_release(qkv_chain *c)
{
    while (c != NULL && --c->refs == 0) {   /* a loop: chains may be long */
        qkv_chain *parent = c->parent;
        qkv_free(c->k);
        qkv_free(c->v);
        qkv_free(c);
        c = parent;
    }
}

static int64_t place(const qkv_chain *c, int64_t layer, int64_t pos)
{
    return ((layer - c->l0) * c->capacity + pos - c->p0) * c->width;
}

float *qkv_chain_k(const qkv_chain *c, int64_t layer, int64_t pos)
{
    return c->k + place(c, layer, pos);
}

float *qkv_chain_v(const qkv_chain *c, int64_t layer, int64_t pos)
{
    return c->v + place(c, layer, pos);
}

int qkv_chain_depth(const qkv_chain *c)
{
    int n = 0;
    for (; c != NULL; c = c->parent)
        n++;
    return n;
}

int qkv_chain_tiles(qkv_tile *out, int room, const qkv_chain *c, int64_t layer,
                    int64_t upto)
{
    int n = 0;
    for (; upto > 0; c = c->parent) {       /* newest first */
        if (c == NULL)
            return -1;
        if (layer < c->l0 || upto <= c->p0)
            continue;                       /* those positions are older */
        if (upto > c->n || n == room)
            return -1;
        out[n++] = (qkv_tile){
            .k = qkv_chain_k(c, layer, c->p0),
            .v = qkv_chain_v(c, layer, c->p0),
            .k_stride = c->width, .v_stride = c->width,
            .count = upto - c->p0,
        };
        upto = c->p0;
    }
    for (int i = 0; i < n / 2; i++) {       /* oldest first */
        const qkv_tile t = out[i];
        out[i] = out[n - 1 - i];
        out[n - 1 - i] = t;
    }
    return n;
}
