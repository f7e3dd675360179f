/*
 * reduce.c - sums, means, extremes, summaries: see reduce.h
 *
 * A reduction is an accumulator that takes values one by one and can be
 * merged with another: a sum, a sum of squares about a centre, a smallest, a
 * largest; all in double. Along an axis, t is [outer, n, inner]: up to 256
 * neighbours of inner are accumulated side by side. Over all elements, each
 * piece of the walk (walk.h) has its own accumulator, merged in order.
 * What keeps the axis (softmax, sort) is in order.c.
 */
#include "config.h"

#include "tensor/reduce.h"

#include <math.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/kernel.h"
#include "tensor/walk.h"

/* ---- accumulators ---- */

typedef enum kind { SUM, SQUARES, SMALLEST, LARGEST } kind;

enum { LANES = 8, TILE = 256 };

static double start_of(kind what)
{
    return what == SMALLEST ? (double)INFINITY
         : what == LARGEST ? -(double)INFINITY : 0.0;
}

static double merged(kind what, double a, double b)
{
    switch (what) {
    case SMALLEST: return a < b || isnan(a) ? a : b;
    case LARGEST: return a > b || isnan(a) ? a : b;
    default: return a + b;
    }
}

/* acc [width] takes x [n, width], rows `step` apart; centre [width] is read
 * for SQUARES only. */
static void accumulate(kind what, double *acc, const double *centre,
                       const float *x, int64_t n, int64_t step, int width)
{
    for (int64_t j = 0; j < n; j++, x += step)
        switch (what) {
        case SUM:
            for (int i = 0; i < width; i++)
                acc[i] += (double)x[i];
            break;
        case SQUARES:
            for (int i = 0; i < width; i++) {
                const double apart = (double)x[i] - centre[i];
                acc[i] += apart * apart;
            }
            break;
        default:
            for (int i = 0; i < width; i++)
                acc[i] = merged(what, acc[i], (double)x[i]);
        }
}

/* The smallest or largest of x [n] and acc, NaN if there is one; in lanes,
 * which the processor compares at once. */
static double extreme(kind what, double acc, const float *x, int64_t n)
{
    float lane[LANES];
    bool nan_seen = false;
    int64_t i = 0;
    for (int l = 0; l < LANES; l++)
        lane[l] = (float)start_of(what);
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            const float v = x[i + l];
            const bool better = what == LARGEST ? v > lane[l] : v < lane[l];
            nan_seen |= isnan(v);
            lane[l] = better ? v : lane[l];
        }
    for (; i < n; i++)
        acc = merged(what, acc, (double)x[i]);
    for (int l = 0; l < LANES; l++)
        acc = merged(what, acc, (double)lane[l]);
    return nan_seen ? (double)NAN : acc;
}

/* acc takes x [n], which lie side by side. */
static double accumulate_row(kind what, double acc, double centre,
                             const float *x, int64_t n)
{
    switch (what) {
    case SUM: return acc + qkv_kernel()->sum(x, n);
    case SQUARES: return acc + qkv_kernel()->sum_squares(x, centre, n);
    default: return extreme(what, acc, x, n);
    }
}

/* The accumulator that an operation ends with. */
static kind kind_of(qkv_reduction op)
{
    return op == QKV_MIN ? SMALLEST : op == QKV_MAX ? LARGEST
         : op == QKV_SUM || op == QKV_MEAN ? SUM : SQUARES;
}

/* Does it need the mean first? */
static bool is_centred(qkv_reduction op)
{
    return op == QKV_STD || op == QKV_VAR;
}

/* From the accumulator over n values to the result. */
static double finish(qkv_reduction op, double acc, int64_t n)
{
    const double variance = n > 1 ? acc / (double)(n - 1) : (double)NAN;
    switch (op) {
    case QKV_MEAN: return acc / (double)n;      /* of none: NaN */
    case QKV_VAR: return variance;
    case QKV_STD: return sqrt(variance);
    case QKV_NORM: return sqrt(acc);
    default: return acc;
    }
}

