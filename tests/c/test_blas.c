/*
 * test_blas.c - products of matrices and sums of products by name
 *
 * Values were printed by NumPy 1.24 in float64. The operands are ramps
 * (tensors.h): products are quarters, and sums of fewer than 600,000 of them
 * are exact in float in whatever order, so nothing here has a tolerance.
 * Sizes and layouts are checked against sums in double, one term after
 * another, about the borders of the pieces too.
 */
#include "config.h"

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/blas.h"
#include "tensors.h"

/* ---- matmul ---- */

static void test_matmul(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = ramp("pos d", DIMS(2, 3)), *b = ramp("d key", DIMS(3, 4));
    qkv_tensor *batch = ramp("head pos d", DIMS(2, 2, 3));
    qkv_tensor *both = ramp("head d key", DIMS(2, 3, 4));
    qkv_tensor *v = make("d", DIMS(3), F(1, -2, 0.5f));
    qkv_tensor *u = make("pos", DIMS(2), F(1, -2));
    qkv_tensor *w = make("", DIMS(3), F(2, 3, 4));
    qkv_tensor *ta = qkv_tensor_transpose(a, 0, 1, &err);
    expect(qkv_matmul(a, b, &err), &err, "a b", "f32 [pos 2, key 4]",
           F(8.75f, -5.5f, 5, -3.75f, -3, -0.5f, -0.75f, 10), 0);
    expect(qkv_matmul(batch, b, &err), &err, "batch b",
           "f32 [head 2, pos 2, key 4]",
           F(8.75f, -5.5f, 5, -3.75f, -3, -0.5f, -0.75f, 10, -1, -1, -1, 10,
             1, -1.5f, -1.25f, 10), 0);
    expect(qkv_matmul(batch, both, &err), &err, "batch batch",
           "f32 [head 2, pos 2, key 4]",
           F(8.75f, -5.5f, 5, -3.75f, -3, -0.5f, -0.75f, 10, -1, -1, 10, -1,
             -1.5f, -1.25f, 10, -0.75f), 0);
    expect(qkv_matmul(a, v, &err), &err, "a v", "f32 [pos 2]", F(-5, 0.75f),
           0);
    expect(qkv_matmul(u, a, &err), &err, "u a", "f32 [d 3]", F(-7.5f, 0, 2),
           0);
    expect(qkv_matmul(v, w, &err), &err, "v w", "f32 []", F(-2), 0);
    /* a name that would occur twice stays with the first axis */
    expect(qkv_matmul(a, ta, &err), &err, "a a'", "f32 [pos 2, 2]",
           F(8.25f, -4.25f, -4.25f, 8.75f), 0);
    qkv_tensor *all[] = {a, b, batch, both, v, u, w, ta};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

static void test_refused(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = ramp("pos d", DIMS(2, 3)), *b = ramp("key", DIMS(4));
    qkv_tensor *c = ramp("", DIMS(3, 3, 2)), *d = ramp("", DIMS(2, 2, 3));
    qkv_tensor *n = make("", 0, NULL, F(2));
    qkv_tensor *q = qkv_tensor_new(QKV_Q4_0, DIMS(2, 32), NULL, &err);
    expect_error(qkv_matmul(a, b, &err), &err, "f32 [pos 2, d 3] times "
                 "f32 [key 4, 1]: rows of 3 values against columns of 4");
    expect_error(qkv_matmul(d, c, &err), &err, "f32 [2] and f32 [3]: axis -1 "
                 "has 2 and 3; sizes must agree or be 1");
    expect_error(qkv_matmul(a, n, &err), &err, "f32 [pos 2, d 3] times f32 "
                 "[]: a product needs vectors or matrices; for numbers use *");
    expect_error(qkv_matmul(a, q, &err), &err, "f32 [pos 2, d 3] times q4_0 "
                 "[2, 32]: rows of 3 values against columns of 2");
    qkv_tensor *x = ramp("", DIMS(5, 2));
    expect_error(qkv_matmul(x, q, &err), &err, "a product with q4_0 [2, 32], "
                 "whose blocks do not run along the summed axis: transpose "
                 "it, or convert it to float first");
    qkv_tensor *all[] = {a, b, c, d, n, q, x};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

/* ---- all sizes and layouts against sums in double ---- */

static void check_product(int la, int lb, int64_t m, int64_t n, int64_t k)
{
    qkv_error err;
    qkv_tensor *a = laid_out(la, m, k), *b = laid_out(lb, k, n);
    qkv_tensor *c = qkv_matmul(a, b, &err);
    if (c == NULL)
        fail_msg("%s", err.msg);
    /* all of a small product; of a large one, what lies about its pieces */
    const int64_t down = m * n * k < 100000 ? 1 : m / 7 + 1;
    const int64_t right = m * n * k < 100000 ? 1 : 31;
    for (int64_t i = 0; i < m; i += down)
        for (int64_t j = 0; j < n; j += right) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)((i * k + l) * 7 % 11 - 5) / 2
                    * (double)((l * n + j) * 7 % 11 - 5) / 2;
            assert_true(is_near(element(c, i * n + j), sum, 0));
        }
    qkv_tensor_release(c);
    qkv_tensor_release(b);
    qkv_tensor_release(a);
}

