/*
 * matmul.c - products of tensors: qkv_matmul of blas.h
 *
 * Matrices that lie in memory as BLAS can read them, rows or columns one
 * after the other, are read where they are; others are copied first.
 * Products with a quantised or half-precision W' go through qkv_product
 * (weight.h), which never unpacks all of W.
 */
#include "config.h"

#include <string.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/blas.h"
#include "tensor/walk.h"
#include "tensor/weight.h"

/* Products of fewer multiplications run side by side, each on one thread. */
#define SMALL_PRODUCT 1e6

/* The last two axes of an f32 tensor as BLAS takes them. */
typedef struct layout {
    bool transposed;
    int64_t ld;
} layout;

static bool lies_well(layout *out, const qkv_tensor *t)
{
    const int64_t rows = t->shape[t->n_dims - 2];
    const int64_t cols = t->shape[t->n_dims - 1];
    const int64_t row_step = t->stride[t->n_dims - 2];
    const int64_t col_step = t->stride[t->n_dims - 1];
    if (t->dtype != QKV_F32
        || (uintptr_t)qkv_tensor_data(t) % sizeof(float) != 0)
        return false;
    if ((cols <= 1 || col_step == 1)
        && (rows <= 1 || (row_step >= cols && row_step > 0))) {
        *out = (layout){false, rows <= 1 ? cols : row_step};
    } else if ((rows <= 1 || row_step == 1)
               && (cols <= 1 || (col_step >= rows && col_step > 0))) {
        *out = (layout){true, cols <= 1 ? rows : col_step};
    } else {
        return false;
    }
    out->ld = out->ld > 0 ? out->ld : 1;
    return true;
}

/* t, or a contiguous f32 copy of it: a reference, laid out as BLAS reads. */
static qkv_tensor *readable(layout *out, const qkv_tensor *t, qkv_error *err)
{
    if (lies_well(out, t))
        return qkv_tensor_view(t, err);
    qkv_tensor *copy = qkv_tensor_float(t, err);
    if (copy != NULL)
        lies_well(out, copy);
    return copy;
}

/* ---- shapes ---- */

/* a vector as a matrix: [k] -> [1, k] (front) or [k, 1]. */
static qkv_tensor *as_matrix(const qkv_tensor *t, bool front, qkv_error *err)
{
    qkv_tensor *view = qkv_tensor_view(t, err);
    if (view == NULL || t->n_dims > 1)
        return view;
    view->n_dims = 2;
    view->shape[front ? 1 : 0] = t->shape[0];
    view->stride[front ? 1 : 0] = t->stride[0];
    view->shape[front ? 0 : 1] = 1;
    /* A transposed row of blocks is whole blocks away from the next. */
    view->stride[front ? 0 : 1] = t->shape[0] > 0 ? t->shape[0] : 1;
    memset(view->axis, 0, sizeof view->axis);
    memcpy(view->axis[front ? 1 : 0], t->axis[0], QKV_AXIS_ROOM);
    return view;
}

/* Name axis i of a header, unless the name is taken. */
static void name_if_free(qkv_tensor *t, int i, const char *name)
{
    qkv_error ignored;
    qkv_tensor_name(t, i, name, &ignored);
}

/* out [..., m, n] as a header, for a [..., m, k] and b [..., k, n]. */
static bool product_shape(qkv_tensor *out, const qkv_tensor *a,
                          const qkv_tensor *b, qkv_error *err)
{
    char left[160], right[160];
    qkv_tensor batch_a = *a, batch_b = *b;
    const int64_t ka = a->shape[a->n_dims - 1], kb = b->shape[b->n_dims - 2];
    if (ka != kb) {
        qkv_tensor_describe(a, left, sizeof left);
        qkv_tensor_describe(b, right, sizeof right);
        return qkv_fail(err, QKV_ESHAPE, "%s times %s: rows of %lld values "
                        "against columns of %lld", left, right, (long long)ka,
                        (long long)kb);
    }
    batch_a.n_dims -= 2;
    batch_b.n_dims -= 2;
    if (!qkv_broadcast(out, &batch_a, &batch_b, err))
        return false;
    const int n = out->n_dims;
    out->n_dims += 2;
    out->shape[n] = a->shape[a->n_dims - 2];
    out->shape[n + 1] = b->shape[b->n_dims - 1];
    name_if_free(out, n, a->axis[a->n_dims - 2]);
    name_if_free(out, n + 1, b->axis[b->n_dims - 1]);
    return true;
}

