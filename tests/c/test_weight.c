/*
 * test_weight.c - products against the dequantised matrix in double
 *
 * Blocks are random bytes with finite scales (quant.c is tested elsewhere);
 * the oracle unpacks them with qkv_unpack, applies the row map as weight.h
 * says it, and sums in double. Every type, map and number of rows; the same
 * bits for one thread and for three; what is wrong is refused.
 */
#include "config.h"

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
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/random.h"
#include "tensor/blas.h"
#include "tensor/kernel.h"
#include "tensor/quant.h"
#include "tensor/weight.h"

/* Error of a product by norm, relative to |x| |W row|: float32 sums of up to
 * 800 terms were off by 1e-7 and less. */
static const double TOL = 5e-7;

static qkv_random rng;

/* Where a block keeps halves: d, and what else is a scale (-1: nothing). */
static const struct {
    qkv_dtype type;
    int d, m;
} quantised[] = {
    {QKV_Q4_0, 0, -1}, {QKV_Q4_1, 0, 2}, {QKV_Q5_0, 0, -1}, {QKV_Q5_1, 0, 2},
    {QKV_Q8_0, 0, -1}, {QKV_Q2_K, 80, 82}, {QKV_Q3_K, 108, -1},
    {QKV_Q4_K, 0, 2}, {QKV_Q5_K, 0, 2}, {QKV_Q6_K, 208, -1},
    {QKV_IQ4_NL, 0, -1}, {QKV_IQ4_XS, 0, -1}
};

static void put_half(unsigned char *at, double x)
{
    const uint16_t h = qkv_to_f16((float)x);
    memcpy(at, &h, sizeof h);
}

static void fill_blocks(unsigned char *b, size_t bytes, qkv_dtype type)
{
    size_t i = 0;
    while (quantised[i].type != type)
        i++;
    for (size_t j = 0; j < bytes; j++)
        b[j] = (unsigned char)qkv_random_bits(&rng);
    for (size_t j = 0; j < bytes; j += (size_t)qkv_dtypes[type].bytes) {
        put_half(b + j + quantised[i].d, 0.01 * qkv_random_normal(&rng));
        if (quantised[i].m >= 0)
            put_half(b + j + quantised[i].m, 0.05 * qkv_random_normal(&rng));
    }
}

static qkv_tensor *matrix(qkv_dtype type, int64_t rows, int64_t columns)
{
    qkv_error err;
    const int64_t shape[2] = {rows, columns};
    qkv_tensor *t = qkv_tensor_new(type, 2, shape, NULL, &err);
    assert_non_null(t);
    if (qkv_is_quantised(type)) {
        fill_blocks(qkv_tensor_data(t), t->storage->bytes, type);
        return t;
    }
    char *at = qkv_tensor_data(t);
    for (int64_t i = 0; i < rows * columns; i++) {
        const float x = (float)qkv_random_normal(&rng);
        const uint16_t h = type == QKV_F16 ? qkv_to_f16(x) : qkv_to_bf16(x);
        if (type == QKV_F32)
            memcpy(at + 4 * i, &x, sizeof x);
        else
            memcpy(at + 2 * i, &h, sizeof h);
    }
    return t;
}

/* The stored row of W row i, by weight.h's own words. */
static int64_t mapped(const qkv_weight *w, int64_t i)
{
    int64_t j = i % w->group;
    if (w->pairs)
        j = j < w->group / 2 ? 2 * j : 2 * (j - w->group / 2) + 1;
    return w->first + i / w->group * w->pitch + j;
}

/* All of W [n, k] in double. malloc'd. */
static double *dense(const qkv_weight *w)
{
    const qkv_tensor *t = w->stored;
    const int64_t rows = t->shape[0], columns = t->shape[1];
    float *all = malloc((size_t)(rows * columns) * sizeof *all);
    double *out = malloc((size_t)(w->n * w->k) * sizeof *out);
    assert_true(all != NULL && out != NULL);
    qkv_unpack(all, t->dtype, qkv_tensor_data(t), rows * columns);
    for (int64_t i = 0; i < w->n; i++)
        for (int64_t j = 0; j < w->k; j++)
            out[i * w->k + j] = (double)(w->transposed
                ? all[j * columns + mapped(w, i)]
                : all[mapped(w, i) * columns + j]);
    free(all);
    return out;
}

/* |got - x W' - bias| against |x| |W|, over all of it; rows got_stride and
 * x_stride apart. picked: rows of W, or NULL. */
