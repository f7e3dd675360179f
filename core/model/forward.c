/*
 * forward.c - from tokens to logits
 *
 * Reads from top to bottom as the model computes: stem, blocks, head. Every
 * named value passes through fire(), the one place where the outside gets in:
 * edits as listed, hooks, record. A value is written where the plan says
 * (its record, the chain, or scratch that layers share); when the last thing
 * that is wanted has fired, the rest is not computed.
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

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "model/attention.h"
#include "model/norm.h"
#include "tensor/blas.h"
#include "tensor/kernel.h"

/* Scratch buffers; sites whose lives do not overlap share one. */
typedef enum room {
    ROOM_A,                     /* what is added to the stream */
    ROOM_B,                     /* what a norm gave */
    ROOM_C,                     /* the stream in the middle of a block */
    ROOM_D,                     /* the stream between blocks */
    ROOM_E,                     /* the same, where somebody changes a copy */
    ROOM_SCALE, ROOM_Q, ROOM_Z, ROOM_K, ROOM_KEYS, ROOM_V, ROOM_RESULT,
    ROOM_PRE, ROOM_LINEAR, ROOM_ATTENTION, ROOM_ANGLES, ROOM_POOLED,
    ROOM_PAIR, ROOM_HEAD, ROOM_HEAD2, ROOM_LOGITS,
    N_ROOMS
} room;

static const uint8_t room_of[QKV_N_SITES] = {
    [QKV_SITE_EMBED] = ROOM_A, [QKV_SITE_POS_EMBED] = ROOM_B,
    [QKV_SITE_TYPE_EMBED] = ROOM_C, [QKV_SITE_FULL_EMBED] = ROOM_B,
    [QKV_SITE_RESID_PRE] = ROOM_E, [QKV_SITE_LN1_SCALE] = ROOM_SCALE,
    [QKV_SITE_LN1] = ROOM_B, [QKV_SITE_Q] = ROOM_Q, [QKV_SITE_K] = ROOM_K,
    [QKV_SITE_V] = ROOM_V, [QKV_SITE_ROT_Q] = ROOM_Z,
    [QKV_SITE_ROT_K] = ROOM_KEYS, [QKV_SITE_Z] = ROOM_Z,
    [QKV_SITE_RESULT] = ROOM_RESULT, [QKV_SITE_ATTN_OUT] = ROOM_A,
    [QKV_SITE_RESID_MID] = ROOM_C, [QKV_SITE_LN2_SCALE] = ROOM_SCALE,
    [QKV_SITE_LN2] = ROOM_B, [QKV_SITE_MLP_PRE] = ROOM_PRE,
    [QKV_SITE_MLP_LINEAR] = ROOM_LINEAR, [QKV_SITE_MLP_POST] = ROOM_PRE,
    [QKV_SITE_MLP_OUT] = ROOM_A, [QKV_SITE_RESID_POST] = ROOM_D,
    [QKV_SITE_NORM_POST] = ROOM_E, [QKV_SITE_LN_FINAL_SCALE] = ROOM_SCALE,
    [QKV_SITE_LN_FINAL] = ROOM_HEAD, [QKV_SITE_POOLER] = ROOM_POOLED,
    [QKV_SITE_NSP_LOGITS] = ROOM_PAIR, [QKV_SITE_MLM_NORM] = ROOM_HEAD,
    [QKV_SITE_LOGITS] = ROOM_LOGITS,
};

typedef struct exec {
    const qkv_plan *plan;
    const qkv_batch *batch;
    const qkv_stack *stack;
    const qkv_config *c;
    qkv_outputs *out;
    const float *start;
    int64_t left;               /* wanted slots that did not fire yet */
    bool done;                  /* all that was wanted is there */
    int64_t rows, segments;     /* active at the present layer */
    float *room[N_ROOMS];
    float *scratch;             /* all rooms */
    qkv_attention *attentions;  /* [segments], of the present layer */
    qkv_tile *tiles;            /* [segments, most_tiles] */
    int most_tiles;
    int64_t attention_each;     /* floats of scratch a thread */
    qkv_error *err;
} exec;

static uint8_t flags_of(const exec *e, qkv_site site, int64_t layer)
{
    return e->plan->flags[qkv_slot(site, layer)];
}