static void test_layouts(void **state)
{
    static const int64_t sizes[][3] = {
        {1, 1, 1}, {1, 5, 3}, {5, 1, 3}, {4, 5, 1}, {4, 5, 6}, {0, 3, 2},
        {3, 0, 2}, {3, 2, 0}, {1, 70, 40}, {70, 1, 40},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int la = 0; la < N_LAYOUTS; la++)
            for (int lb = 0; lb < N_LAYOUTS; lb++)
                check_product(la, lb, sizes[i][0], sizes[i][1], sizes[i][2]);
}

/* Around 512 rows, 256 columns, 1024 products: the pieces of blas.c. */
static void test_pieces(void **state)
{
    (void)state;
    check_product(0, 0, 513, 2100, 65);
    check_product(0, 1, 7, 257, 2100);
    check_product(1, 0, 1025, 63, 1025);
    check_product(2, 2, 512, 256, 1024);
}

/* ---- qkv_gemm against one sum after another ---- */

typedef struct gemm_case {
    bool ta, tb;
    int64_t m, n, k, gap;       /* gap: between the rows of each matrix */
    float alpha, beta;
} gemm_case;

/* The ramp [rows, cols] with rows `cols + gap` apart and NaN between. */
static float *with_gaps(int64_t rows, int64_t cols, int64_t gap)
{
    const int64_t ld = cols + gap;
    float *x = test_malloc((size_t)(rows * ld + 1) * sizeof *x);
    for (int64_t i = 0; i < rows * ld; i++)
        x[i] = i % ld < cols
            ? (float)((i / ld * cols + i % ld) * 7 % 11 - 5) / 2.0f : NAN;
    return x;
}

static void check_gemm(const gemm_case *g, bool pool)
{
    qkv_error err;
    const int64_t m = g->m, n = g->n, k = g->k;
    const int64_t lda = (g->ta ? m : k) + g->gap, ldc = n + g->gap;
    const int64_t ldb = (g->tb ? k : n) + g->gap;
    float *a = with_gaps(g->ta ? k : m, g->ta ? m : k, g->gap);
    float *b = with_gaps(g->tb ? n : k, g->tb ? k : n, g->gap);
    float *c = with_gaps(m, n, g->gap), *was = with_gaps(m, n, g->gap);
    for (int64_t i = 0; i < m * ldc && g->beta == 0.0f; i++)
        c[i] = NAN;             /* what is not read must not matter */
    if (pool)
        assert_true(qkv_gemm(g->ta, g->tb, m, n, k, g->alpha, a, lda, b, ldb,
                             g->beta, c, ldc, &err));
    else
        qkv_gemm_1(g->ta, g->tb, m, n, k, g->alpha, a, lda, b, ldb, g->beta,
                   c, ldc);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < ldc; j++) {
            double sum = 0, want = (double)NAN;         /* in the gap */
            for (int64_t l = 0; l < k && j < n; l++)
                sum += (double)a[g->ta ? l * lda + i : i * lda + l]
                    * (double)b[g->tb ? j * ldb + l : l * ldb + j];
            if (j < n)
                want = (double)g->alpha * sum + (g->beta == 0.0f ? 0.0
                    : (double)g->beta * (double)was[i * ldc + j]);
            if (!is_near((double)c[i * ldc + j], want, 0))
                fail_msg("%d%d [%d, %d, %d] gap %d, %g, %g: [%d, %d] is %g, "
                         "not %g", g->ta, g->tb, (int)m, (int)n, (int)k,
                         (int)g->gap, (double)g->alpha, (double)g->beta,
                         (int)i, (int)j, (double)c[i * ldc + j], want);
        }
    test_free(a);
    test_free(b);
    test_free(c);
    test_free(was);
}

