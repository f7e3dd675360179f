/*
 * blas.h - the one place that knows OpenBLAS
 *
 * Products of matrices are made by our kernels where there are some for this
 * processor, else by OpenBLAS on one thread; both inside pieces that our pool
 * hands out (base/parallel.h), so that pools never fight and bits do not
 * depend on the number of threads. LAPACK is in linalg.h.
 */
#ifndef QKV_BLAS_H
#define QKV_BLAS_H
#include "tensor/tensor.h"

/* c [m, n] = alpha * op(a) [m, k] op(b) [k, n] + beta * c, row-major with row
 * strides lda, ldb, ldc; ta, tb: stored transposed. On this thread alone: for
 * use inside parallel bodies. Sizes must fit an int (the caller's promise). */
void qkv_gemm_1(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                const float *a, int64_t lda, const float *b, int64_t ldb,
                float beta, float *c, int64_t ldc);
/* The same on the pool, split over n in pieces of fixed size; any sizes;
 * polls for Ctrl-C. */
bool qkv_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t lda, const float *b, int64_t ldb,
              float beta, float *c, int64_t ldc, qkv_error *err);

/* How many threads OpenBLAS itself may use: 1, except around a call of LAPACK
 * (linalg.c). Not inside parallel bodies. */
void qkv_blas_threads(int n);

/* a [..., m, k] x b [k, n] or [..., k, n] -> [..., m, n]; vectors as in NumPy.
 * b may be quantised when its rows run along k (b = W:t()), and so may a of
 * two dimensions. New f32. Axes keep their names; one that would occur twice
 * keeps it the first time only. */
qkv_tensor *qkv_matmul(const qkv_tensor *a, const qkv_tensor *b,
                       qkv_error *err);
/* "query d, key d -> query key": names separated by spaces, operands by
 * commas; one or two operands (more: from left to right). Names that are not
 * in the result are summed. Where a tensor names its axes they need not be the
 * same words. */
qkv_tensor *qkv_einsum(const char *equation, qkv_tensor *const *operands, int n,
                       qkv_error *err);

#endif