/* Is the site touched at any layer? */
static bool is_used(const exec *e, qkv_site site)
{
    const int64_t layers = qkv_sites[site].level == QKV_BLOCK
        ? e->c->n_layers : 1;
    for (int64_t layer = 0; layer < layers; layer++)
        if (flags_of(e, site, layer) != 0)
            return true;
    return false;
}

/* ---- where values live ---- */

/* Is this site what attention reads of other positions: the chain's affair? */
static bool is_chained(const exec *e, qkv_site site)
{
    return e->out->chain != NULL
        && (site == QKV_SITE_V
            || site == (e->c->rotary_dim > 0 ? QKV_SITE_ROT_K : QKV_SITE_K));
}

/* Where the operation writes the site: row 0 of the batch. */
static float *home(const exec *e, qkv_site site, int64_t layer)
{
    const qkv_segment *first = &e->batch->segments[0];
    if (is_chained(e, site))
        return site == QKV_SITE_V
            ? qkv_chain_v(e->out->chain, layer, first->p0)
            : qkv_chain_k(e->out->chain, layer, first->p0);
    if (flags_of(e, site, layer) & QKV_RECORD)
        return qkv_record_at(&e->plan->records[site], layer, first->seq,
                             first->p0);
    return e->room[room_of[site]];
}

/* ---- the one place where the outside gets in ---- */

/* Call the hooks of a slot on one segment's values. */
static bool call_hooks(exec *e, qkv_site site, const qkv_slab *slab,
                       const char *const *axes)
{
    const qkv_recipe *r = e->plan->recipe;
    qkv_hook_at at = {.site = site, .seq = slab->seq, .pos0 = slab->pos0,
                      .layer = qkv_sites[site].level == QKV_BLOCK
                          ? slab->layer : -1};
    qkv_site_name(at.name, site, slab->layer);
    int64_t floats = 1;
    for (int i = 0; i < slab->n_dims; i++)
        floats += (slab->shape[i] - 1) * slab->stride[i];
    for (int64_t h = 0; h < r->n_hooks; h++) {
        const qkv_hook *hook = &r->hooks[h];
        if (hook->site != site
            || qkv_selector_find(&hook->layer, slab->layer, e->c->n_layers) < 0)
            continue;
        qkv_storage *s = qkv_storage_wrap(slab->data,
                                          (size_t)floats * sizeof(float),
                                          NULL, NULL, e->err);
        qkv_tensor *t = s == NULL ? NULL
            : qkv_tensor_strided(s, 0, QKV_F32, slab->n_dims, slab->shape,
                                 slab->stride, axes, e->err);
        qkv_storage_release(s);
        const bool went = t != NULL && hook->fn(hook->context, t, &at, e->err);
        qkv_tensor_release(t);
        if (!went)
            return false;
    }
    return true;
}

/* Edits, then hooks, on one segment's values of a slot. */
static bool touch(exec *e, qkv_site site, const qkv_slab *slab,
                  const char *const *axes)
{
    const qkv_recipe *r = e->plan->recipe;
    for (int64_t i = 0; i < r->n_edits; i++)
        if (r->edits[i].site == site)
            qkv_edit_apply(&r->edits[i], e->stack, r->n_seqs, slab);
    return !(flags_of(e, site, slab->layer) & QKV_HOOKED)
        || call_hooks(e, site, slab, axes);
}

/* A wanted slot has fired for all segments. false when it was the last thing
 * wanted: e->done tells this from a failure. */
static bool count_down(exec *e, uint8_t flags)
{
    if (!(flags & (QKV_RECORD | QKV_HOOKED)) || --e->left > 0
        || e->plan->logits != QKV_LOGITS_NONE || e->out->resid != NULL
        || e->out->chain != NULL)
        return true;
    e->done = true;
    return false;
}

/* Fire a site whose values are rows: x [row, width] of the active segments,
 * or (last) one row a segment, that of its last position. */
