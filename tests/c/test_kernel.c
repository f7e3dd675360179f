/*
 * test_kernel.c - every table of inner loops this machine runs, against sums
 * in double and the C library's functions in double
 *
 * All sizes from 0 to past a few vectors, at addresses that fit no vector,
 * with room behind that must stay as it was. Tolerances are those of kernel.h
 * (exp: 2 ulp) or rounding: n terms of size s are within n/2 ulp of s.
 */
#include "config.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "tensor/kernel.h"
#include "tensor/quant.h"

enum { MOST = 150, ROOM = MOST + 40 };
static const double EPS = 0x1p-24;      /* half an ulp of 1 */

static const qkv_kernels *k;            /* the table under test */
static qkv_random rng;

/* An array that starts one float past a line, and is watched behind. */
static float *array(int64_t n)
{
    static float pool[16][ROOM * 80];
    static int next;
    float *a = pool[next++ % 16] + 1;
    assert_true(n + 8 < ROOM * 80);
    for (int64_t i = 0; i < n; i++)
        a[i] = (float)qkv_random_normal(&rng);
    for (int64_t i = n; i < n + 7; i++)
        a[i] = 12345.0f;
    return a;
}

static void untouched(const float *a, int64_t n)
{
    for (int64_t i = n; i < n + 7; i++)
        assert_true(a[i] == 12345.0f);
}

static void near(const char *what, int64_t at, double got, double want,
                 double tol)
{
    if (!(fabs(got - want) <= tol) && !(isnan(got) && isnan(want))
        && got != want)
        fail_msg("%s %s[%lld] = %.9g, expected %.9g within %.3g", k->name,
                 what, (long long)at, got, want, tol);
}

/* ---- functions of one number ---- */

static double silu(double x) { return x / (1 + exp(-x)); }
static double quick_gelu(double x) { return x / (1 + exp(-1.702 * x)); }
static double gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }
static double relu(double x) { return x > 0 ? x : isnan(x) ? x : 0; }
static double gelu_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

/* Relative to the result, plus absolute: what rounding of x itself moves. */
static void test_functions(void)
{
    const struct {
        const char *name;
        void (*f)(float *, const float *, int64_t);
        double (*want)(double);
        double relative, absolute;
    } rows[] = {
        {"exp", k->exp, exp, 4 * EPS, 0},
        {"tanh", k->tanh, tanh, 4 * EPS, 0},
        {"silu", k->silu, silu, 8 * EPS, 1e-37},
        {"quick_gelu", k->quick_gelu, quick_gelu, 16 * EPS, 1e-7},
        {"gelu", k->gelu, gelu, 8 * EPS, 1e-7},
        {"gelu_tanh", k->gelu_tanh, gelu_tanh, 16 * EPS, 1e-7},
        {"relu", k->relu, relu, 0, 0}
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int64_t n = 0; n < 70; n++) {
            float *x = array(n), *y = array(n);
            for (int64_t j = 0; j < n; j++)
                x[j] *= j % 3 == 0 ? 20.0f : j % 3 == 1 ? 1.0f : 1e-3f;
            rows[i].f(y, x, n);
            untouched(y, n);
            for (int64_t j = 0; j < n; j++) {
                const double want = rows[i].want((double)x[j]);
                near(rows[i].name, j, (double)y[j], want,
                     rows[i].relative * fabs(want) + rows[i].absolute
                     + (double)FLT_MIN);
            }
            rows[i].f(x, x, n);                 /* in place: the same bits */
            assert_true(n == 0 || memcmp(x, y, (size_t)n * sizeof *x) == 0);
        }
        float odd[5] = {NAN, 1.0f, 0.0f, 200.0f, -200.0f}, out[5];
        rows[i].f(out, odd, 5);
        assert_true(isnan(out[0]));
        near(rows[i].name, 1, (double)out[1], rows[i].want(1), 1e-6);
        near(rows[i].name, 2, (double)out[2], rows[i].want(0), 0);
        near(rows[i].name, 4, (double)out[4], rows[i].want(-200), 1e-30);
        if (rows[i].f != k->exp)
            near(rows[i].name, 3, (double)out[3], rows[i].want(200), 1e-4);
    }
}