/* ---- products in batches ---- */

typedef struct batch {
    qkv_tensor a, b, out;       /* headers to change, without references */
    layout la, lb;
} batch;

/* Matrix `index` (of the batch of out) of t, which broadcasts to it. */
static float *matrix(const qkv_tensor *t, const qkv_tensor *out, int64_t index)
{
    int64_t at = 0;
    for (int i = out->n_dims - 3; i >= 0; i--) {
        const int here = i - (out->n_dims - t->n_dims);
        if (here >= 0 && t->shape[here] != 1)
            at += index % out->shape[i] * t->stride[here];
        index /= out->shape[i];
    }
    return (float *)qkv_tensor_data(t) + at;
}

static void small_products(void *context, int64_t begin, int64_t end,
                           int thread)
{
    const batch *p = context;
    const int n_dims = p->out.n_dims;
    const int64_t m = p->out.shape[n_dims - 2], n = p->out.shape[n_dims - 1];
    const int64_t k = p->a.shape[p->a.n_dims - 1];
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++)
        qkv_gemm_1(p->la.transposed, p->lb.transposed, m, n, k, 1.0f,
                   matrix(&p->a, &p->out, i), p->la.ld,
                   matrix(&p->b, &p->out, i), p->lb.ld, 0.0f,
                   matrix(&p->out, &p->out, i), n);
}

static bool run_batch(const batch *p, qkv_error *err)
{
    const int n_dims = p->out.n_dims;
    const int64_t m = p->out.shape[n_dims - 2], n = p->out.shape[n_dims - 1];
    const int64_t k = p->a.shape[p->a.n_dims - 1];
    int64_t count = 1;
    bool good = true;
    for (int i = 0; i < n_dims - 2; i++)
        count *= p->out.shape[i];
    if (count > 1 && (double)m * (double)n * (double)k < SMALL_PRODUCT
        && p->la.ld < INT32_MAX && p->lb.ld < INT32_MAX) {
        qkv_parallel(count, 8, small_products, (void *)(uintptr_t)p);
        return qkv_check(err);
    }
    for (int64_t i = 0; i < count && good; i++)
        good = qkv_gemm(p->la.transposed, p->lb.transposed, m, n, k, 1.0f,
                        matrix(&p->a, &p->out, i), p->la.ld,
                        matrix(&p->b, &p->out, i), p->lb.ld, 0.0f,
                        matrix(&p->out, &p->out, i), n > 0 ? n : 1, err);
    return good;
}

/* a [..., m, k] b [k, n] is one product if a's rows lie at one distance. */
static void fold(batch *p)
{
    if (p->b.n_dims != 2 || p->a.n_dims == 2 || p->la.transposed
        || !qkv_tensor_is_contiguous(&p->a))
        return;
    const int last = p->a.n_dims - 1;
    const int64_t k = p->a.shape[last], n = p->out.shape[last];
    int64_t rows = 1;
    for (int i = 0; i < last; i++)
        rows *= p->a.shape[i];
    p->a.n_dims = p->out.n_dims = 2;
    p->a.shape[0] = p->out.shape[0] = rows;
    p->a.shape[1] = k;
    p->out.shape[1] = n;
    p->la.ld = k > 0 ? k : 1;
}

/* out [..., m, n] = a [..., m, k] b [..., k, n], plain types, into out, a
 * new contiguous f32 tensor. */
static bool plain_product(const qkv_tensor *out, const qkv_tensor *a,
                          const qkv_tensor *b, qkv_error *err)
{
    layout la, lb;
    qkv_tensor *from_a = readable(&la, a, err);
    qkv_tensor *from_b = from_a != NULL ? readable(&lb, b, err) : NULL;
    bool good = from_b != NULL;
    if (good) {
        batch p = {*from_a, *from_b, *out, la, lb};
        fold(&p);
        good = run_batch(&p, err);
    }
    qkv_tensor_release(from_a);
    qkv_tensor_release(from_b);
    return good;
}

/* ---- products with stored weights ---- */

/* Is b the transpose of a matrix that qkv_product reads better than BLAS?
 * One without elements is not: a weight has rows of one value at least. */
static bool is_weight(const qkv_tensor *b)
{
    const bool turned = b->n_dims == 2 && b->stride[0] == 1;
    return qkv_tensor_count(b) > 0
        && (qkv_is_quantised(b->dtype)
            || (turned && (b->dtype == QKV_F16 || b->dtype == QKV_BF16)));
}

