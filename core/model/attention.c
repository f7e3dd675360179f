/*
 * attention.c - scores, pattern, mixture: see attention.h
 *
 * Open, work is cut into pieces of one head and up to BLOCK queries. A piece
 * of a few queries uses the row kernels (kernel.h: scores, mix), a larger one
 * a product a tile.
 *
 * Fused, a piece is one key head and a block of the queries that read it: all
 * heads of its group at a query, then those at the next, so that keys and
 * values are loaded once for the group (kernel.h: attend). With a few queries
 * most lanes of that would idle; they go the open way, a head at a time.
 */
#include "config.h"

#include "model/attention.h"

#include <math.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/blas.h"
#include "tensor/kernel.h"

enum {
    BLOCK = 32,                 /* queries of a piece */
    FEW = 4,                    /* up to so many: row by row */
    FEW_IN_GROUP = 8,           /* and (query, head) pairs of a key head */
    SMALL = 1 << 17,            /* multiply-adds that are not worth a thread */
    LARGE = 1 << 22             /* that are worth all threads */
};

void qkv_attention_sees(int64_t *from, int64_t *to, const qkv_attention *a,
                        int64_t i)
{
    const int64_t pos = a->p0 + i;
    *from = a->window > 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
    *to = a->causal ? pos + 1 : a->n_keys;
}

/* ---- one piece: head h, queries [i0, i1) ---- */

typedef struct piece {
    int64_t h, kv, i0, i1;
    int64_t from, to;           /* keys that any of them may see */
} piece;

static int64_t n_blocks(const qkv_attention *a)
{
    return (a->n_queries + BLOCK - 1) / BLOCK;
}

/* Blocks of the last queries first: they see most, and work is handed out in
 * order. */
static piece piece_of(const qkv_attention *a, int64_t item)
{
    piece p;
    p.h = item % a->n_heads;
    p.kv = p.h / (a->n_heads / a->n_kv_heads);
    p.i0 = (n_blocks(a) - 1 - item / a->n_heads) * BLOCK;
    p.i1 = p.i0 + BLOCK < a->n_queries ? p.i0 + BLOCK : a->n_queries;
    int64_t unused;
    qkv_attention_sees(&p.from, &unused, a, p.i0);
    qkv_attention_sees(&unused, &p.to, a, p.i1 - 1);
    return p;
}

/* The part of tile t that a piece sees: positions [*from, *to), where the
 * tile's first is `start`. */
static bool overlap(int64_t *from, int64_t *to, const piece *p,
                    const qkv_tile *t, int64_t start)
{
    *from = p->from > start ? p->from : start;
    *to = p->to < start + t->count ? p->to : start + t->count;
    return *from < *to;
}

/* s[i - i0][key] for the keys the piece sees; cells outside a query's own
 * sight are left as they fall. s: query i0, key 0. */
static void piece_scores(const qkv_attention *a, const piece *p, float *s,
                         int64_t stride)
{
    const qkv_kernels *kernel = qkv_kernel();
    const int64_t d = a->d_head, rows = p->i1 - p->i0;
    const float *q = a->q + p->i0 * a->q_stride + p->h * d;
    int64_t start = 0, from, to;
    for (int t = 0; t < a->n_tiles; start += a->tiles[t++].count) {
        const qkv_tile *tile = &a->tiles[t];
        if (!overlap(&from, &to, p, tile, start))
            continue;
        const float *k = tile->k + (from - start) * tile->k_stride + p->kv * d;
        if (rows > FEW) {
            qkv_gemm_1(false, true, rows, to - from, d, a->scale, q,
                       a->q_stride, k, tile->k_stride, 0, s + from, stride);
            continue;
        }
        for (int64_t i = 0; i < rows; i++)
            kernel->scores(s + i * stride + from, q + i * a->q_stride, k,
                           tile->k_stride, to - from, d, a->scale);
    }
}