/* Two million floats over all of exp's range, and its edges. */
static void test_exponential(void)
{
    float odd[] = {-INFINITY, INFINITY, NAN, 0.0f, -0.0f, 88.72283f, 88.72284f,
                   -87.3f, -104.0f, -1000.0f, 1000.0f};
    const double inf = HUGE_VAL, nan = inf - inf;
    const double want[] = {0, inf, nan, 1, 1, 3.40279851e38, inf,
                           1.2192e-38, 0, 0, inf};
    const int n_odd = sizeof odd / sizeof odd[0];
    float out[11];
    k->exp(out, odd, n_odd);
    for (int i = 0; i < n_odd; i++)
        near("exp, edge", i, (double)out[i], want[i],
             isfinite(want[i]) ? 1e-3 * want[i] : 0);
    enum { N = 1 << 21 };
    static float x[N], y[N];
    double worst = 0;
    for (int i = 0; i < N; i++)
        x[i] = -87.3f + 175.9f * (float)i / (float)N;
    k->exp(y, x, N);
    for (int i = 0; i < N; i++) {
        const double e = exp((double)x[i]);
        const double ulp = ldexp(1, ilogb(e) - 23);
        const double off = fabs((double)y[i] - e) / ulp;
        worst = off > worst ? off : worst;
    }
    if (!(worst <= 2.0))
        fail_msg("%s: exp is off by %.2f ulp", k->name, worst);
}

/* ---- vectors ---- */

