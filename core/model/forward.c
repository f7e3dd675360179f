/*
 * forward.c - from tokens to logits
 *
 * Reads from top to bottom as the model computes: stem, blocks, head. Every
 * named value is written where the plan says and fired as soon as it is there
 * (exec.h); when the last thing that is wanted has fired, the rest is not
 * computed.
 *
 * Shapes: rows are all rows of the batch that are active at a layer,
 * [row, width] contiguous. See site.def for what each site holds, and
 * oracles' gen/plain.py in the documentation of tests/oracle for the
 * arithmetic of each family in a few lines.
 */
#include "config.h"

#include "model/forward.h"

#include <math.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "model/exec.h"
#include "model/norm.h"
#include "tensor/blas.h"
#include "tensor/kernel.h"

/* ---- arithmetic on rows, on the pool ---- */

typedef void row_fn(const qkv_exec *e, const void *args, int64_t row);
typedef struct row_work {
    const qkv_exec *e;
    const void *args;
    row_fn *fn;
} row_work;

static void row_body(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const row_work *w = context;
    for (int64_t row = begin; row < end; row++)
        w->fn(w->e, w->args, row);
}

/* fn(row) for all rows; width tells how many are worth a thread. */
static void each_row(const qkv_exec *e, row_fn *fn, const void *args,
                     int64_t rows, int64_t width)
{
    row_work w = {.e = e, .args = args, .fn = fn};
    qkv_parallel(rows, 1 + (1 << 15) / (width + 1), row_body, &w);
}

typedef struct rows3 {
    float *out;
    const float *a, *b;
    int64_t width;
} rows3;

static void add_row(const qkv_exec *e, const void *args, int64_t row)
{
    (void)e;
    const rows3 *r = args;
    const int64_t at = row * r->width;
    qkv_kernel()->add(r->out + at, r->a + at, r->b + at, r->width);
}

/* out [rows, d_model] = a + b */
static void add(const qkv_exec *e, float *out, const float *a, const float *b)
{
    const rows3 r = {.out = out, .a = a, .b = b, .width = e->c->d_model};
    each_row(e, add_row, &r, e->rows, r.width);
}

static void activate_row(const qkv_exec *e, const void *args, int64_t row)
{
    const rows3 *r = args;
    const int64_t at = row * r->width;
    qkv_activate(r->out + at, r->a + at, e->c->activation, r->width);
    if (r->b != NULL)
        qkv_kernel()->multiply(r->out + at, r->out + at, r->b + at, r->width);
}

/* y [rows, n] = W x + bias */
static bool apply(const qkv_exec *e, float *y, const float *x, int64_t rows,
                  const qkv_linear *l)
{
    return qkv_product(y, l->w.n, x, l->w.k, rows, &l->w,
                       qkv_optional(l->bias), e->err);
}

static qkv_output output(float *y, const qkv_linear *l)
{
    return (qkv_output){y, l->w.n, &l->w, qkv_optional(l->bias)};
}

/* Where a copy is wanted because somebody records or changes it, one is made;
 * else the site is x itself. *x becomes the site's value. */
static bool pass(qkv_exec *e, qkv_site site, int64_t layer, const float **x)
{
    if (qkv_exec_flags(e, site, layer) == 0)
        return true;
    float *own = qkv_exec_home(e, site, layer);
    if (own != *x)
        memcpy(own, *x, (size_t)(e->rows * e->c->d_model) * sizeof *own);
    *x = own;
    return qkv_fire_rows(e, site, layer, own, false);
}

/* normalized [rows, d_model] = norm(x); fires scale, then normalized. */
static bool norm(qkv_exec *e, const float **normalized, const float *x,
                 const qkv_norm *n, qkv_site scale_site, qkv_site site,
                 int64_t layer)
{
    float *scale = qkv_exec_home(e, scale_site, layer);
    float *y = qkv_exec_home(e, site, layer);
    qkv_norm_scale(scale, x, e->rows, e->c);
    if (!qkv_fire_rows(e, scale_site, layer, scale, false))
        return false;
    qkv_norm_apply(y, x, scale, e->rows, n, e->c);
    *normalized = y;
    return qkv_fire_rows(e, site, layer, y, false);
}

