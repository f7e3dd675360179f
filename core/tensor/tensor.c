/*
 * tensor.c - storage, making tensors, asking about them: see tensor.h
 *
 * Every tensor is made by qkv_tensor_strided or by copying a header
 * (tensor_view.c), so that what it points at was checked once, here.
 */
#include "config.h"

#include "tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

/* ---- storage ---- */

qkv_storage *qkv_storage_wrap(void *data, size_t bytes,
                              void (*free_data)(void *owner), void *owner,
                              qkv_error *err)
{
    qkv_storage *s = qkv_alloc_zero(1, sizeof *s, err);
    if (s == NULL)
        return NULL;
    *s = (qkv_storage){.refs = 1, .data = data, .bytes = bytes,
                       .free_data = free_data, .owner = owner};
    return s;
}

qkv_storage *qkv_storage_new(size_t bytes, qkv_error *err)
{
    void *data = qkv_alloc(bytes, err);
    if (data == NULL)
        return NULL;
    qkv_storage *s = qkv_storage_wrap(data, bytes, qkv_free, data, err);
    if (s == NULL)
        qkv_free(data);
    return s;
}

qkv_storage *qkv_storage_retain(qkv_storage *s)
{
    s->refs++;
    return s;
}

void qkv_storage_release(qkv_storage *s)
{
    if (s == NULL || --s->refs > 0)
        return;
    if (s->free_data != NULL)
        s->free_data(s->owner);
    qkv_free(s);
}

/* ---- making and letting go ---- */

static bool too_large(qkv_dtype dtype, int n_dims, const int64_t *shape,
                      qkv_error *err)
{
    qkv_tensor meant = {.dtype = dtype, .n_dims = n_dims};
    char what[160];
    for (int i = 0; i < n_dims; i++)
        meant.shape[i] = shape[i];
    qkv_tensor_describe(&meant, what, sizeof what);
    return qkv_fail(err, QKV_ESHAPE, "%s is more than can be addressed", what);
}

/* Sizes in range, and a product that fits 63 bits even if a 0 counts as 1:
 * then no stride, count or product of some axes can overflow. */
static bool check_shape(qkv_dtype dtype, int n_dims, const int64_t *shape,
                        qkv_error *err)
{
    int64_t count = qkv_dtypes[dtype].bytes;
    if (n_dims < 0 || n_dims > QKV_MAX_DIMS)
        return qkv_fail(err, QKV_ESHAPE, "%d axes: a tensor has 0 to %d",
                        n_dims, QKV_MAX_DIMS);
    for (int i = 0; i < n_dims; i++)
        if (shape[i] < 0)
            return qkv_fail(err, QKV_ESHAPE,
                            "axis %d has size %lld: sizes are 0 or more", i,
                            (long long)shape[i]);
    for (int i = 0; i < n_dims; i++)
        if (shape[i] > 0 && !qkv_int_mul(&count, count, shape[i]))
            return too_large(dtype, n_dims, shape, err);
    return true;
}

bool qkv_tensor_bytes(size_t *out, qkv_dtype dtype, int n_dims,
                      const int64_t *shape, qkv_error *err)
{
    const qkv_dtype_info *info = &qkv_dtypes[dtype];
    if (!check_shape(dtype, n_dims, shape, err))
        return false;
    const int64_t last = n_dims > 0 ? shape[n_dims - 1] : 1;
    if (last % info->block != 0)
        return qkv_fail(err, QKV_ESHAPE,
                        "rows of %lld values: %s comes in blocks of %lld",
                        (long long)last, info->name, (long long)info->block);
    int64_t count = 1;
    for (int i = 0; i < n_dims; i++)
        count *= shape[i];
    const int64_t bytes = count / info->block * info->bytes;
    if ((uint64_t)bytes > SIZE_MAX / 2)
        return too_large(dtype, n_dims, shape, err);
    *out = (size_t)bytes;
    return true;
}

static void row_major(int64_t *stride, int n_dims, const int64_t *shape)
{
    int64_t step = 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape[i] > 0 ? shape[i] : 1;
    }
}

/* Quantised: one axis of stride 1 and whole blocks, the others whole blocks
 * apart. */