static double error_of(const float *got, int64_t got_stride, const float *x,
                       int64_t x_stride, int64_t rows, const double *w,
                       int64_t n, int64_t k, const float *bias,
                       const int64_t *picked)
{
    double off = 0, size = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) {
            const int64_t row = picked != NULL ? picked[i] : i;
            double want = bias != NULL ? (double)bias[row] : 0;
            double xx = 0, ww = 0;
            for (int64_t j = 0; j < k; j++) {
                const double a = (double)x[r * x_stride + j];
                const double b = w[row * k + j];
                want += a * b;
                xx += a * a;
                ww += b * b;
            }
            const double d = (double)got[r * got_stride + i] - want;
            off += d * d;
            size += xx * ww;
        }
    return sqrt(off / size);
}

enum { MOST_ROWS = 70, PAD = 4 };

/* Products of w with 1 to 70 rows of x, with and without bias, for one and
 * three threads, and picked rows. */
static void check(const char *what, const qkv_weight *w)
{
    qkv_error err;
    const int64_t n = w->n, k = w->k, ns = n + PAD, ks = k + PAD;
    double *want = dense(w);
    float *x = malloc((size_t)(MOST_ROWS * ks) * sizeof *x);
    float *got = malloc((size_t)(MOST_ROWS * ns) * sizeof *got);
    float *again = malloc((size_t)(MOST_ROWS * ns) * sizeof *again);
    float *bias = malloc((size_t)n * sizeof *bias);
    assert_true(x && got && again && bias);
    for (int64_t i = 0; i < MOST_ROWS * ks; i++)
        x[i] = (float)qkv_random_normal(&rng);
    for (int64_t i = 0; i < n; i++)
        bias[i] = (float)qkv_random_normal(&rng);
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16,
                                 17, 31, 33, 48, 49, 64, 70};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        const int64_t rows = counts[c];
        const float *b = c % 2 ? bias : NULL;
        const size_t bytes = (size_t)(rows * ns) * sizeof *got;
        memset(got, 0x7f, bytes);
        memset(again, 0x7f, bytes);
        qkv_set_threads(1);
        assert_true(qkv_product(got, ns, x, ks, rows, w, b, &err));
        qkv_set_threads(3);
        assert_true(qkv_product(again, ns, x, ks, rows, w, b, &err));
        assert_memory_equal(got, again, bytes);     /* and between the rows */
        const double off = error_of(got, ns, x, ks, rows, want, n, k, b, NULL);
        if (!(off <= TOL))
            fail_msg("%s, %s, %lld rows: off by %.3g", what,
                     qkv_kernel()->name, (long long)rows, off);
    }
    const int64_t picked[5] = {n - 1, 0, n / 2, n / 2, n / 3};
    for (int64_t rows = 1; rows < 12; rows += 5) {
        assert_true(qkv_product_rows(got, ns, x, ks, rows, w, picked, 5, bias,
                                     &err));
        assert_true(error_of(got, ns, x, ks, rows, want, 5, k, bias, picked)
                    <= TOL);
    }
    float *row = malloc((size_t)k * sizeof *row);
    assert_non_null(row);
    qkv_tensor *all = qkv_weight_float(w, &err);
    assert_non_null(all);
    const float *a = qkv_tensor_data(all);
    for (int64_t i = 0; i < n; i++) {
        qkv_weight_row(row, w, i);
        for (int64_t j = 0; j < k; j++)
            assert_true((double)row[j] == want[i * k + j]
                        && a[i * k + j] == row[j]);
    }
    qkv_tensor_release(all);
    free(row);
    free(want);
    free(x);
    free(got);
    free(again);
    free(bias);
}

static const struct {
    const char *name;
    int64_t rows;               /* stored */
    int64_t n, first, group, pitch;
    bool pairs;
} maps[] = {
    {"plain", 50, 50, 0, 50, 0, false},
    {"fused", 70, 37, 21, 37, 0, false},
    {"interleaved", 72, 24, 8, 8, 24, false},
    {"pairs", 48, 48, 0, 16, 16, true},
    {"pairs, fused", 80, 32, 40, 16, 16, true},
    {"pairs, interleaved", 72, 24, 8, 8, 24, true},
    {"one row", 3, 1, 2, 1, 0, false},
    {"the same rows again", 8, 24, 0, 8, 0, false}
};
enum { N_MAPS = sizeof maps / sizeof maps[0] };

static void set_map(qkv_weight *w, size_t m)
{
    w->n = maps[m].n;
    w->first = maps[m].first;
    w->group = maps[m].group;
    w->pitch = maps[m].pitch;
    w->pairs = maps[m].pairs;
}

