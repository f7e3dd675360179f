/*
 * linalg.c - factorisations, by LAPACK: see linalg.h
 *
 * Computed in double and rounded to float at the end, so that signs, ranks
 * and the order of close values do not hang on the last bits of a float.
 * LAPACK is called by its Fortran names: matrices by columns. A row-major
 * a [m, n] is, to it, a' by columns; where that serves (svd, symmetric
 * matrices) nothing is transposed.
 */
#include "config.h"

#include "tensor/linalg.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/blas.h"
#include "tensor/walk.h"

/* The last arguments are the lengths of the character arguments. */
void dgesdd_(const char *job, const int *m, const int *n, double *a,
             const int *lda, double *s, double *u, const int *ldu, double *vt,
             const int *ldvt, double *work, const int *lwork, int *iwork,
             int *info, size_t);
void dsyevd_(const char *job, const char *uplo, const int *n, double *a,
             const int *lda, double *w, double *work, const int *lwork,
             int *iwork, const int *liwork, int *info, size_t, size_t);
void dgeqrf_(const int *m, const int *n, double *a, const int *lda,
             double *tau, double *work, const int *lwork, int *info);
void dorgqr_(const int *m, const int *n, const int *k, double *a,
             const int *lda, const double *tau, double *work, const int *lwork,
             int *info);
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda,
             int *info, size_t);
void dgetrf_(const int *m, const int *n, double *a, const int *lda, int *pivot,
             int *info);
void dgetrs_(const char *trans, const int *n, const int *columns,
             const double *a, const int *lda, const int *pivot, double *b,
             const int *ldb, int *info, size_t);
void dgecon_(const char *norm, const int *n, const double *a, const int *lda,
             const double *norm_of_a, double *rcond, double *work, int *iwork,
             int *info, size_t);
void dgelsd_(const int *m, const int *n, const int *columns, double *a,
             const int *lda, double *b, const int *ldb, double *s,
             const double *rcond, int *rank, double *work, const int *lwork,
             int *iwork, int *info);

/* ---- common steps ---- */

static bool check_matrix(const qkv_tensor *a, const char *verb, bool square,
                         qkv_error *err)
{
    char what[160];
    qkv_tensor_describe(a, what, sizeof what);
    if (!qkv_check_plain(a, verb, err))
        return false;
    if (a->n_dims != 2)
        return qkv_fail(err, QKV_ESHAPE, "%s of %s: a matrix was expected",
                        verb, what);
    if (square && a->shape[0] != a->shape[1])
        return qkv_fail(err, QKV_ESHAPE, "%s of %s: as many rows as columns "
                        "were expected", verb, what);
    if (a->shape[0] == 0 || a->shape[1] == 0)
        return qkv_fail(err, QKV_ESHAPE, "%s of no elements: %s", verb, what);
    if (a->shape[0] > INT_MAX || a->shape[1] > INT_MAX)
        return qkv_fail(err, QKV_EUNSUPPORTED, "%s of %s: LAPACK counts to "
                        "%d", verb, what, INT_MAX);
    return true;
}

static void *new_array(int64_t count, size_t size, qkv_error *err)
{
    return qkv_alloc_zero((size_t)count, size, err);
}

static bool check_finite(const qkv_tensor *t, const float *x, int64_t cols,
                         const char *verb, qkv_error *err)
{
    char what[160];
    for (int64_t i = 0; i < t->shape[0] * cols; i++) {
        if (isfinite(x[i]))
            continue;
        qkv_tensor_describe(t, what, sizeof what);
        return qkv_fail(err, QKV_EINVAL, "%s of %s: element [%lld, %lld] is "
                        "%g", verb, what, (long long)(i / cols),
                        (long long)(i % cols), (double)x[i]);
    }
    return true;
}

/* t [rows] or [rows, cols] as doubles, by rows or by columns, which begin
 * `ld` apart; NaN and infinity are refused. Freed by qkv_free. */
static double *load(const qkv_tensor *t, bool by_columns, int64_t ld,
                    const char *verb, qkv_error *err)
{
    const int64_t rows = t->shape[0], cols = t->n_dims > 1 ? t->shape[1] : 1;
    const int64_t row_step = by_columns ? 1 : ld;
    const int64_t col_step = by_columns ? ld : 1;
    qkv_tensor *values = qkv_tensor_float(t, err);
    if (values == NULL)
        return NULL;
    const float *x = qkv_tensor_data(values);
    double *out = check_finite(t, x, cols, verb, err)
        ? new_array(ld * (by_columns ? cols : rows), sizeof *out, err) : NULL;
    for (int64_t i = 0; i < rows && out != NULL; i++)
        for (int64_t j = 0; j < cols; j++)
            out[i * row_step + j * col_step] = (double)x[i * cols + j];
    qkv_tensor_release(values);
    return out;
}

