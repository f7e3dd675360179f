/*
 * test_reduce.c - sums, means, extremes along an axis or over all
 *
 * Every reduction of every axis, size and layout against one value after
 * another in double; values that are odd, by hand; what is refused.
 */
#include "config.h"

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/reduce.h"
#include "tensors.h"

/* Sums are made in double in another order, and rounded to float once. */
static const double TOL_ROUNDED = 1e-7;

#define INF INFINITY
#define X NAN

static const struct {
    qkv_reduction op;
    const char *name;
} ops[] = {
    {QKV_SUM, "sum"}, {QKV_MEAN, "mean"}, {QKV_STD, "std"}, {QKV_VAR, "var"},
    {QKV_MIN, "min"}, {QKV_MAX, "max"}, {QKV_NORM, "norm"},
};

/* x [n], n > 0, without NaN */
static double plainly(qkv_reduction op, const double *x, int64_t n)
{
    double sum = 0, squares = 0, about = 0, min = x[0], max = x[0];
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    for (int64_t i = 0; i < n; i++)
        about += (x[i] - sum / (double)n) * (x[i] - sum / (double)n);
    about = n > 1 ? about / (double)(n - 1) : (double)NAN;
    switch (op) {
    case QKV_SUM: return sum;
    case QKV_MEAN: return sum / (double)n;
    case QKV_STD: return sqrt(about);
    case QKV_VAR: return about;
    case QKV_MIN: return min;
    case QKV_MAX: return max;
    default: return sqrt(squares);
    }
}

/* The values of t of which element `flat` of a reduction is made. */
static int64_t values_of(double *x, const qkv_tensor *t, int axis,
                         int64_t flat)
{
    int64_t inner = 1;
    const int64_t n = axis < 0 ? qkv_tensor_count(t) : t->shape[axis];
    for (int i = axis < 0 ? t->n_dims : axis + 1; i < t->n_dims; i++)
        inner *= t->shape[i];
    for (int64_t i = 0; i < n; i++)
        x[i] = element(t, (flat / inner * n + i) * inner + flat % inner);
    return n;
}

/* Each reduction of t along an axis; every `step`-th element is checked. */
static void check_axis(const qkv_tensor *t, int axis, int64_t step)
{
    qkv_error err;
    double *x = test_malloc((size_t)qkv_tensor_count(t) * sizeof *x);
    qkv_tensor *least = qkv_argmax(t, axis, true, &err);
    qkv_tensor *most = qkv_argmax(t, axis, false, &err);
    for (size_t i = 0; i < COUNT(ops); i++) {
        qkv_tensor *r = qkv_reduce(ops[i].op, t, axis, &err);
        if (r == NULL)
            fail_msg("%s: %s", ops[i].name, err.msg);
        for (int64_t k = 0; k < qkv_tensor_count(r); k += step) {
            const int64_t n = values_of(x, t, axis, k);
            const double want = plainly(ops[i].op, x, n);
            if (!is_near(element(r, k), want, TOL_ROUNDED))
                fail_msg("%s of axis %d: %d is %.9g, not %.9g", ops[i].name,
                         axis, (int)k, element(r, k), want);
            if (ops[i].op == QKV_MIN || ops[i].op == QKV_MAX) {
                const int64_t at = (int64_t)element(
                    ops[i].op == QKV_MIN ? least : most, k);
                assert_true(x[at] == want);
                for (int64_t j = 0; j < at; j++)    /* the first of equals */
                    assert_true(x[j] != want);
            }
        }
        qkv_tensor_release(r);
    }
    qkv_tensor_release(least);
    qkv_tensor_release(most);
    test_free(x);
}

static void test_sizes(void **state)
{
    /* 256 columns are a tile, 65536 elements a piece */
    static const struct {
        int n_dims;
        int64_t shape[3], step;
    } rows[] = {
        {0, {0}, 1},            {1, {1}, 1},            {1, {23}, 1},
        {2, {7, 1}, 1},         {2, {1, 7}, 1},         {3, {2, 3, 4}, 1},
        {3, {3, 2, 515}, 7},    {2, {9, 257}, 1},       {2, {300, 257}, 50},
        {1, {131075}, 1},       {2, {2, 70001}, 9973},  {2, {70001, 2}, 9973},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_tensor *t = ramp("", rows[i].n_dims, rows[i].shape);
        for (int axis = -1; axis < t->n_dims; axis++)
            check_axis(t, axis, rows[i].step);
        qkv_tensor_release(t);
    }
}

static void test_layouts(void **state)
{
    (void)state;
    for (int layout = 0; layout < N_LAYOUTS; layout++) {
        qkv_tensor *t = laid_out(layout, 5, 7);
        for (int axis = -1; axis < 2; axis++)
            check_axis(t, axis, 1);
        qkv_tensor_release(t);
    }
}

