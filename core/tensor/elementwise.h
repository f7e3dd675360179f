/*
 * elementwise.h - arithmetic element by element
 *
 * Results are new contiguous f32 tensors; arguments of any plain type. Two
 * arguments broadcast from the right: sizes must agree or be 1; where both
 * name an axis the names must agree too. Statistics accumulate in double.
 */
#ifndef QKV_ELEMENTWISE_H
#define QKV_ELEMENTWISE_H
#include "tensor/tensor.h"

typedef enum qkv_binary {
    QKV_ADD, QKV_SUB, QKV_MUL, QKV_DIV, QKV_POW, QKV_MIN_OF, QKV_MAX_OF,
    QKV_LT, QKV_LE, QKV_GT, QKV_GE, QKV_EQ      /* 1 or 0 */
} qkv_binary;
typedef enum qkv_unary {
    QKV_NEG, QKV_EXP, QKV_LOG, QKV_SQRT, QKV_ABS, QKV_TANH, QKV_ROUND,
    QKV_ISNAN                                   /* 1 or 0 */
} qkv_unary;

qkv_tensor *qkv_binary_op(qkv_binary op, const qkv_tensor *a,
                          const qkv_tensor *b, qkv_error *err);
/* number on the right, or (swapped) on the left */
qkv_tensor *qkv_binary_number(qkv_binary op, const qkv_tensor *a, double b,
                              bool swapped, qkv_error *err);
qkv_tensor *qkv_unary_op(qkv_unary op, const qkv_tensor *a, qkv_error *err);
qkv_tensor *qkv_clamp(const qkv_tensor *a, double low, double high,
                      qkv_error *err);
/* c ? t : u, all broadcast together */
qkv_tensor *qkv_where(const qkv_tensor *c, const qkv_tensor *t,
                      const qkv_tensor *u, qkv_error *err);
/* In place on an f32 (or other plain, writable) tensor: t = t op b. ADD, SUB,
 * MUL, DIV; b broadcasts to t's shape. */
bool qkv_binary_into(qkv_binary op, qkv_tensor *t, const qkv_tensor *b,
                     qkv_error *err);
/* Keep row + k <= col of the last two axes (triu), the rest 0. */
qkv_tensor *qkv_triu(const qkv_tensor *a, int64_t k, qkv_error *err);

/* Equal dtype-blind in shape and value within tol; NaN equals nothing. */
bool qkv_tensor_near(const qkv_tensor *a, const qkv_tensor *b, double tol);

#endif