/* ---- stem: tokens to the first stream ---- */

typedef struct look_up {
    float *out;
    const qkv_weight *table;
    const int32_t *index;       /* NULL: all 0 */
} look_up;

static void look_up_row(const qkv_exec *e, const void *args, int64_t row)
{
    const look_up *l = args;
    qkv_weight_row(l->out + row * e->c->d_model, l->table,
                   l->index != NULL ? l->index[row] : 0);
}

/* A site of the stem: row r is row index[r] of the table; *sum += it. */
static bool embed(qkv_exec *e, qkv_site site, const qkv_weight *table,
                  const int32_t *index, float *sum, bool first)
{
    const look_up l = {.out = qkv_exec_home(e, site, 0), .table = table,
                       .index = index};
    each_row(e, look_up_row, &l, e->rows, e->c->d_model);
    if (!qkv_fire_rows(e, site, 0, l.out, false))
        return false;
    if (first)
        memcpy(sum, l.out, (size_t)(e->rows * e->c->d_model) * sizeof *sum);
    else
        add(e, sum, sum, l.out);
    return true;
}

/* x [rows, d_model]: the stream before block 0. */
static bool stem(qkv_exec *e, const float **x)
{
    const qkv_stack *s = e->stack;
    const qkv_batch *b = e->batch;
    float *sum = e->room[QKV_ROOM_D];
    if (!embed(e, QKV_SITE_EMBED, &s->embed, b->tokens, sum, true)
        || (e->c->learned_positions
            && !embed(e, QKV_SITE_POS_EMBED, &s->positions, b->positions, sum,
                      false))
        || (e->c->n_types > 0
            && !embed(e, QKV_SITE_TYPE_EMBED, &s->types, b->types, sum,
                      false)))
        return false;
    *x = sum;
    if (!e->c->embed_norm)
        return true;
    float *y = qkv_exec_home(e, QKV_SITE_FULL_EMBED, 0);
    float *scale = e->room[QKV_ROOM_SCALE];
    qkv_norm_scale(scale, sum, e->rows, e->c);
    qkv_norm_apply(y, sum, scale, e->rows, &s->embed_norm, e->c);
    *x = y;
    return qkv_fire_rows(e, QKV_SITE_FULL_EMBED, 0, y, false);
}

/* ---- attention ---- */

/* cos and sin of every row's angles, [row, rotary_dim / 2] each, one after
 * the other, times the rotary scale; in float, as the reference has them. */
static void angles(qkv_exec *e, const float *freq)
{
    const int64_t half = e->c->rotary_dim / 2;
    float *cosines = e->room[QKV_ROOM_ANGLES];
    float *sines = cosines + e->batch->n_rows * half;
    const float scale = (float)e->c->rotary_scale;
    for (int64_t row = 0; row < e->batch->n_rows; row++) {
        for (int64_t i = 0; i < half; i++) {
            const float angle = (float)e->batch->positions[row] * freq[i];
            cosines[row * half + i] = cosf(angle) * scale;
            sines[row * half + i] = sinf(angle) * scale;
        }
    }
}

typedef struct turning {
    float *out;
    const float *x;
    int64_t heads;
} turning;

/* out [head, d_head] of a row: dimension i turns with i + rotary_dim / 2, the
 * rest passes. Su et al., arXiv:2104.09864, eq. 34, halves for pairs. */
static void rotate_row(const qkv_exec *e, const void *args, int64_t row)
{
    const turning *t = args;
    const int64_t d = e->c->d_head, half = e->c->rotary_dim / 2;
    const float *cosines = e->room[QKV_ROOM_ANGLES] + row * half;
    const float *sines = cosines + e->batch->n_rows * half;
    for (int64_t h = 0; h < t->heads; h++) {
        const float *x = t->x + (row * t->heads + h) * d;
        float *y = t->out + (row * t->heads + h) * d;
        for (int64_t i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half];
            y[i] = a * cosines[i] - b * sines[i];
            y[i + half] = b * cosines[i] + a * sines[i];
        }
        for (int64_t i = 2 * half; i < d; i++)
            y[i] = x[i];
    }
}