static void test_names(void **state)
{
    static const char *const shapes[] = {"f32 []", "f32 [query 3, key 4]",
        "f32 [head 2, key 4]", "f32 [head 2, query 3]"};
    qkv_error err;
    char got[160];
    (void)state;
    qkv_tensor *t = ramp("head query key", DIMS(2, 3, 4));
    for (int axis = -1; axis < 3; axis++) {
        qkv_tensor *r = qkv_reduce(QKV_SUM, t, axis, &err);
        qkv_tensor *a = qkv_argmax(t, axis, false, &err);
        qkv_tensor_describe(r, got, sizeof got);
        assert_string_equal(got, shapes[axis + 1]);
        qkv_tensor_describe(a, got, sizeof got);
        assert_memory_equal(got, "i64", 3);
        assert_string_equal(got + 3, shapes[axis + 1] + 3);
        qkv_tensor_release(r);
        qkv_tensor_release(a);
    }
    qkv_tensor_release(t);
}

/* ---- odd values, by hand ---- */

static const struct {
    int64_t n;
    float x[4];
    float want[COUNT(ops)];     /* sum mean std var min max norm */
    int64_t argmin, argmax;
} odd[] = {
    {1, {3}, {3, 3, X, X, 3, 3, 3}, 0, 0},
    {3, {1, X, 3}, {X, X, X, X, X, X, X}, 1, 1},
    {4, {X, 1, X, -INF}, {X, X, X, X, X, X, X}, 0, 0},
    {2, {INF, 1}, {INF, INF, X, X, 1, INF, INF}, 1, 0},
    {2, {INF, -INF}, {X, X, X, X, -INF, INF, INF}, 1, 0},
    {3, {1e7f, 1e7f + 1, 1e7f + 2}, {30000004, 1e7f + 1, 1, 1, 1e7f,
                                     1e7f + 2, 17320510}, 0, 2},
    {2, {3e38f, 3e38f}, {INF, 3e38f, 0, 0, 3e38f, 3e38f, INF}, 0, 0},
    {2, {3e-30f, 4e-30f}, {7e-30f, 3.5e-30f, 7.0710678e-31f, 0, 3e-30f,
                           4e-30f, 5e-30f}, 0, 1},
    {3, {2, 2, 2}, {6, 2, 0, 0, 2, 2, 3.46410162f}, 0, 0},
};

/* As a row, as a column among columns, and over all. */
static void test_odd_values(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(odd); i++) {
        const int64_t n = odd[i].n;
        qkv_tensor *row = make("", DIMS(1, n), odd[i].x);
        qkv_tensor *two[] = {row, row};
        qkv_tensor *both = qkv_tensor_cat(two, 2, 0, &err);
        qkv_tensor *columns = qkv_tensor_transpose(both, 0, 1, &err);
        qkv_tensor *clone = qkv_tensor_clone(columns, &err);
        for (size_t k = 0; k < COUNT(ops); k++) {
            const float want[] = {odd[i].want[k], odd[i].want[k]};
            expect(qkv_reduce(ops[k].op, row, 1, &err), &err, ops[k].name,
                   "f32 [1]", want, TOL_ROUNDED);
            expect(qkv_reduce(ops[k].op, row, -1, &err), &err, ops[k].name,
                   "f32 []", want, TOL_ROUNDED);
            expect(qkv_reduce(ops[k].op, clone, 0, &err), &err, ops[k].name,
                   "f32 [2]", want, TOL_ROUNDED);
        }
        for (int smallest = 0; smallest < 2; smallest++) {
            const float at = (float)(smallest ? odd[i].argmin : odd[i].argmax);
            expect(qkv_argmax(row, 1, smallest, &err), &err, "arg", "i64 [1]",
                   &at, 0);
            expect(qkv_argmax(row, -1, smallest, &err), &err, "arg", "i64 []",
                   &at, 0);
            expect(qkv_argmax(clone, 0, smallest, &err), &err, "arg",
                   "i64 [2]", F(at, at), 0);
        }
        qkv_tensor *all[] = {row, both, columns, clone};
        for (size_t k = 0; k < COUNT(all); k++)
            qkv_tensor_release(all[k]);
    }
}

