/*
 * blas.c - the one place that knows OpenBLAS: see blas.h
 *
 * Where there are kernels for this processor's vectors (kernel.h), products
 * of matrices are made with those: they reach 95 % of its peak with small
 * ones too, and OpenBLAS falls back to SSE on processors younger than itself
 * (0.3.21 takes a Sapphire Rapids for a Prescott: a seventh of the speed). It
 * knows the processors that we have no kernels for; and vectors, and LAPACK.
 *
 * Either works on one thread, on pieces whose sizes follow from those of
 * the product alone: many enough to keep a few threads busy, large enough
 * that packing them costs little, and none over 2^27 multiplications, which
 * take 30 ms at 10 GFLOP/s: between them Ctrl-C is seen. Splitting over n
 * before m is 12 to 25 % faster than the other way round.
 */
#include "config.h"

#include "tensor/blas.h"

#include <cblas.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/kernel.h"

enum { M_PIECE = 512, N_PIECE = 256, K_PIECE = 1024, N_LEAST = 64 };
/* Fewer multiplications than that are not worth a second thread. */
enum { SMALL = 1 << 18 };
enum { OWN_LANES = 8 };

static pthread_once_t once = PTHREAD_ONCE_INIT;

static int most_threads;        /* OPENBLAS_NUM_THREADS, else OpenBLAS's view */

static void start(void)
{
    most_threads = openblas_get_num_threads();
    openblas_set_num_threads(1);
}

void qkv_blas_threads(int n)
{
    pthread_once(&once, start);
    openblas_set_num_threads(n < most_threads ? n : most_threads);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* y [m] (y_step apart) = alpha * a [m, k] (or its transpose, stored [k, m])
 * x [k] (x_step apart) + beta * y. Several times faster than a product with
 * one row. */
static void gemv(bool ta, int m, int k, float alpha, const float *a, int lda,
                 const float *x, int x_step, float beta, float *y, int y_step)
{
    pthread_once(&once, start);
    if (beta == 0.0f)           /* what was there, NaN even, does not count */
        for (int i = 0; i < m; i++)
            y[(int64_t)i * y_step] = 0.0f;
    cblas_sgemv(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, ta ? k : m,
                ta ? m : k, alpha, a, lda, x, x_step, beta, y, y_step);
}

/* c [m, n] = beta * c, for k = 0. */
static void scale(int64_t m, int64_t n, float beta, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}

/* ---- with our own kernels ---- */

/* A side of a product: [lanes, k] or [rows, k], element (i, j) at
 * data[i * step + j * k_step], one of the steps 1. */
typedef struct side {
    const float *data;
    int64_t n, step, k_step;
} side;

/* c (lane, row) at c[lane * lane_step + row * row_step]. Packed are a few
 * lanes by K_PACK values at a time, which fit the cache with the tile. */
static void by_lanes(float *c, int64_t lane_step, int64_t row_step, side x,
                     side w, int64_t k, float alpha, float beta)
{
    enum { K_PACK = 256 };
    const qkv_kernels *kernel = qkv_kernel();
    float packed[QKV_KERNEL_BLOCK * K_PACK];
    for (int64_t j = 0; j < k; j += K_PACK, beta = 1.0f) {
        const int64_t kc = least(K_PACK, k - j);
        for (int64_t i = 0; i < x.n; i += kernel->block) {
            const int64_t n = least(kernel->block, x.n - i);
            kernel->pack(packed, x.data + i * x.step + j * x.k_step, x.step,
                         x.k_step, n, kc);
            kernel->many_rows(c + i * lane_step, lane_step, row_step, packed,
                              n, w.data + j * w.k_step, w.step, w.k_step, w.n,
                              kc, alpha, beta);
        }
    }
}

/* Lanes are the side that lies along them, so that packing is copying and the
 * sums are written as they are; rows of a where neither does. */
static void own_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *a, int64_t lda, const float *b,
                     int64_t ldb, float beta, float *c, int64_t ldc)
{
    const side rows = {a, m, ta ? 1 : lda, ta ? lda : 1};
    const side columns = {b, n, tb ? ldb : 1, tb ? 1 : ldb};
    if (tb)
        by_lanes(c, ldc, 1, rows, columns, k, alpha, beta);
    else
        by_lanes(c, 1, ldc, columns, rows, k, alpha, beta);
}

void qkv_gemm_1(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                const float *a, int64_t lda, const float *b, int64_t ldb,
                float beta, float *c, int64_t ldc)
{
    if (m == 0 || n == 0)
        return;
    if (k == 0)
        scale(m, n, beta, c, ldc);
    else if (m == 1)
        gemv(!tb, (int)n, (int)k, alpha, b, (int)ldb, a, ta ? (int)lda : 1,
             beta, c, 1);
    else if (n == 1)
        gemv(ta, (int)m, (int)k, alpha, a, (int)lda, b, tb ? 1 : (int)ldb,
             beta, c, (int)ldc);
    else if (qkv_kernel()->lanes >= OWN_LANES)
        own_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else {
        pthread_once(&once, start);
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans,
                    tb ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k,
                    alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
    }
}

typedef struct product {
    bool ta, tb;
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    int64_t n_piece, n_pieces;  /* columns of c in a piece; pieces in a row */
} product;

/* Element [i, j] of op(a). */
static const float *at(const float *a, bool transposed, int64_t lda,
                       int64_t i, int64_t j)
{
    return transposed ? a + j * lda + i : a + i * lda + j;
}

/* Pieces [begin, end) of c, numbered row-major. */
static void product_pieces(void *context, int64_t begin, int64_t end,
                           int thread)
{
    const product *p = context;
    (void)thread;
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t i = piece / p->n_pieces * M_PIECE;
        const int64_t j = piece % p->n_pieces * p->n_piece;
        const int64_t m = least(M_PIECE, p->m - i);
        const int64_t n = least(p->n_piece, p->n - j);
        for (int64_t l = 0, k; l < p->k && !qkv_interrupted(); l += k) {
            k = least(K_PIECE, p->k - l);
            qkv_gemm_1(p->ta, p->tb, m, n, k, p->alpha,
                       at(p->a, p->ta, p->lda, i, l), p->lda,
                       at(p->b, p->tb, p->ldb, l, j), p->ldb,
                       l == 0 ? p->beta : 1.0f, p->c + i * p->ldc + j,
                       p->ldc);
        }
    }
}

bool qkv_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t lda, const float *b, int64_t ldb,
              float beta, float *c, int64_t ldc, qkv_error *err)
{
    const int64_t apart[] = {lda, ldb, ldc};
    for (int i = 0; i < 3; i++)
        if (apart[i] > INT_MAX)
            return qkv_fail(err, QKV_EUNSUPPORTED, "a matrix with rows %lld "
                            "apart: OpenBLAS counts to %d",
                            (long long)apart[i], INT_MAX);
    if (k == 0) {
        scale(m, n, beta, c, ldc);
        return qkv_check(err);
    }
    /* An eighth of n, in whole cache lines, within limits. */
    int64_t n_piece = (n / 8 + 31) / 32 * 32;
    n_piece = n_piece < N_LEAST ? N_LEAST : least(n_piece, N_PIECE);
    product p = {ta, tb, m, n, k, alpha, beta, a, b, c, lda, ldb, ldc,
                 n_piece, (n + n_piece - 1) / n_piece};
    const int64_t pieces = (m + M_PIECE - 1) / M_PIECE * p.n_pieces;
    const bool small = (double)m * (double)n * (double)k < (double)SMALL;
    qkv_parallel(pieces, small ? pieces : 1, product_pieces, &p);
    return qkv_check(err);
}
