/*
 * pca.h - principal components
 *
 * x [n, d] minus its mean = scores components, the directions of largest
 * variance first. Pearson 1901; computed by the singular values of the centred
 * x, or, when that would take long, by the eigenvalues of the smaller of its
 * two Gram matrices [d, d] and [n, n], which costs half of the digits of the
 * small components. In each component the largest loading is positive.
 */
#ifndef QKV_PCA_H
#define QKV_PCA_H
#include "tensor/tensor.h"

typedef struct qkv_pca {
    qkv_tensor *mean;           /* [d] */
    qkv_tensor *components;     /* [comp, d], orthonormal rows */
    qkv_tensor *scores;         /* [n, comp] */
    qkv_tensor *variance;       /* [comp], with n - 1 */
    qkv_tensor *ratio;          /* [comp], of the whole variance of x */
} qkv_pca;

/* The first k components, 1 <= k <= min(n - 1, d). The tensors are the
 * caller's; on failure all are NULL. NaN or infinity in x is an error. */
bool qkv_pca_fit(qkv_pca *pca, const qkv_tensor *x, int64_t k, qkv_error *err);
void qkv_pca_reset(qkv_pca *pca);           /* lets them go */

/* y [m, d] (or [d]) in these components: [m, comp] (or [comp]). */
qkv_tensor *qkv_pca_project(const qkv_tensor *y, const qkv_tensor *mean,
                            const qkv_tensor *components, qkv_error *err);

#endif
