/*
 * tensor_view.c - new headers over the same storage: see tensor.h
 *
 * A view starts as a copy of the header and is then narrowed. Strides,
 * offset and shape can only shrink what the header covers, so nothing needs
 * to be checked against the storage again.
 */
#include "config.h"

#include "tensor/tensor.h"

#include <string.h>

#include "base/alloc.h"
#include "tensor/walk.h"

qkv_tensor *qkv_tensor_view(const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *view = qkv_alloc(sizeof *view, err);
    if (view == NULL)
        return NULL;
    *view = *t;
    view->refs = 1;
    qkv_storage_retain(view->storage);
    return view;
}

/* Move the first element, if there is one; `elements` are whole blocks. */
static void advance(qkv_tensor *t, int64_t elements)
{
    const qkv_dtype_info *info = &qkv_dtypes[t->dtype];
    if (qkv_tensor_count(t) > 0)
        t->offset += elements / info->block * info->bytes;
}

static void remove_axis(qkv_tensor *t, int axis)
{
    for (int i = axis; i + 1 < t->n_dims; i++) {
        t->shape[i] = t->shape[i + 1];
        t->stride[i] = t->stride[i + 1];
        memcpy(t->axis[i], t->axis[i + 1], QKV_AXIS_ROOM);
    }
    t->n_dims--;
}

/* Is this the axis along which a quantised tensor's blocks lie? */
static bool holds_blocks(const qkv_tensor *t, int axis)
{
    return qkv_is_quantised(t->dtype) && t->stride[axis] == 1;
}

qkv_tensor *qkv_tensor_select(const qkv_tensor *t, int axis, int64_t index,
                              qkv_error *err)
{
    if (!qkv_check_axis(t, axis, err)
        || (holds_blocks(t, axis)
            && !qkv_check_plain(t, "one element of a row", err)))
        return NULL;
    const char *what = t->axis[axis][0] != '\0' ? t->axis[axis] : "index";
    if (!qkv_index(&index, t->shape[axis], what, err))
        return NULL;
    qkv_tensor *view = qkv_tensor_view(t, err);
    if (view != NULL) {
        advance(view, index * t->stride[axis]);
        remove_axis(view, axis);
    }
    return view;
}

/* An end of a slice: from the end when negative, cut to [0, size]. */
static int64_t slice_end(int64_t at, int64_t size)
{
    if (at < 0)
        at = at < -size ? 0 : at + size;
    return at < size ? at : size;
}

qkv_tensor *qkv_tensor_slice(const qkv_tensor *t, int axis, int64_t from,
                             int64_t to, qkv_error *err)
{
    if (!qkv_check_axis(t, axis, err))
        return NULL;
    const int64_t block = qkv_dtypes[t->dtype].block;
    from = slice_end(from, t->shape[axis]);
    to = slice_end(to, t->shape[axis]);
    if (holds_blocks(t, axis) && (from % block != 0 || to % block != 0)
        && !qkv_check_plain(t, "a part of a row", err))
        return NULL;
    qkv_tensor *view = qkv_tensor_view(t, err);
    if (view != NULL) {
        view->shape[axis] = to > from ? to - from : 0;
        advance(view, from * t->stride[axis]);
    }
    return view;
}

qkv_tensor *qkv_tensor_permute(const qkv_tensor *t, const int *order,
                               qkv_error *err)
{
    unsigned seen = 0;
    for (int i = 0; i < t->n_dims; i++) {
        if (!qkv_check_axis(t, order[i], err))
            return NULL;
        if ((seen >> order[i] & 1u) != 0) {
            qkv_fail(err, QKV_EINVAL, "axis %d twice in an order of axes",
                     order[i]);
            return NULL;
        }
        seen |= 1u << order[i];
    }
    qkv_tensor *view = qkv_tensor_view(t, err);
    for (int i = 0; i < t->n_dims && view != NULL; i++) {
        view->shape[i] = t->shape[order[i]];
        view->stride[i] = t->stride[order[i]];
        memcpy(view->axis[i], t->axis[order[i]], QKV_AXIS_ROOM);
    }
    return view;
}

