/*
 * walk.c - visiting the elements of strided tensors together: see walk.h
 *
 * Data may lie at any byte (a safetensors file begins where it likes), so
 * single values are moved by memcpy, which costs nothing where it is aligned.
 */
#include "config.h"

#include "tensor/walk.h"

#include <math.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/quant.h"

void qkv_walk_init(qkv_walk *w, int n_dims, const int64_t *shape)
{
    *w = (qkv_walk){.n_dims = n_dims, .count = 1};
    for (int i = 0; i < n_dims; i++) {
        w->shape[i] = shape[i];
        w->count *= shape[i];
    }
}

void qkv_walk_add(qkv_walk *w, const qkv_tensor *t)
{
    const int k = w->n_operands++, missing = w->n_dims - t->n_dims;
    const int64_t bytes = qkv_dtypes[t->dtype].bytes;
    w->data[k] = qkv_tensor_data(t);
    w->dtype[k] = t->dtype;
    for (int i = 0; i < w->n_dims; i++) {
        const bool here = i >= missing && t->shape[i - missing] != 1;
        w->stride[k][i] = here ? t->stride[i - missing] * bytes : 0;
    }
}

/* Do axes i and j > i lie behind each other in every operand? */
static bool can_merge(const qkv_walk *w, int i, int j)
{
    for (int k = 0; k < w->n_operands; k++)
        if (w->stride[k][i] != w->stride[k][j] * w->shape[j])
            return false;
    return true;
}

static void move_axis(qkv_walk *w, int to, int from)
{
    w->shape[to] = w->shape[from];
    for (int k = 0; k < w->n_operands; k++)
        w->stride[k][to] = w->stride[k][from];
}

/* Drop axes of size 1 and merge neighbours; at least one axis remains. */
static void merge(qkv_walk *w)
{
    int n = 0;
    for (int i = 0; i < w->n_dims; i++) {
        if (w->shape[i] == 1)
            continue;
        if (n > 0 && can_merge(w, n - 1, i)) {
            const int64_t outer = w->shape[n - 1];
            move_axis(w, n - 1, i);
            w->shape[n - 1] *= outer;
        } else {
            move_axis(w, n++, i);
        }
    }
    if (n == 0) {
        w->shape[0] = 1;
        for (int k = 0; k < w->n_operands; k++)
            w->stride[k][0] = 0;
        n = 1;
    }
    w->n_dims = n;
}

typedef struct run {
    const qkv_walk *walk;
    qkv_visit *visit;
    void *context;
} run;

static void run_piece(void *context, int64_t begin, int64_t end, int thread)
{
    const run *r = context;
    const qkv_walk *w = r->walk;
    const int last = w->n_dims - 1;
    int64_t index[QKV_MAX_DIMS];
    qkv_strip strips[QKV_MAX_OPERANDS];
    (void)thread;
    for (int64_t i = last, rest = begin; i >= 0; i--) {
        index[i] = rest % w->shape[i];
        rest /= w->shape[i];
    }
    for (int64_t at = begin, n; at < end && !qkv_interrupted(); at += n) {
        n = w->shape[last] - index[last];
        n = n < end - at ? n : end - at;
        n = n < QKV_RUN ? n : QKV_RUN;
        for (int k = 0; k < w->n_operands; k++) {
            char *data = w->data[k];
            for (int i = 0; i <= last; i++)
                data += index[i] * w->stride[k][i];
            strips[k] = (qkv_strip){data, w->stride[k][last], w->dtype[k]};
        }
        r->visit(r->context, strips, n, at);
        index[last] += n;
        for (int i = last; i > 0 && index[i] == w->shape[i]; i--) {
            index[i] = 0;
            index[i - 1]++;
        }
    }
}

bool qkv_walk_run(qkv_walk *w, bool serial, qkv_visit *visit, void *context,
                  qkv_error *err)
{
    run r = {w, visit, context};
    merge(w);
    qkv_parallel(w->count, serial ? w->count : QKV_PIECE, run_piece, &r);
    return qkv_check(err);
}

/* ---- shapes ---- */