static bool fire_rows(exec *e, qkv_site site, int64_t layer, float *x,
                      bool last)
{
    const uint8_t flags = flags_of(e, site, layer);
    if (flags == 0)
        return true;
    int64_t size[2];
    const char *axes[3] = {"pos"};
    const int n = qkv_site_axes(size, axes + 1, site, e->stack);
    const int64_t width = qkv_site_width(site, e->stack);
    const qkv_record *rec = &e->plan->records[site];
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        const int64_t pos0 = last ? s->n - 1 : s->p0;
        const int64_t rows = s->n - pos0;
        qkv_slab slab = {
            .data = x + (last ? i : s->row0) * width, .n_dims = n + 1,
            .shape = {rows, size[0], n == 2 ? size[1] : 0},
            .stride = {width, n == 2 ? size[1] : 1, 1},
            .seq = s->seq, .layer = layer, .pos0 = pos0,
            .n_prompt = e->plan->recipe->seqs[s->seq].n_prompt,
        };
        if ((flags & (QKV_EDITED | QKV_HOOKED)) && !touch(e, site, &slab, axes))
            return false;
        if (!(flags & QKV_RECORD))
            continue;
        float *kept = qkv_record_at(rec, layer, s->seq, pos0);
        if (kept != slab.data)
            memcpy(kept, slab.data, (size_t)(rows * width) * sizeof *kept);
    }
    return count_down(e, flags);
}

/* Fire a site that has one vector a sequence: x [segment, width]. */
static bool fire_pooled(exec *e, qkv_site site, float *x)
{
    const uint8_t flags = flags_of(e, site, 0);
    if (flags == 0)
        return true;
    const int64_t width = qkv_site_width(site, e->stack);
    const char *const axes[] = {site == QKV_SITE_POOLER ? "d_model" : ""};
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        const qkv_slab slab = {.data = x + i * width, .n_dims = 1,
                               .shape = {width}, .stride = {1}, .seq = s->seq};
        if ((flags & (QKV_EDITED | QKV_HOOKED)) && !touch(e, site, &slab, axes))
            return false;
        if (flags & QKV_RECORD)
            memcpy(qkv_record_at(&e->plan->records[site], 0, s->seq, 0),
                   slab.data, (size_t)width * sizeof(float));
    }
    return count_down(e, flags);
}

/* ---- arithmetic on rows, on the pool ---- */