static void check_type(qkv_dtype type, int64_t k, bool transposed)
{
    for (size_t m = 0; m < N_MAPS; m++) {
        qkv_error err;
        char what[80];
        qkv_tensor *t = transposed ? matrix(type, k, maps[m].rows)
            : matrix(type, maps[m].rows, k);
        qkv_weight w;
        assert_true(qkv_weight_init(&w, t, transposed, &err));
        qkv_tensor_release(t);
        set_map(&w, m);
        assert_true(qkv_weight_check(&w, "w", &err));
        snprintf(what, sizeof what, "%s, %s%s", qkv_dtypes[type].name,
                 maps[m].name, transposed ? ", transposed" : "");
        check(what, &w);
        qkv_weight_reset(&w);
        assert_null(w.stored);
    }
}

/* ---- the tests ---- */

static void products(void **state)
{
    (void)state;
    const char *names[8];
    const int n = qkv_kernel_names(names, 8);
    for (int i = 0; i < n; i++) {
        qkv_error err;
        assert_true(qkv_kernel_choose(names[i], &err));
        static const qkv_dtype plain[] = {QKV_F32, QKV_F16, QKV_BF16};
        for (int t = 0; t < 3; t++) {
            check_type(plain[t], 33, false);
            check_type(plain[t], 33, true);
        }
        check_type(QKV_F32, 800, false);        /* over one run of sums */
        for (size_t t = 0; t < sizeof quantised / sizeof quantised[0]; t++)
            check_type(quantised[t].type,
                       qkv_dtypes[quantised[t].type].block == 32 ? 96 : 512,
                       false);
    }
    qkv_product_trim();
}

/* Past all sizes at which work is handed out in pieces. */
static void large(void **state)
{
    (void)state;
    qkv_error err;
    assert_true(qkv_kernel_choose(NULL, &err));
    static const struct {
        qkv_dtype type;
        int64_t n, k;
        bool transposed;
    } rows[] = {
        {QKV_Q4_1, 576, 576, false}, {QKV_Q8_0, 700, 1536, false},
        {QKV_F32, 333, 600, false}, {QKV_F32, 500, 333, true},
        {QKV_BF16, 500, 333, true}, {QKV_Q6_K, 100, 2048, false}
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qkv_tensor *t = rows[i].transposed
            ? matrix(rows[i].type, rows[i].k, rows[i].n)
            : matrix(rows[i].type, rows[i].n, rows[i].k);
        qkv_weight w;
        assert_true(qkv_weight_init(&w, t, rows[i].transposed, &err));
        qkv_tensor_release(t);
        check("large", &w);
        qkv_weight_reset(&w);
    }
    /* More rows of x than are packed at once: row r is row r % 64. */
    enum { ROWS = 1100, K = 64, N = 24 };
    qkv_tensor *t = matrix(QKV_Q8_0, N, K);
    qkv_weight w;
    assert_true(qkv_weight_init(&w, t, false, &err));
    qkv_tensor_release(t);
    static float x[ROWS * K], got[ROWS * N];
    for (int i = 0; i < ROWS * K; i++)
        x[i] = i < 64 * K ? (float)qkv_random_normal(&rng) : x[i - 64 * K];
    assert_true(qkv_product(got, N, x, K, ROWS, &w, NULL, &err));
    double *want = dense(&w);
    assert_true(error_of(got, N, x, K, 64, want, N, K, NULL, NULL) <= TOL);
    for (int i = 64 * N; i < ROWS * N; i++)
        assert_true(got[i] == got[i - 64 * N]);
    free(want);
    qkv_weight_reset(&w);
    qkv_product_trim();
}

/* For few rows, a row's result does not depend on how many there are; nor,
 * for many, on the others. */