/* p[i][keys] = softmax(s[i][keys it may see]), 0 for the others of the n_keys.
 * p may be s. */
static void piece_pattern(const qkv_attention *a, const piece *w, float *p,
                          int64_t p_stride, const float *s, int64_t s_stride,
                          int64_t upto)
{
    const qkv_kernels *kernel = qkv_kernel();
    for (int64_t i = w->i0; i < w->i1; i++) {
        float *out = p + (i - w->i0) * p_stride;
        const float *in = s + (i - w->i0) * s_stride;
        int64_t from, to;
        qkv_attention_sees(&from, &to, a, i);
        if (out != in)
            for (int64_t key = from; key < to; key++)
                out[key] = in[key];
        kernel->softmax(out + from, to - from);
        for (int64_t key = 0; key < from; key++)
            out[key] = 0;
        for (int64_t key = to; key < upto; key++)
            out[key] = 0;
    }
}

/* z = p v over the keys the piece sees. */
static void piece_mix(const qkv_attention *a, const piece *w, const float *p,
                      int64_t p_stride)
{
    const qkv_kernels *kernel = qkv_kernel();
    const int64_t d = a->d_head, rows = w->i1 - w->i0;
    const int64_t z_stride = a->z_stride;
    float *out = a->z + w->i0 * z_stride + w->h * d;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < d; j++)
            out[i * z_stride + j] = 0;
    int64_t start = 0, from, to;
    for (int t = 0; t < a->n_tiles; start += a->tiles[t++].count) {
        const qkv_tile *tile = &a->tiles[t];
        if (!overlap(&from, &to, w, tile, start))
            continue;
        const float *v = tile->v + (from - start) * tile->v_stride + w->kv * d;
        if (rows > FEW) {
            qkv_gemm_1(false, false, rows, d, to - from, 1, p + from,
                       p_stride, v, tile->v_stride, 1, out, z_stride);
            continue;
        }
        for (int64_t i = 0; i < rows; i++)
            kernel->mix(out + i * z_stride, p + i * p_stride + from, v,
                        tile->v_stride, to - from, d);
    }
}

static int64_t open_pieces(const qkv_attention *a)
{
    return a->n_heads * n_blocks(a);
}

/* ---- all pieces, on the pool ---- */

typedef struct work {
    const qkv_attention *a;
    qkv_scores s, p;
    float *scratch;             /* fused: `each` floats a thread */
    int64_t each;
} work;

/* Multiply-adds of the scores. */
static double adds_of(const qkv_attention *a)
{
    const int64_t sight = a->window > 0 && a->window < a->n_keys ? a->window
        : a->n_keys;
    return (double)(a->n_heads * a->n_queries)
        * (double)(sight * a->d_head);
}

static bool each_piece(qkv_body *body, int64_t pieces, work *w,
                       qkv_error *err)
{
    const qkv_attention *a = w->a;
    if (!qkv_check(err))
        return false;
    qkv_parallel(pieces, adds_of(a) <= SMALL ? pieces : 1, body, w);
    return qkv_check(err);
}

static float *scores_at(const qkv_scores *s, const piece *p)
{
    return s->data + p->h * s->head_stride + p->i0 * s->query_stride;
}

/* ---- fused ---- */

static int64_t group_of(const qkv_attention *a)
{
    return a->n_heads / a->n_kv_heads;
}

static bool is_few(const qkv_attention *a)
{
    return a->n_queries * group_of(a) <= FEW_IN_GROUP;
}

static void few_body(void *context, int64_t begin, int64_t end, int thread)
{
    const work *w = context;
    float *s = w->scratch + thread * w->each;
    for (int64_t item = begin; item < end && !qkv_interrupted(); item++) {
        const piece p = piece_of(w->a, item);
        const int64_t stride = w->a->n_keys;
        piece_scores(w->a, &p, s, stride);
        piece_pattern(w->a, &p, s, stride, s, stride, p.to);
        piece_mix(w->a, &p, s, stride);
    }
}

