/*
 * neighbours.c - how alike rows are, and which are nearest: see neighbours.h
 *
 * Rows are taken in blocks of BLOCK values, made float32, scaled to length 1
 * where the likeness asks for it, and multiplied block by block, so that a
 * quantised matrix is never unpacked whole.
 */
#include "config.h"

#include "probes/neighbours.h"

#include <math.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/blas.h"
#include "tensor/elementwise.h"
#include "tensor/kernel.h"
#include "tensor/reduce.h"

enum { BLOCK = 1 << 22 };       /* values of a block: 16 MB */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- rows ---- */

/* t as rows [n, d], a new reference; a vector is one row. */
static qkv_tensor *as_rows(const qkv_tensor *t, qkv_error *err)
{
    if (t->n_dims == 2)
        return qkv_tensor_view(t, err);
    if (t->n_dims == 1)
        return qkv_tensor_reshape(t, 2, (int64_t[]){1, t->shape[0]},
                                  (const char *[]){"", t->axis[0]}, err);
    char what[160];
    qkv_tensor_describe(t, what, sizeof what);
    qkv_fail(err, QKV_ESHAPE, "%s: rows [n, d] or a vector expected", what);
    return NULL;
}

static bool same_width(const qkv_tensor *a, const qkv_tensor *b,
                       qkv_error *err)
{
    if (a->shape[1] == b->shape[1])
        return true;
    char left[160], right[160];
    qkv_tensor_describe(a, left, sizeof left);
    qkv_tensor_describe(b, right, sizeof right);
    return qkv_fail(err, QKV_ESHAPE, "rows of %s against rows of %s: as many "
                    "columns expected", left, right);
}

/* row [d] = (row - mean) / |row - mean|, the mean of correlations only. */
static void scale_row(qkv_likeness how, float *row, int64_t d)
{
    const qkv_kernels *kernel = qkv_kernel();
    const double mean = how == QKV_CORRELATION && d > 0
        ? kernel->sum(row, d) / (double)d : 0;
    const double squares = kernel->sum_squares(row, mean, d);
    const double scale = 1 / sqrt(squares);     /* 0: inf, and 0 * inf is NaN */
    for (int64_t i = 0; i < d; i++)
        row[i] = (float)(((double)row[i] - mean) * scale);
}

typedef struct scaling {
    qkv_likeness how;
    float *rows;
    int64_t d;
} scaling;

static void scale_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const scaling *s = context;
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++)
        scale_row(s->how, s->rows + i * s->d, s->d);
}

/* Rows [from, to) of t as f32 of our own, ready for products. */
static qkv_tensor *ready_rows(qkv_likeness how, const qkv_tensor *t,
                              int64_t from, int64_t to, qkv_error *err)
{
    qkv_tensor *part = qkv_tensor_slice(t, 0, from, to, err);
    qkv_tensor *out = part != NULL ? qkv_tensor_to(part, QKV_F32, err) : NULL;
    qkv_tensor_release(part);
    if (out == NULL || how == QKV_DOT || how == QKV_L2)
        return out;
    scaling s = {how, qkv_tensor_data(out), t->shape[1]};
    qkv_parallel(to - from, 64, scale_rows, &s);
    if (qkv_check(err))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

/* ---- rows against rows ---- */

typedef struct distances {
    float *out;
    int64_t out_stride;
    const float *a, *b;
    int64_t m, d;
} distances;

static void distance_rows(void *context, int64_t begin, int64_t end,
                          int thread)
{
    const distances *w = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < w->m && !qkv_interrupted(); j++) {
            const float *a = w->a + i * w->d, *b = w->b + j * w->d;
            double squares = 0;
            for (int64_t l = 0; l < w->d; l++) {
                const double gap = (double)a[l] - (double)b[l];
                squares += gap * gap;
            }
            w->out[i * w->out_stride + j] = (float)sqrt(squares);
        }
}

/* out [n, m], rows out_stride apart, of ready rows a [n, d] and b [m, d]. */
static bool fill_block(qkv_likeness how, float *out, int64_t out_stride,
                       const qkv_tensor *a, const qkv_tensor *b,
                       qkv_error *err)
{
    const int64_t n = a->shape[0], m = b->shape[0], d = a->shape[1];
    const float *x = qkv_tensor_data(a), *y = qkv_tensor_data(b);
    if (how == QKV_L2) {
        distances w = {out, out_stride, x, y, m, d};
        qkv_parallel(n, 1, distance_rows, &w);
        return qkv_check(err);
    }
    if (!qkv_gemm(false, true, n, m, d, 1, x, d, y, d, 0, out, out_stride,
                  err))
        return false;
    /* Rounding may give 1.0000001; NaN stays. */
    for (int64_t i = 0; i < n && how != QKV_DOT; i++)
        for (int64_t j = 0; j < m; j++) {
            float *x_ij = &out[i * out_stride + j];
            *x_ij = *x_ij > 1 ? 1 : *x_ij < -1 ? -1 : *x_ij;
        }
    return true;
}