static void rows_alone(void **state)
{
    (void)state;
    enum { ROWS = 64, N = 40, K = 160 };
    qkv_error err;
    qkv_tensor *t = matrix(QKV_Q4_1, N, K);
    qkv_weight w;
    assert_true(qkv_weight_init(&w, t, false, &err));
    qkv_tensor_release(t);
    float x[ROWS * K], all[ROWS * N], some[ROWS * N];
    for (int i = 0; i < ROWS * K; i++)
        x[i] = (float)qkv_random_normal(&rng);
    assert_true(qkv_product(all, N, x, K, 7, &w, NULL, &err));
    for (int r = 0; r < 7; r++) {
        assert_true(qkv_product(some, N, x + r * K, K, 1, &w, NULL, &err));
        assert_memory_equal(some, all + r * N, N * sizeof *some);
    }
    assert_true(qkv_product(all, N, x, K, ROWS, &w, NULL, &err));
    assert_true(qkv_product(some, N, x + 11 * K, K, 33, &w, NULL, &err));
    assert_memory_equal(some, all + 11 * N, 33 * N * sizeof *some);
    /* Picked rows have the bits of the whole, where that is of few rows. */
    const int64_t picked[2] = {39, 7};
    assert_true(qkv_product(all, N, x, K, 3, &w, NULL, &err));
    assert_true(qkv_product_rows(some, 2, x, K, 3, &w, picked, 2, NULL, &err));
    for (int r = 0; r < 3; r++)
        for (int j = 0; j < 2; j++)
            assert_true(some[2 * r + j] == all[r * N + picked[j]]);
    qkv_weight_reset(&w);
    qkv_product_trim();
}

static const struct {
    int64_t n, k, first, group, pitch;
    bool pairs;
    const char *message;
} bad[] = {                             /* of a stored matrix [48, 64] */
    {48, 64, 1, 48, 0, false, "has 48 rows; 48 rows in groups of 48"},
    {49, 64, 0, 49, 0, false, "go beyond them"},
    {24, 64, 0, 8, 24, false, "go beyond them"},
    {16, 64, -1, 16, 0, false, "do not come in groups"},
    {16, 64, 0, 0, 0, false, "do not come in groups"},
    {16, 64, 0, 5, 5, false, "do not come in groups"},
    {15, 64, 0, 5, 5, true, "(an even number)"},
    {16, 64, 0, 8, -8, false, "-8 apart"},
    {0, 64, 0, 1, 0, false, "0 rows"},
    {48, 32, 0, 48, 0, false, "has 64 inputs, expected 32"},
    {16, 64, INT64_MAX, 16, 0, false, "go beyond them"},
    {16, 64, 0, 8, INT64_MAX, false, "go beyond them"},
    {INT32_MAX, 64, 0, INT32_MAX, 0, false, "go beyond them"},
    {INT32_MAX - 1, 64, 0, 2, 1 << 20, false, "go beyond them"},
    {INT64_MAX, 64, 0, INT64_MAX, 0, false, "too many"},
    {(int64_t)1 << 40, 64, 0, 16, 0, false, "too many"}
};

static void refused(void **state)
{
    (void)state;
    qkv_error err;
    qkv_weight w;
    qkv_tensor *t = matrix(QKV_Q8_0, 48, 64);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_true(qkv_weight_init(&w, t, false, &err));
        w.n = bad[i].n;
        w.k = bad[i].k;
        w.first = bad[i].first;
        w.group = bad[i].group;
        w.pitch = bad[i].pitch;
        w.pairs = bad[i].pairs;
        if (qkv_weight_check(&w, "blk.0.w", &err)
            || strstr(err.msg, bad[i].message) == NULL
            || strstr(err.msg, "blk.0.w") == NULL)
            fail_msg("row %zu: \"%s\"", i, err.msg);
        qkv_weight_reset(&w);
    }
    assert_false(qkv_weight_init(&w, t, true, &err));       /* quantised */
    assert_int_equal(err.code, QKV_EUNSUPPORTED);
    assert_int_equal(t->refs, 1);
    const int64_t picked[2] = {0, 48};
    float x[64] = {0}, out[2];
    assert_true(qkv_weight_init(&w, t, false, &err));
    assert_false(qkv_product_rows(out, 2, x, 64, 1, &w, picked, 2, NULL, &err));
    assert_non_null(strstr(err.msg, "row 48 of 48: rows run 0..47"));
    qkv_weight_reset(&w);
    qkv_tensor_release(t);

    const int64_t cube[3] = {2, 2, 32};
    t = qkv_tensor_new(QKV_F32, 3, cube, NULL, &err);
    assert_false(qkv_weight_init(&w, t, false, &err));
    assert_non_null(strstr(err.msg, "2 axes, not 3"));
    qkv_tensor_release(t);
    t = qkv_tensor_new(QKV_I32, 2, cube, NULL, &err);
    assert_false(qkv_weight_init(&w, t, false, &err));
    assert_non_null(strstr(err.msg, "i32"));
    qkv_tensor_release(t);
    const int64_t none[2] = {0, 32};
    t = qkv_tensor_new(QKV_F32, 2, none, NULL, &err);
    assert_false(qkv_weight_init(&w, t, false, &err));
    qkv_tensor_release(t);
    t = matrix(QKV_F32, 6, 5);
    qkv_tensor *turned = qkv_tensor_transpose(t, 0, 1, &err);
    assert_false(qkv_weight_init(&w, turned, false, &err));
    assert_non_null(strstr(err.msg, "contiguous rows"));
    qkv_tensor_release(turned);
    qkv_tensor_release(t);
    w = (qkv_weight){0};
    assert_true(qkv_weight_check(&w, "missing", &err));
    qkv_weight_reset(&w);
}