static bool check_some(const qkv_tensor *t, int64_t n, const char *what,
                       qkv_error *err)
{
    char shape[160];
    if (n > 0)
        return true;
    qkv_tensor_describe(t, shape, sizeof shape);
    return qkv_fail(err, QKV_ESHAPE, "%s of no elements: %s", what, shape);
}

/* ---- along an axis ---- */

/* t as [outer, n, inner] */
typedef struct along {
    const float *x;
    int64_t outer, n, inner;
} along;

static along view_along(const qkv_tensor *t, int axis)
{
    along v = {qkv_tensor_data(t), 1, t->shape[axis], 1};
    for (int i = 0; i < axis; i++)
        v.outer *= t->shape[i];
    for (int i = axis + 1; i < t->n_dims; i++)
        v.inner *= t->shape[i];
    return v;
}

/* t without an axis, as a new tensor. */
static qkv_tensor *without_axis(const qkv_tensor *t, int axis, qkv_dtype dtype,
                                qkv_error *err)
{
    qkv_tensor shape = *t;
    shape.n_dims--;
    for (int i = axis; i < shape.n_dims; i++) {
        shape.shape[i] = t->shape[i + 1];
        for (int j = 0; j < QKV_AXIS_ROOM; j++)
            shape.axis[i][j] = t->axis[i + 1][j];
    }
    return qkv_tensor_like(&shape, dtype, err);
}

typedef struct reduction {
    along v;
    qkv_reduction op;
    float *out;                 /* [outer, inner] */
} reduction;

/* out [width] from x [n, width], rows `step` apart */
static void reduce_tile(qkv_reduction op, float *out, const float *x,
                        int64_t n, int64_t step, int width)
{
    double acc[TILE], mean[TILE];
    const kind what = kind_of(op);
    for (int i = 0; i < width; i++)
        acc[i] = mean[i] = 0.0;
    if (is_centred(op)) {
        accumulate(SUM, mean, mean, x, n, step, width);
        for (int i = 0; i < width; i++)
            mean[i] /= (double)n;
    }
    for (int i = 0; i < width; i++)
        acc[i] = start_of(what);
    accumulate(what, acc, mean, x, n, step, width);
    for (int i = 0; i < width; i++)
        out[i] = (float)finish(op, acc[i], n);
}

static float reduce_row(qkv_reduction op, const float *x, int64_t n)
{
    const kind what = kind_of(op);
    const double mean = is_centred(op)
        ? accumulate_row(SUM, 0.0, 0.0, x, n) / (double)n : 0.0;
    const double acc = accumulate_row(what, start_of(what), mean, x, n);
    return (float)finish(op, acc, n);
}

/* Tiles [begin, end), numbered [outer, inner / TILE]. */
static void reduce_tiles(void *context, int64_t begin, int64_t end, int thread)
{
    const reduction *r = context;
    const along *v = &r->v;
    const int64_t tiles = (v->inner + TILE - 1) / TILE;
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++) {
        const int64_t outer = i / tiles, first = i % tiles * TILE;
        const int64_t left = v->inner - first;
        const float *x = v->x + outer * v->n * v->inner + first;
        float *out = r->out + outer * v->inner + first;
        if (v->inner == 1)
            *out = reduce_row(r->op, x, v->n);
        else
            reduce_tile(r->op, out, x, v->n, v->inner,
                        left < TILE ? (int)left : TILE);
    }
}

