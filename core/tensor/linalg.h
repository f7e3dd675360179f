/*
 * linalg.h - factorisations, by LAPACK
 *
 * a is [m, n] or square [n, n], any plain type; results are new f32 tensors.
 * Signs are fixed so that results are the same everywhere: in every row of vt
 * and every eigenvector the element of largest absolute value is positive (and
 * u goes with vt). Axes keep their names; a new one is "comp". NaN or
 * infinity in a is an error that says so. A call inside LAPACK is not stopped
 * by Ctrl-C before it ends.
 */
#ifndef QKV_LINALG_H
#define QKV_LINALG_H
#include "tensor/tensor.h"

/* a = u [m, r] diag(s [r]) vt [r, n], r = min(m, n), s falling. Outputs may be
 * NULL when not wanted; all or none are set. */
bool qkv_svd(qkv_tensor **u, qkv_tensor **s, qkv_tensor **vt,
             const qkv_tensor *a, qkv_error *err);
/* Symmetric a = v diag(w) v', w [n] falling, columns of v [n, n]; an error
 * when a is not symmetric. Outputs as in qkv_svd. */
bool qkv_eigh(qkv_tensor **w, qkv_tensor **v, const qkv_tensor *a,
              qkv_error *err);
/* a = q [m, r] r [r, n], diagonal of r not negative. */
bool qkv_qr(qkv_tensor **q, qkv_tensor **r, const qkv_tensor *a,
            qkv_error *err);
/* a = l l', lower triangular; an error when a is not positive definite. */
qkv_tensor *qkv_cholesky(const qkv_tensor *a, qkv_error *err);
/* x: a x = b, b [n] or [n, k]; an error when a is singular. */
qkv_tensor *qkv_solve(const qkv_tensor *a, const qkv_tensor *b,
                      qkv_error *err);
/* x [n] or [n, k] of least norm that minimises |a x - b|. */
qkv_tensor *qkv_lstsq(const qkv_tensor *a, const qkv_tensor *b,
                      qkv_error *err);

#endif