/* *out = x [rows, heads * d_head] normalised by head where there is such a
 * norm, and turned; fires it. x itself in models without rotary. */
static bool rotate(qkv_exec *e, const float **out, const float *x,
                   int64_t heads, const qkv_norm *n, qkv_site site,
                   int64_t layer)
{
    *out = x;
    if (e->c->rotary_dim == 0)
        return true;
    turning t = {.out = qkv_exec_home(e, site, layer), .x = x,
                 .heads = heads};
    if (e->c->qk_norm) {
        qkv_norm_heads(t.out, x, e->rows * heads, e->c->d_head, n, e->c);
        t.x = t.out;
    }
    each_row(e, rotate_row, &t, e->rows, heads * e->c->d_head);
    *out = t.out;
    return qkv_fire_rows(e, site, layer, t.out, false);
}

/* The attention of one segment, step by step. */
static bool attend_open(qkv_exec *e, int64_t layer, const qkv_segment *s,
                        const qkv_attention *a)
{
    const qkv_scores scores = qkv_exec_scores(e, QKV_SITE_SCORES, layer, s);
    const qkv_scores pattern = qkv_exec_scores(e, QKV_SITE_PATTERN, layer, s);
    return qkv_attention_scores(scores, a, e->err)
        && qkv_fire_scores(e, QKV_SITE_SCORES, layer, s, a, scores)
        && qkv_attention_pattern(pattern, scores, a, e->err)
        && qkv_fire_scores(e, QKV_SITE_PATTERN, layer, s, a, pattern)
        && qkv_attention_mix(pattern, a, e->err);
}

/* The tiles of a segment's keys at a layer into [most_tiles]: its past, then
 * its own rows. */
static bool tiles_of(qkv_exec *e, qkv_tile *tiles, int *n, const qkv_segment *s,
                     int64_t layer, const float *keys, const float *values)
{
    const int64_t width = e->c->n_kv_heads * e->c->d_head;
    *n = 0;
    if (s->p0 > 0) {
        *n = qkv_chain_tiles(tiles, e->most_tiles - 1, s->past, layer, s->p0);
        if (*n < 0)
            return qkv_fail(e->err, QKV_EINVAL, "the keys before position "
                            "%lld are not there at layer %lld",
                            (long long)s->p0, (long long)layer);
    }
    tiles[(*n)++] = (qkv_tile){
        .k = keys + s->row0 * width, .v = values + s->row0 * width,
        .k_stride = width, .v_stride = width, .count = s->n - s->p0};
    return true;
}

/* z [rows, n_heads * d_head] of all segments. */
static bool attend_all(qkv_exec *e, int64_t layer, float *z, const float *q,
                       const float *keys, const float *values)
{
    const qkv_block *b = &e->stack->blocks[layer];
    const int64_t stride = e->c->n_heads * e->c->d_head;
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        qkv_tile *tiles = e->tiles + i * e->most_tiles;
        qkv_attention *a = &e->attentions[i];
        *a = (qkv_attention){
            .n_heads = e->c->n_heads, .n_kv_heads = e->c->n_kv_heads,
            .d_head = e->c->d_head, .scale = b->scale, .causal = e->c->causal,
            .window = b->window, .p0 = s->p0, .n_queries = s->n - s->p0,
            .n_keys = s->n, .q = q + s->row0 * stride, .q_stride = stride,
            .tiles = tiles, .z = z + s->row0 * stride, .z_stride = stride,
        };
        if (!tiles_of(e, tiles, &a->n_tiles, s, layer, keys, values))
            return false;
    }
    if (!qkv_exec_is_open(e, layer))
        return qkv_attention_fused(e->attentions, e->segments,
                                   e->room[QKV_ROOM_ATTENTION],
                                   e->attention_each, e->err);
    for (int64_t i = 0; i < e->segments; i++)
        if (!attend_open(e, layer, &e->batch->segments[i], &e->attentions[i]))
            return false;
    /* both sites have fired for every segment */
    return qkv_exec_count_down(e, qkv_exec_flags(e, QKV_SITE_SCORES, layer))
        && qkv_exec_count_down(e, qkv_exec_flags(e, QKV_SITE_PATTERN, layer));
}

