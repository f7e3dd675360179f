/*
 * neighbours.h - how alike rows are, and which are nearest
 *
 *   dot(a, b)          a.b
 *   cosine(a, b)       a.b / (|a| |b|)
 *   correlation(a, b)  cosine of a - mean(a) and b - mean(b), over the row
 *   l2(a, b)           |a - b|, a distance: the smallest is the nearest
 *
 * Norms, means and distances accumulate in double, products are float32. A
 * row of zeros has no direction: its cosine is NaN, on purpose, and printing
 * shows it; so has a constant row no correlation. Rows may be of any type;
 * quantised ones are unpacked block by block.
 */
#ifndef QKV_NEIGHBOURS_H
#define QKV_NEIGHBOURS_H
#include "tensor/tensor.h"

typedef enum qkv_likeness {
    QKV_DOT, QKV_COSINE, QKV_CORRELATION, QKV_L2
} qkv_likeness;

/* out [n, m] = each row of a [n, d] with each row of b [m, d]. A vector counts
 * as one row. A new tensor, the caller's; NULL if the d differ or memory runs
 * out. */
qkv_tensor *qkv_alike_rows(qkv_likeness how, const qkv_tensor *a,
                           const qkv_tensor *b, qkv_error *err);

/* Pairwise: a and b of one shape, the vectors along `axis`, each of a with
 * the one of b in the same place: out has the other axes. */
qkv_tensor *qkv_alike_pairs(qkv_likeness how, const qkv_tensor *a,
                            const qkv_tensor *b, int axis, qkv_error *err);

/* The k rows of x [n, d] nearest to each row of query [m, d]: out f32 [m, k],
 * best first, and *indices i64 [m, k]. k is cut to n. Ties: the lower index
 * first; NaN comes last. */
qkv_tensor *qkv_nearest(qkv_tensor **indices, qkv_likeness how,
                        const qkv_tensor *x, const qkv_tensor *query,
                        int64_t k, qkv_error *err);

#endif