/* Pairs [r0, r1) of key head kv: pair r is query r / group, the group's head
 * r % group. They see keys [from, to). */
typedef struct pairs {
    int64_t kv, r0, r1;
    piece sight;                /* its from and to only */
} pairs;

static int64_t pair_blocks(const qkv_attention *a)
{
    const int64_t block = qkv_kernel()->block;
    return (a->n_queries * group_of(a) + block - 1) / block;
}

/* The last queries first, as in piece_of. */
static pairs pairs_of(const qkv_attention *a, int64_t item)
{
    const int64_t block = qkv_kernel()->block, g = group_of(a);
    const int64_t all = a->n_queries * g;
    pairs p = {.kv = item % a->n_kv_heads};
    p.r0 = (pair_blocks(a) - 1 - item / a->n_kv_heads) * block;
    p.r1 = p.r0 + block < all ? p.r0 + block : all;
    int64_t unused;
    qkv_attention_sees(&p.sight.from, &unused, a, p.r0 / g);
    qkv_attention_sees(&unused, &p.sight.to, a, (p.r1 - 1) / g);
    return p;
}

/* Scratch of one block, in floats: rows of queries (later of z), what each
 * sees, and the kernel's state. */
typedef struct block {
    float *rows;                /* [pair, d_head] */
    float *from, *to;           /* [block] */
    float *state;
} block;

static int64_t block_room(const qkv_attention *a)
{
    const int64_t n = qkv_kernel()->block;
    return n * a->d_head + 2 * n + QKV_ATTEND_FLOATS(n, a->d_head);
}

static void fetch(const qkv_attention *a, const pairs *p, const block *b)
{
    const int64_t d = a->d_head, g = group_of(a);
    for (int64_t r = p->r0; r < p->r1; r++) {
        const float *q = a->q + r / g * a->q_stride + (p->kv * g + r % g) * d;
        memcpy(b->rows + (r - p->r0) * d, q, (size_t)d * sizeof *q);
    }
    for (int64_t i = 0; i < qkv_kernel()->block; i++) {
        const int64_t r = p->r0 + i < p->r1 ? p->r0 + i : p->r1 - 1;
        int64_t from, to;
        qkv_attention_sees(&from, &to, a, r / g);
        b->from[i] = (float)from;
        b->to[i] = (float)to;
    }
}

static void fused_block(const work *w, const pairs *p, const block *b)
{
    const qkv_kernels *kernel = qkv_kernel();
    const qkv_attention *a = w->a;
    const int64_t d = a->d_head, g = group_of(a), rows = p->r1 - p->r0;
    fetch(a, p, b);
    kernel->attend_begin(b->state, b->rows, d, rows, d, a->scale);
    int64_t start = 0, from, to;
    for (int t = 0; t < a->n_tiles; start += a->tiles[t++].count) {
        const qkv_tile *tile = &a->tiles[t];
        if (overlap(&from, &to, &p->sight, tile, start))
            kernel->attend(b->state, rows, d, tile->k
                           + (from - start) * tile->k_stride + p->kv * d,
                           tile->k_stride, tile->v
                           + (from - start) * tile->v_stride + p->kv * d,
                           tile->v_stride, to - from, from, b->from, b->to);
    }
    kernel->attend_end(b->rows, d, b->state, rows, d);
    for (int64_t r = p->r0; r < p->r1; r++)
        memcpy(a->z + r / g * a->z_stride + (p->kv * g + r % g) * d,
               b->rows + (r - p->r0) * d, (size_t)d * sizeof *b->rows);
}

static void fused_body(void *context, int64_t begin, int64_t end, int thread)
{
    const work *w = context;
    const int64_t n = qkv_kernel()->block;
    block b = {.rows = w->scratch + thread * w->each};
    b.from = b.rows + n * w->a->d_head;
    b.to = b.from + n;
    b.state = b.to + n;
    for (int64_t item = begin; item < end && !qkv_interrupted(); item++) {
        const pairs p = pairs_of(w->a, item);
        fused_block(w, &p, &b);
    }
}