static void test_vectors(void)
{
    for (int64_t n = 0; n <= MOST; n++) {
        float *a = array(n), *b = array(n), *c = array(n);
        double dot = 0, size = 0, sum = 0, squares = 0;
        float most = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            dot += (double)a[i] * (double)b[i];
            size += fabs((double)a[i] * (double)b[i]);
            sum += (double)a[i];
            squares += ((double)a[i] - 0.3) * ((double)a[i] - 0.3);
            most = a[i] > most ? a[i] : most;
        }
        near("dot", n, (double)k->dot(a, b, n), dot, size * 8 * EPS);
        near("sum", n, k->sum(a, n), sum, 1e-12);
        near("sum_squares", n, k->sum_squares(a, 0.3, n), squares, 1e-11);
        assert_true(k->max(a, n) == most);

        k->add(c, a, b, n);
        untouched(c, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(c[i] == a[i] + b[i]);
        k->multiply(c, a, b, n);
        untouched(c, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(c[i] == a[i] * b[i]);
        memcpy(c, b, (size_t)n * sizeof *c);
        k->axpy(c, 1.5f, a, n);
        untouched(c, n);
        for (int64_t i = 0; i < n; i++)
            near("axpy", i, (double)c[i],
                 (double)b[i] + 1.5 * (double)a[i], 8 * EPS);
        memcpy(c, a, (size_t)n * sizeof *c);
        k->add(c, c, c, n);                     /* out may be a and b */
        for (int64_t i = 0; i < n; i++)
            assert_true(c[i] == 2 * a[i]);
    }
    float odd[40];
    for (int i = 0; i < 40; i++) {
        for (int j = 0; j < 40; j++)
            odd[j] = 1;
        odd[i] = NAN;
        assert_true(isnan(k->dot(odd, odd, 40)));
        assert_true(isnan(k->sum(odd, 40)));
        assert_true(isnan(k->sum_squares(odd, 0, 40)));
        assert_true(k->max(odd, 40) == 1.0f);
        odd[i] = -INFINITY;
        assert_true(k->sum(odd, 40) == -HUGE_VAL);
        odd[i] = 2;
        assert_true(k->max(odd, 40) == 2.0f);
    }
    assert_true(k->max(odd, 0) == -INFINITY);
}

static void test_normalise(void)
{
    for (int64_t n = 0; n < 70; n++)
        for (int which = 0; which < 4; which++) {
            float *x = array(n), *gain = array(n), *bias = array(n);
            float *y = array(n);
            const float *g = which & 1 ? gain : NULL;
            const float *b = which & 2 ? bias : NULL;
            k->normalise(y, x, 0.25f, 3.0f, g, b, n);
            untouched(y, n);
            for (int64_t i = 0; i < n; i++) {
                double want = ((double)x[i] - 0.25) * 3;
                want *= g != NULL ? (double)g[i] : 1;
                const double off = (fabs(want) + 4) * 4 * EPS;
                want += b != NULL ? (double)b[i] : 0;
                near("normalise", i, (double)y[i], want, off);
            }
            k->normalise(x, x, 0.25f, 3.0f, g, b, n);
            assert_true(n == 0 || memcmp(x, y, (size_t)n * sizeof *x) == 0);
        }
}

static void test_softmax(void)
{
    for (int64_t n = 1; n <= MOST; n++) {
        float *x = array(n), copy[MOST];
        for (int64_t i = 0; i < n; i++)
            x[i] = i % 5 == 4 ? -INFINITY : x[i] * 5 + 300;
        memcpy(copy, x, (size_t)n * sizeof *x);
        k->softmax(x, n);
        untouched(x, n);
        double most = -HUGE_VAL, total = 0;
        for (int64_t i = 0; i < n; i++)
            most = (double)copy[i] > most ? (double)copy[i] : most;
        for (int64_t i = 0; i < n; i++)
            total += exp((double)copy[i] - most);
        for (int64_t i = 0; i < n; i++) {
            const double want = exp((double)copy[i] - most) / total;
            near("softmax", i, (double)x[i], want, 20 * EPS * want);
            assert_true(i % 5 != 4 || x[i] == 0);
        }
    }
    float none[20], odd[20];
    for (int i = 0; i < 20; i++) {
        none[i] = -INFINITY;
        odd[i] = i == 7 ? NAN : 1.0f;
    }
    k->softmax(none, 20);
    k->softmax(odd, 20);
    for (int i = 0; i < 20; i++) {
        assert_true(none[i] == 0.0f);
        assert_true(isnan(odd[i]));
    }
    k->softmax(none, 0);
}

/* ---- attention ---- */

static void test_attention(void)
{
    static const int64_t widths[] = {1, 3, 4, 16, 31, 64, 80, 130};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
        for (int64_t n = 0; n < 24; n++) {
            const int64_t d = widths[w], stride = d + 5;
            float *q = array(d), *rows = array(24 * stride), *s = array(n);
            float *z = array(d), *p = array(n), start[ROOM];
            k->scores(s, q, rows, stride, n, d, 0.125f);
            untouched(s, n);
            for (int64_t j = 0; j < n; j++) {
                double want = 0, size = 0;
                for (int64_t i = 0; i < d; i++) {
                    const double t = (double)q[i] * (double)rows[j * stride + i];
                    want += t;
                    size += fabs(t);
                }
                near("scores", j, (double)s[j], want / 8, size * EPS + 1e-12);
            }
            memcpy(start, z, (size_t)d * sizeof *z);
            k->mix(z, p, rows, stride, n, d);
            untouched(z, d);
            for (int64_t i = 0; i < d; i++) {
                double want = (double)start[i], size = fabs(want);
                for (int64_t j = 0; j < n; j++) {
                    const double t = (double)p[j] * (double)rows[j * stride + i];
                    want += t;
                    size += fabs(t);
                }
                near("mix", i, (double)z[i], want, size * 8 * EPS);
            }
        }
    /* Long sums, over more than one run of mix. */
    enum { LONG = 3000 };
    float *p = array(LONG), *v = array(LONG * 3), z[3] = {0, 0, 0};
    double want[3] = {0, 0, 0};
    k->mix(z, p, v, 3, LONG, 3);
    for (int64_t j = 0; j < LONG; j++)
        for (int i = 0; i < 3; i++)
            want[i] += (double)p[j] * (double)v[3 * j + i];
    for (int i = 0; i < 3; i++)
        near("mix, long", i, (double)z[i], want[i], 55 * 40 * EPS);
}

/* ---- products ---- */

/* Rows 0..9 of x against n rows of floats with k values, by few_rows and by
 * many_rows, each in one call and row by row: the same bits, and right. */
static void test_products(void)
{
    static const int64_t sizes[] = {1, 5, 16, 31, 32, 33, 64, 100, 300};
    enum { X = 53, N = 19 };
    for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
        const int64_t d = sizes[c];
        const int64_t lanes = k->lanes, up = (X + lanes - 1) / lanes * lanes;
        float *x = malloc(sizeof *x * (size_t)(X * (d + 3)));
        float *w = malloc(sizeof *w * (size_t)(N * d));
        float *packed = malloc(sizeof *packed * (size_t)(up * d));
        float few[X * (N + 2)], many[X * (N + 2)], one[X];
        assert_true(x && w && packed);
        for (int64_t i = 0; i < X * (d + 3); i++)
            x[i] = (float)qkv_random_normal(&rng);
        for (int64_t i = 0; i < N * d; i++)
            w[i] = (float)qkv_random_normal(&rng);
        for (int i = 0; i < X * (N + 2); i++)
            few[i] = many[i] = 12345.0f;
        k->few_rows[QKV_F32](few, N + 2, x, d + 3, X, w, 4 * d, N, d);
        k->pack(packed, x, d + 3, 1, X, d);
        k->many_rows(many, N + 2, 1, packed, X, w, d, 1, N, d, 1, 0);
        for (int r = 0; r < X; r++)
            for (int i = 0; i < N + 2; i++) {
                double want = 0, size = 0;
                for (int64_t j = 0; j < d && i < N; j++) {
                    const double t = (double)x[r * (d + 3) + j]
                        * (double)w[i * d + j];
                    want += t;
                    size += fabs(t);
                }
                if (i >= N)
                    want = 12345;
                near("few_rows", i, (double)few[r * (N + 2) + i], want,
                     size * 8 * EPS);
                near("many_rows", i, (double)many[r * (N + 2) + i], want,
                     size * 16 * EPS);
            }
        for (int r = 0; r < X; r++)
            for (int i = 0; i < N; i++) {
                k->few_rows[QKV_F32](one, 1, x + r * (d + 3), 1, 1, w + i * d,
                                     0, 1, d);
                assert_true(one[0] == few[r * (N + 2) + i]);
            }
        /* The matrix the other way round, and x from row 16 on. */
        float *turned = malloc(sizeof *w * (size_t)(N * d));
        assert_non_null(turned);
        for (int i = 0; i < N; i++)
            for (int64_t j = 0; j < d; j++)
                turned[j * N + i] = w[i * d + j];
        float part[X * (N + 2)];
        k->many_rows(part, N + 2, 1, packed + 16 * d, X - 16, turned, 1, N, N,
                     d, 1, 0);
        for (int r = 16; r < X; r++)
            assert_memory_equal(part + (r - 16) * (N + 2), many + r * (N + 2),
                                N * sizeof *many);
        free(x);
        free(w);
        free(packed);
        free(turned);
    }
}