/* Of nothing: what NumPy says, but extremes are errors. */
static void test_empty(void **state)
{
    static const float want[] = {0, X, X, X, 0, 0, 0};
    qkv_error err;
    (void)state;
    qkv_tensor *t = ramp("a b", DIMS(2, 0));
    for (size_t k = 0; k < COUNT(ops); k++) {
        const bool extreme = ops[k].op == QKV_MIN || ops[k].op == QKV_MAX;
        qkv_tensor *row = qkv_reduce(ops[k].op, t, 1, &err);
        char message[80];
        snprintf(message, sizeof message, "%s of no elements: f32 [a 2, b 0]",
                 ops[k].name);
        if (extreme)
            expect_error(row, &err, message);
        else
            expect(row, &err, ops[k].name, "f32 [a 2]",
                   F(want[k], want[k]), 0);
        qkv_tensor *all = qkv_reduce(ops[k].op, t, -1, &err);
        if (extreme)
            expect_error(all, &err, message);
        else
            expect(all, &err, ops[k].name, "f32 []", &want[k], 0);
        /* no results: nothing to refuse */
        expect(qkv_reduce(ops[k].op, t, 0, &err), &err, ops[k].name,
               "f32 [b 0]", NULL, 0);
    }
    expect_error(qkv_argmax(t, 1, false, &err), &err,
                 "argmax of no elements: f32 [a 2, b 0]");
    expect_error(qkv_argmax(t, -1, true, &err), &err,
                 "argmin of no elements: f32 [a 2, b 0]");
    expect(qkv_argmax(t, 0, true, &err), &err, "argmin", "i64 [b 0]", NULL,
           0);
    qkv_tensor_release(t);
}

/* Small terms are not lost to a large sum, however many there are. */
static void test_long_sum(void **state)
{
    enum { N = 1 << 20 };
    qkv_error err;
    (void)state;
    qkv_tensor *t = qkv_tensor_new(QKV_F32, DIMS(N), NULL, &err);
    assert_true(qkv_tensor_fill(t, (double)0.1f, &err));
    const float want = (float)((double)0.1f * N);
    expect(qkv_reduce(QKV_SUM, t, -1, &err), &err, "all", "f32 []", &want, 0);
    expect(qkv_reduce(QKV_SUM, t, 0, &err), &err, "row", "f32 []", &want, 0);
    qkv_tensor_release(t);
}

static void test_threads(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = ramp("", DIMS(3, 70001)), *r[2][3];
    for (int64_t i = 0; i < qkv_tensor_count(a); i++)
        ((float *)qkv_tensor_data(a))[i] *= 0.1f;
    for (int i = 0; i < 2; i++) {
        qkv_set_threads(i == 0 ? 3 : 1);
        for (int axis = -1; axis < 2; axis++)
            r[i][axis + 1] = qkv_reduce(QKV_STD, a, axis, &err);
    }
    for (int k = 0; k < 3; k++) {
        assert_memory_equal(qkv_tensor_data(r[0][k]), qkv_tensor_data(r[1][k]),
                            (size_t)qkv_tensor_count(r[0][k]) * sizeof(float));
        qkv_tensor_release(r[0][k]);
        qkv_tensor_release(r[1][k]);
    }
    qkv_tensor_release(a);
}

/* ---- summaries ---- */

static const struct {
    int64_t n;
    float x[6];
    int64_t n_nan, n_inf;
    double mean, sd, min, max;
} summaries[] = {
    {0, {0}, 0, 0, (double)X, (double)X, (double)X, (double)X},
    {1, {5}, 0, 0, 5, (double)X, 5, 5},
    {2, {X, X}, 2, 0, (double)X, (double)X, (double)X, (double)X},
    {4, {1, 2, 3, 4}, 0, 0, 2.5, 1.29099444873580561, 1, 4},
    {6, {X, -INF, 1, INF, 3, X}, 2, 2, 2, 1.41421356237309515, 1, 3},
    {3, {-1, -2, -3}, 0, 0, -2, 1, -3, -1},
};