static void test_gemm(void **state)
{
    static const int64_t sizes[][3] = {
        {1, 1, 1}, {1, 7, 5}, {7, 1, 5}, {5, 7, 1}, {3, 5, 7}, {17, 33, 13},
        {2, 300, 40}, {65, 31, 129}, {4, 3, 0}, {0, 3, 2}, {3, 0, 2},
    };
    static const float scales[][2] = {{1, 0}, {2, -0.5f}, {0, 1}, {-1, 1}};
    (void)state;
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (int way = 0; way < 16; way++)
            for (size_t f = 0; f < COUNT(scales); f++) {
                const gemm_case g = {
                    way & 1, way & 2, sizes[s][0], sizes[s][1], sizes[s][2],
                    way & 4 ? 3 : 1, scales[f][0], scales[f][1]};
                check_gemm(&g, way & 8);
            }
}

/* One size about every piece that blas.c cuts, each transposition. */
static void test_gemm_pieces(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        check_gemm(&(gemm_case){way & 1, way & 2, 9, 1030, 31, 1, 2, -0.5f},
                   true);
        check_gemm(&(gemm_case){way & 1, way & 2, 515, 9, 31, 1, 1, 0}, true);
        check_gemm(&(gemm_case){way & 1, way & 2, 3, 5, 4099, 0, 1, 1}, true);
    }
}

static void test_gemm_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        qkv_error err;
        int64_t apart[] = {1, 1, 1};
        apart[i] = 1LL << 31;
        assert_false(qkv_gemm(false, false, 1, 1, 1, 1, NULL, apart[0], NULL,
                              apart[1], 0, NULL, apart[2], &err));
        assert_string_equal(err.msg, "a matrix with rows 2147483648 apart: "
                                     "OpenBLAS counts to 2147483647");
    }
}

static void test_threads(void **state)
{
    static const int64_t sizes[][3] = {{64, 1536, 576}, {1, 5000, 300},
                                       {2, 3, 30000}};
    qkv_error err;
    (void)state;
    for (size_t s = 0; s < COUNT(sizes); s++) {
        const int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
        qkv_tensor *a = ramp("", DIMS(m, k)), *b = ramp("", DIMS(k, n));
        qkv_tensor *c[2];
        for (int64_t i = 0; i < m * k; i++)         /* nothing exact */
            ((float *)qkv_tensor_data(a))[i] *= 0.1f;
        for (int i = 0; i < 2; i++) {
            qkv_set_threads(i == 0 ? 1 : 3);
            c[i] = qkv_matmul(a, b, &err);
        }
        assert_memory_equal(qkv_tensor_data(c[0]), qkv_tensor_data(c[1]),
                            (size_t)(m * n) * sizeof(float));
        qkv_tensor_release(c[0]);
        qkv_tensor_release(c[1]);
        qkv_tensor_release(a);
        qkv_tensor_release(b);
    }
}

/* ---- quantised weights ---- */

