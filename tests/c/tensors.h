/*
 * tensors.h - tensors for tests: made from numbers, compared with numbers
 *
 * Sizes are written DIMS(2, 3), values F(1, 2, 3, ...). The ramp is the data
 * of most tests: value i is ((7 i) mod 11 - 5) / 2, which float holds exactly.
 */
#ifndef QKV_TEST_TENSORS_H
#define QKV_TEST_TENSORS_H
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tensor/tensor.h"

#define COUNT(array) (sizeof (array) / sizeof (array)[0])
#define DIMS(...)                                                           \
    (int)(sizeof (const int64_t[]){__VA_ARGS__} / sizeof(int64_t)),         \
    (const int64_t[]){__VA_ARGS__}
#define F(...) (const float[]){__VA_ARGS__}

/* The names in "head query key"; "" for none. */
static inline void name_axes(qkv_tensor *t, const char *axes)
{
    qkv_error err;
    char words[128], *rest = words, *word;
    snprintf(words, sizeof words, "%s", axes);
    for (int i = 0; (word = strtok_r(rest, " ", &rest)) != NULL; i++)
        if (!qkv_tensor_name(t, i, word, &err))
            fail_msg("%s", err.msg);
}

static inline qkv_tensor *make(const char *axes, int n_dims,
                               const int64_t *shape, const float *values)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_F32, n_dims, shape, NULL, &err);
    if (t == NULL)
        fail_msg("%s", err.msg);
    memcpy(qkv_tensor_data(t), values,
           (size_t)qkv_tensor_count(t) * sizeof *values);
    name_axes(t, axes);
    return t;
}

static inline qkv_tensor *ramp(const char *axes, int n_dims,
                               const int64_t *shape)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_F32, n_dims, shape, NULL, &err);
    if (t == NULL)
        fail_msg("%s", err.msg);
    for (int64_t i = 0; i < qkv_tensor_count(t); i++)
        ((float *)qkv_tensor_data(t))[i] = (float)(i * 7 % 11 - 5) / 2.0f;
    name_axes(t, axes);
    return t;
}

/* The ramp [rows, cols], lying in memory as: rows one after another; a
 * transpose; a part of something larger; every second column; halves,
 * transposed; floats at an odd address. */
enum { N_LAYOUTS = 6 };
static inline qkv_tensor *laid_out(int layout, int64_t rows, int64_t cols)
{
    qkv_error err;
    qkv_tensor *x = ramp("", DIMS(rows, cols)), *room = NULL, *out, *some;
    switch (layout) {
    case 0:
        return x;
    case 1:
        room = qkv_tensor_new(QKV_F32, DIMS(cols, rows), NULL, &err);
        out = qkv_tensor_transpose(room, 0, 1, &err);
        break;
    case 2:
        room = qkv_tensor_new(QKV_F32, DIMS(rows + 1, cols + 3), NULL, &err);
        some = qkv_tensor_slice(room, 0, 1, rows + 1, &err);
        out = qkv_tensor_slice(some, 1, 2, cols + 2, &err);
        qkv_tensor_release(some);
        break;
    case 3:
        room = qkv_tensor_new(QKV_F32, DIMS(rows, cols, 2), NULL, &err);
        out = qkv_tensor_select(room, 2, 1, &err);
        break;
    case 4:
        room = qkv_tensor_new(QKV_F16, DIMS(cols, rows), NULL, &err);
        out = qkv_tensor_transpose(room, 0, 1, &err);
        break;
    default:
        room = qkv_tensor_new(QKV_U8, DIMS(rows * cols * 4 + 1), NULL, &err);
        out = qkv_tensor_over(room->storage, 1, QKV_F32, DIMS(rows, cols),
                              NULL, &err);
    }
    assert_true(qkv_tensor_copy(out, x, &err));
    qkv_tensor_release(room);
    qkv_tensor_release(x);
    return out;
}

/* Element `flat` in row-major order, whatever the strides. */
static inline double element(const qkv_tensor *t, int64_t flat)
{
    int64_t index[QKV_MAX_DIMS] = {0};
    for (int i = t->n_dims - 1; i >= 0; i--) {
        index[i] = flat % t->shape[i];
        flat /= t->shape[i];
    }
    return qkv_tensor_get(t, index);
}

/* NaN is near NaN here, and nothing else is. */
static inline int is_near(double got, double want, double tol)
{
    if (isnan(want) || isinf(want))
        return isnan(want) ? isnan(got) : got == want;
    return fabs(got - want) <= tol * (1.0 + fabs(want));
}

/* t has that type, shape and names, and these values; t is released. */
static inline void expect(qkv_tensor *t, const qkv_error *err,
                          const char *what, const char *shape,
                          const float *values, double tol)
{
    char got[160];
    if (t == NULL)
        fail_msg("%s: %s", what, err->msg);
    qkv_tensor_describe(t, got, sizeof got);
    if (strcmp(got, shape) != 0)
        fail_msg("%s: %s, not %s", what, got, shape);
    for (int64_t i = 0; i < qkv_tensor_count(t); i++)
        if (!is_near(element(t, i), (double)values[i], tol))
            fail_msg("%s: element %d is %.9g, not %.9g", what, (int)i,
                     element(t, i), (double)values[i]);
    qkv_tensor_release(t);
}

/* t is NULL, and the message is this one. */
static inline void expect_error(const qkv_tensor *t, const qkv_error *err,
                                const char *message)
{
    if (t != NULL)
        fail_msg("no error, instead of: %s", message);
    if (strcmp(err->msg, message) != 0)
        fail_msg("the error is: %s\ninstead of: %s", err->msg, message);
}

/* make_one(operands) while the n-th allocation fails, for every n: an error
 * each time, and nothing left behind, until it succeeds. The operands, ended by
 * NULL, are released. */
static inline void sweep_memory(qkv_tensor *(*make_one)(
                                    qkv_tensor *const *operands,
                                    qkv_error *err),
                                qkv_tensor *const *operands)
{
    qkv_tensor *t = NULL;
    const size_t before = qkv_alloc_live();
    for (long n = 0; t == NULL; n++) {
        qkv_error err = {0};
        qkv_alloc_fail_after(n);
        t = make_one(operands, &err);
        qkv_alloc_fail_after(-1);
        assert_true(n < 1000);
        if (t == NULL) {
            assert_int_equal(err.code, QKV_ENOMEM);
            assert_int_equal(qkv_alloc_live(), before);
        } else {
            assert_true(n > 0);
        }
    }
    qkv_tensor_release(t);
    assert_int_equal(qkv_alloc_live(), before);
    while (*operands != NULL)
        qkv_tensor_release(*operands++);
}

/* After each test: all is released. */
static inline int none_left(void **state)
{
    (void)state;
    return qkv_alloc_live() == 0 ? 0 : -1;
}
#define TEST(f) cmocka_unit_test_teardown(f, none_left)

#endif