static void check_summary(const qkv_tensor *t, int64_t count, int64_t n_nan,
                          int64_t n_inf, double mean, double sd, double min,
                          double max)
{
    qkv_error err;
    qkv_summary s;
    if (!qkv_summarise(&s, t, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(s.count, count);
    assert_int_equal(s.n_nan, n_nan);
    assert_int_equal(s.n_inf, n_inf);
    assert_true(is_near(s.mean, mean, 1e-14));
    assert_true(is_near(s.sd, sd, 1e-14));
    assert_true(is_near(s.min, min, 0));
    assert_true(is_near(s.max, max, 0));
}

static void test_summary(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(summaries); i++) {
        qkv_tensor *t = make("", DIMS(summaries[i].n), summaries[i].x);
        check_summary(t, summaries[i].n, summaries[i].n_nan,
                      summaries[i].n_inf, summaries[i].mean, summaries[i].sd,
                      summaries[i].min, summaries[i].max);
        qkv_tensor_release(t);
    }
    /* 0 .. n - 1: the mean is (n - 1) / 2, the variance n (n + 1) / 12 */
    enum { N = 200001 };
    qkv_tensor *t = qkv_tensor_new(QKV_F32, DIMS(N), NULL, &err);
    for (int i = 0; i < N; i++)
        ((float *)qkv_tensor_data(t))[i] = (float)i;
    check_summary(t, N, 0, 0, (N - 1) / 2.0,
                  sqrt((double)N * (N + 1.0) / 12.0), 0, N - 1);
    qkv_tensor_release(t);
    /* more than float holds */
    const int64_t large[] = {(1LL << 40) + 1, (1LL << 40) + 3};
    t = qkv_tensor_new(QKV_I64, DIMS(2), NULL, &err);
    memcpy(qkv_tensor_data(t), large, sizeof large);
    check_summary(t, 2, 0, 0, (double)(large[0] + 1), sqrt(2.0),
                  (double)large[0], (double)large[1]);
    qkv_tensor_release(t);
}

/* q8_0, scale 1: bytes 0 .. 31 in every row, however it is turned. */
static void test_summary_of_blocks(void **state)
{
    enum { ROWS = 300 };
    qkv_error err;
    (void)state;
    qkv_tensor *w = qkv_tensor_new(QKV_Q8_0, DIMS(ROWS, 32), NULL, &err);
    unsigned char *bytes = qkv_tensor_data(w);
    for (int i = 0; i < ROWS * 34; i++)
        bytes[i] = (unsigned char)(i % 34 == 0 ? 0 : i % 34 == 1 ? 0x3c
                                   : i % 34 - 2);
    const double sd = sqrt(ROWS * 2728.0 / (ROWS * 32 - 1));    /* 31*32*33/12 */
    qkv_tensor *t = qkv_tensor_transpose(w, 0, 1, &err);
    qkv_tensor *row = qkv_tensor_select(w, 0, 1, &err);
    check_summary(w, ROWS * 32, 0, 0, 15.5, sd, 0, 31);
    check_summary(t, ROWS * 32, 0, 0, 15.5, sd, 0, 31);
    check_summary(row, 32, 0, 0, 15.5, sqrt(2728.0 / 31), 0, 31);
    expect_error(qkv_reduce(QKV_SUM, w, -1, &err), &err, "a reduction of q8_0 "
                 "[300, 32]: a quantised tensor has rows and products only; "
                 "convert it to float first");
    assert_null(qkv_argmax(w, -1, false, &err));
    qkv_tensor_release(w);
    qkv_tensor_release(t);
    qkv_tensor_release(row);
}

/* ---- what is refused, memory, Ctrl-C ---- */

static void test_refused(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = ramp("a b", DIMS(2, 3));
    for (int axis = -3; axis < 5; axis++)
        if (axis < -1 || axis > 1) {
            char message[80];
            snprintf(message, sizeof message, "there is no axis %d in f32 "
                     "[a 2, b 3]", axis);
            expect_error(qkv_reduce(QKV_SUM, t, axis, &err), &err, message);
            expect_error(qkv_argmax(t, axis, true, &err), &err, message);
        }
    qkv_tensor_release(t);
}

static qkv_tensor *compute(qkv_tensor *const *operands, qkv_error *err)
{
    qkv_tensor *operand = operands[0];
    qkv_summary s;
    qkv_tensor *t = qkv_reduce(QKV_STD, operand, 0, err);
    qkv_tensor *all = t != NULL ? qkv_reduce(QKV_VAR, t, -1, err) : NULL;
    qkv_tensor *at = all != NULL ? qkv_argmax(t, -1, true, err) : NULL;
    qkv_tensor *out = at != NULL && qkv_summarise(&s, t, err)
        ? qkv_argmax(operand, 1, false, err) : NULL;
    qkv_tensor_release(t);
    qkv_tensor_release(all);
    qkv_tensor_release(at);
    return out;
}

static void test_memory(void **state)
{
    (void)state;
    sweep_memory(compute, (qkv_tensor *[]){laid_out(4, 6, 5), NULL});
}

static void test_interrupt(void **state)
{
    qkv_error err;
    qkv_summary s;
    (void)state;
    qkv_tensor *a = ramp("", DIMS(20, 30));
    qkv_interrupt();
    for (int axis = -1; axis < 2; axis++) {
        expect_error(qkv_reduce(QKV_SUM, a, axis, &err), &err, "interrupted");
        expect_error(qkv_argmax(a, axis, true, &err), &err, "interrupted");
    }
    assert_false(qkv_summarise(&s, a, &err));
    qkv_interrupt_clear();
    qkv_tensor_release(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sizes), TEST(test_layouts), TEST(test_names),
        TEST(test_odd_values), TEST(test_empty), TEST(test_long_sum),
        TEST(test_threads), TEST(test_summary), TEST(test_summary_of_blocks),
        TEST(test_refused), TEST(test_memory), TEST(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
