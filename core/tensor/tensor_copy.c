/*
 * tensor_copy.c - copies, conversions, writing: see tensor.h
 *
 * Elements of one type are moved as bytes, so that integers of 64 bits and
 * NaNs arrive as they left. A conversion goes through float where both ends
 * are floats, else through double.
 */
#include "config.h"

#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/quant.h"
#include "tensor/walk.h"

/* ---- moving elements: walks over {to, from} ---- */

static void move_bytes(void *context, const qkv_strip *s, int64_t n,
                       int64_t first)
{
    const int64_t bytes = qkv_dtypes[s[0].dtype].bytes;
    (void)context, (void)first;
    if (s[0].stride == bytes && s[1].stride == bytes) {
        memcpy(s[0].data, s[1].data, (size_t)(n * bytes));
        return;
    }
    char *to = s[0].data;
    const char *from = s[1].data;
    for (int64_t i = 0; i < n; i++, to += s[0].stride, from += s[1].stride)
        switch (bytes) {
        case 1: *to = *from; break;
        case 2: memcpy(to, from, 2); break;
        case 4: memcpy(to, from, 4); break;
        default: memcpy(to, from, 8);
        }
}

static void move_floats(void *context, const qkv_strip *s, int64_t n,
                        int64_t first)
{
    float room[QKV_RUN];
    (void)context, (void)first;
    qkv_strip_store_floats(&s[0], qkv_strip_floats(&s[1], n, room), n);
}

/* What could not be stored as an integer, if anything. */
typedef struct misfit {
    bool found;
    double value;
} misfit;

static void move_doubles(void *context, const qkv_strip *s, int64_t n,
                         int64_t first)
{
    double values[QKV_RUN];
    misfit *bad = context;
    (void)first;
    if (bad->found)
        return;
    qkv_strip_doubles(values, &s[1], n);
    const int64_t stored = qkv_strip_store(&s[0], values, n);
    if (stored < n)
        *bad = (misfit){true, values[stored]};
}

static bool refuse_value(double value, qkv_dtype dtype, qkv_error *err)
{
    return qkv_fail(err, QKV_EINVAL, "%g does not fit into %s", value,
                    qkv_dtypes[dtype].name);
}

/* to [...] = from, broadcast and converted. The two do not overlap; to may
 * be half written after an error. */
static bool move(const qkv_tensor *to, const qkv_tensor *from, qkv_error *err)
{
    qkv_walk w;
    misfit bad = {0};
    const bool same = to->dtype == from->dtype;
    const bool to_float = qkv_is_float(to->dtype);
    qkv_walk_init(&w, to->n_dims, to->shape);
    qkv_walk_add(&w, to);
    qkv_walk_add(&w, from);
    if (same || to_float)
        return qkv_walk_run(&w, false, same ? move_bytes : move_floats, NULL,
                            err);
    return qkv_walk_run(&w, true, move_doubles, &bad, err)
        && (!bad.found || refuse_value(bad.value, to->dtype, err));
}

/* ---- quantised tensors ---- */

/* The axis along which the blocks of a quantised tensor lie. */
static int block_axis(const qkv_tensor *t)
{
    int axis = t->n_dims - 1;
    while (axis > 0 && t->stride[axis] != 1)
        axis--;
    return axis;
}

/* t with the axis of its blocks last; order [n_dims] undoes that. */
static qkv_tensor *rows_last(int *order, const qkv_tensor *t, qkv_error *err)
{
    int forth[QKV_MAX_DIMS], n = 0;
    const int axis = block_axis(t);
    for (int i = 0; i < t->n_dims; i++)
        if (i != axis)
            forth[n++] = i;
    forth[n] = axis;
    for (int i = 0; i < t->n_dims; i++)
        order[forth[i]] = i;
    return qkv_tensor_permute(t, forth, err);
}

typedef struct rows {
    const qkv_tensor *from;     /* blocks along the last axis */
    float *out;                 /* row-major; NULL: raw blocks to `raw` */
    char *raw;
} rows;