bool qkv_broadcast(qkv_tensor *out, const qkv_tensor *a, const qkv_tensor *b,
                   qkv_error *err)
{
    const int n = a->n_dims > b->n_dims ? a->n_dims : b->n_dims;
    qkv_tensor both = {.dtype = QKV_F32, .n_dims = n};
    char left[120], right[120];
    qkv_tensor_describe(a, left, sizeof left);
    qkv_tensor_describe(b, right, sizeof right);
    for (int i = n - 1; i >= 0; i--) {
        const int ia = i - (n - a->n_dims), ib = i - (n - b->n_dims);
        const int64_t sa = ia >= 0 ? a->shape[ia] : 1;
        const int64_t sb = ib >= 0 ? b->shape[ib] : 1;
        const char *na = ia >= 0 ? a->axis[ia] : "";
        const char *nb = ib >= 0 ? b->axis[ib] : "";
        if (sa != sb && sa != 1 && sb != 1)
            return qkv_fail(err, QKV_ESHAPE, "%s and %s: axis %d "
                            "has %lld and %lld; sizes must agree or "
                            "be 1", left, right, i - n,
                            (long long)sa, (long long)sb);
        if (*na != '\0' && *nb != '\0' && strcmp(na, nb) != 0)
            return qkv_fail(err, QKV_ESHAPE, "%s and %s: axis %d "
                            "is '%s' and '%s'; names must agree",
                            left, right, i - n, na, nb);
        both.shape[i] = sa == 1 ? sb : sa;
        if (!qkv_tensor_name(&both, i, *na != '\0' ? na : nb, err))
            return qkv_fail_in(err, "%s and %s", left, right);
    }
    *out = both;
    return true;
}

qkv_tensor *qkv_tensor_like(const qkv_tensor *like, qkv_dtype dtype,
                            qkv_error *err)
{
    const char *axes[QKV_MAX_DIMS];
    for (int i = 0; i < like->n_dims; i++)
        axes[i] = like->axis[i];
    return qkv_tensor_new(dtype, like->n_dims, like->shape, axes, err);
}

bool qkv_check_axis(const qkv_tensor *t, int axis, qkv_error *err)
{
    char shape[160];
    if (axis >= 0 && axis < t->n_dims)
        return true;
    qkv_tensor_describe(t, shape, sizeof shape);
    return qkv_fail(err, QKV_EINVAL, "there is no axis %d in %s", axis, shape);
}

bool qkv_check_plain(const qkv_tensor *t, const char *what, qkv_error *err)
{
    char shape[160];
    if (!qkv_is_quantised(t->dtype))
        return true;
    qkv_tensor_describe(t, shape, sizeof shape);
    return qkv_fail(err, QKV_EUNSUPPORTED, "%s of %s: a quantised tensor has "
                    "rows and products only; convert it to float first", what,
                    shape);
}

bool qkv_check_writable(const qkv_tensor *t, qkv_error *err)
{
    char shape[160];
    if (!qkv_check_plain(t, "writing into elements", err))
        return false;
    qkv_tensor_describe(t, shape, sizeof shape);
    if (t->read_only)
        return qkv_fail(err, QKV_EINVAL, "%s is read-only; change a clone",
                        shape);
    for (int i = 0; i < t->n_dims; i++)
        if (t->shape[i] > 1 && t->stride[i] == 0)
            return qkv_fail(err, QKV_EINVAL, "%s repeats its elements along "
                            "axis %d; change a clone", shape, i);
    return true;
}

bool qkv_check_into(const qkv_tensor *t, const qkv_tensor *from,
                    qkv_error *err)
{
    qkv_tensor both;
    char left[160], right[160];
    if (!qkv_broadcast(&both, t, from, err))
        return false;
    bool same = both.n_dims == t->n_dims;
    for (int i = 0; i < t->n_dims && same; i++)
        same = both.shape[i] == t->shape[i];
    if (same)
        return true;
    qkv_tensor_describe(t, left, sizeof left);
    qkv_tensor_describe(from, right, sizeof right);
    return qkv_fail(err, QKV_ESHAPE, "%s does not broadcast to %s", right,
                    left);
}

/* ---- values ---- */

#define STORED(type, name)                                                  \
    static inline type name(const char *p)                                  \
    {                                                                       \
        type value;                                                         \
        memcpy(&value, p, sizeof value);                                    \
        return value;                                                       \
    }