static bool check_blocks(const qkv_tensor *t, qkv_error *err)
{
    const int64_t block = qkv_dtypes[t->dtype].block;
    int rows = 0;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->stride[i] == 1)
            rows++;
        if ((t->stride[i] == 1 ? t->shape[i] : t->stride[i]) % block != 0)
            rows = 2;
    }
    return block == 1 || rows == 1
        || qkv_fail(err, QKV_ESHAPE, "%s comes in rows of whole blocks of %lld",
                    qkv_dtypes[t->dtype].name, (long long)block);
}

/* Does t, from its offset on, lie inside its storage? */
static bool check_inside(const qkv_tensor *t, qkv_error *err)
{
    const qkv_dtype_info *info = &qkv_dtypes[t->dtype];
    int64_t extent = 1, step, bytes;    /* elements from first to last */
    bool fits = t->offset >= 0, empty = false;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->stride[i] < 0)
            return qkv_fail(err, QKV_ESHAPE,
                            "axis %d has stride %lld: strides are 0 or more",
                            i, (long long)t->stride[i]);
        empty = empty || t->shape[i] == 0;
    }
    for (int i = 0; i < t->n_dims && fits && !empty; i++)
        fits = qkv_int_mul(&step, t->shape[i] - 1, t->stride[i])
            && qkv_int_add(&extent, extent, step);
    extent = empty ? 0 : extent / info->block;
    if (fits && qkv_int_mul(&bytes, extent, info->bytes)
        && qkv_int_add(&bytes, bytes, t->offset)
        && (uint64_t)bytes <= t->storage->bytes)
        return true;
    char what[160];
    qkv_tensor_describe(t, what, sizeof what);
    return qkv_fail(err, QKV_ESHAPE,
                    "%s at byte %lld does not lie inside %zu bytes", what,
                    (long long)t->offset, t->storage->bytes);
}

qkv_tensor *qkv_tensor_strided(qkv_storage *s, size_t offset, qkv_dtype dtype,
                               int n_dims, const int64_t *shape,
                               const int64_t *stride, const char *const *axes,
                               qkv_error *err)
{
    if (!check_shape(dtype, n_dims, shape, err))
        return NULL;
    qkv_tensor *t = qkv_alloc_zero(1, sizeof *t, err);
    if (t == NULL)
        return NULL;
    t->refs = 1;
    t->dtype = dtype;
    t->n_dims = n_dims;
    t->offset = offset <= INT64_MAX ? (int64_t)offset : -1;
    t->storage = qkv_storage_retain(s);
    for (int i = 0; i < n_dims; i++) {
        t->shape[i] = shape[i];
        t->stride[i] = stride[i];
    }
    bool good = check_blocks(t, err) && check_inside(t, err);
    for (int i = 0; i < n_dims && good && axes != NULL; i++)
        good = qkv_tensor_name(t, i, axes[i], err);
    if (good)
        return t;
    qkv_tensor_release(t);
    return NULL;
}

qkv_tensor *qkv_tensor_over(qkv_storage *s, size_t offset, qkv_dtype dtype,
                            int n_dims, const int64_t *shape,
                            const char *const *axes, qkv_error *err)
{
    size_t bytes;
    int64_t stride[QKV_MAX_DIMS];
    if (!qkv_tensor_bytes(&bytes, dtype, n_dims, shape, err))
        return NULL;
    row_major(stride, n_dims, shape);
    return qkv_tensor_strided(s, offset, dtype, n_dims, shape, stride, axes,
                              err);
}

qkv_tensor *qkv_tensor_new(qkv_dtype dtype, int n_dims, const int64_t *shape,
                           const char *const *axes, qkv_error *err)
{
    size_t bytes;
    if (!qkv_tensor_bytes(&bytes, dtype, n_dims, shape, err))
        return NULL;
    qkv_storage *s = qkv_storage_new(bytes, err);
    if (s == NULL)
        return NULL;
    qkv_tensor *t = qkv_tensor_over(s, 0, dtype, n_dims, shape, axes, err);
    qkv_storage_release(s);
    return t;
}