static qkv_tensor *reduce_along(qkv_reduction op, const qkv_tensor *t,
                                int axis, qkv_error *err)
{
    qkv_tensor *x = qkv_tensor_float(t, err);
    qkv_tensor *out = x != NULL ? without_axis(t, axis, QKV_F32, err) : NULL;
    if (out != NULL && qkv_tensor_count(out) > 0) {
        reduction r = {view_along(x, axis), op, qkv_tensor_data(out)};
        const int64_t tiles = (r.v.inner + TILE - 1) / TILE;
        const int64_t work = r.v.n * (r.v.inner < TILE ? r.v.inner : TILE);
        qkv_parallel(r.v.outer * tiles, QKV_PIECE / (work + 1) + 1,
                     reduce_tiles, &r);
        if (!qkv_check(err)) {
            qkv_tensor_release(out);
            out = NULL;
        }
    }
    qkv_tensor_release(x);
    return out;
}

/* ---- over all elements ---- */

static int64_t n_pieces(const qkv_tensor *t)
{
    return qkv_tensor_count(t) / QKV_PIECE + 1;
}

typedef struct total {
    kind what;
    double centre;
    double *piece;              /* [n_pieces] */
} total;

static void visit_total(void *context, const qkv_strip *s, int64_t n,
                        int64_t first)
{
    const total *sum = context;
    float room[QKV_RUN];
    double *acc = &sum->piece[first / QKV_PIECE];
    *acc = accumulate_row(sum->what, *acc, sum->centre,
                          qkv_strip_floats(s, n, room), n);
}

/* Accumulate all of t; piece [n_pieces] is scratch. */
static bool accumulate_all(double *out, const qkv_tensor *t, kind what,
                           double centre, double *piece, qkv_error *err)
{
    qkv_walk w;
    total sum = {what, centre, piece};
    for (int64_t i = 0; i < n_pieces(t); i++)
        piece[i] = start_of(what);
    qkv_walk_init(&w, t->n_dims, t->shape);
    qkv_walk_add(&w, t);
    if (!qkv_walk_run(&w, false, visit_total, &sum, err))
        return false;
    *out = start_of(what);
    for (int64_t i = 0; i < n_pieces(t); i++)
        *out = merged(what, *out, piece[i]);
    return true;
}

static qkv_tensor *reduce_all(qkv_reduction op, const qkv_tensor *t,
                              qkv_error *err)
{
    const int64_t n = qkv_tensor_count(t);
    double acc, mean = 0.0;
    double *piece = qkv_alloc_zero((size_t)n_pieces(t), sizeof *piece, err);
    qkv_tensor *out = piece != NULL
        ? qkv_tensor_new(QKV_F32, 0, NULL, NULL, err) : NULL;
    bool good = out != NULL;
    if (good && is_centred(op)) {
        good = accumulate_all(&mean, t, SUM, 0.0, piece, err);
        mean /= (double)n;
    }
    if (good && accumulate_all(&acc, t, kind_of(op), mean, piece, err)) {
        *(float *)qkv_tensor_data(out) = (float)finish(op, acc, n);
    } else {
        qkv_tensor_release(out);
        out = NULL;
    }
    qkv_free(piece);
    return out;
}

qkv_tensor *qkv_reduce(qkv_reduction op, const qkv_tensor *t, int axis,
                       qkv_error *err)
{
    if (!qkv_check_plain(t, "a reduction", err)
        || (axis != -1 && !qkv_check_axis(t, axis, err)))
        return NULL;
    const int64_t n = axis < 0 ? qkv_tensor_count(t) : t->shape[axis];
    if ((op == QKV_MIN || op == QKV_MAX)
        && !check_some(t, n, op == QKV_MIN ? "min" : "max", err))
        return NULL;
    return axis < 0 ? reduce_all(op, t, err) : reduce_along(op, t, axis, err);
}

/* ---- where the extremes are ---- */

typedef struct place {
    float value;
    int64_t index;              /* -1: none yet */
} place;

/* Take a value that comes after all taken so far: the first of equals stays,
 * and the first NaN beats all. */
static inline void offer(place *best, float value, int64_t index,
                         bool smallest)
{
    const bool better = smallest ? value < best->value : value > best->value;
    if (best->index < 0 || (!isnan(best->value) && (better || isnan(value))))
        *best = (place){value, index};
}