qkv_tensor *qkv_tensor_transpose(const qkv_tensor *t, int a, int b,
                                 qkv_error *err)
{
    int order[QKV_MAX_DIMS];
    if (!qkv_check_axis(t, a, err) || !qkv_check_axis(t, b, err))
        return NULL;
    for (int i = 0; i < t->n_dims; i++)
        order[i] = i == a ? b : i == b ? a : i;
    return qkv_tensor_permute(t, order, err);
}

/* out [..., n] = t [..., query, key] where key = query + offset. The axis
 * takes query's name; key's is gone. */
qkv_tensor *qkv_tensor_diagonal(const qkv_tensor *t, int64_t offset,
                                qkv_error *err)
{
    const int last = t->n_dims - 1;
    char what[160];
    qkv_tensor_describe(t, what, sizeof what);
    if (last < 1) {
        qkv_fail(err, QKV_ESHAPE, "diagonal of %s: two axes at least", what);
        return NULL;
    }
    if (!qkv_check_plain(t, "the diagonal", err))
        return NULL;
    const int64_t rows = t->shape[last - 1], cols = t->shape[last];
    if (offset <= -rows || offset >= cols) {
        qkv_fail(err, QKV_EINVAL, "diagonal %lld of %s: %lld to %lld",
                 (long long)offset, what, (long long)(1 - rows),
                 (long long)cols - 1);
        return NULL;
    }
    const int64_t row = offset < 0 ? -offset : 0;
    const int64_t col = offset > 0 ? offset : 0;
    qkv_tensor *view = qkv_tensor_view(t, err);
    if (view != NULL) {
        advance(view, row * t->stride[last - 1] + col * t->stride[last]);
        view->shape[last - 1] = rows - row < cols - col ? rows - row
                                                        : cols - col;
        view->stride[last - 1] += t->stride[last];
        remove_axis(view, last);
    }
    return view;
}

/* shape with its -1, if any, worked out so that it has t's elements. */
static bool complete_shape(int64_t *out, const qkv_tensor *t, int n_dims,
                           const int64_t *shape, qkv_error *err)
{
    int64_t known = 1;
    const int64_t count = qkv_tensor_count(t);
    int open = -1;
    bool good = n_dims >= 0 && n_dims <= QKV_MAX_DIMS;
    qkv_tensor meant = {.dtype = t->dtype, .n_dims = good ? n_dims : 0};
    for (int i = 0; i < n_dims && good; i++) {
        out[i] = meant.shape[i] = shape[i];
        if (shape[i] == -1 && open < 0)
            open = i;
        else
            good = shape[i] >= 0 && qkv_int_mul(&known, known, shape[i]);
    }
    for (int i = 0; i < n_dims && i < QKV_MAX_DIMS; i++)
        meant.shape[i] = shape[i];
    if (good && open >= 0 && known > 0 && count % known == 0) {
        out[open] = count / known;
        return true;
    }
    if (good && open < 0 && known == count)
        return true;
    char from[160], to[160];
    qkv_tensor_describe(t, from, sizeof from);
    qkv_tensor_describe(&meant, to, sizeof to);
    return qkv_fail(err, QKV_ESHAPE, "%s has %lld elements; it cannot become "
                    "%s", from, (long long)count, to);
}

qkv_tensor *qkv_tensor_reshape(const qkv_tensor *t, int n_dims,
                               const int64_t *shape, const char *const *axes,
                               qkv_error *err)
{
    int64_t full[QKV_MAX_DIMS];
    if (!qkv_check_plain(t, "reshape", err)
        || !complete_shape(full, t, n_dims, shape, err))
        return NULL;
    qkv_tensor *row_major = qkv_tensor_is_contiguous(t)
        ? qkv_tensor_view(t, err) : qkv_tensor_clone(t, err);
    if (row_major == NULL)
        return NULL;
    qkv_tensor *view = qkv_tensor_over(row_major->storage,
                                       (size_t)row_major->offset, t->dtype,
                                       n_dims, full, axes, err);
    if (view != NULL)
        view->read_only = row_major->read_only;
    qkv_tensor_release(row_major);
    return view;
}
