/*
 * segment.c - chains of keys and values: see segment.h
 */
#include "config.h"

#include "model/segment.h"

#include "base/alloc.h"

qkv_chain *qkv_chain_new(qkv_chain *parent, int64_t p0, int64_t n, int64_t l0,
                         int64_t width, const qkv_chain_rows *k,
                         const qkv_chain_rows *v, qkv_error *err)
{
    qkv_chain *c = qkv_alloc(sizeof *c, err);
    if (c == NULL)
        return NULL;
    *c = (qkv_chain){.refs = 1, .p0 = p0, .n = n, .l0 = l0, .width = width,
                     .k = *k, .v = *v};
    qkv_storage_retain(k->storage);
    qkv_storage_retain(v->storage);
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
        qkv_storage_release(c->k.storage);
        qkv_storage_release(c->v.storage);
        qkv_free(c);
        c = parent;
    }
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
            .k = c->k.at + (layer - c->l0) * c->k.layer_stride,
            .v = c->v.at + (layer - c->l0) * c->v.layer_stride,
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