typedef struct search {
    along v;
    bool smallest;
    int64_t *out;               /* [outer, inner] */
    place *piece;               /* or, over all: [n_pieces] */
} search;

static void search_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const search *s = context;
    const along *v = &s->v;
    (void)thread;
    for (int64_t o = begin; o < end && !qkv_interrupted(); o++)
        for (int64_t first = 0; first < v->inner; first += TILE) {
            place best[TILE];
            const float *x = v->x + o * v->n * v->inner + first;
            const int64_t left = v->inner - first;
            const int width = left < TILE ? (int)left : TILE;
            for (int i = 0; i < width; i++)
                best[i] = (place){0.0f, -1};
            for (int64_t j = 0; j < v->n; j++)
                for (int i = 0; i < width; i++)
                    offer(&best[i], x[j * v->inner + i], j, s->smallest);
            for (int i = 0; i < width; i++)
                s->out[o * v->inner + first + i] = best[i].index;
        }
}

static void visit_search(void *context, const qkv_strip *strip, int64_t n,
                         int64_t first)
{
    const search *s = context;
    float room[QKV_RUN];
    const float *x = qkv_strip_floats(strip, n, room);
    for (int64_t i = 0; i < n; i++)
        offer(&s->piece[first / QKV_PIECE], x[i], first + i, s->smallest);
}

static bool search_all(int64_t *out, const qkv_tensor *t, bool smallest,
                       qkv_error *err)
{
    qkv_walk w;
    place best = {0.0f, -1};
    search s = {.smallest = smallest};
    s.piece = qkv_alloc_zero((size_t)n_pieces(t), sizeof *s.piece, err);
    if (s.piece == NULL)
        return false;
    for (int64_t i = 0; i < n_pieces(t); i++)
        s.piece[i].index = -1;
    qkv_walk_init(&w, t->n_dims, t->shape);
    qkv_walk_add(&w, t);
    const bool good = qkv_walk_run(&w, false, visit_search, &s, err);
    for (int64_t i = 0; i < n_pieces(t); i++)
        if (s.piece[i].index >= 0)
            offer(&best, s.piece[i].value, s.piece[i].index, smallest);
    *out = best.index;
    qkv_free(s.piece);
    return good;
}

static bool search_along(int64_t *out, const qkv_tensor *t, int axis,
                         bool smallest, qkv_error *err)
{
    qkv_tensor *x = qkv_tensor_float(t, err);
    if (x == NULL)
        return false;
    search s = {.v = view_along(x, axis), .smallest = smallest, .out = out};
    qkv_parallel(s.v.outer, QKV_PIECE / (s.v.n * s.v.inner + 1) + 1,
                 search_rows, &s);
    qkv_tensor_release(x);
    return qkv_check(err);
}

