/*
 * order.c - what keeps its axis: softmax, cumsum, sort, top k: see reduce.h
 *
 * All work on rows: the axis is brought to the end, in a row-major copy of
 * t's own, each row is treated on its own, and the axis is put back.
 */
#include "config.h"

#include <math.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/kernel.h"
#include "tensor/reduce.h"
#include "tensor/walk.h"

/* ---- rows ---- */

/* A contiguous f32 copy of t, ours to change, with `axis` last; axis -1: all
 * elements in one row. */
static qkv_tensor *rows_of(const qkv_tensor *t, int axis, qkv_error *err)
{
    const int64_t all = -1;
    int order[QKV_MAX_DIMS];
    if (axis < 0) {
        qkv_tensor *copy = qkv_tensor_to(t, QKV_F32, err);
        qkv_tensor *row = copy != NULL
            ? qkv_tensor_reshape(copy, 1, &all, NULL, err) : NULL;
        qkv_tensor_release(copy);
        return row;
    }
    for (int i = 0; i < t->n_dims; i++)
        order[i] = i < axis ? i : i == t->n_dims - 1 ? axis : i + 1;
    qkv_tensor *view = qkv_tensor_permute(t, order, err);
    qkv_tensor *copy = view != NULL ? qkv_tensor_to(view, QKV_F32, err) : NULL;
    qkv_tensor_release(view);
    return copy;
}

/* Put the last axis back to `axis`; takes rows. */
static qkv_tensor *rows_back(qkv_tensor *rows, int axis, qkv_error *err)
{
    int order[QKV_MAX_DIMS];
    if (rows == NULL || axis < 0 || axis == rows->n_dims - 1)
        return rows;
    for (int i = 0; i < rows->n_dims; i++)
        order[i] = i < axis ? i : i == axis ? rows->n_dims - 1 : i - 1;
    qkv_tensor *view = qkv_tensor_permute(rows, order, err);
    qkv_tensor *out = view != NULL ? qkv_tensor_clone(view, err) : NULL;
    qkv_tensor_release(view);
    qkv_tensor_release(rows);
    return out;
}

static bool check(const qkv_tensor *t, int axis, const char *what,
                  qkv_error *err)
{
    return qkv_check_plain(t, what, err)
        && (axis == -1 || qkv_check_axis(t, axis, err));
}

typedef struct rows {
    float *x;                   /* [n rows, size] */
    int64_t size;
    bool flag;                  /* log; descending */
    float *values;              /* [n rows, k] */
    int64_t *indices;           /* [n rows, k] */
    int64_t k;
} rows;

/* Run body over the rows of t [..., size]. */
static bool each_row(const qkv_tensor *t, rows *r, qkv_body *body,
                     qkv_error *err)
{
    r->x = qkv_tensor_data(t);
    r->size = t->shape[t->n_dims - 1];
    const int64_t n = r->size > 0 ? qkv_tensor_count(t) / r->size : 0;
    qkv_parallel(n, QKV_PIECE / (r->size + 1) + 1, body, r);
    return qkv_check(err);
}

/* ---- softmax, cumsum ---- */

/* The sum of exp(x - most) [n]; the terms go to out, which may be x or NULL. */
static double sum_of_exp(float *out, const float *x, int64_t n, float most)
{
    float room[QKV_RUN];
    double sum = 0.0;
    for (int64_t at = 0, part; at < n; at += part) {
        part = n - at < QKV_RUN ? n - at : QKV_RUN;
        float *to = out != NULL ? out + at : room;
        for (int64_t i = 0; i < part; i++)
            to[i] = x[at + i] - most;
        qkv_kernel()->exp(to, to, part);
        sum += qkv_kernel()->sum(to, part);
    }
    return sum;
}

/* The largest of x [n]; a NaN is passed over, and comes through the sum. */
static float largest(const float *x, int64_t n)
{
    float most = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

double qkv_log_sum_exp(const float *x, int64_t n)
{
    const float most = largest(x, n);
    const bool masked = isinf(most) && most < 0;
    return (masked ? 0.0 : (double)most)
        + log(sum_of_exp(NULL, x, n, masked ? 0.0f : most));
}

/* x = exp(x - max) / sum, or its logarithm x - max - log(sum) */
static void softmax_row(float *x, int64_t n, bool log_of_it)
{
    const float most = largest(x, n);
    const bool masked = isinf(most) && most < 0;
    const double sum = sum_of_exp(log_of_it ? NULL : x, x, n,
                                  masked ? 0.0f : most);
    const double shift = (double)most + log(sum);
    const double scale = 1.0 / sum;
    if (masked && !isnan(sum)) {        /* -inf everywhere: no 0 / 0 */
        for (int64_t i = 0; i < n; i++)
            x[i] = log_of_it ? -INFINITY : 0.0f;
        return;
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(log_of_it ? (double)x[i] - shift
                                 : (double)x[i] * scale);
}

static void softmax_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const rows *r = context;
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++)
        softmax_row(r->x + i * r->size, r->size, r->flag);
}

static void cumsum_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const rows *r = context;
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < r->size; j++) {
            float *x = &r->x[i * r->size + j];
            sum += (double)*x;
            *x = (float)sum;
        }
    }
}

static qkv_tensor *change_rows(const qkv_tensor *t, int axis, bool flag,
                               qkv_body *body, qkv_error *err)
{
    rows r = {.flag = flag};
    qkv_tensor *x = rows_of(t, axis, err);
    if (x == NULL || each_row(x, &r, body, err))
        return rows_back(x, axis, err);
    qkv_tensor_release(x);
    return NULL;
}