/* NaN anywhere in x or in the weights is seen in its row alone. */
static void test_products_nan(void)
{
    enum { D = 37, N = 5, X = 5 };
    const double inf = HUGE_VAL, nan = inf - inf;
    float x[X * D], w[N * D], packed[16 * D], out[X * N];
    for (int which = 0; which < D; which++)
        for (int many = 0; many < 2; many++) {
            for (int i = 0; i < X * D; i++)
                x[i] = 1;
            for (int i = 0; i < N * D; i++)
                w[i] = 1;
            x[2 * D + which] = NAN;
            w[3 * D + which] = INFINITY;
            k->pack(packed, x, D, 1, X, D);
            if (many)
                k->many_rows(out, N, 1, packed, X, w, D, 1, N, D, 1, 0);
            else
                k->few_rows[QKV_F32](out, N, x, D, X, w, 4 * D, N, D);
            for (int r = 0; r < X; r++)
                for (int i = 0; i < N; i++)
                    near("with NaN", r * N + i, (double)out[r * N + i],
                         r == 2 ? nan : i == 3 ? inf : (double)D, 0);
        }
}

/* ---- all tables ---- */

static void with_all(void (*test)(void))
{
    const char *names[8];
    const int n = qkv_kernel_names(names, 8);
    assert_true(n >= 1);
    for (int i = 0; i < n; i++) {
        qkv_error err;
        assert_true(qkv_kernel_choose(names[i], &err));
        k = qkv_kernel();
        assert_string_equal(k->name, names[i]);
        qkv_random_seed(&rng, 7);
        test();
    }
}

#define ALL(name) static void name(void **s) { (void)s; with_all(test_##name); }
ALL(functions)
ALL(exponential)
ALL(vectors)
ALL(normalise)
ALL(softmax)
ALL(attention)
ALL(products)
ALL(products_nan)

static void choice(void **state)
{
    (void)state;
    qkv_error err;
    assert_false(qkv_kernel_choose("avx1024", &err));
    assert_int_equal(err.code, QKV_EINVAL);
    assert_non_null(strstr(err.msg, "\"avx1024\""));
    setenv("QKV_CPU", "sse9", 1);
    assert_false(qkv_kernel_choose(NULL, &err));
    assert_non_null(qkv_kernel());
    setenv("QKV_CPU", "portable", 1);
    assert_true(qkv_kernel_choose(NULL, &err));
    assert_string_equal(qkv_kernel()->name, "portable");
    unsetenv("QKV_CPU");
    assert_true(qkv_kernel_choose(NULL, &err));
    const char *names[8];
    const int n = qkv_kernel_names(names, 8);
    assert_string_equal(names[0], "portable");
    assert_string_equal(qkv_kernel()->name, names[n - 1]);
    assert_int_equal(qkv_kernel_names(names, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choice),
        cmocka_unit_test(functions),
        cmocka_unit_test(exponential),
        cmocka_unit_test(vectors),
        cmocka_unit_test(normalise),
        cmocka_unit_test(softmax),
        cmocka_unit_test(attention),
        cmocka_unit_test(products),
        cmocka_unit_test(products_nan)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