/* result [rows, head, d_model]: each head's z through its part of W_O. */
static bool result(qkv_exec *e, int64_t layer, float *out, const float *z)
{
    const qkv_block *b = &e->stack->blocks[layer];
    const int64_t d = e->c->d_model, dh = e->c->d_head, n = e->c->n_heads;
    qkv_tensor *w = qkv_weight_float(&b->o.w, e->err);  /* [d_model, n * dh] */
    bool done = w != NULL;
    for (int64_t h = 0; done && h < n; h++)
        done = qkv_gemm(false, true, e->rows, d, dh, 1, z + h * dh, n * dh,
                        (const float *)qkv_tensor_data(w) + h * dh, n * dh, 0,
                        out + h * d, n * d, e->err);
    qkv_tensor_release(w);
    return done && qkv_fire_rows(e, QKV_SITE_RESULT, layer, out, false);
}

static void sum_heads_row(const qkv_exec *e, const void *args, int64_t row)
{
    const rows3 *r = args;      /* a: result; b: the bias or NULL */
    const int64_t d = e->c->d_model;
    float *out = r->out + row * d;
    for (int64_t i = 0; i < d; i++)
        out[i] = r->b != NULL ? r->b[i] : 0;
    for (int64_t h = 0; h < e->c->n_heads; h++) {
        const float *head = r->a + (row * e->c->n_heads + h) * d;
        qkv_kernel()->add(out, out, head, d);
    }
}

/* attn_out [rows, d_model] from z: one product, or, where somebody changes
 * what each head adds, the sum of those. */
static bool project(qkv_exec *e, int64_t layer, const float *z)
{
    const qkv_block *b = &e->stack->blocks[layer];
    float *out = qkv_exec_home(e, QKV_SITE_ATTN_OUT, layer);
    const uint8_t flags = qkv_exec_flags(e, QKV_SITE_RESULT, layer);
    float *heads = flags != 0 ? qkv_exec_home(e, QKV_SITE_RESULT, layer) : NULL;
    if (flags != 0 && !result(e, layer, heads, z))
        return false;
    if (flags & (QKV_EDITED | QKV_HOOKED)) {
        const rows3 r = {.out = out, .a = heads,
            .b = qkv_optional(b->o.bias)};
        each_row(e, sum_heads_row, &r, e->rows,
                 e->c->n_heads * e->c->d_model);
    } else if (!apply(e, out, z, e->rows, &b->o)) {
        return false;
    }
    return qkv_fire_rows(e, QKV_SITE_ATTN_OUT, layer, out, false);
}

/* attn_out of x [rows, d_model], what attention reads. */
static bool attention(qkv_exec *e, int64_t layer, const float *x)
{
    const qkv_block *b = &e->stack->blocks[layer];
    float *q = qkv_exec_home(e, QKV_SITE_Q, layer);
    float *k = qkv_exec_home(e, QKV_SITE_K, layer);
    float *v = qkv_exec_home(e, QKV_SITE_V, layer);
    float *z = qkv_exec_home(e, QKV_SITE_Z, layer);
    const float *queries, *keys;
    const qkv_output all[] = {output(q, &b->q), output(k, &b->k),
                              output(v, &b->v)};
    return qkv_products(all, 3, x, e->c->d_model, e->rows, e->err)
        && qkv_fire_rows(e, QKV_SITE_Q, layer, q, false)
        && qkv_fire_rows(e, QKV_SITE_K, layer, k, false)
        && qkv_fire_rows(e, QKV_SITE_V, layer, v, false)
        && rotate(e, &queries, q, e->c->n_heads, &b->q_norm, QKV_SITE_ROT_Q,
                  layer)
        && rotate(e, &keys, k, e->c->n_kv_heads, &b->k_norm, QKV_SITE_ROT_K,
                  layer)
        && attend_all(e, layer, z, queries, keys, v)
        && qkv_fire_rows(e, QKV_SITE_Z, layer, z, false)
        && project(e, layer, z);
}