STORED(float, stored_float)
STORED(uint16_t, stored_u16)
STORED(int32_t, stored_i32)
STORED(int64_t, stored_i64)
STORED(uint8_t, stored_u8)

const float *qkv_strip_floats(const qkv_strip *s, int64_t n, float *room)
{
    const char *p = s->data;
    const int64_t step = s->stride;
    if (s->dtype == QKV_F32 && step == (int64_t)sizeof(float)
        && (uintptr_t)p % sizeof(float) == 0)
        return (const float *)(const void *)p;
    if (qkv_is_float(s->dtype) && step == qkv_dtypes[s->dtype].bytes) {
        qkv_unpack(room, s->dtype, p, n);
        return room;
    }
    switch (s->dtype) {
    case QKV_F32:
        for (int64_t i = 0; i < n; i++)
            room[i] = stored_float(p + i * step);
        break;
    case QKV_F16:
        for (int64_t i = 0; i < n; i++)
            room[i] = qkv_from_f16(stored_u16(p + i * step));
        break;
    case QKV_BF16:
        for (int64_t i = 0; i < n; i++)
            room[i] = qkv_from_bf16(stored_u16(p + i * step));
        break;
    case QKV_I32:
        for (int64_t i = 0; i < n; i++)
            room[i] = (float)stored_i32(p + i * step);
        break;
    case QKV_I64:
        for (int64_t i = 0; i < n; i++)
            room[i] = (float)stored_i64(p + i * step);
        break;
    default:                    /* QKV_U8 */
        for (int64_t i = 0; i < n; i++)
            room[i] = (float)stored_u8(p + i * step);
    }
    return room;
}

/* Exact for every plain type but integers beyond 2^53. */
void qkv_strip_doubles(double *out, const qkv_strip *s, int64_t n)
{
    float room[QKV_RUN];
    switch (s->dtype) {
    case QKV_I32:
        for (int64_t i = 0; i < n; i++)
            out[i] = stored_i32(s->data + i * s->stride);
        break;
    case QKV_I64:
        for (int64_t i = 0; i < n; i++)
            out[i] = (double)stored_i64(s->data + i * s->stride);
        break;
    default: {
        const float *values = qkv_strip_floats(s, n, room);
        for (int64_t i = 0; i < n; i++)
            out[i] = (double)values[i];
    }
    }
}

void qkv_strip_store_floats(const qkv_strip *s, const float *values,
                            int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        char *to = s->data + i * s->stride;
        const uint16_t half = s->dtype == QKV_F16 ? qkv_to_f16(values[i])
            : s->dtype == QKV_BF16 ? qkv_to_bf16(values[i]) : 0;
        if (s->dtype == QKV_F32)
            memcpy(to, &values[i], sizeof values[i]);
        else
            memcpy(to, &half, sizeof half);
    }
}

/* Store one integer; false when it is out of the type's range, or NaN. */
static bool store_integer(char *to, qkv_dtype dtype, double value)
{
    const double x = nearbyint(value);
    if (dtype == QKV_I32 && x >= INT32_MIN && x <= INT32_MAX) {
        const int32_t v = (int32_t)x;
        memcpy(to, &v, sizeof v);
    } else if (dtype == QKV_I64 && x >= -0x1p63 && x < 0x1p63) {
        const int64_t v = (int64_t)x;
        memcpy(to, &v, sizeof v);
    } else if (dtype == QKV_U8 && x >= 0 && x <= UINT8_MAX) {
        const uint8_t v = (uint8_t)x;
        memcpy(to, &v, sizeof v);
    } else {
        return false;
    }
    return true;
}

int64_t qkv_strip_store(const qkv_strip *s, const double *values, int64_t n)
{
    if (qkv_is_float(s->dtype)) {
        for (int64_t i = 0; i < n; i++) {
            const float value = (float)values[i];
            const qkv_strip one = {s->data + i * s->stride, 0, s->dtype};
            qkv_strip_store_floats(&one, &value, 1);
        }
        return n;
    }
    for (int64_t i = 0; i < n; i++)
        if (!store_integer(s->data + i * s->stride, s->dtype, values[i]))
            return i;
    return n;
}