qkv_tensor *qkv_tensor_zeros(qkv_dtype dtype, int n_dims, const int64_t *shape,
                             const char *const *axes, qkv_error *err)
{
    size_t bytes;
    if (qkv_is_quantised(dtype)) {
        qkv_fail(err, QKV_EUNSUPPORTED, "zeros of type %s: plain types only",
                 qkv_dtypes[dtype].name);
        return NULL;
    }
    if (!qkv_tensor_bytes(&bytes, dtype, n_dims, shape, err))
        return NULL;
    void *data = qkv_alloc_zero(bytes, 1, err);
    if (data == NULL)
        return NULL;
    qkv_storage *s = qkv_storage_wrap(data, bytes, qkv_free, data, err);
    if (s == NULL) {
        qkv_free(data);
        return NULL;
    }
    qkv_tensor *t = qkv_tensor_over(s, 0, dtype, n_dims, shape, axes, err);
    qkv_storage_release(s);
    return t;
}

qkv_tensor *qkv_tensor_retain(qkv_tensor *t)
{
    t->refs++;
    return t;
}

void qkv_tensor_release(qkv_tensor *t)
{
    if (t == NULL || --t->refs > 0)
        return;
    qkv_storage_release(t->storage);
    qkv_free(t);
}

/* ---- asking ---- */

int64_t qkv_tensor_count(const qkv_tensor *t)
{
    int64_t count = 1;
    for (int i = 0; i < t->n_dims; i++)
        count *= t->shape[i];
    return count;
}

bool qkv_tensor_is_contiguous(const qkv_tensor *t)
{
    int64_t step = 1;
    if (qkv_tensor_count(t) == 0)
        return true;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != step)
            return false;
        step *= t->shape[i];
    }
    return true;
}

int qkv_tensor_axis(const qkv_tensor *t, const char *name, qkv_error *err)
{
    const char *names[QKV_MAX_DIMS];
    size_t n_names = 0;
    for (int i = 0; i < t->n_dims; i++) {
        if (name[0] != '\0' && strcmp(t->axis[i], name) == 0)
            return i;
        if (t->axis[i][0] != '\0')
            names[n_names++] = t->axis[i];
    }
    char *end, what[160];
    const long number = strtol(name, &end, 10);
    if (end != name && *end == '\0' && number >= -t->n_dims
        && number < t->n_dims)
        return (int)(number < 0 ? number + t->n_dims : number);
    qkv_tensor_describe(t, what, sizeof what);
    const char *nearest = qkv_text_nearest(name, names, n_names);
    qkv_fail(err, QKV_ENOTFOUND, "no axis '%.40s' in %s%s%s%s", name, what,
             nearest != NULL ? "; did you mean '" : "",
             nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
    return -1;
}

bool qkv_tensor_name(qkv_tensor *t, int i, const char *name, qkv_error *err)
{
    if (name == NULL)
        name = "";
    if (strlen(name) >= QKV_AXIS_ROOM)
        return qkv_fail(err, QKV_EINVAL,
                        "axis name '%.40s' is longer than %d bytes", name,
                        QKV_AXIS_ROOM - 1);
    for (int j = 0; j < t->n_dims; j++)
        if (j != i && name[0] != '\0' && strcmp(t->axis[j], name) == 0)
            return qkv_fail(err, QKV_EINVAL,
                            "axis name '%s' for axes %d and %d", name,
                            j < i ? j : i, j < i ? i : j);
    memset(t->axis[i], 0, QKV_AXIS_ROOM);
    memcpy(t->axis[i], name, strlen(name));
    return true;
}

void qkv_tensor_describe(const qkv_tensor *t, char *out, size_t room)
{
    if (room == 0)
        return;
    size_t used = 0;
    const int wrote = snprintf(out, room, "%s [", qkv_dtypes[t->dtype].name);
    used = wrote > 0 ? (size_t)wrote : 0;
    for (int i = 0; i < t->n_dims && used < room; i++) {
        const int n = snprintf(out + used, room - used, "%s%s%s%lld",
                               i > 0 ? ", " : "", t->axis[i],
                               t->axis[i][0] != '\0' ? " " : "",
                               (long long)t->shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < room)
        snprintf(out + used, room - used, "]");
}

bool qkv_index(int64_t *index, int64_t size, const char *what, qkv_error *err)
{
    if (*index >= -size && *index < size) {
        *index += *index < 0 ? size : 0;
        return true;
    }
    if (size == 0)
        return qkv_fail(err, QKV_EINVAL, "%s %lld of 0: there is none", what,
                        (long long)*index);
    return qkv_fail(err, QKV_EINVAL, "%s %lld of %lld: 0 to %lld, or -%lld to "
                    "-1 from the end", what, (long long)*index,
                    (long long)size, (long long)size - 1, (long long)size);
}