/* ---- MLP ---- */

/* mlp_out of x [rows, d_model]. */
static bool mlp(qkv_exec *e, int64_t layer, const float *x)
{
    const qkv_block *b = &e->stack->blocks[layer];
    float *pre = qkv_exec_home(e, QKV_SITE_MLP_PRE, layer);
    float *linear = e->c->gated
        ? qkv_exec_home(e, QKV_SITE_MLP_LINEAR, layer) : NULL;
    float *post = qkv_exec_home(e, QKV_SITE_MLP_POST, layer);
    float *out = qkv_exec_home(e, QKV_SITE_MLP_OUT, layer);
    const qkv_output both[] = {output(pre, e->c->gated ? &b->gate : &b->in),
                               output(linear, &b->in)};
    if (!qkv_products(both, e->c->gated ? 2 : 1, x, e->c->d_model, e->rows,
                      e->err)
        || !qkv_fire_rows(e, QKV_SITE_MLP_PRE, layer, pre, false)
        || (e->c->gated
            && !qkv_fire_rows(e, QKV_SITE_MLP_LINEAR, layer, linear, false)))
        return false;
    const rows3 r = {.out = post, .a = pre, .b = linear,
                     .width = e->c->d_mlp};
    each_row(e, activate_row, &r, e->rows, r.width);
    return qkv_fire_rows(e, QKV_SITE_MLP_POST, layer, post, false)
        && apply(e, out, post, e->rows, &b->out)
        && qkv_fire_rows(e, QKV_SITE_MLP_OUT, layer, out, false);
}

/* ---- blocks ---- */

/* Pre-norm: mid = x + attn(ln1 x), x' = mid + mlp(ln2 mid).
 * Parallel: x' = x + attn(ln1 x) + mlp(ln2 x), or with ln1 for both.
 * Post-norm: mid = ln1(x + attn x), x' = ln2(mid + mlp mid). */
static bool block(qkv_exec *e, int64_t layer, const float **x)
{
    const qkv_block *b = &e->stack->blocks[layer];
    const bool post_norm = e->c->layout == QKV_POST_NORM;
    if (!pass(e, QKV_SITE_RESID_PRE, layer, x))
        return false;
    const float *in = *x;
    if (!post_norm && !norm(e, &in, in, &b->ln1, QKV_SITE_LN1_SCALE,
                            QKV_SITE_LN1, layer))
        return false;
    if (!attention(e, layer, in))
        return false;
    float *mid = qkv_exec_home(e, QKV_SITE_RESID_MID, layer);
    add(e, mid, *x, qkv_exec_home(e, QKV_SITE_ATTN_OUT, layer));
    if (!qkv_fire_rows(e, QKV_SITE_RESID_MID, layer, mid, false))
        return false;
    const float *stream = mid;
    if (!e->c->shared_norm
        && !norm(e, &in, e->c->parallel ? *x : mid,
                 post_norm ? &b->ln1 : &b->ln2,
                 post_norm ? QKV_SITE_LN1_SCALE : QKV_SITE_LN2_SCALE,
                 post_norm ? QKV_SITE_LN1 : QKV_SITE_LN2, layer))
        return false;
    if (!mlp(e, layer, in))
        return false;
    if (post_norm)
        stream = in;
    float *post = qkv_exec_home(e, QKV_SITE_RESID_POST, layer);
    add(e, post, stream, qkv_exec_home(e, QKV_SITE_MLP_OUT, layer));
    *x = post;
    if (!qkv_fire_rows(e, QKV_SITE_RESID_POST, layer, post, false))
        return false;
    return !post_norm
        || (norm(e, x, post, &b->ln2, QKV_SITE_LN2_SCALE, QKV_SITE_LN2, layer)
            && pass(e, QKV_SITE_NORM_POST, layer, x));
}