/* out [..., m, n] = a [..., m, k] W', b = W'. */
static bool weight_product(const qkv_tensor *out, const qkv_tensor *a,
                           const qkv_tensor *b, qkv_error *err)
{
    qkv_weight w = {0};
    char what[160];
    if (b->n_dims != 2 || b->stride[0] != 1) {
        qkv_tensor_describe(b, what, sizeof what);
        return qkv_fail(err, QKV_EUNSUPPORTED, "a product with %s, whose "
                        "blocks do not run along the summed axis: transpose "
                        "it, or convert it to float first", what);
    }
    const int64_t k = b->shape[0], n = b->shape[1];
    const int64_t rows = qkv_tensor_count(out) / n;
    qkv_tensor *x = qkv_tensor_float(a, err);
    qkv_tensor *stored = qkv_tensor_transpose(b, 0, 1, err);
    const bool good = x != NULL && stored != NULL
        && (rows == 0
            || (qkv_weight_init(&w, stored, false, err)
                && qkv_product(qkv_tensor_data(out), n, qkv_tensor_data(x), k,
                               rows, &w, NULL, err)));
    qkv_weight_reset(&w);
    qkv_tensor_release(stored);
    qkv_tensor_release(x);
    return good;
}

/* W [m, k] b [k, n] with blocks in W: (b' W')' */
static qkv_tensor *product_of_weight(const qkv_tensor *a, const qkv_tensor *b,
                                     qkv_error *err)
{
    const bool vector = b->n_dims == 1;
    qkv_tensor *ta = qkv_tensor_transpose(a, 0, 1, err);
    qkv_tensor *tb = vector ? qkv_tensor_view(b, err)
                            : qkv_tensor_transpose(b, 0, 1, err);
    qkv_tensor *out = ta != NULL && tb != NULL ? qkv_matmul(tb, ta, err) : NULL;
    qkv_tensor_release(ta);
    qkv_tensor_release(tb);
    if (out == NULL || vector)
        return out;
    qkv_tensor *turned = qkv_tensor_transpose(out, 0, 1, err);
    qkv_tensor_release(out);
    out = turned != NULL ? qkv_tensor_clone(turned, err) : NULL;
    qkv_tensor_release(turned);
    return out;
}

/* ---- the product ---- */

/* a, b: two dimensions or more. */
static qkv_tensor *matrix_product(const qkv_tensor *a, const qkv_tensor *b,
                                  qkv_error *err)
{
    qkv_tensor shape;
    if (!product_shape(&shape, a, b, err))
        return NULL;
    qkv_tensor *out = qkv_tensor_like(&shape, QKV_F32, err);
    if (out == NULL || (is_weight(b) ? weight_product(out, a, b, err)
                                     : plain_product(out, a, b, err)))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

/* t without axis i, of size 1; takes t. */
static qkv_tensor *drop_axis(qkv_tensor *t, int i, qkv_error *err)
{
    qkv_tensor *view = t != NULL ? qkv_tensor_select(t, i, 0, err) : NULL;
    qkv_tensor_release(t);
    return view;
}

qkv_tensor *qkv_matmul(const qkv_tensor *a, const qkv_tensor *b,
                       qkv_error *err)
{
    char left[160], right[160];
    if (a->n_dims == 0 || b->n_dims == 0) {
        qkv_tensor_describe(a, left, sizeof left);
        qkv_tensor_describe(b, right, sizeof right);
        qkv_fail(err, QKV_ESHAPE, "%s times %s: a product needs vectors or "
                 "matrices; for numbers use *", left, right);
        return NULL;
    }
    if (qkv_is_quantised(a->dtype)) {
        if (a->n_dims == 2 && b->n_dims <= 2 && !qkv_is_quantised(b->dtype))
            return product_of_weight(a, b, err);
        qkv_check_plain(a, "a product", err);
        return NULL;
    }
    qkv_tensor *ma = as_matrix(a, true, err);
    qkv_tensor *mb = ma != NULL ? as_matrix(b, false, err) : NULL;
    qkv_tensor *out = mb != NULL ? matrix_product(ma, mb, err) : NULL;
    qkv_tensor_release(ma);
    qkv_tensor_release(mb);
    if (b->n_dims == 1 && out != NULL)
        out = drop_axis(out, out->n_dims - 1, err);
    if (a->n_dims == 1 && out != NULL)
        out = drop_axis(out, out->n_dims - 1 - (b->n_dims > 1), err);
    return out;
}