qkv_tensor *qkv_argmax(const qkv_tensor *t, int axis, bool smallest,
                       qkv_error *err)
{
    const char *what = smallest ? "argmin" : "argmax";
    if (!qkv_check_plain(t, what, err)
        || (axis != -1 && !qkv_check_axis(t, axis, err))
        || !check_some(t, axis < 0 ? qkv_tensor_count(t) : t->shape[axis],
                       what, err))
        return NULL;
    qkv_tensor *out = axis < 0 ? qkv_tensor_new(QKV_I64, 0, NULL, NULL, err)
                               : without_axis(t, axis, QKV_I64, err);
    if (out == NULL)
        return NULL;
    int64_t *indices = qkv_tensor_data(out);
    if (axis < 0 ? search_all(indices, t, smallest, err)
                 : search_along(indices, t, axis, smallest, err))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

/* ---- summaries ---- */

/* Count, mean, sum of squared deviations; merged by Chan, Golub and LeVeque,
 * "Updating formulae and a pairwise algorithm", 1979. */
typedef struct moments {
    int64_t count, n_nan, n_inf;
    double mean, squares, min, max;
} moments;

static void merge_moments(moments *a, const moments *b)
{
    const double n = (double)(a->count + b->count);
    a->n_nan += b->n_nan;
    a->n_inf += b->n_inf;
    if (b->count == 0)
        return;
    const double apart = b->mean - a->mean, share = (double)b->count / n;
    a->squares += b->squares + apart * apart * (double)a->count * share;
    a->mean += apart * share;
    a->min = a->count > 0 && a->min < b->min ? a->min : b->min;
    a->max = a->count > 0 && a->max > b->max ? a->max : b->max;
    a->count += b->count;
}

/* Of x [n], n <= QKV_RUN. */
static moments moments_of(const double *x, int64_t n)
{
    moments m = {.min = (double)INFINITY, .max = -(double)INFINITY};
    double finite[QKV_RUN], sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        if (isnan(x[i])) {
            m.n_nan++;
        } else if (isinf(x[i])) {
            m.n_inf++;
        } else {
            finite[m.count++] = x[i];
            sum += x[i];
            m.min = x[i] < m.min ? x[i] : m.min;
            m.max = x[i] > m.max ? x[i] : m.max;
        }
    m.mean = m.count > 0 ? sum / (double)m.count : 0.0;
    for (int64_t i = 0; i < m.count; i++)
        m.squares += (finite[i] - m.mean) * (finite[i] - m.mean);
    return m;
}

static void visit_moments(void *context, const qkv_strip *s, int64_t n,
                          int64_t first)
{
    moments *piece = context;
    double x[QKV_RUN];
    qkv_strip_doubles(x, s, n);
    const moments m = moments_of(x, n);
    merge_moments(&piece[first / QKV_PIECE], &m);
}

static bool add_moments(moments *all, const qkv_tensor *t, qkv_error *err)
{
    qkv_walk w;
    moments *piece = qkv_alloc_zero((size_t)n_pieces(t), sizeof *piece, err);
    if (piece == NULL)
        return false;
    qkv_walk_init(&w, t->n_dims, t->shape);
    qkv_walk_add(&w, t);
    const bool good = qkv_walk_run(&w, false, visit_moments, piece, err);
    for (int64_t i = 0; i < n_pieces(t) && good; i++)
        merge_moments(all, &piece[i]);
    qkv_free(piece);
    return good;
}

/* A quantised tensor, one slice of its first axis after the other, so that
 * its floats are never all there. */
static bool add_quantised(moments *all, const qkv_tensor *t, qkv_error *err)
{
    bool good = true;
    if (t->n_dims > 1 && t->stride[0] == 1) {       /* transposed */
        qkv_tensor *turned = qkv_tensor_transpose(t, 0, 1, err);
        good = turned != NULL && add_quantised(all, turned, err);
        qkv_tensor_release(turned);
        return good;
    }
    const int64_t step = t->n_dims > 1 ? 256 : t->shape[0];
    for (int64_t i = 0; i < t->shape[0] && good; i += step) {
        qkv_tensor *some = qkv_tensor_slice(t, 0, i, i + step, err);
        qkv_tensor *x = some != NULL ? qkv_tensor_float(some, err) : NULL;
        good = x != NULL && add_moments(all, x, err);
        qkv_tensor_release(x);
        qkv_tensor_release(some);
    }
    return good;
}

bool qkv_summarise(qkv_summary *out, const qkv_tensor *t, qkv_error *err)
{
    moments m = {0};
    if (!(qkv_is_quantised(t->dtype) ? add_quantised(&m, t, err)
                                     : add_moments(&m, t, err)))
        return false;
    const bool some = m.count > 0;
    *out = (qkv_summary){
        .count = qkv_tensor_count(t), .n_nan = m.n_nan, .n_inf = m.n_inf,
        .mean = some ? m.mean : (double)NAN,
        .sd = finish(QKV_STD, m.squares, m.count),
        .min = some ? m.min : (double)NAN, .max = some ? m.max : (double)NAN,
    };
    return true;
}