/* A new f32 tensor [rows, cols] (cols -1: [rows]) from doubles lying row_step
 * and col_step apart. Axes are named as given, NULL: not. */
static qkv_tensor *store(const double *from, int64_t row_step,
                         int64_t col_step, int64_t rows, int64_t cols,
                         const char *row_name, const char *col_name,
                         qkv_error *err)
{
    const int64_t shape[] = {rows, cols};
    const bool alike = row_name != NULL && col_name != NULL
        && strcmp(row_name, col_name) == 0;
    const char *axes[] = {row_name, alike ? NULL : col_name};
    qkv_tensor *t = qkv_tensor_new(QKV_F32, cols < 0 ? 1 : 2, shape, axes,
                                   err);
    if (t == NULL)
        return NULL;
    float *to = qkv_tensor_data(t);
    const int64_t width = cols < 0 ? 1 : cols;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j++)
            to[i * width + j] = (float)from[i * row_step + j * col_step];
    return t;
}

/* +1 or -1: the sign that makes the element of largest absolute value (the
 * first of equals, up to rounding) positive. */
static double sign_of(const double *x, int64_t n, int64_t step)
{
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++)
        if (fabs(x[i * step]) > fabs(largest) * (1.0 + 1e-9))
            largest = x[i * step];
    return largest < 0.0 ? -1.0 : 1.0;
}

static void multiply(double *x, int64_t n, int64_t step, double by)
{
    for (int64_t i = 0; i < n; i++)
        x[i * step] *= by;
}

/* Around each call: LAPACK may use all threads. */
static void begin(void)
{
    qkv_blas_threads(qkv_threads());
}

static bool end(int info, const char *verb, qkv_error *err)
{
    qkv_blas_threads(1);
    if (info != 0)
        return qkv_fail(err, QKV_EINVAL, "%s did not converge (LAPACK says "
                        "%d)", verb, info);
    return qkv_check(err);
}

/* The work array whose size LAPACK answered; NULL if that cannot be. */
static double *new_work(double answer, int *size, const char *verb,
                        qkv_error *err)
{
    if (!(answer < INT_MAX)) {
        qkv_fail(err, QKV_EUNSUPPORTED, "%s of a matrix of that size: LAPACK "
                 "would need %g numbers of scratch", verb, answer);
        return NULL;
    }
    *size = answer < 1.0 ? 1 : (int)answer;
    return new_array(*size, sizeof(double), err);
}

/* ---- singular values ---- */

/* a (m * n by rows) is destroyed; u [m, r], s [r], vt [r, n] by rows. To
 * LAPACK, a' = v s u'. */
static bool svd(double *u, double *s, double *vt, double *a, int m, int n,
                qkv_error *err)
{
    const int r = m < n ? m : n, ask = -1;
    int info, size;
    double answer;
    int *iwork = new_array((int64_t)8 * r, sizeof *iwork, err);
    if (iwork == NULL)
        return false;
    dgesdd_("S", &n, &m, a, &n, s, vt, &n, u, &r, &answer, &ask, iwork, &info,
            1);
    double *work = new_work(answer, &size, "svd", err);
    bool good = work != NULL;
    if (good) {
        begin();
        dgesdd_("S", &n, &m, a, &n, s, vt, &n, u, &r, work, &size, iwork,
                &info, 1);
        good = end(info, "svd", err);
    }
    qkv_free(work);
    qkv_free(iwork);
    return good;
}