/* q8_0 rows: scale 1, bytes (i + row) mod 7 - 3; by hand. */
static void test_blocks(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *w = qkv_tensor_new(QKV_Q8_0, DIMS(3, 64), NULL, &err);
    name_axes(w, "vocab d");
    unsigned char *bytes = qkv_tensor_data(w);
    for (int i = 0; i < 3 * 2 * 34; i++) {
        const int value = i % 34 - 2 + i / 34 % 2 * 32;     /* along d */
        bytes[i] = (unsigned char)(i % 34 == 0 ? 0 : i % 34 == 1 ? 0x3c
                                   : (value + i / 68) % 7 - 3);
    }
    qkv_tensor *x = ramp("pos d", DIMS(5, 64));
    qkv_tensor *t = qkv_tensor_transpose(w, 0, 1, &err);
    qkv_tensor *f = qkv_tensor_float(t, &err);
    qkv_tensor *want = qkv_matmul(x, f, &err);
    qkv_tensor *got = qkv_matmul(x, t, &err);
    assert_true(element(f, 3 * 1 + 2) == 0);        /* d 1, vocab 2: 3 - 3 */
    expect(got, &err, "x W'", "f32 [pos 5, vocab 3]", qkv_tensor_data(want),
           0);
    /* W x, and one row */
    qkv_tensor *tx = qkv_tensor_transpose(x, 0, 1, &err);
    qkv_tensor *turned = qkv_tensor_transpose(want, 0, 1, &err);
    qkv_tensor *want_t = qkv_tensor_clone(turned, &err);
    expect(qkv_matmul(w, tx, &err), &err, "W x", "f32 [vocab 3, pos 5]",
           qkv_tensor_data(want_t), 0);
    qkv_tensor *row = qkv_tensor_select(x, 0, 0, &err);
    expect(qkv_matmul(row, t, &err), &err, "x[0] W'", "f32 [vocab 3]",
           qkv_tensor_data(want), 0);
    expect(qkv_matmul(w, row, &err), &err, "W x[0]", "f32 [vocab 3]",
           qkv_tensor_data(want), 0);
    qkv_tensor *pair[] = {x, w};
    expect(qkv_einsum("p d, v d -> p v", pair, 2, &err), &err, "einsum",
           "f32 [p 5, v 3]", qkv_tensor_data(want), 0);
    qkv_tensor *none = qkv_tensor_new(QKV_Q8_0, DIMS(0, 64), NULL, &err);
    qkv_tensor *of_none = qkv_tensor_transpose(none, 0, 1, &err);
    expect(qkv_matmul(x, of_none, &err), &err, "no rows", "f32 [pos 5, 0]",
           NULL, 0);
    qkv_tensor *all[] = {w, x, t, f, want, tx, turned, want_t, row, none,
                         of_none};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

/* ---- einsum ---- */

/* Operands are ramps of the shapes given. */
static const struct {
    const char *equation;
    int n;
    struct {
        int n_dims;
        int64_t shape[3];
    } operand[3];
    const char *shape;
    float want[12];
} sums[] = {
    {"query d, key d -> query key", 2, {{2, {2, 3}}, {2, {4, 3}}},
     "f32 [query 2, key 4]",
     {8.25f, -4.25f, -3, -1.75f, -4.25f, 8.75f, 8, 7.25f}},
    {"h q d,h k d->h q k", 2, {{3, {2, 2, 3}}, {3, {2, 3, 3}}},
     "f32 [h 2, q 2, k 3]",
     {8.25f, -4.25f, -3, -4.25f, 8.75f, 8, 8, -3, -3, 8.75f, -4.25f, -3.5f}},
    {"q d -> d q", 1, {{2, {2, 3}}}, "f32 [d 3, q 2]",
     {-2.5f, 2.5f, 1, 0.5f, -1, -1.5f}},
    {"q d ->", 1, {{2, {2, 3}}}, "f32 []", {-1}},
    {"q, k -> k q", 2, {{1, {3}}, {1, {2}}}, "f32 [k 2, q 3]",
     {6.25f, -2.5f, 2.5f, -2.5f, 1, -1}},
    {"a b, b c, c d -> a d", 3, {{2, {2, 3}}, {2, {3, 4}}, {2, {4, 2}}},
     "f32 [a 2, d 2]", {-21.375f, -12.5f, 27.625f, -3.125f}},
    {"h q k, h k d, h d e -> q e", 3,
     {{3, {2, 2, 3}}, {3, {2, 3, 4}}, {3, {2, 4, 2}}}, "f32 [q 2, e 2]",
     {-11.375f, -22, 39.375f, -12.625f}},
    {"a b, c b -> b", 2, {{2, {2, 3}}, {2, {4, 3}}}, "f32 [b 3]",
     {0, 1.5f, 17.5f}},
};

static void test_einsum(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(sums); i++) {
        qkv_tensor *operands[3];
        for (int j = 0; j < sums[i].n; j++)
            operands[j] = ramp("", sums[i].operand[j].n_dims,
                               sums[i].operand[j].shape);
        expect(qkv_einsum(sums[i].equation, operands, sums[i].n, &err), &err,
               sums[i].equation, sums[i].shape, sums[i].want, 0);
        for (int j = 0; j < sums[i].n; j++)
            qkv_tensor_release(operands[j]);
    }
}