/* Rows of a slice of a wider matrix. */
static void strided(void **state)
{
    (void)state;
    qkv_error err;
    qkv_tensor *t = matrix(QKV_F32, 20, 80);
    qkv_tensor *part = qkv_tensor_slice(t, 1, 16, 56, &err);
    assert_non_null(part);
    for (int turned = 0; turned < 2; turned++) {
        qkv_weight w;
        assert_true(qkv_weight_init(&w, part, turned, &err));
        float x[30 * 40], got[30 * 40];
        const float *data = qkv_tensor_data(t);
        for (int i = 0; i < 30 * 40; i++)
            x[i] = (float)qkv_random_normal(&rng);
        for (int64_t rows = 1; rows <= 30; rows += 29) {
            assert_true(qkv_product(got, w.n, x, w.k, rows, &w, NULL, &err));
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < w.n; i++) {
                    double want = 0;
                    for (int64_t j = 0; j < w.k; j++)
                        want += (double)x[r * w.k + j]
                            * (double)(turned ? data[80 * j + 16 + i]
                                       : data[80 * i + 16 + j]);
                    assert_true(fabs((double)got[r * w.n + i] - want) < 2e-5);
                }
        }
        qkv_weight_reset(&w);
    }
    qkv_tensor_release(part);
    qkv_tensor_release(t);
    qkv_product_trim();
}

static void interrupted_or_without_memory(void **state)
{
    (void)state;
    qkv_error err;
    qkv_tensor *t = matrix(QKV_Q4_0, 64, 64);
    qkv_weight w;
    assert_true(qkv_weight_init(&w, t, false, &err));
    qkv_tensor_release(t);
    static float x[64 * 64], out[64 * 64];
    const size_t held = qkv_alloc_live();
    qkv_alloc_fail_after(0);
    assert_true(qkv_product(out, 64, x, 64, 1, &w, NULL, &err));
    assert_false(qkv_product(out, 64, x, 64, 64, &w, NULL, &err));
    assert_int_equal(err.code, QKV_ENOMEM);
    assert_null(qkv_weight_float(&w, &err));
    qkv_alloc_fail_after(-1);
    assert_int_equal(qkv_alloc_live(), held);
    assert_true(qkv_product(out, 64, x, 64, 64, &w, NULL, &err));
    assert_true(qkv_alloc_live() > held);       /* kept for the next one */
    qkv_product_trim();
    assert_int_equal(qkv_alloc_live(), held);

    qkv_interrupt();
    for (int64_t rows = 1; rows <= 64; rows += 63) {
        assert_false(qkv_product(out, 64, x, 64, rows, &w, NULL, &err));
        assert_int_equal(err.code, QKV_EINTERRUPTED);
    }
    assert_null(qkv_weight_float(&w, &err));
    qkv_interrupt_clear();
    assert_true(qkv_product(out, 64, x, 64, 0, &w, NULL, &err));
    qkv_weight_reset(&w);
    qkv_product_trim();
}

static float *filled(int64_t n)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i <= n; i++)
        x[i] = (float)qkv_random_normal(&rng);
    return x;
}

/* Products of one x together: the bits of each alone, however many threads. */
static void together(void **state)
{
    (void)state;
    enum { K = 256, MOST_N = 700 };
    static const qkv_dtype types[] = {QKV_Q4_1, QKV_F32, QKV_Q6_K};
    static const int64_t n[] = {MOST_N, 37, 300};
    static const int64_t rows[] = {1, 5, 8, 9, 70, 300};
    qkv_weight w[3];
    qkv_error err;
    for (int i = 0; i < 3; i++) {
        qkv_tensor *t = matrix(types[i], n[i], K);
        assert_true(qkv_weight_init(&w[i], t, false, &err));
        qkv_tensor_release(t);
    }
    float *bias = filled(MOST_N), *x = filled(300 * (K + 2));
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (int threads = 1; threads <= 3; threads += 2) {
            qkv_output all[3];
            qkv_set_threads(threads);
            for (int i = 0; i < 3; i++)
                all[i] = (qkv_output){filled(rows[r] * n[i]), n[i], &w[i],
                                      i == 1 ? NULL : bias};
            assert_true(qkv_products(all, 3, x, K + 2, rows[r], &err));
            for (int i = 0; i < 3; i++) {
                float *alone = filled(rows[r] * n[i]);
                assert_true(qkv_product(alone, n[i], x, K + 2, rows[r], &w[i],
                                        all[i].bias, &err));
                assert_memory_equal(alone, all[i].data,
                                    (size_t)(rows[r] * n[i]) * sizeof *alone);
                free(alone);
                free(all[i].data);
            }
        }
    for (int i = 0; i < 3; i++)
        qkv_weight_reset(&w[i]);
    free(bias);
    free(x);
    qkv_product_trim();
}