int64_t qkv_attention_scratch(const qkv_attention *a)
{
    return is_few(a) ? a->n_queries * a->n_keys : block_room(a);
}

static bool fused(const qkv_attention *a, float *scratch, int64_t each,
                  qkv_error *err)
{
    work w = {.a = a, .scratch = scratch, .each = each};
    return is_few(a) ? each_piece(few_body, a->n_heads, &w, err)
        : each_piece(fused_body, a->n_kv_heads * pair_blocks(a), &w, err);
}

/* The small ones of a list; their own loops run on the thread that met them. */
static void small_body(void *context, int64_t begin, int64_t end, int thread)
{
    const work *w = context;
    qkv_error interrupted;      /* seen again after the loop */
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        if (adds_of(&w->a[i]) < LARGE)
            fused(&w->a[i], w->scratch, w->each, &interrupted);
}

bool qkv_attention_fused(const qkv_attention *a, int64_t n, float *scratch,
                         int64_t each, qkv_error *err)
{
    if (n == 1)
        return fused(a, scratch, each, err);
    double adds = 0;            /* of the small ones */
    for (int64_t i = 0; i < n; i++) {
        if (adds_of(&a[i]) < LARGE)
            adds += adds_of(&a[i]);
        else if (!fused(&a[i], scratch, each, err))
            return false;
    }
    work w = {.a = a, .scratch = scratch, .each = each};
    qkv_parallel(n, 1 + (int64_t)(SMALL * (double)n / (adds + 1)), small_body,
                 &w);
    return qkv_check(err);
}

/* ---- open ---- */

static void scores_body(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const work *w = context;
    for (int64_t item = begin; item < end && !qkv_interrupted(); item++) {
        const piece p = piece_of(w->a, item);
        piece_scores(w->a, &p, scores_at(&w->s, &p), w->s.query_stride);
    }
}

bool qkv_attention_scores(qkv_scores s, const qkv_attention *a, qkv_error *err)
{
    work w = {.a = a, .s = s};
    if (!each_piece(scores_body, open_pieces(a), &w, err))
        return false;
    qkv_attention_mask(s, a, -INFINITY);
    return true;
}

static void pattern_body(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const work *w = context;
    for (int64_t item = begin; item < end && !qkv_interrupted(); item++) {
        const piece p = piece_of(w->a, item);
        piece_pattern(w->a, &p, scores_at(&w->p, &p), w->p.query_stride,
                      scores_at(&w->s, &p), w->s.query_stride, w->a->n_keys);
    }
}

bool qkv_attention_pattern(qkv_scores p, qkv_scores s, const qkv_attention *a,
                           qkv_error *err)
{
    work w = {.a = a, .s = s, .p = p};
    return each_piece(pattern_body, open_pieces(a), &w, err);
}

static void mix_body(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const work *w = context;
    for (int64_t item = begin; item < end && !qkv_interrupted(); item++) {
        const piece p = piece_of(w->a, item);
        piece_mix(w->a, &p, scores_at(&w->p, &p), w->p.query_stride);
    }
}

bool qkv_attention_mix(qkv_scores p, const qkv_attention *a, qkv_error *err)
{
    work w = {.a = a, .p = p};
    return each_piece(mix_body, open_pieces(a), &w, err);
}

void qkv_attention_mask(qkv_scores s, const qkv_attention *a, float value)
{
    for (int64_t h = 0; h < a->n_heads; h++) {
        for (int64_t i = 0; i < a->n_queries; i++) {
            float *row = s.data + h * s.head_stride + i * s.query_stride;
            int64_t from, to;
            qkv_attention_sees(&from, &to, a, i);
            for (int64_t key = 0; key < from; key++)
                row[key] = value;
            for (int64_t key = to; key < a->n_keys; key++)
                row[key] = value;
        }
    }
}
