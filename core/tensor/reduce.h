/*
 * reduce.h - sums, means, orders along one axis or over all
 *
 * axis -1 here means "over all elements", giving a tensor of no dimensions;
 * else the axis goes away. softmax, cumsum, topk and sort keep the axis; over
 * all, softmax keeps the shape and the others give [count]. Sums accumulate
 * in double. std and var are of the population divided by n - 1 (as PyTorch);
 * one element gives NaN. Min, max and arg* of no elements are errors. A NaN
 * makes sum, mean, min, max NaN; argmax finds the first NaN.
 */
#ifndef QKV_REDUCE_H
#define QKV_REDUCE_H
#include "tensor/tensor.h"

typedef enum qkv_reduction {
    QKV_SUM, QKV_MEAN, QKV_STD, QKV_VAR, QKV_MIN, QKV_MAX, QKV_NORM
} qkv_reduction;

qkv_tensor *qkv_reduce(qkv_reduction op, const qkv_tensor *t, int axis,
                       qkv_error *err);
/* Indices, i64: of the first largest (smallest) along an axis; over all: the
 * flat index. */
qkv_tensor *qkv_argmax(const qkv_tensor *t, int axis, bool smallest,
                       qkv_error *err);
qkv_tensor *qkv_cumsum(const qkv_tensor *t, int axis, qkv_error *err);
/* exp(t - max) / sum over an axis; log: the logarithm of it, computed as such.
 * -inf everywhere gives 0 (log: -inf), not NaN. */
qkv_tensor *qkv_softmax(const qkv_tensor *t, int axis, bool log,
                        qkv_error *err);
/* log(sum of exp x), x [n] with n > 0, in double: what turns logits into
 * log-probabilities, in nats. */
double qkv_log_sum_exp(const float *x, int64_t n);
/* The k largest along an axis in falling order; *indices i64 (may be NULL).
 * Ties: the lower index first; NaN counts as smallest. */
qkv_tensor *qkv_topk(const qkv_tensor *t, int64_t k, int axis,
                     qkv_tensor **indices, qkv_error *err);
/* Ascending (or descending) along an axis; stable. NaNs come last. */
qkv_tensor *qkv_sort(const qkv_tensor *t, int axis, bool descending,
                     qkv_tensor **indices, qkv_error *err);

/* One pass over all elements, for printing: NaN and infinities are counted
 * apart and left out of the rest. */
typedef struct qkv_summary {
    int64_t count, n_nan, n_inf;
    double mean, sd, min, max;
} qkv_summary;
bool qkv_summarise(qkv_summary *out, const qkv_tensor *t, qkv_error *err);

#endif