bool qkv_svd(qkv_tensor **u, qkv_tensor **s, qkv_tensor **vt,
             const qkv_tensor *a, qkv_error *err)
{
    if (!check_matrix(a, "svd", false, err))
        return false;
    const int64_t m = a->shape[0], n = a->shape[1], r = m < n ? m : n;
    double *x = load(a, false, n, "svd", err);
    double *du = x != NULL ? new_array(m * r, sizeof *du, err) : NULL;
    double *ds = du != NULL ? new_array(r, sizeof *ds, err) : NULL;
    double *dv = ds != NULL ? new_array(r * n, sizeof *dv, err) : NULL;
    qkv_tensor *tu = NULL, *ts = NULL, *tv = NULL;
    bool good = dv != NULL && svd(du, ds, dv, x, (int)m, (int)n, err);
    for (int64_t i = 0; i < r && good; i++) {
        const double sign = sign_of(dv + i * n, n, 1);
        multiply(du + i, m, r, sign);
        multiply(dv + i * n, n, 1, sign);
    }
    good = good
        && (u == NULL || (tu = store(du, r, 1, m, r, a->axis[0], "comp", err)))
        && (s == NULL || (ts = store(ds, 1, 1, r, -1, "comp", NULL, err)))
        && (vt == NULL
            || (tv = store(dv, n, 1, r, n, "comp", a->axis[1], err)));
    if (good) {
        if (u != NULL)
            *u = tu;
        if (s != NULL)
            *s = ts;
        if (vt != NULL)
            *vt = tv;
    } else {
        qkv_tensor_release(tu);
        qkv_tensor_release(ts);
        qkv_tensor_release(tv);
    }
    qkv_free(x);
    qkv_free(du);
    qkv_free(ds);
    qkv_free(dv);
    return good;
}

/* ---- symmetric matrices ---- */

/* x [n, n] = (x + x') / 2; an error where the two differ by more than what
 * arithmetic in float leaves. */
static bool make_symmetric(double *x, int64_t n, const char *verb,
                           qkv_error *err)
{
    double largest = 0.0;
    for (int64_t i = 0; i < n * n; i++)
        largest = fabs(x[i]) > largest ? fabs(x[i]) : largest;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++) {
            double *low = &x[i * n + j], *high = &x[j * n + i];
            if (fabs(*low - *high) > 1e-4 * largest)
                return qkv_fail(err, QKV_EINVAL, "%s of a matrix that is not "
                                "symmetric: [%lld, %lld] is %g, [%lld, %lld] "
                                "is %g", verb, (long long)i, (long long)j,
                                *low, (long long)j, (long long)i, *high);
            *low = *high = (*low + *high) / 2.0;
        }
    return true;
}

static double *load_symmetric(const qkv_tensor *a, const char *verb,
                              qkv_error *err)
{
    if (!check_matrix(a, verb, true, err))
        return NULL;
    double *x = load(a, false, a->shape[0], verb, err);
    if (x == NULL || make_symmetric(x, a->shape[0], verb, err))
        return x;
    qkv_free(x);
    return NULL;
}

/* x [n, n] becomes its eigenvectors, one a row; w [n] rising. */
static bool eigen(double *w, double *x, int n, qkv_error *err)
{
    const int ask = -1;
    int info, size, int_answer;
    double answer;
    dsyevd_("V", "L", &n, x, &n, w, &answer, &ask, &int_answer, &ask, &info,
            1, 1);
    double *work = new_work(answer, &size, "eigh", err);
    int *iwork = work != NULL ? new_array(int_answer, sizeof *iwork, err)
                              : NULL;
    bool good = iwork != NULL;
    if (good) {
        begin();
        dsyevd_("V", "L", &n, x, &n, w, work, &size, iwork, &int_answer,
                &info, 1, 1);
        good = end(info, "eigh", err);
    }
    qkv_free(iwork);
    qkv_free(work);
    return good;
}

bool qkv_eigh(qkv_tensor **w, qkv_tensor **v, const qkv_tensor *a,
              qkv_error *err)
{
    double *x = load_symmetric(a, "eigh", err);
    if (x == NULL)
        return false;
    const int64_t n = a->shape[0];
    double *dw = new_array(n, sizeof *dw, err);
    qkv_tensor *tw = NULL, *tv = NULL;
    bool good = dw != NULL && eigen(dw, x, (int)n, err);
    for (int64_t i = 0; i < n && good; i++)
        multiply(x + i * n, n, 1, sign_of(x + i * n, n, 1));
    /* From rising to falling: read from the end. */
    good = good
        && (w == NULL
            || (tw = store(dw + n - 1, -1, 1, n, -1, "comp", NULL, err)))
        && (v == NULL || (tv = store(x + (n - 1) * n, 1, -n, n, n, a->axis[0],
                                     "comp", err)));
    if (good) {
        if (w != NULL)
            *w = tw;
        if (v != NULL)
            *v = tv;
    } else {
        qkv_tensor_release(tw);
        qkv_tensor_release(tv);
    }
    qkv_free(dw);
    qkv_free(x);
    return good;
}