qkv_tensor *qkv_cumsum(const qkv_tensor *t, int axis, qkv_error *err)
{
    return check(t, axis, "cumsum", err)
        ? change_rows(t, axis, false, cumsum_rows, err) : NULL;
}

qkv_tensor *qkv_softmax(const qkv_tensor *t, int axis, bool log,
                        qkv_error *err)
{
    const char *axes[QKV_MAX_DIMS];
    if (!check(t, axis, "softmax", err))
        return NULL;
    qkv_tensor *flat = change_rows(t, axis, log, softmax_rows, err);
    if (flat == NULL || axis >= 0)
        return flat;
    for (int i = 0; i < t->n_dims; i++)
        axes[i] = t->axis[i];
    qkv_tensor *out = qkv_tensor_reshape(flat, t->n_dims, t->shape, axes, err);
    qkv_tensor_release(flat);
    return out;
}

/* ---- top k and sort: a heap of the k best, the worst of them on top ---- */

/* Does (a, i) come before (b, j)? Larger (or smaller) values first, NaN
 * last, the lower index first among equals. */
static inline bool before(float a, int64_t i, float b, int64_t j,
                          bool descending)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? i < j : isnan(b);
    if (a < b || a > b)
        return (a > b) == descending;
    return i < j;
}

typedef struct heap {
    float *value;
    int64_t *index;
    int64_t n;
    bool descending;
} heap;

/* Is item i of the heap before item j? */
static inline bool is_before(const heap *h, int64_t i, int64_t j)
{
    return before(h->value[i], h->index[i], h->value[j], h->index[j],
                  h->descending);
}

static void swap(const heap *h, int64_t i, int64_t j)
{
    const float value = h->value[i];
    const int64_t index = h->index[i];
    h->value[i] = h->value[j];
    h->index[i] = h->index[j];
    h->value[j] = value;
    h->index[j] = index;
}

/* Let item i sink among the first n, below which all is in order. */
static void sink(const heap *h, int64_t i, int64_t n)
{
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_before(h, child, child + 1))
            child++;
        if (!is_before(h, i, child))
            return;
        swap(h, i, child);
    }
}

/* Fill the heap with the best k of x [n], in order. */
static void best_of(const heap *h, const float *x, int64_t n)
{
    const int64_t k = h->n;
    for (int64_t i = 0; i < k; i++) {
        h->value[i] = x[i];
        h->index[i] = i;
    }
    for (int64_t i = k / 2 - 1; i >= 0; i--)
        sink(h, i, k);
    for (int64_t i = k; i < n; i++)
        if (before(x[i], i, h->value[0], h->index[0], h->descending)) {
            h->value[0] = x[i];
            h->index[0] = i;
            sink(h, 0, k);
        }
    for (int64_t left = k - 1; left > 0; left--) {
        if (left % 4096 == 0 && qkv_interrupted())
            return;
        swap(h, 0, left);
        sink(h, 0, left);
    }
}

static void best_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const rows *r = context;
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++) {
        const heap h = {r->values + i * r->k, r->indices + i * r->k, r->k,
                        r->flag};
        best_of(&h, r->x + i * r->size, r->size);
    }
}

/* The first k along an axis, in order; indices may be NULL. */
static qkv_tensor *best_along(const qkv_tensor *t, int64_t k, int axis,
                              bool descending, qkv_tensor **indices,
                              qkv_error *err)
{
    qkv_tensor *x = rows_of(t, axis, err), *values = NULL, *places = NULL;
    bool good = x != NULL;
    if (good) {
        qkv_tensor shape = *x;
        shape.shape[x->n_dims - 1] = k;
        values = qkv_tensor_like(&shape, QKV_F32, err);
        places = values != NULL ? qkv_tensor_like(&shape, QKV_I64, err) : NULL;
        good = places != NULL;
    }
    if (good && k > 0) {
        rows r = {.flag = descending, .k = k,
                  .values = qkv_tensor_data(values),
                  .indices = qkv_tensor_data(places)};
        good = each_row(x, &r, best_rows, err);
    }
    qkv_tensor_release(x);
    if (!good) {
        qkv_tensor_release(values);
        qkv_tensor_release(places);
        return NULL;
    }
    values = rows_back(values, axis, err);
    if (values != NULL && indices != NULL) {
        places = *indices = rows_back(places, axis, err);
        if (places == NULL) {
            qkv_tensor_release(values);
            values = NULL;
        }
    } else {
        qkv_tensor_release(places);
    }
    return values;
}

qkv_tensor *qkv_topk(const qkv_tensor *t, int64_t k, int axis,
                     qkv_tensor **indices, qkv_error *err)
{
    char what[160];
    if (!check(t, axis, "top k", err))
        return NULL;
    const int64_t n = axis < 0 ? qkv_tensor_count(t) : t->shape[axis];
    if (k < 0 || k > n) {
        qkv_tensor_describe(t, what, sizeof what);
        qkv_fail(err, QKV_EINVAL, "the top %lld of %lld: %s", (long long)k,
                 (long long)n, what);
        return NULL;
    }
    return best_along(t, k, axis, true, indices, err);
}

qkv_tensor *qkv_sort(const qkv_tensor *t, int axis, bool descending,
                     qkv_tensor **indices, qkv_error *err)
{
    if (!check(t, axis, "sort", err))
        return NULL;
    const int64_t n = axis < 0 ? qkv_tensor_count(t) : t->shape[axis];
    return best_along(t, n, axis, descending, indices, err);
}