/* Segments that enter at this layer join the batch with their residuals. */
static void enter(qkv_exec *e, int64_t layer, const float **x)
{
    const qkv_batch *b = e->batch;
    const int64_t d = e->c->d_model, before = e->rows;
    while (e->segments < b->n_segments
           && b->segments[e->segments].l0 <= layer) {
        const qkv_segment *s = &b->segments[e->segments++];
        e->rows = s->row0 + s->n - s->p0;
    }
    if (e->rows == before || layer == 0 || e->start == NULL)
        return;
    if (before == 0) {
        *x = e->start;          /* nobody writes through it: see pass() */
        return;
    }
    float *stream = e->room[QKV_ROOM_D];
    if (*x != stream)
        memcpy(stream, *x, (size_t)(before * d) * sizeof *stream);
    memcpy(stream + before * d, e->start + before * d,
           (size_t)((e->rows - before) * d) * sizeof *stream);
    *x = stream;
}

static bool blocks(qkv_exec *e, const float **x)
{
    for (int64_t layer = e->plan->start_layer; layer < e->plan->stop_at;
         layer++) {
        if (layer > 0)
            enter(e, layer, x);
        if (!qkv_check(e->err) || !block(e, layer, x))
            return false;
        if (e->rows >= 64)
            qkv_progress("layers", (double)(layer + 1)
                         / (double)e->plan->stop_at);
    }
    enter(e, e->plan->stop_at, x);
    return true;
}

/* ---- head ---- */

/* The rows that the head works on: all, or (last) one a segment. */
typedef struct head_rows {
    const float *x;             /* [n, d_model] */
    int64_t n;
    bool last;
} head_rows;

/* From all rows to the last of each segment. */
static void narrow(const qkv_exec *e, head_rows *h)
{
    const int64_t d = e->c->d_model;
    float *out = e->room[QKV_ROOM_HEAD2];
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        memcpy(out + i * d, h->x + (s->row0 + s->n - s->p0 - 1) * d,
               (size_t)d * sizeof *out);
    }
    *h = (head_rows){.x = out, .n = e->segments, .last = true};
}

static bool final_norm(qkv_exec *e, head_rows *h)
{
    float *scale = h->last ? e->room[QKV_ROOM_SCALE]
        : qkv_exec_home(e, QKV_SITE_LN_FINAL_SCALE, 0);
    float *y = h->last ? e->room[QKV_ROOM_HEAD2]
        : qkv_exec_home(e, QKV_SITE_LN_FINAL, 0);
    qkv_norm_scale(scale, h->x, h->n, e->c);
    if (!qkv_fire_rows(e, QKV_SITE_LN_FINAL_SCALE, 0, scale, h->last))
        return false;
    qkv_norm_apply(y, h->x, scale, h->n, &e->stack->ln_final, e->c);
    h->x = y;
    return qkv_fire_rows(e, QKV_SITE_LN_FINAL, 0, y, h->last);
}

/* BERT's masked head before its unembedding: dense, activation, norm. */
static bool masked_head(qkv_exec *e, head_rows *h)
{
    float *y = h->last ? e->room[QKV_ROOM_HEAD2]
        : qkv_exec_home(e, QKV_SITE_MLM_NORM, 0);
    if (!qkv_masked_head(y, h->x, h->n, e->stack, e->err))
        return false;
    h->x = y;
    return qkv_fire_rows(e, QKV_SITE_MLM_NORM, 0, y, h->last);
}