/* out [n, m], empty, with the axis names that can be kept. */
static qkv_tensor *new_table(const qkv_tensor *a, const qkv_tensor *b,
                             qkv_error *err)
{
    const int64_t shape[] = {a->shape[0], b->shape[0]};
    const bool same = strcmp(a->axis[0], b->axis[0]) == 0;
    const char *const axes[] = {a->axis[0], same ? "" : b->axis[0]};
    return qkv_tensor_new(QKV_F32, 2, shape, axes, err);
}

static bool fill_table(qkv_likeness how, qkv_tensor *out, const qkv_tensor *a,
                       const qkv_tensor *b, qkv_error *err)
{
    const int64_t n = a->shape[0], m = b->shape[0], d = a->shape[1];
    const int64_t rows = d < BLOCK ? BLOCK / (d > 0 ? d : 1) : 1;
    float *data = qkv_tensor_data(out);
    bool good = true;
    for (int64_t i = 0; i < n && good; i += rows) {
        qkv_tensor *left = ready_rows(how, a, i, least(i + rows, n), err);
        good = left != NULL;
        for (int64_t j = 0; j < m && good; j += rows) {
            qkv_tensor *right = ready_rows(how, b, j, least(j + rows, m),
                                           err);
            good = right != NULL
                && fill_block(how, data + i * m + j, m, left, right, err);
            qkv_tensor_release(right);
        }
        qkv_tensor_release(left);
    }
    return good;
}

qkv_tensor *qkv_alike_rows(qkv_likeness how, const qkv_tensor *a,
                           const qkv_tensor *b, qkv_error *err)
{
    qkv_tensor *x = as_rows(a, err);
    qkv_tensor *y = x != NULL ? as_rows(b, err) : NULL;
    qkv_tensor *out = y != NULL && same_width(x, y, err)
        ? new_table(x, y, err) : NULL;
    if (out != NULL && !fill_table(how, out, x, y, err)) {
        qkv_tensor_release(out);
        out = NULL;
    }
    qkv_tensor_release(x);
    qkv_tensor_release(y);
    return out;
}

/* ---- pairs ---- */

/* The likeness of two vectors, in double throughout. */
static double alike(qkv_likeness how, const float *a, const float *b,
                    int64_t d)
{
    const qkv_kernels *kernel = qkv_kernel();
    const bool centred = how == QKV_CORRELATION && d > 0;
    const double mean_a = centred ? kernel->sum(a, d) / (double)d : 0;
    const double mean_b = centred ? kernel->sum(b, d) / (double)d : 0;
    double aa = 0, bb = 0, ab = 0, gap = 0;
    for (int64_t i = 0; i < d; i++) {
        const double x = (double)a[i] - mean_a, y = (double)b[i] - mean_b;
        aa += x * x;
        bb += y * y;
        ab += x * y;
        gap += (x - y) * (x - y);
    }
    if (how == QKV_DOT || how == QKV_L2)
        return how == QKV_DOT ? ab : sqrt(gap);
    const double r = ab / (sqrt(aa) * sqrt(bb));
    return r > 1 ? 1 : r < -1 ? -1 : r;
}

/* t as contiguous f32 with `axis` moved to the end. */
static qkv_tensor *vectors_last(const qkv_tensor *t, int axis, qkv_error *err)
{
    int order[QKV_MAX_DIMS], n = 0;
    for (int i = 0; i < t->n_dims; i++)
        if (i != axis)
            order[n++] = i;
    order[n] = axis;
    qkv_tensor *turned = qkv_tensor_permute(t, order, err);
    qkv_tensor *out = turned != NULL ? qkv_tensor_float(turned, err) : NULL;
    qkv_tensor_release(turned);
    return out;
}

static bool same_shape(const qkv_tensor *a, const qkv_tensor *b, int axis,
                       qkv_error *err)
{
    bool same = a->n_dims == b->n_dims && axis >= 0 && axis < a->n_dims;
    for (int i = 0; i < a->n_dims && same; i++)
        same = a->shape[i] == b->shape[i];
    if (same)
        return true;
    char left[160], right[160];
    qkv_tensor_describe(a, left, sizeof left);
    qkv_tensor_describe(b, right, sizeof right);
    return qkv_fail(err, QKV_ESHAPE, "pairs of %s and %s: the same shape "
                    "expected", left, right);
}