qkv_tensor *qkv_cholesky(const qkv_tensor *a, qkv_error *err)
{
    double *x = load_symmetric(a, "cholesky", err);
    if (x == NULL)
        return NULL;
    const int n = (int)a->shape[0];
    int info;
    qkv_tensor *out = NULL;
    begin();
    dpotrf_("U", &n, x, &n, &info, 1);      /* by rows: the lower triangle */
    if (info > 0) {
        qkv_blas_threads(1);
        qkv_fail(err, QKV_EINVAL, "cholesky of a matrix that is not positive "
                 "definite: its leading %d x %d part is not", info, info);
    } else if (end(info, "cholesky", err)) {
        for (int64_t i = 0; i < n; i++)
            memset(x + i * n + i + 1, 0, (size_t)(n - i - 1) * sizeof *x);
        out = store(x, n, 1, n, n, a->axis[0], a->axis[1], err);
    }
    qkv_free(x);
    return out;
}

/* ---- q and r ---- */

/* x [m, n] by columns becomes q [m, r] by columns; out_r [r, n] by rows. */
static bool qr(double *out_r, double *x, double *tau, int m, int n,
               qkv_error *err)
{
    const int r = m < n ? m : n, ask = -1;
    int info, size;
    double first, second;
    dgeqrf_(&m, &n, x, &m, tau, &first, &ask, &info);
    dorgqr_(&m, &r, &r, x, &m, tau, &second, &ask, &info);
    double *work = new_work(first > second ? first : second, &size, "qr", err);
    if (work == NULL)
        return false;
    begin();
    dgeqrf_(&m, &n, x, &m, tau, work, &size, &info);
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = i; j < n; j++)
            out_r[i * n + j] = x[j * m + i];
    if (info == 0)
        dorgqr_(&m, &r, &r, x, &m, tau, work, &size, &info);
    qkv_free(work);
    return end(info, "qr", err);
}

bool qkv_qr(qkv_tensor **q, qkv_tensor **r, const qkv_tensor *a,
            qkv_error *err)
{
    if (!check_matrix(a, "qr", false, err))
        return false;
    const int64_t m = a->shape[0], n = a->shape[1], k = m < n ? m : n;
    double *x = load(a, true, m, "qr", err);
    double *dr = x != NULL ? new_array(k * n, sizeof *dr, err) : NULL;
    double *tau = dr != NULL ? new_array(k, sizeof *tau, err) : NULL;
    qkv_tensor *tq = NULL, *tr = NULL;
    bool good = tau != NULL && qr(dr, x, tau, (int)m, (int)n, err);
    for (int64_t i = 0; i < k && good; i++)
        if (dr[i * n + i] < 0.0) {
            multiply(dr + i * n, n, 1, -1.0);
            multiply(x + i * m, m, 1, -1.0);
        }
    good = good
        && (tq = store(x, 1, m, m, k, a->axis[0], NULL, err)) != NULL
        && (tr = store(dr, n, 1, k, n, NULL, a->axis[1], err)) != NULL;
    if (good) {
        *q = tq;
        *r = tr;
    } else {
        qkv_tensor_release(tq);
    }
    qkv_free(x);
    qkv_free(dr);
    qkv_free(tau);
    return good;
}

/* ---- equations ---- */

/* b [n] or [n, k] for a system with `rows` equations? */
static bool check_right(const qkv_tensor *a, const qkv_tensor *b,
                        const char *verb, qkv_error *err)
{
    char left[160], right[160];
    if (!qkv_check_plain(b, verb, err))
        return false;
    if ((b->n_dims == 1 || b->n_dims == 2) && b->shape[0] == a->shape[0]
        && (b->n_dims == 1
            || (b->shape[1] > 0 && b->shape[1] <= INT_MAX)))
        return true;
    qkv_tensor_describe(a, left, sizeof left);
    qkv_tensor_describe(b, right, sizeof right);
    return qkv_fail(err, QKV_ESHAPE, "%s of %s and %s: the second needs %lld "
                    "rows", verb, left, right, (long long)a->shape[0]);
}

/* The solution x [n] or [n, k], by columns ld apart, as a tensor: its rows
 * belong to a's columns, its columns to b's. */
static qkv_tensor *store_solution(const double *x, int64_t ld,
                                  const qkv_tensor *a, const qkv_tensor *b,
                                  qkv_error *err)
{
    const int64_t k = b->n_dims > 1 ? b->shape[1] : -1;
    return store(x, 1, ld, a->shape[1], k, a->axis[1],
                 b->n_dims > 1 ? b->axis[1] : NULL, err);
}