typedef void row_fn(const exec *e, const void *args, int64_t row);
typedef struct row_work {
    const exec *e;
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
static void each_row(const exec *e, row_fn *fn, const void *args, int64_t rows,
                     int64_t width)
{
    row_work w = {.e = e, .args = args, .fn = fn};
    qkv_parallel(rows, 1 + (1 << 15) / (width + 1), row_body, &w);
}

typedef struct rows3 {
    float *out;
    const float *a, *b;
    int64_t width;
} rows3;

static void add_row(const exec *e, const void *args, int64_t row)
{
    (void)e;
    const rows3 *r = args;
    const int64_t at = row * r->width;
    qkv_kernel()->add(r->out + at, r->a + at, r->b + at, r->width);
}

/* out [rows, d_model] = a + b */
static void add(const exec *e, float *out, const float *a, const float *b)
{
    const rows3 r = {.out = out, .a = a, .b = b, .width = e->c->d_model};
    each_row(e, add_row, &r, e->rows, r.width);
}

static void activate_row(const exec *e, const void *args, int64_t row)
{
    const rows3 *r = args;
    const int64_t at = row * r->width;
    qkv_activate(r->out + at, r->a + at, e->c->activation, r->width);
    if (r->b != NULL)
        qkv_kernel()->multiply(r->out + at, r->out + at, r->b + at, r->width);
}

/* y [rows, n] = W x + bias */
static bool apply(const exec *e, float *y, const float *x, int64_t rows,
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
static bool pass(exec *e, qkv_site site, int64_t layer, const float **x)
{
    if (flags_of(e, site, layer) == 0)
        return true;
    float *own = home(e, site, layer);
    if (own != *x)
        memcpy(own, *x, (size_t)(e->rows * e->c->d_model) * sizeof *own);
    *x = own;
    return fire_rows(e, site, layer, own, false);
}

/* normalized [rows, d_model] = norm(x); fires scale, then normalized. */
static bool norm(exec *e, const float **normalized, const float *x,
                 const qkv_norm *n, qkv_site scale_site, qkv_site site,
                 int64_t layer)
{
    float *scale = home(e, scale_site, layer), *y = home(e, site, layer);
    qkv_norm_scale(scale, x, e->rows, e->c);
    if (!fire_rows(e, scale_site, layer, scale, false))
        return false;
    qkv_norm_apply(y, x, scale, e->rows, n, e->c);
    *normalized = y;
    return fire_rows(e, site, layer, y, false);
}

/* ---- stem: tokens to the first stream ---- */

typedef struct look_up {
    float *out;
    const qkv_weight *table;
    const int32_t *index;       /* NULL: all 0 */
} look_up;

static void look_up_row(const exec *e, const void *args, int64_t row)
{
    const look_up *l = args;
    qkv_weight_row(l->out + row * e->c->d_model, l->table,
                   l->index != NULL ? l->index[row] : 0);
}

/* A site of the stem: row r is row index[r] of the table; *sum += it. */
static bool embed(exec *e, qkv_site site, const qkv_weight *table,
                  const int32_t *index, float *sum, bool first)
{
    const look_up l = {.out = home(e, site, 0), .table = table,
                       .index = index};
    each_row(e, look_up_row, &l, e->rows, e->c->d_model);
    if (!fire_rows(e, site, 0, l.out, false))
        return false;
    if (first)
        memcpy(sum, l.out, (size_t)(e->rows * e->c->d_model) * sizeof *sum);
    else
        add(e, sum, sum, l.out);
    return true;
}

/* x [rows, d_model]: the stream before block 0. */
static bool stem(exec *e, const float **x)
{
    const qkv_stack *s = e->stack;
    const qkv_batch *b = e->batch;
    float *sum = e->room[ROOM_D];
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
    float *y = home(e, QKV_SITE_FULL_EMBED, 0), *scale = e->room[ROOM_SCALE];
    qkv_norm_scale(scale, sum, e->rows, e->c);
    qkv_norm_apply(y, sum, scale, e->rows, &s->embed_norm, e->c);
    *x = y;
    return fire_rows(e, QKV_SITE_FULL_EMBED, 0, y, false);
}

/* ---- attention ---- */

/* cos and sin of every row's angles, [row, rotary_dim / 2] each, one after
 * the other; in float, as the reference computes them. */
static void angles(exec *e, const float *freq)
{
    const int64_t half = e->c->rotary_dim / 2;
    float *cosines = e->room[ROOM_ANGLES];
    float *sines = cosines + e->batch->n_rows * half;
    for (int64_t row = 0; row < e->batch->n_rows; row++) {
        for (int64_t i = 0; i < half; i++) {
            const float angle = (float)e->batch->positions[row] * freq[i];
            cosines[row * half + i] = cosf(angle);
            sines[row * half + i] = sinf(angle);
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
static void rotate_row(const exec *e, const void *args, int64_t row)
{
    const turning *t = args;
    const int64_t d = e->c->d_head, half = e->c->rotary_dim / 2;
    const float *cosines = e->room[ROOM_ANGLES] + row * half;
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

/* *out = the rotated x [rows, heads * d_head], and fire it; x itself in models
 * without rotary. */
static bool rotate(exec *e, const float **out, const float *x, int64_t heads,
                   qkv_site site, int64_t layer)
{
    *out = x;
    if (e->c->rotary_dim == 0)
        return true;
    const turning t = {.out = home(e, site, layer), .x = x, .heads = heads};
    each_row(e, rotate_row, &t, e->rows, heads * e->c->d_head);
    *out = t.out;
    return fire_rows(e, site, layer, t.out, false);
}

/* The site's array of one segment: its record, or scratch. */
static qkv_scores scores_home(const exec *e, qkv_site site, int64_t layer,
                              const qkv_segment *s)
{
    if (flags_of(e, site, layer) & QKV_RECORD) {
        const qkv_record *rec = &e->plan->records[site];
        const int64_t n = rec->seq_room[s->seq];
        return (qkv_scores){
            .data = qkv_record_at(rec, layer, s->seq, s->p0),
            .head_stride = n * n, .query_stride = n};
    }
    return (qkv_scores){.data = e->room[ROOM_ATTENTION],
                        .head_stride = (s->n - s->p0) * s->n,
                        .query_stride = s->n};
}

/* Edits and hooks on one segment's scores or pattern; what may not be seen
 * stays unseen. */
static bool touch_scores(exec *e, qkv_site site, int64_t layer,
                         const qkv_segment *s, const qkv_attention *a,
                         qkv_scores x)
{
    static const char *const axes[] = {"head", "query", "key"};
    if (!(flags_of(e, site, layer) & (QKV_EDITED | QKV_HOOKED)))
        return true;
    const qkv_slab slab = {
        .data = x.data, .n_dims = 3,
        .shape = {a->n_heads, a->n_queries, a->n_keys},
        .stride = {x.head_stride, x.query_stride, 1},
        .seq = s->seq, .layer = layer, .pos0 = s->p0,
        .n_prompt = e->plan->recipe->seqs[s->seq].n_prompt,
    };
    if (!touch(e, site, &slab, axes))
        return false;
    qkv_attention_mask(x, a, site == QKV_SITE_SCORES ? -INFINITY : 0);
    return true;
}

/* Is a [head, query, key] array of this layer asked for? */
static bool is_open(const exec *e, int64_t layer)
{
    return (flags_of(e, QKV_SITE_SCORES, layer)
            | flags_of(e, QKV_SITE_PATTERN, layer)) != 0;
}

/* The attention of one segment, step by step. */
static bool attend_open(exec *e, int64_t layer, const qkv_segment *s,
                        const qkv_attention *a)
{
    const qkv_scores scores = scores_home(e, QKV_SITE_SCORES, layer, s);
    const qkv_scores pattern = scores_home(e, QKV_SITE_PATTERN, layer, s);
    return qkv_attention_scores(scores, a, e->err)
        && touch_scores(e, QKV_SITE_SCORES, layer, s, a, scores)
        && qkv_attention_pattern(pattern, scores, a, e->err)
        && touch_scores(e, QKV_SITE_PATTERN, layer, s, a, pattern)
        && qkv_attention_mix(pattern, a, e->err);
}

/* The tiles of a segment's keys at a layer into [most_tiles]: its past, then
 * its own rows. */
static bool tiles_of(exec *e, qkv_tile *tiles, int *n, const qkv_segment *s,
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
static bool attend_all(exec *e, int64_t layer, float *z, const float *q,
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
    if (!is_open(e, layer))
        return qkv_attention_fused(e->attentions, e->segments,
                                   e->room[ROOM_ATTENTION], e->attention_each,
                                   e->err);
    for (int64_t i = 0; i < e->segments; i++)
        if (!attend_open(e, layer, &e->batch->segments[i], &e->attentions[i]))
            return false;
    /* both sites have fired for every segment */
    return count_down(e, flags_of(e, QKV_SITE_SCORES, layer))
        && count_down(e, flags_of(e, QKV_SITE_PATTERN, layer));
}

/* result [rows, head, d_model]: each head's z through its part of W_O. */
static bool result(exec *e, int64_t layer, float *out, const float *z)
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
    return done && fire_rows(e, QKV_SITE_RESULT, layer, out, false);
}

static void sum_heads_row(const exec *e, const void *args, int64_t row)
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
static bool project(exec *e, int64_t layer, const float *z)
{
    const qkv_block *b = &e->stack->blocks[layer];
    float *out = home(e, QKV_SITE_ATTN_OUT, layer);
    const uint8_t flags = flags_of(e, QKV_SITE_RESULT, layer);
    float *heads = flags != 0 ? home(e, QKV_SITE_RESULT, layer) : NULL;
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
    return fire_rows(e, QKV_SITE_ATTN_OUT, layer, out, false);
}

/* attn_out of x [rows, d_model], what attention reads. */
static bool attention(exec *e, int64_t layer, const float *x)
{
    const qkv_block *b = &e->stack->blocks[layer];
    float *q = home(e, QKV_SITE_Q, layer), *k = home(e, QKV_SITE_K, layer);
    float *v = home(e, QKV_SITE_V, layer), *z = home(e, QKV_SITE_Z, layer);
    const float *queries, *keys;
    const qkv_output all[] = {output(q, &b->q), output(k, &b->k),
                              output(v, &b->v)};
    return qkv_products(all, 3, x, e->c->d_model, e->rows, e->err)
        && fire_rows(e, QKV_SITE_Q, layer, q, false)
        && fire_rows(e, QKV_SITE_K, layer, k, false)
        && fire_rows(e, QKV_SITE_V, layer, v, false)
        && rotate(e, &queries, q, e->c->n_heads, QKV_SITE_ROT_Q, layer)
        && rotate(e, &keys, k, e->c->n_kv_heads, QKV_SITE_ROT_K, layer)
        && attend_all(e, layer, z, queries, keys, v)
        && fire_rows(e, QKV_SITE_Z, layer, z, false)
        && project(e, layer, z);
}

/* ---- MLP ---- */

/* mlp_out of x [rows, d_model]. */
static bool mlp(exec *e, int64_t layer, const float *x)
{
    const qkv_block *b = &e->stack->blocks[layer];
    float *pre = home(e, QKV_SITE_MLP_PRE, layer);
    float *linear = e->c->gated ? home(e, QKV_SITE_MLP_LINEAR, layer) : NULL;
    float *post = home(e, QKV_SITE_MLP_POST, layer);
    float *out = home(e, QKV_SITE_MLP_OUT, layer);
    const qkv_output both[] = {output(pre, e->c->gated ? &b->gate : &b->in),
                               output(linear, &b->in)};
    if (!qkv_products(both, e->c->gated ? 2 : 1, x, e->c->d_model, e->rows,
                      e->err)
        || !fire_rows(e, QKV_SITE_MLP_PRE, layer, pre, false)
        || (e->c->gated
            && !fire_rows(e, QKV_SITE_MLP_LINEAR, layer, linear, false)))
        return false;
    const rows3 r = {.out = post, .a = pre, .b = linear,
                     .width = e->c->d_mlp};
    each_row(e, activate_row, &r, e->rows, r.width);
    return fire_rows(e, QKV_SITE_MLP_POST, layer, post, false)
        && apply(e, out, post, e->rows, &b->out)
        && fire_rows(e, QKV_SITE_MLP_OUT, layer, out, false);
}

/* ---- blocks ---- */

/* Pre-norm: mid = x + attn(ln1 x), x' = mid + mlp(ln2 mid).
 * Post-norm: mid = ln1(x + attn x), x' = ln2(mid + mlp mid). */
static bool block(exec *e, int64_t layer, const float **x)
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
    float *mid = home(e, QKV_SITE_RESID_MID, layer);
    add(e, mid, *x, home(e, QKV_SITE_ATTN_OUT, layer));
    if (!fire_rows(e, QKV_SITE_RESID_MID, layer, mid, false))
        return false;
    const float *stream = mid;
    if (!norm(e, &in, mid, post_norm ? &b->ln1 : &b->ln2,
              post_norm ? QKV_SITE_LN1_SCALE : QKV_SITE_LN2_SCALE,
              post_norm ? QKV_SITE_LN1 : QKV_SITE_LN2, layer)
        || !mlp(e, layer, in))
        return false;
    if (post_norm)
        stream = in;
    float *post = home(e, QKV_SITE_RESID_POST, layer);
    add(e, post, stream, home(e, QKV_SITE_MLP_OUT, layer));
    *x = post;
    if (!fire_rows(e, QKV_SITE_RESID_POST, layer, post, false))
        return false;
    return !post_norm
        || (norm(e, x, post, &b->ln2, QKV_SITE_LN2_SCALE, QKV_SITE_LN2, layer)
            && pass(e, QKV_SITE_NORM_POST, layer, x));
}

/* Segments that enter at this layer join the batch with their residuals. */
static void enter(exec *e, int64_t layer, const float **x)
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
    float *stream = e->room[ROOM_D];
    if (*x != stream)
        memcpy(stream, *x, (size_t)(before * d) * sizeof *stream);
    memcpy(stream + before * d, e->start + before * d,
           (size_t)((e->rows - before) * d) * sizeof *stream);
    *x = stream;
}

static bool blocks(exec *e, const float **x)
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
    return true;
}

/* ---- head ---- */

static bool is_wanted(const exec *e, qkv_site site)
{
    return (flags_of(e, site, 0) & (QKV_RECORD | QKV_HOOKED)) != 0;
}

/* Does somebody want the head's work on every row, not the last ones only? */
static bool wants_all_rows(const exec *e)
{
    return is_wanted(e, QKV_SITE_LOGITS) || is_wanted(e, QKV_SITE_MLM_NORM)
        || is_wanted(e, QKV_SITE_LN_FINAL)
        || is_wanted(e, QKV_SITE_LN_FINAL_SCALE);
}

/* The rows that the head works on: all of the batch, or (last) one a segment. */
typedef struct head_rows {
    const float *x;             /* [n, d_model] */
    int64_t n;
    bool last;
} head_rows;

/* From all rows to the last of each segment. */
static void narrow(const exec *e, head_rows *h)
{
    const int64_t d = e->c->d_model;
    float *out = e->room[ROOM_HEAD2];
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        memcpy(out + i * d, h->x + (s->row0 + s->n - s->p0 - 1) * d,
               (size_t)d * sizeof *out);
    }
    *h = (head_rows){.x = out, .n = e->segments, .last = true};
}

static bool final_norm(exec *e, head_rows *h)
{
    float *scale = h->last ? e->room[ROOM_SCALE]
        : home(e, QKV_SITE_LN_FINAL_SCALE, 0);
    float *y = h->last ? e->room[ROOM_HEAD2] : home(e, QKV_SITE_LN_FINAL, 0);
    qkv_norm_scale(scale, h->x, h->n, e->c);
    if (!fire_rows(e, QKV_SITE_LN_FINAL_SCALE, 0, scale, h->last))
        return false;
    qkv_norm_apply(y, h->x, scale, h->n, &e->stack->ln_final, e->c);
    h->x = y;
    return fire_rows(e, QKV_SITE_LN_FINAL, 0, y, h->last);
}

/* BERT's masked head before its unembedding: dense, activation, norm. */
static bool masked_head(exec *e, head_rows *h)
{
    float *y = h->last ? e->room[ROOM_HEAD2] : home(e, QKV_SITE_MLM_NORM, 0);
    if (!qkv_masked_head(y, h->x, h->n, e->stack, e->err))
        return false;
    h->x = y;
    return fire_rows(e, QKV_SITE_MLM_NORM, 0, y, h->last);
}

/* BERT's pooler: tanh(W x of position 0), and the next-sentence pair. */
static bool pool(exec *e, const float *x)
{
    const qkv_stack *s = e->stack;
    const int64_t d = e->c->d_model;
    const bool pair = flags_of(e, QKV_SITE_NSP_LOGITS, 0) != 0;
    if (flags_of(e, QKV_SITE_POOLER, 0) == 0 && !pair)
        return true;
    float *pooled = e->room[ROOM_POOLED];
    for (int64_t i = 0; i < e->segments; i++)
        if (!apply(e, pooled + i * d, x + e->batch->segments[i].row0 * d, 1,
                   &s->pooler))
            return false;
    qkv_kernel()->tanh(pooled, pooled, e->segments * d);
    if (!fire_pooled(e, QKV_SITE_POOLER, pooled))
        return false;
    if (!pair)
        return true;
    float *logits = e->room[ROOM_PAIR];
    return apply(e, logits, pooled, e->segments, &s->next_sentence)
        && fire_pooled(e, QKV_SITE_NSP_LOGITS, logits);
}

/* Logits of the head's rows; those of each segment's last row go to out. */
static bool unembed(exec *e, const head_rows *h)
{
    const int64_t n = e->c->d_vocab;
    float *logits = h->last ? e->out->last : home(e, QKV_SITE_LOGITS, 0);
    if (!apply(e, logits, h->x, h->n, &e->stack->unembed)
        || !fire_rows(e, QKV_SITE_LOGITS, 0, logits, h->last))
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
static bool head(exec *e, const float *x)
{
    const bool last_logits = e->plan->logits != QKV_LOGITS_NONE;
    const bool logits = is_wanted(e, QKV_SITE_LOGITS);
    const bool masked = logits || is_wanted(e, QKV_SITE_MLM_NORM);
    const bool normed = wants_all_rows(e);
    const struct {
        bool all, there;
        bool (*step)(exec *e, head_rows *h);
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

/* ---- scratch ---- */

/* Floats of attention's scratch: the fused form's for all threads, or the
 * open form's array for the longest segment. */
static int64_t attention_room(exec *e)
{
    int64_t most = 0;
    e->attention_each = 0;
    bool open = false;
    for (int64_t layer = e->plan->start_layer; layer < e->plan->stop_at;
         layer++)
        open |= is_open(e, layer);
    for (int64_t i = 0; i < e->batch->n_segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        const qkv_attention a = {
            .n_heads = e->c->n_heads, .n_kv_heads = e->c->n_kv_heads,
            .d_head = e->c->d_head, .n_queries = s->n - s->p0, .n_keys = s->n};
        const int64_t each = qkv_attention_scratch(&a);
        const int64_t array = e->c->n_heads * a.n_queries * a.n_keys;
        if (each > e->attention_each)
            e->attention_each = each;
        if (open && array > most)
            most = array;
    }
    const int64_t all = e->attention_each * qkv_threads();
    return all > most ? all : most;
}

static bool make_rooms(exec *e)
{
    const qkv_config *c = e->c;
    const int64_t rows = e->batch->n_rows, segments = e->batch->n_segments;
    const int64_t kv = c->n_kv_heads * c->d_head, heads = c->n_heads * c->d_head;
    const bool resid_pre = is_used(e, QKV_SITE_RESID_PRE)
        || is_used(e, QKV_SITE_NORM_POST);
    const bool all_rows = wants_all_rows(e);
    const int64_t floats[N_ROOMS] = {
        [ROOM_A] = rows * c->d_model, [ROOM_B] = rows * c->d_model,
        [ROOM_C] = rows * c->d_model, [ROOM_D] = rows * c->d_model,
        [ROOM_E] = resid_pre ? rows * c->d_model : 0,
        [ROOM_SCALE] = rows, [ROOM_Q] = rows * heads, [ROOM_Z] = rows * heads,
        [ROOM_K] = rows * kv,
        [ROOM_KEYS] = c->rotary_dim > 0 && e->out->chain == NULL
            ? rows * kv : 0,
        [ROOM_V] = e->out->chain == NULL ? rows * kv : 0,
        [ROOM_RESULT] = is_used(e, QKV_SITE_RESULT)
            ? rows * c->n_heads * c->d_model : 0,
        [ROOM_PRE] = rows * c->d_mlp,
        [ROOM_LINEAR] = c->gated ? rows * c->d_mlp : 0,
        [ROOM_ATTENTION] = attention_room(e),
        [ROOM_ANGLES] = rows * c->rotary_dim,
        [ROOM_POOLED] = segments * c->d_model, [ROOM_PAIR] = segments * 2,
        [ROOM_HEAD] = all_rows ? rows * c->d_model : 0,
        [ROOM_HEAD2] = segments * c->d_model,
        /* hooked but not recorded */
        [ROOM_LOGITS] = is_wanted(e, QKV_SITE_LOGITS)
            && !(flags_of(e, QKV_SITE_LOGITS, 0) & QKV_RECORD)
            ? rows * c->d_vocab : 0,
    };
    int64_t total = 0;
    for (int i = 0; i < N_ROOMS; i++)
        total += (floats[i] + 15) & ~(int64_t)15;   /* whole cache lines */
    e->scratch = qkv_alloc((size_t)total * sizeof(float), e->err);
    if (e->scratch == NULL)
        return false;
    float *at = e->scratch;
    for (int i = 0; i < N_ROOMS; i++) {
        e->room[i] = at;
        at += (floats[i] + 15) & ~(int64_t)15;
    }
    e->most_tiles = 1;
    for (int64_t i = 0; i < segments; i++) {
        const int depth = qkv_chain_depth(e->batch->segments[i].past);
        e->most_tiles = depth + 1 > e->most_tiles ? depth + 1 : e->most_tiles;
    }
    e->tiles = qkv_alloc((size_t)(segments * e->most_tiles) * sizeof *e->tiles,
                         e->err);
    e->attentions = e->tiles != NULL
        ? qkv_alloc((size_t)segments * sizeof *e->attentions, e->err) : NULL;
    return e->attentions != NULL;
}

bool qkv_forward(qkv_outputs *out, const qkv_plan *plan,
                 const qkv_batch *batch, const float *start, qkv_error *err)
{
    exec e = {
        .plan = plan, .batch = batch, .stack = plan->stack,
        .c = &plan->stack->config, .out = out, .start = start,
        .left = plan->n_wanted, .err = err,
    };
    const float *x = NULL;
    bool went = make_rooms(&e);
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
    qkv_free(e.attentions);
    qkv_free(e.tiles);
    qkv_free(e.scratch);
    return went || e.done;
}