qkv_tensor *qkv_alike_pairs(qkv_likeness how, const qkv_tensor *a,
                            const qkv_tensor *b, int axis, qkv_error *err)
{
    if (!same_shape(a, b, axis, err))
        return NULL;
    qkv_tensor *x = vectors_last(a, axis, err), *out = NULL;
    qkv_tensor *y = x != NULL ? vectors_last(b, axis, err) : NULL;
    if (y != NULL) {
        const char *axes[QKV_MAX_DIMS];
        for (int i = 0; i < x->n_dims; i++)
            axes[i] = x->axis[i];
        out = qkv_tensor_new(QKV_F32, x->n_dims - 1, x->shape, axes, err);
    }
    if (out != NULL) {
        const int64_t n = qkv_tensor_count(out), d = x->shape[x->n_dims - 1];
        const float *p = qkv_tensor_data(x), *q = qkv_tensor_data(y);
        float *to = qkv_tensor_data(out);
        for (int64_t i = 0; i < n && !qkv_interrupted(); i++)
            to[i] = (float)alike(how, p + i * d, q + i * d, d);
        if (!qkv_check(err)) {
            qkv_tensor_release(out);
            out = NULL;
        }
    }
    qkv_tensor_release(x);
    qkv_tensor_release(y);
    return out;
}

/* ---- nearest ---- */

/* -t in the place of t, whose reference it takes; NULL stays NULL. */
static qkv_tensor *negative(qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *out = t != NULL ? qkv_unary_op(QKV_NEG, t, err) : NULL;
    qkv_tensor_release(t);
    return out;
}

/* Queries [from, to) against all of x: the best k of each into rows
 * [from, to) of out and of indices. A distance is ranked by its negative. */
static bool nearest_part(qkv_tensor *out, qkv_tensor *indices,
                         qkv_likeness how, const qkv_tensor *x,
                         const qkv_tensor *query, int64_t from, int64_t to,
                         qkv_error *err)
{
    const int64_t k = out->shape[1];
    qkv_tensor *part = qkv_tensor_slice(query, 0, from, to, err);
    qkv_tensor *all = part ? qkv_alike_rows(how, part, x, err) : NULL;
    if (how == QKV_L2)
        all = negative(all, err);
    qkv_tensor *where = NULL;
    qkv_tensor *best = all ? qkv_topk(all, k, 1, &where, err) : NULL;
    if (how == QKV_L2)
        best = negative(best, err);
    qkv_tensor *to_best = best ? qkv_tensor_slice(out, 0, from, to, err)
                               : NULL;
    qkv_tensor *to_where = to_best ? qkv_tensor_slice(indices, 0, from, to,
                                                      err) : NULL;
    /* the names of queries and words are not those of the result */
    for (int i = 0; i < 2 && to_where != NULL; i++) {
        qkv_tensor_name(best, i, NULL, err);
        qkv_tensor_name(where, i, NULL, err);
    }
    const bool good = to_where != NULL && qkv_tensor_copy(to_best, best, err)
        && qkv_tensor_copy(to_where, where, err);
    qkv_tensor_release(part);
    qkv_tensor_release(all);
    qkv_tensor_release(best);
    qkv_tensor_release(where);
    qkv_tensor_release(to_best);
    qkv_tensor_release(to_where);
    return good;
}

static qkv_tensor *nearest_rows(qkv_tensor **indices, qkv_likeness how,
                                const qkv_tensor *x, const qkv_tensor *query,
                                int64_t k, qkv_error *err)
{
    const int64_t n = x->shape[0], m = query->shape[0];
    const int64_t shape[] = {m, least(k, n)};
    if (k < 0) {
        qkv_fail(err, QKV_EINVAL, "%lld nearest: 0 or more expected",
                 (long long)k);
        return NULL;
    }
    if (!same_width(x, query, err))
        return NULL;
    qkv_tensor *out = qkv_tensor_new(QKV_F32, 2, shape, NULL, err);
    *indices = out ? qkv_tensor_new(QKV_I64, 2, shape, NULL, err) : NULL;
    bool good = *indices != NULL;
    const int64_t some = n < BLOCK ? BLOCK / (n > 0 ? n : 1) : 1;
    for (int64_t i = 0; i < m && good && n > 0; i += some)
        good = nearest_part(out, *indices, how, x, query, i,
                            least(i + some, m), err);
    if (good)
        return out;
    qkv_tensor_release(out);
    qkv_tensor_release(*indices);
    *indices = NULL;
    return NULL;
}

qkv_tensor *qkv_nearest(qkv_tensor **indices, qkv_likeness how,
                        const qkv_tensor *x, const qkv_tensor *query,
                        int64_t k, qkv_error *err)
{
    qkv_tensor *rows = as_rows(x, err);
    qkv_tensor *asked = rows != NULL ? as_rows(query, err) : NULL;
    *indices = NULL;
    qkv_tensor *out = asked != NULL
        ? nearest_rows(indices, how, rows, asked, k, err) : NULL;
    qkv_tensor_release(rows);
    qkv_tensor_release(asked);
    return out;
}