static void move_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const rows *r = context;
    const qkv_tensor *t = r->from;
    const qkv_dtype_info *info = &qkv_dtypes[t->dtype];
    const int last = t->n_dims - 1;
    const int64_t k = t->shape[last], row_bytes = k / info->block * info->bytes;
    (void)thread;
    for (int64_t row = begin; row < end && !qkv_interrupted(); row++) {
        int64_t at = 0, rest = row;
        for (int i = last - 1; i >= 0; i--) {
            at += rest % t->shape[i] * t->stride[i];
            rest /= t->shape[i];
        }
        const char *from = (const char *)qkv_tensor_data(t)
            + at / info->block * info->bytes;
        if (r->out != NULL)
            qkv_unpack(r->out + row * k, t->dtype, from, k);
        else
            memcpy(r->raw + row * row_bytes, from, (size_t)row_bytes);
    }
}

/* A row-major copy, as f32 or as blocks, of a tensor whose blocks lie along
 * its last axis. */
static qkv_tensor *copy_rows(const qkv_tensor *t, bool as_float,
                             qkv_error *err)
{
    qkv_tensor *out = qkv_tensor_like(t, as_float ? QKV_F32 : t->dtype, err);
    const int64_t count = qkv_tensor_count(t);
    if (out == NULL || count == 0)
        return out;
    void *data = qkv_tensor_data(out);
    rows r = {.from = t, .out = as_float ? data : NULL, .raw = data};
    const int64_t n = count / t->shape[t->n_dims - 1];
    qkv_parallel(n, 64, move_rows, &r);
    if (qkv_check(err))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

static qkv_tensor *clone_quantised(const qkv_tensor *t, qkv_error *err)
{
    char what[160];
    if (block_axis(t) == t->n_dims - 1)
        return copy_rows(t, false, err);
    qkv_tensor_describe(t, what, sizeof what);
    qkv_fail(err, QKV_EUNSUPPORTED, "clone of %s, a transposed matrix of "
             "blocks: convert it to float, or clone it before transposing",
             what);
    return NULL;
}

static qkv_tensor *float_quantised(const qkv_tensor *t, qkv_error *err)
{
    int order[QKV_MAX_DIMS];
    qkv_tensor *from = rows_last(order, t, err);
    qkv_tensor *out = from != NULL ? copy_rows(from, true, err) : NULL;
    qkv_tensor_release(from);
    if (out == NULL || block_axis(t) == t->n_dims - 1)
        return out;
    qkv_tensor *turned = qkv_tensor_permute(out, order, err);
    qkv_tensor_release(out);
    out = turned != NULL ? qkv_tensor_clone(turned, err) : NULL;
    qkv_tensor_release(turned);
    return out;
}

/* ---- copies ---- */

qkv_tensor *qkv_tensor_clone(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_to(t, t->dtype, err);
}

/* A quantised tensor in another type, by way of f32. */
static qkv_tensor *convert_quantised(const qkv_tensor *t, qkv_dtype dtype,
                                     qkv_error *err)
{
    if (!qkv_is_float(dtype)) {
        qkv_fail(err, QKV_EUNSUPPORTED, "%s to %s: quantised tensors convert "
                 "to f32, f16 and bf16", qkv_dtypes[t->dtype].name,
                 qkv_dtypes[dtype].name);
        return NULL;
    }
    qkv_tensor *values = float_quantised(t, err);
    if (values == NULL || dtype == QKV_F32)
        return values;
    qkv_tensor *out = qkv_tensor_to(values, dtype, err);
    qkv_tensor_release(values);
    return out;
}

qkv_tensor *qkv_tensor_to(const qkv_tensor *t, qkv_dtype dtype, qkv_error *err)
{
    if (qkv_is_quantised(t->dtype))
        return t->dtype == dtype ? clone_quantised(t, err)
                                 : convert_quantised(t, dtype, err);
    if (qkv_is_quantised(dtype)) {
        qkv_fail(err, QKV_EUNSUPPORTED, "%s to %s: quantising is not built",
                 qkv_dtypes[t->dtype].name, qkv_dtypes[dtype].name);
        return NULL;
    }
    qkv_tensor *out = qkv_tensor_like(t, dtype, err);
    if (out == NULL || move(out, t, err))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

qkv_tensor *qkv_tensor_float(const qkv_tensor *t, qkv_error *err)
{
    const bool ready = t->dtype == QKV_F32 && qkv_tensor_is_contiguous(t)
        && (uintptr_t)qkv_tensor_data(t) % sizeof(float) == 0;
    if (!ready)
        return qkv_tensor_to(t, QKV_F32, err);
    /* A reference is the caller's to take, whatever it will do with it. */
    return qkv_tensor_retain((qkv_tensor *)(uintptr_t)t);
}

/* out[..., i, ...] = t[..., index, ...] along an axis; out f32 if t is
 * quantised, else of t's type. */
static bool copy_slice(const qkv_tensor *out, int64_t i, const qkv_tensor *t,
                       int axis, int64_t index, qkv_error *err)
{
    qkv_tensor *to = qkv_tensor_select(out, axis, i, err);
    qkv_tensor *from = to != NULL ? qkv_tensor_select(t, axis, index, err)
                                  : NULL;
    qkv_tensor *values = from == NULL ? NULL
        : qkv_is_quantised(t->dtype) ? qkv_tensor_float(from, err)
        : qkv_tensor_retain(from);
    const bool good = values != NULL && move(to, values, err);
    qkv_tensor_release(values);
    qkv_tensor_release(from);
    qkv_tensor_release(to);
    return good;
}

/* Like t, but with n elements along an axis. */
static qkv_tensor *like_resized(const qkv_tensor *t, int axis, int64_t n,
                                qkv_dtype dtype, qkv_error *err)
{
    qkv_tensor wanted = *t;
    wanted.shape[axis] = n;
    return qkv_tensor_like(&wanted, dtype, err);
}

qkv_tensor *qkv_tensor_take(const qkv_tensor *t, int axis,
                            const int64_t *indices, int64_t n, qkv_error *err)
{
    if (!qkv_check_axis(t, axis, err))
        return NULL;
    const qkv_dtype dtype = qkv_is_quantised(t->dtype) ? QKV_F32 : t->dtype;
    qkv_tensor *out = like_resized(t, axis, n, dtype, err);
    bool good = out != NULL;
    for (int64_t i = 0; i < n && good; i++)
        good = copy_slice(out, i, t, axis, indices[i], err)
            && qkv_check(err);
    if (good)
        return out;
    qkv_tensor_release(out);
    return NULL;
}

/* The type that holds both: the same, else f32. */
static qkv_dtype common_type(qkv_tensor *const *parts, int n)
{
    for (int i = 1; i < n; i++)
        if (parts[i]->dtype != parts[0]->dtype)
            return QKV_F32;
    return parts[0]->dtype;
}

/* Do parts 0 and i agree in all axes but one (-1: in all)? */
static bool check_alike(qkv_tensor *const *parts, int i, int axis,
                        const char *verb, qkv_error *err)
{
    const qkv_tensor *a = parts[0], *b = parts[i];
    bool alike = a->n_dims == b->n_dims;
    int at = 0;
    while (alike && at < a->n_dims) {
        alike = (at == axis || a->shape[at] == b->shape[at])
            && (a->axis[at][0] == '\0' || b->axis[at][0] == '\0'
                || strcmp(a->axis[at], b->axis[at]) == 0);
        at += alike;
    }
    if (alike)
        return qkv_check_plain(b, verb, err);
    char left[160], right[160];
    qkv_tensor_describe(a, left, sizeof left);
    qkv_tensor_describe(b, right, sizeof right);
    if (a->n_dims != b->n_dims)
        return qkv_fail(err, QKV_ESHAPE, "%s of %s and %s: as many axes were "
                        "expected", verb, left, right);
    return qkv_fail(err, QKV_ESHAPE, "%s of %s and %s: axis %d differs", verb,
                    left, right, at);
}

qkv_tensor *qkv_tensor_cat(qkv_tensor *const *parts, int n, int axis,
                           qkv_error *err)
{
    int64_t total = 0, at = 0;
    if (n < 1) {
        qkv_fail(err, QKV_EINVAL, "cat of no tensors");
        return NULL;
    }
    if (!qkv_check_axis(parts[0], axis, err))
        return NULL;
    for (int i = 0; i < n; i++) {
        if (!check_alike(parts, i, axis, "cat", err))
            return NULL;
        if (!qkv_int_add(&total, total, parts[i]->shape[axis]))
            total = INT64_MAX;          /* refused below */
    }
    qkv_tensor *out = like_resized(parts[0], axis, total,
                                   common_type(parts, n), err);
    for (int i = 0; i < n && out != NULL; i++) {
        const int64_t size = parts[i]->shape[axis];
        qkv_tensor *to = qkv_tensor_slice(out, axis, at, at + size, err);
        const bool good = to != NULL && move(to, parts[i], err);
        at += size;
        qkv_tensor_release(to);
        if (!good) {
            qkv_tensor_release(out);
            out = NULL;
        }
    }
    return out;
}

/* t's shape and names with a new axis put in, as a header. */
static bool with_axis(qkv_tensor *out, const qkv_tensor *t, int axis,
                      int64_t size, const char *name, qkv_error *err)
{
    char what[160];
    qkv_tensor_describe(t, what, sizeof what);
    if (axis < 0 || axis > t->n_dims)
        return qkv_fail(err, QKV_EINVAL, "a new axis %d in %s: 0 to %d", axis,
                        what, t->n_dims);
    if (t->n_dims == QKV_MAX_DIMS)
        return qkv_fail(err, QKV_ESHAPE, "a new axis in %s: %d is the most",
                        what, QKV_MAX_DIMS);
    *out = *t;
    for (int i = out->n_dims++; i > axis; i--) {
        out->shape[i] = t->shape[i - 1];
        memcpy(out->axis[i], t->axis[i - 1], QKV_AXIS_ROOM);
    }
    out->shape[axis] = size;
    out->axis[axis][0] = '\0';
    return qkv_tensor_name(out, axis, name, err);
}

qkv_tensor *qkv_tensor_stack(qkv_tensor *const *parts, int n, int axis,
                             const char *name, qkv_error *err)
{
    qkv_tensor wanted;
    if (n < 1) {
        qkv_fail(err, QKV_EINVAL, "stack of no tensors");
        return NULL;
    }
    for (int i = 0; i < n; i++)
        if (!check_alike(parts, i, -1, "stack", err))
            return NULL;
    if (!with_axis(&wanted, parts[0], axis, n, name, err))
        return NULL;
    qkv_tensor *out = qkv_tensor_like(&wanted, common_type(parts, n), err);
    for (int i = 0; i < n && out != NULL; i++) {
        qkv_tensor *to = qkv_tensor_select(out, axis, i, err);
        const bool good = to != NULL && move(to, parts[i], err);
        qkv_tensor_release(to);
        if (!good) {
            qkv_tensor_release(out);
            out = NULL;
        }
    }
    return out;
}

/* ---- writing ---- */

/* Store one number at byte `at` of the storage. */
static bool store(const qkv_tensor *t, int64_t at, double value,
                  qkv_error *err)
{
    const qkv_strip one = {(char *)t->storage->data + at, 0, t->dtype};
    return qkv_strip_store(&one, &value, 1) == 1
        || refuse_value(value, t->dtype, err);
}

bool qkv_tensor_fill(qkv_tensor *t, double value, qkv_error *err)
{
    if (!qkv_check_writable(t, err))
        return false;
    qkv_tensor *one = qkv_tensor_new(t->dtype, 0, NULL, NULL, err);
    const bool good = one != NULL && store(one, one->offset, value, err)
        && move(t, one, err);
    qkv_tensor_release(one);
    return good;
}

bool qkv_tensor_copy(qkv_tensor *t, const qkv_tensor *from, qkv_error *err)
{
    if (!qkv_check_writable(t, err)
        || !qkv_check_plain(from, "elements", err)
        || !qkv_check_into(t, from, err))
        return false;
    if (t->dtype == from->dtype && t->storage->data != from->storage->data)
        return move(t, from, err);
    /* Apart first: the two may overlap, or a value may not fit. */
    qkv_tensor *values = qkv_tensor_to(from, t->dtype, err);
    const bool good = values != NULL && move(t, values, err);
    qkv_tensor_release(values);
    return good;
}

static int64_t place(const qkv_tensor *t, const int64_t *index)
{
    int64_t at = 0;
    for (int i = 0; i < t->n_dims; i++)
        at += index[i] * t->stride[i];
    return t->offset + at * qkv_dtypes[t->dtype].bytes;
}

double qkv_tensor_get(const qkv_tensor *t, const int64_t *index)
{
    const qkv_strip one = {(char *)t->storage->data + place(t, index), 0,
                           t->dtype};
    double value;
    qkv_strip_doubles(&value, &one, 1);
    return value;
}

bool qkv_tensor_set(qkv_tensor *t, const int64_t *index, double value,
                    qkv_error *err)
{
    return qkv_check_writable(t, err) && store(t, place(t, index), value, err);
}