/* ---- products of matrices of floats ---- */

static const struct {
    int64_t m, n, k;
    float alpha, beta;
} gemms[] = {
    {1, 1, 1, 1, 0}, {1, 70, 33, 1, 0}, {70, 1, 33, 2, 1}, {2, 2, 1, 1, 0},
    {3, 5, 7, -1, 0.5f}, {16, 16, 16, 1, 1}, {17, 31, 300, 1, 0},
    {47, 49, 257, 0.5f, -2}, {100, 3, 600, 1, 0}, {3, 100, 600, 1, 1},
    {130, 90, 64, 1, 0}, {5, 4, 0, 1, 3}, {600, 300, 40, 1, 0},
};

/* op(x) element (i, j) */
static double entry(const float *x, bool turned, int64_t ld, int64_t i,
                    int64_t j)
{
    return (double)(turned ? x[j * ld + i] : x[i * ld + j]);
}

/* c = alpha op(a) op(b) + beta c, rows with gaps, which stay. */
static void check_gemm(size_t at, bool ta, bool tb)
{
    const int64_t m = gemms[at].m, n = gemms[at].n, k = gemms[at].k;
    const int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
    const double alpha = (double)gemms[at].alpha;
    const double beta = (double)gemms[at].beta;
    float *a = filled((ta ? k : m) * lda), *b = filled((tb ? n : k) * ldb);
    float *before = filled(m * ldc), *c = filled(m * ldc);
    qkv_error err;
    memcpy(c, before, (size_t)(m * ldc) * sizeof *c);
    for (int64_t i = 0; i < m && beta == 0; i++)
        c[i * ldc] = NAN;           /* does not count */
    assert_true(qkv_gemm(ta, tb, m, n, k, gemms[at].alpha, a, lda, b, ldb,
                         gemms[at].beta, c, ldc, &err));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < ldc; j++) {
            const double old = (double)before[i * ldc + j];
            double want = 0, aa = 0, bb = 0;
            for (int64_t l = 0; l < k && j < n; l++) {
                const double x = entry(a, ta, lda, i, l);
                const double y = entry(b, tb, ldb, l, j);
                want += x * y;
                aa += x * x;
                bb += y * y;
            }
            want = j < n ? alpha * want + (beta == 0 ? 0 : beta * old) : old;
            const double size = fabs(alpha) * sqrt(aa * bb)
                + fabs(beta * old);
            if (!(fabs((double)c[i * ldc + j] - want) <= TOL * size))
                fail_msg("%s: product %d, ta %d, tb %d: [%d, %d] is %.9g, "
                         "expected %.9g", qkv_kernel()->name, (int)at, ta, tb,
                         (int)i, (int)j, (double)c[i * ldc + j], want);
        }
    free(a);
    free(b);
    free(c);
    free(before);
}

static void matrices(void **state)
{
    (void)state;
    const char *names[8];
    const int tables = qkv_kernel_names(names, 8);
    qkv_error err;
    for (int t = 0; t < tables; t++) {
        assert_true(qkv_kernel_choose(names[t], &err));
        for (size_t i = 0; i < sizeof gemms / sizeof gemms[0]; i++)
            for (int turned = 0; turned < 4; turned++)
                check_gemm(i, turned & 1, turned & 2);
    }
    assert_true(qkv_kernel_choose(NULL, &err));
}

int main(void)
{
    qkv_random_seed(&rng, 11);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(large),
        cmocka_unit_test(rows_alone),
        cmocka_unit_test(refused),
        cmocka_unit_test(strided),
        cmocka_unit_test(together),
        cmocka_unit_test(matrices),
        cmocka_unit_test(interrupted_or_without_memory)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