/* With a [x 2, y 3] and b [4, 3]. */
static const struct {
    const char *equation, *message;
} bad[] = {
    {"a b, c b", "einsum: no '->' in 'a b, c b'; as in \"query d, key d -> "
                 "query key\""},
    {"a b -> a", "einsum: 1 terms before '->' in 'a b -> a', and 2 tensors"},
    {"a b c, c b -> a", "einsum: 3 names for operand 0, f32 [x 2, y 3]"},
    {"a b, a b -> a", "einsum: 'a' is 2 in f32 [x 2, y 3] and 4 in "
                      "f32 [4, 3]"},
    {"a a, c b -> a", "einsum: 'a' twice in one term; take the diagonal "
                      "first"},
    {"a b, c b -> a z", "einsum: 'z' of the result is in no operand"},
    {"a b, c b -> a a", "einsum: 'a' twice in one term; take the diagonal "
                        "first"},
    {"a b, c b -> a, b", "einsum: unexpected ',' in the equation"},
    {"a - b, c b -> a", "einsum: unexpected '-' in the equation"},
    {"a b, c sixteen_letters_ -> a", "einsum: name 'sixteen_letters_' is "
                                     "longer than 15 bytes"},
    {"", "einsum: no '->' in ''; as in \"query d, key d -> query key\""},
};

static void test_bad_einsum(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *operands[] = {ramp("x y", DIMS(2, 3)), ramp("", DIMS(4, 3))};
    for (size_t i = 0; i < COUNT(bad); i++)
        expect_error(qkv_einsum(bad[i].equation, operands, 2, &err), &err,
                     bad[i].message);
    assert_null(qkv_einsum("->", operands, 0, &err));
    qkv_tensor_release(operands[0]);
    qkv_tensor_release(operands[1]);
}

/* ---- memory, Ctrl-C ---- */

static qkv_tensor *compute(qkv_tensor *const *pair, qkv_error *err)
{
    qkv_tensor *a = qkv_matmul(pair[0], pair[1], err);
    qkv_tensor *out = a == NULL ? NULL
        : qkv_einsum("h q d, h d k -> k q", pair, 2, err);
    qkv_tensor_release(a);
    return out;
}

static void test_memory(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = ramp("", DIMS(2, 4, 3));
    sweep_memory(compute, (qkv_tensor *[]){
                     ramp("", DIMS(2, 5, 4)),
                     qkv_tensor_to(t, QKV_F16, &err), NULL});
    qkv_tensor_release(t);
}

static void test_interrupt(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = ramp("", DIMS(20, 30)), *b = ramp("", DIMS(30, 40));
    qkv_interrupt();
    expect_error(qkv_matmul(a, b, &err), &err, "interrupted");
    qkv_interrupt_clear();
    qkv_tensor_release(a);
    qkv_tensor_release(b);
}

/* Products with blocks keep scratch between calls, so theirs comes last and
 * is not asked whether all is released. */
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_matmul), TEST(test_refused), TEST(test_gemm),
        TEST(test_gemm_pieces), TEST(test_gemm_refused),
        TEST(test_pieces), TEST(test_threads), TEST(test_einsum),
        TEST(test_bad_einsum), TEST(test_memory), TEST(test_interrupt),
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
