/*
 * kernel.h - the inner loops, chosen once for this processor
 *
 * One table of function pointers an instruction set: portable C, AVX2 with
 * FMA, AVX-512; each in files of its own, compiled with its own flags. The
 * best one that the processor has is taken at first use; QKV_CPU=portable,
 * avx2 or avx512 in the environment forces one (an unknown or missing one is
 * an error at start-up). All run on the caller's thread, allocate nothing,
 * and read any alignment. Arrays do not overlap unless it says so.
 */
#ifndef QKV_KERNEL_H
#define QKV_KERNEL_H
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

typedef struct qkv_kernels {
    const char *name;

    /* out[r * out_stride + i] = dot(x + r * x_stride, row i) for r < rows and
     * i < n; rows of the matrix are row_bytes apart, k values each. A row's
     * sum does not depend on rows or n. [dtype]; NULL for the integers. */
    void (*few_rows[QKV_N_DTYPES])(float *out, int64_t out_stride,
                                   const float *x, int64_t x_stride,
                                   int64_t rows, const void *matrix,
                                   int64_t row_bytes, int64_t n, int64_t k);
    /* The same for many rows. pack lays x [rows, k] (row r, value j at
     * x[r * row_step + j * k_step], one of the steps 1) out for it: packed has
     * room for rows, rounded up to a multiple of `lanes`, times k floats;
     * every `lanes` rows are packed on their own. The matrix is of floats:
     * row i, value j at w[i * w_row_step + j * w_k_step].
     * out[r * lane_step + i * row_step] = alpha * dot + beta * itself, one of
     * the steps 1; beta 0: whatever was there. A sum does not depend on rows
     * or n. Fastest for multiples of `block` rows, itself one of `lanes`. */
    int64_t lanes, block;
    void (*pack)(float *packed, const float *x, int64_t row_step,
                 int64_t k_step, int64_t rows, int64_t k);
    void (*many_rows)(float *out, int64_t lane_step, int64_t row_step,
                      const float *packed, int64_t rows, const float *w,
                      int64_t w_row_step, int64_t w_k_step, int64_t n,
                      int64_t k, float alpha, float beta);
    /* out [k] = the row's values, bit-exact; [dtype]. */
    void (*unpack[QKV_N_DTYPES])(float *out, const void *row, int64_t k);

    float (*dot)(const float *a, const float *b, int64_t n);
    void (*axpy)(float *y, float a, const float *x, int64_t n); /* y += a x */
    double (*sum)(const float *x, int64_t n);
    double (*sum_squares)(const float *x, double centre, int64_t n); /* of x - centre */
    /* out = (x - centre) * scale * gain + bias; gain, bias may be NULL; out
     * may be x. */
    void (*normalise)(float *out, const float *x, float centre, float scale,
                      const float *gain, const float *bias, int64_t n);
    void (*add)(float *out, const float *a, const float *b, int64_t n); /* out may be a or b */
    void (*multiply)(float *out, const float *a, const float *b, int64_t n);
    void (*exp)(float *out, const float *x, int64_t n);     /* out may be x;
                                 * within 2 ulp; -inf -> 0, NaN -> NaN */
    float (*max)(const float *x, int64_t n);
    /* x = exp(x - max x) / sum, in place; all -inf: zeros. */
    void (*softmax)(float *x, int64_t n);
    /* Activations, out may be x. gelu: erf form; gelu_tanh: the tanh form. */
    void (*silu)(float *out, const float *x, int64_t n);
    void (*gelu)(float *out, const float *x, int64_t n);
    void (*gelu_tanh)(float *out, const float *x, int64_t n);
    void (*quick_gelu)(float *out, const float *x, int64_t n);
    void (*relu)(float *out, const float *x, int64_t n);
    void (*tanh)(float *out, const float *x, int64_t n);

    /* Attention of one head, tile by tile. q [d]; keys and values: rows of d,
     * `stride` floats apart.
     * scores[j] = scale * dot(q, k + j * stride), j < n */
    void (*scores)(float *scores, const float *q, const float *k,
                   int64_t stride, int64_t n, int64_t d, float scale);
    /* z[d] += sum over j < n of p[j] * v[j * stride + ...] */
    void (*mix)(float *z, const float *p, const float *v, int64_t stride,
                int64_t n, int64_t d);

    /* Attention without its matrix, for up to `block` queries that read the
     * same keys: begin, then one tile of keys after the other, then end.
     * state [QKV_ATTEND_FLOATS(block, d)] holds what goes on; q and out are
     * [rows, d]. Query i sees the keys at positions from[i] <= p < to[i]; keys
     * of a tile are at first, first + 1, ..., below 2^24. from and to are
     * filled up to a multiple of `lanes` (best with those of the last query).
     * Who sees nothing gets 0. */
    void (*attend_begin)(float *state, const float *q, int64_t q_stride,
                         int64_t rows, int64_t d, float scale);
    void (*attend)(float *state, int64_t rows, int64_t d, const float *k,
                   int64_t k_stride, const float *v, int64_t v_stride,
                   int64_t n, int64_t first, const float *from,
                   const float *to);
    void (*attend_end)(float *out, int64_t out_stride, float *state,
                       int64_t rows, int64_t d);
} qkv_kernels;

enum {
    QKV_KERNEL_BLOCK = 48,             /* the largest `block` of all tables */
    QKV_ATTEND_KEYS = 128       /* scores held at once, a query */
};
#define QKV_ATTEND_FLOATS(block, d) \
    ((block) * (2 * (d) + 2 + QKV_ATTEND_KEYS))

/* The table in use. The first call decides; never NULL. */
const qkv_kernels *qkv_kernel(void);
/* Decide now, so that a bad QKV_CPU is an error and not a surprise; by name
 * for tests (NULL: by QKV_CPU and the processor). */
bool qkv_kernel_choose(const char *name, qkv_error *err);
/* Names of all tables that this processor can run, portable first. */
int qkv_kernel_names(const char **names, int room);

#endif