/* The largest sum of absolute values of a row of x' (its 1-norm by columns),
 * x [n, n]. */
static double norm_1(const double *x, int64_t n)
{
    double norm = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < n; j++)
            sum += fabs(x[i * n + j]);
        norm = sum > norm ? sum : norm;
    }
    return norm;
}

/* a [n, n] by rows is destroyed; b by columns becomes x. */
static bool solve(double *a, double *b, int n, int columns, qkv_error *err)
{
    const double norm = norm_1(a, n);
    double rcond = 0.0;
    int info;
    int *pivot = new_array((int64_t)2 * n, sizeof *pivot, err);
    double *work = pivot != NULL ? new_array((int64_t)4 * n, sizeof *work, err)
                                 : NULL;
    bool good = work != NULL;
    if (good) {
        begin();
        dgetrf_(&n, &n, a, &n, pivot, &info);
        if (info == 0)
            dgecon_("1", &n, a, &n, &norm, &rcond, work, pivot + n, &info, 1);
        /* a by rows is a' by columns: solve with its transpose. */
        if (info == 0 && rcond >= DBL_EPSILON)
            dgetrs_("T", &n, &columns, a, &n, pivot, b, &n, &info, 1);
        good = end(info > 0 ? 0 : info, "solve", err);
    }
    if (good && !(rcond >= DBL_EPSILON))
        good = qkv_fail(err, QKV_EINVAL, "solve with a singular matrix "
                        "(reciprocal condition %.1e); lstsq gives the "
                        "solution of least norm", rcond);
    qkv_free(pivot);
    qkv_free(work);
    return good;
}

qkv_tensor *qkv_solve(const qkv_tensor *a, const qkv_tensor *b,
                      qkv_error *err)
{
    if (!check_matrix(a, "solve", true, err)
        || !check_right(a, b, "solve", err))
        return NULL;
    const int64_t n = a->shape[0];
    const int columns = b->n_dims > 1 ? (int)b->shape[1] : 1;
    double *x = load(a, false, n, "solve", err);
    double *y = x != NULL ? load(b, true, n, "solve", err) : NULL;
    qkv_tensor *out = y != NULL && solve(x, y, (int)n, columns, err)
        ? store_solution(y, n, a, b, err) : NULL;
    qkv_free(x);
    qkv_free(y);
    return out;
}

/* a [m, n] by columns is destroyed; y, columns max(m, n) apart, becomes x. */
static bool least_squares(double *a, double *y, int m, int n, int columns,
                          qkv_error *err)
{
    const int ld = m > n ? m : n, r = m < n ? m : n, ask = -1;
    /* As NumPy: what float data cannot tell from 0 counts as 0. */
    const double rcond = (double)FLT_EPSILON * ld;
    int info, rank, size, int_answer = 0;
    double answer;
    double *s = new_array(r, sizeof *s, err);
    if (s == NULL)
        return false;
    dgelsd_(&m, &n, &columns, a, &m, y, &ld, s, &rcond, &rank, &answer, &ask,
            &int_answer, &info);
    double *work = new_work(answer, &size, "lstsq", err);
    int *iwork = work != NULL ? new_array(int_answer, sizeof *iwork, err)
                              : NULL;
    bool good = iwork != NULL;
    if (good) {
        begin();
        dgelsd_(&m, &n, &columns, a, &m, y, &ld, s, &rcond, &rank, work,
                &size, iwork, &info);
        good = end(info, "lstsq", err);
    }
    qkv_free(iwork);
    qkv_free(work);
    qkv_free(s);
    return good;
}

qkv_tensor *qkv_lstsq(const qkv_tensor *a, const qkv_tensor *b,
                      qkv_error *err)
{
    if (!check_matrix(a, "lstsq", false, err)
        || !check_right(a, b, "lstsq", err))
        return NULL;
    const int64_t m = a->shape[0], n = a->shape[1], ld = m > n ? m : n;
    const int columns = b->n_dims > 1 ? (int)b->shape[1] : 1;
    double *x = load(a, true, m, "lstsq", err);
    double *y = x != NULL ? load(b, true, ld, "lstsq", err) : NULL;
    qkv_tensor *out = y != NULL
        && least_squares(x, y, (int)m, (int)n, columns, err)
        ? store_solution(y, ld, a, b, err) : NULL;
    qkv_free(x);
    qkv_free(y);
    return out;
}