/* BERT's pooler: tanh(W x of position 0), and the next-sentence pair. */
static bool pool(qkv_exec *e, const float *x)
{
    const qkv_stack *s = e->stack;
    const int64_t d = e->c->d_model;
    const bool pair = qkv_exec_flags(e, QKV_SITE_NSP_LOGITS, 0) != 0;
    if (qkv_exec_flags(e, QKV_SITE_POOLER, 0) == 0 && !pair)
        return true;
    float *pooled = e->room[QKV_ROOM_POOLED];
    for (int64_t i = 0; i < e->segments; i++)
        if (!apply(e, pooled + i * d, x + e->batch->segments[i].row0 * d, 1,
                   &s->pooler))
            return false;
    qkv_kernel()->tanh(pooled, pooled, e->segments * d);
    if (!qkv_fire_pooled(e, QKV_SITE_POOLER, pooled))
        return false;
    if (!pair)
        return true;
    float *logits = e->room[QKV_ROOM_PAIR];
    return apply(e, logits, pooled, e->segments, &s->next_sentence)
        && qkv_fire_pooled(e, QKV_SITE_NSP_LOGITS, logits);
}

/* Logits of the head's rows; those of each segment's last row go to out. */
static bool unembed(qkv_exec *e, const head_rows *h)
{
    const int64_t n = e->c->d_vocab;
    float *logits = h->last ? e->out->last
        : qkv_exec_home(e, QKV_SITE_LOGITS, 0);
    if (!apply(e, logits, h->x, h->n, &e->stack->unembed)
        || !qkv_fire_rows(e, QKV_SITE_LOGITS, 0, logits, h->last))
        return false;
    for (int64_t i = 0; !h->last && e->out->last != NULL && i < e->segments;
         i++) {
        const qkv_segment *s = &e->batch->segments[i];
        memcpy(e->out->last + i * n,
               logits + (s->row0 + s->n - s->p0 - 1) * n,
               (size_t)n * sizeof *logits);
    }
    return true;
}

/* From the last stream x [rows, d_model]: each step works on all rows as long
 * as somebody wants it, or a later one, at all of them; then on the last row
 * of each segment if its logits are wanted; else no more. */
static bool head(qkv_exec *e, const float *x)
{
    const bool last_logits = e->plan->logits != QKV_LOGITS_NONE;
    const bool logits = qkv_exec_is_wanted(e, QKV_SITE_LOGITS);
    const bool masked = logits || qkv_exec_is_wanted(e, QKV_SITE_MLM_NORM);
    const bool normed = qkv_exec_wants_all_rows(e);
    const struct {
        bool all, there;
        bool (*step)(qkv_exec *e, head_rows *h);
    } steps[] = {
        {normed, e->c->final_norm, final_norm},
        {masked, qkv_weight_is_there(&e->stack->mlm_dense.w), masked_head},
    };
    head_rows h = {.x = x, .n = e->rows};
    if (!pool(e, x))
        return false;
    for (size_t i = 0; i < 2; i++) {
        if (!steps[i].all && !last_logits)
            return true;
        if (!steps[i].all && !h.last)
            narrow(e, &h);
        if (steps[i].there && !steps[i].step(e, &h))
            return false;
    }
    if (!logits && !last_logits)
        return true;
    if (!logits && !h.last)
        narrow(e, &h);
    return unembed(e, &h);
}

bool qkv_forward(qkv_outputs *out, const qkv_plan *plan,
                 const qkv_batch *batch, const float *start, qkv_error *err)
{
    qkv_exec e = {
        .plan = plan, .batch = batch, .stack = plan->stack,
        .c = &plan->stack->config, .out = out, .start = start,
        .left = plan->n_wanted, .err = err,
    };
    const float *x = NULL;
    bool went = qkv_exec_init(&e);
    if (went) {
        enter(&e, plan->start_layer, &x);
        if (e.c->rotary_dim > 0)
            angles(&e, qkv_tensor_data(e.stack->rotary));
        went = (plan->start_layer > 0 || stem(&e, &x)) && blocks(&e, &x);
    }
    if (went && out->resid != NULL) {
        memcpy(out->resid, x, (size_t)(e.rows * e.c->d_model) * sizeof *x);
        out->reached = plan->stop_at;
    }
    if (went && plan->stop_at == e.c->n_layers)
        went = head(&e, x);
    qkv_exec_reset(&e);
    return went || e.done;
}
