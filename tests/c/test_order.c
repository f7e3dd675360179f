/*
 * test_order.c - softmax, cumsum, sort, top k
 *
 * Along every axis, of every layout, against one value after another in
 * double; order against a selection by what reduce.h says comes first.
 */
#include "config.h"

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/reduce.h"
#include "tensors.h"

/* exp in float, some units of the last place; the sum is in double. */
static const double TOL_SOFTMAX = 3e-7;

#define INF INFINITY
#define X NAN

/* t as [outer, n, inner]: the place of element j of row `row`. */
typedef struct row_view {
    int64_t n_rows, n, inner;
} row_view;

static row_view rows_along(const qkv_tensor *t, int axis)
{
    row_view v = {1, axis < 0 ? qkv_tensor_count(t) : t->shape[axis], 1};
    for (int i = axis < 0 ? t->n_dims : axis + 1; i < t->n_dims; i++)
        v.inner *= t->shape[i];
    v.n_rows = v.n > 0 ? qkv_tensor_count(t) / v.n : 0;
    return v;
}

static int64_t place(const row_view *v, int64_t row, int64_t j, int64_t n)
{
    return (row / v->inner * n + j) * v->inner + row % v->inner;
}

/* ---- softmax, cumsum ---- */

static void check_softmax(const qkv_tensor *t, int axis)
{
    qkv_error err;
    char left[160], right[160];
    const row_view v = rows_along(t, axis);
    qkv_tensor *p = qkv_softmax(t, axis, false, &err);
    qkv_tensor *log_p = qkv_softmax(t, axis, true, &err);
    qkv_tensor_describe(p, left, sizeof left);
    qkv_tensor_describe(log_p, right, sizeof right);
    assert_string_equal(left, right);
    for (int64_t row = 0; row < v.n_rows; row++) {
        double sum = 0, total = 0;
        for (int64_t j = 0; j < v.n; j++)
            sum += exp(element(t, place(&v, row, j, v.n)));
        for (int64_t j = 0; j < v.n; j++) {
            const int64_t at = place(&v, row, j, v.n);
            const double x = element(t, at);
            assert_true(is_near(element(p, at), exp(x) / sum, TOL_SOFTMAX));
            assert_true(is_near(element(log_p, at), x - log(sum),
                                TOL_SOFTMAX));
            total += element(p, at);
        }
        assert_true(is_near(total, 1, TOL_SOFTMAX));
    }
    qkv_tensor_release(p);
    qkv_tensor_release(log_p);
}

static void check_cumsum(const qkv_tensor *t, int axis)
{
    qkv_error err;
    const row_view v = rows_along(t, axis);
    qkv_tensor *c = qkv_cumsum(t, axis, &err);
    assert_non_null(c);
    for (int64_t row = 0; row < v.n_rows; row++) {
        double sum = 0;
        for (int64_t j = 0; j < v.n; j++) {
            sum += element(t, place(&v, row, j, v.n));
            assert_true(element(c, place(&v, row, j, v.n)) == sum);
        }
    }
    qkv_tensor_release(c);
}

static const struct {
    int n_dims;
    int64_t shape[3];
} sizes[] = {
    {0, {0}}, {1, {1}}, {1, {9}}, {1, {1300}}, {2, {3, 1}}, {3, {2, 3, 4}},
    {3, {3, 5, 2}}, {2, {70, 1025}}, {2, {0, 3}}, {2, {3, 0}},
};

static void test_softmax(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        qkv_tensor *t = ramp("", sizes[i].n_dims, sizes[i].shape);
        for (int axis = -1; axis < t->n_dims; axis++) {
            check_softmax(t, axis);
            check_cumsum(t, axis);
        }
        qkv_tensor_release(t);
    }
    for (int layout = 0; layout < N_LAYOUTS; layout++) {
        qkv_tensor *t = laid_out(layout, 5, 7);
        for (int axis = -1; axis < 2; axis++) {
            check_softmax(t, axis);
            check_cumsum(t, axis);
        }
        qkv_tensor_release(t);
    }
}

static const struct {
    int64_t n;
    float x[3], p[3], log_p[3];
    double log_sum;
} odd[] = {
    {1, {-1000}, {1}, {0}, -1000},
    {2, {-INF, -INF}, {0, 0}, {-INF, -INF}, -(double)INF},
    {3, {-INF, 0, 0}, {0, 0.5f, 0.5f}, {-INF, -0.693147181f, -0.693147181f},
     0.69314718055994531},
    {2, {1e30f, 1e30f}, {0.5f, 0.5f}, {0, 0}, (double)1e30f},
    {2, {1000, 999}, {0.731058579f, 0.268941421f},
     {-0.313261688f, -1.313261688f}, 1000.3132616875182},
    {2, {0, X}, {X, X}, {X, X}, (double)X},
    {2, {-INF, X}, {X, X}, {X, X}, (double)X},
    /* all of it on one: what the other has does not vanish from the log */
    {2, {0, 200}, {0, 1}, {-200, 0}, 200},
};

static void test_odd_values(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(odd); i++) {
        char shape[20];
        qkv_tensor *t = make("pos", DIMS(odd[i].n), odd[i].x);
        snprintf(shape, sizeof shape, "f32 [pos %d]", (int)odd[i].n);
        for (int axis = -1; axis < 1; axis++) {
            expect(qkv_softmax(t, axis, false, &err), &err, "softmax", shape,
                   odd[i].p, TOL_SOFTMAX);
            expect(qkv_softmax(t, axis, true, &err), &err, "log softmax",
                   shape, odd[i].log_p, TOL_SOFTMAX);
        }
        assert_true(is_near(qkv_log_sum_exp(odd[i].x, odd[i].n),
                            odd[i].log_sum, TOL_SOFTMAX));
        qkv_tensor_release(t);
    }
}

static void test_log_sum_exp(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 2000; n = n * 3 / 2 + 1) {
        float x[2000];
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            x[i] = (float)(i * 7 % 11 - 5) / 2.0f;
            sum += exp((double)x[i]);
        }
        assert_true(is_near(qkv_log_sum_exp(x, n), log(sum), TOL_SOFTMAX));
    }
}

/* ---- sort, top k ---- */

/* Equal values, NaN, infinities, both zeros. */
static qkv_tensor *messy(int n_dims, const int64_t *shape)
{
    qkv_tensor *t = ramp("", n_dims, shape);
    float *x = qkv_tensor_data(t);
    for (int64_t i = 0; i < qkv_tensor_count(t); i++)
        x[i] = i % 13 == 7 ? X : i % 17 == 3 ? -INF : i % 19 == 5 ? INF
            : i % 5 == 1 ? -0.0f : x[i];
    return t;
}

/* NaN comes last; of equals the one that stands first. */
static bool goes_first(double a, double b, bool descending)
{
    if (isnan(a) || isnan(b))
        return !isnan(a);
    return descending ? a > b : a < b;
}

/* The best of x [n] that is not taken; it is then. */
static int64_t take_best(bool *taken, const double *x, int64_t n,
                         bool descending)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (!taken[i]
            && (best < 0 || goes_first(x[i], x[best], descending)))
            best = i;
    taken[best] = true;
    return best;
}

/* The first k of each row of t are values [k], and stood at indices [k]. */
static void check_order(const qkv_tensor *t, int axis, int64_t k,
                        bool descending, const qkv_tensor *values,
                        const qkv_tensor *indices)
{
    const row_view v = rows_along(t, axis);
    double *x = test_calloc((size_t)v.n + 1, sizeof *x);
    bool *taken = test_calloc((size_t)v.n + 1, sizeof *taken);
    for (int64_t row = 0; row < v.n_rows; row++) {
        memset(taken, 0, (size_t)v.n * sizeof *taken);
        for (int64_t i = 0; i < v.n; i++)
            x[i] = element(t, place(&v, row, i, v.n));
        for (int64_t j = 0; j < k; j++) {
            const int64_t best = take_best(taken, x, v.n, descending);
            const int64_t at = place(&v, row, j, k);
            assert_true(element(indices, at) == (double)best);
            assert_true(is_near(element(values, at), x[best], 0));
        }
    }
    test_free(x);
    test_free(taken);
}

static void check_orders(const qkv_tensor *t, int axis)
{
    qkv_error err;
    const int64_t n = axis < 0 ? qkv_tensor_count(t) : t->shape[axis];
    for (int descending = 0; descending < 2; descending++) {
        qkv_tensor *indices = NULL;
        qkv_tensor *values = qkv_sort(t, axis, descending, &indices, &err);
        assert_non_null(values);
        check_order(t, axis, n, descending, values, indices);
        qkv_tensor_release(values);
        qkv_tensor_release(indices);
    }
    for (int64_t k = 0; k <= n; k = k * 2 + 1) {
        qkv_tensor *indices = NULL;
        qkv_tensor *values = qkv_topk(t, k, axis, &indices, &err);
        assert_non_null(values);
        check_order(t, axis, k, true, values, indices);
        qkv_tensor_release(values);
        qkv_tensor_release(indices);
        values = qkv_topk(t, k, axis, NULL, &err);
        assert_non_null(values);
        qkv_tensor_release(values);
    }
}

static void test_order(void **state)
{
    static const struct {
        int n_dims;
        int64_t shape[3];
    } rows[] = {
        {0, {0}}, {1, {1}}, {1, {2}}, {1, {257}}, {2, {5, 40}}, {2, {40, 5}},
        {3, {3, 20, 2}}, {2, {0, 3}}, {2, {3, 0}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_tensor *t = messy(rows[i].n_dims, rows[i].shape);
        for (int axis = -1; axis < t->n_dims; axis++)
            check_orders(t, axis);
        qkv_tensor_release(t);
    }
    for (int layout = 0; layout < N_LAYOUTS; layout++) {
        qkv_tensor *t = laid_out(layout, 5, 7);
        for (int axis = -1; axis < 2; axis++)
            check_orders(t, axis);
        qkv_tensor_release(t);
    }
}

/* By hand: shapes and names; over all, a row of flat indices. */
static void test_names(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = make("pos d", DIMS(2, 3), F(3, X, 1, 2, 3, -INF)), *at;
    expect(qkv_topk(t, 2, 1, &at, &err), &err, "top", "f32 [pos 2, d 2]",
           F(3, 1, 3, 2), 0);
    expect(at, &err, "top", "i64 [pos 2, d 2]", F(0, 2, 1, 0), 0);
    expect(qkv_topk(t, 1, 0, &at, &err), &err, "top", "f32 [pos 1, d 3]",
           F(3, 3, 1), 0);
    expect(at, &err, "top", "i64 [pos 1, d 3]", F(0, 1, 0), 0);
    expect(qkv_sort(t, -1, false, &at, &err), &err, "sort", "f32 [6]",
           F(-INF, 1, 2, 3, 3, X), 0);
    expect(at, &err, "sort", "i64 [6]", F(5, 2, 3, 0, 4, 1), 0);
    expect(qkv_softmax(t, -1, false, &err), &err, "softmax",
           "f32 [pos 2, d 3]", F(X, X, X, X, X, X), 0);
    expect(qkv_cumsum(t, -1, &err), &err, "cumsum", "f32 [6]",
           F(3, X, X, X, X, X), 0);
    expect(qkv_cumsum(t, 0, &err), &err, "cumsum", "f32 [pos 2, d 3]",
           F(3, X, 1, 5, X, -INF), 0);
    qkv_tensor_release(t);
}

static void test_threads(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = messy(DIMS(40, 3001)), *p[2], *s[2], *at[2];
    for (int i = 0; i < 2; i++) {
        qkv_set_threads(i == 0 ? 3 : 1);
        p[i] = qkv_softmax(t, 1, true, &err);
        s[i] = qkv_sort(t, 0, false, &at[i], &err);
    }
    const size_t n = (size_t)qkv_tensor_count(t);
    assert_memory_equal(qkv_tensor_data(p[0]), qkv_tensor_data(p[1]), n * 4);
    assert_memory_equal(qkv_tensor_data(s[0]), qkv_tensor_data(s[1]), n * 4);
    assert_memory_equal(qkv_tensor_data(at[0]), qkv_tensor_data(at[1]), n * 8);
    qkv_tensor *all[] = {t, p[0], p[1], s[0], s[1], at[0], at[1]};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

/* ---- what is refused, memory, Ctrl-C ---- */

static void test_refused(void **state)
{
    qkv_error err;
    qkv_tensor *at = NULL;
    (void)state;
    qkv_tensor *t = ramp("a b", DIMS(2, 3));
    qkv_tensor *q = qkv_tensor_new(QKV_Q8_0, DIMS(2, 32), NULL, &err);
    expect_error(qkv_topk(t, 4, 1, &at, &err), &err,
                 "the top 4 of 3: f32 [a 2, b 3]");
    expect_error(qkv_topk(t, 7, -1, &at, &err), &err,
                 "the top 7 of 6: f32 [a 2, b 3]");
    expect_error(qkv_topk(t, -1, 0, &at, &err), &err,
                 "the top -1 of 2: f32 [a 2, b 3]");
    expect_error(qkv_topk(t, INT64_MAX, 0, NULL, &err), &err,
                 "the top 9223372036854775807 of 2: f32 [a 2, b 3]");
    static const char no_axis[] = "there is no axis 2 in f32 [a 2, b 3]";
    expect_error(qkv_sort(t, 2, true, &at, &err), &err, no_axis);
    expect_error(qkv_topk(t, 1, 2, &at, &err), &err, no_axis);
    expect_error(qkv_softmax(t, 2, false, &err), &err, no_axis);
    expect_error(qkv_cumsum(t, 2, &err), &err, no_axis);
    expect_error(qkv_softmax(q, -1, false, &err), &err, "softmax of q8_0 "
                 "[2, 32]: a quantised tensor has rows and products only; "
                 "convert it to float first");
    assert_null(qkv_sort(q, 1, false, &at, &err));
    assert_null(qkv_cumsum(q, -1, &err));
    assert_null(at);
    qkv_tensor_release(t);
    qkv_tensor_release(q);
}

static qkv_tensor *compute(qkv_tensor *const *operands, qkv_error *err)
{
    qkv_tensor *operand = operands[0];
    qkv_tensor *at = NULL, *p = qkv_softmax(operand, -1, true, err);
    qkv_tensor *c = p != NULL ? qkv_cumsum(p, 0, err) : NULL;
    qkv_tensor *s = c != NULL ? qkv_sort(c, 0, true, &at, err) : NULL;
    qkv_tensor *out = s != NULL ? qkv_topk(s, 1, -1, NULL, err) : NULL;
    qkv_tensor_release(s != NULL ? at : NULL);
    qkv_tensor_release(p);
    qkv_tensor_release(c);
    qkv_tensor_release(s);
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
    (void)state;
    qkv_tensor *a = ramp("", DIMS(20, 30));
    qkv_interrupt();
    for (int axis = -1; axis < 2; axis++) {
        expect_error(qkv_softmax(a, axis, false, &err), &err, "interrupted");
        expect_error(qkv_cumsum(a, axis, &err), &err, "interrupted");
        expect_error(qkv_sort(a, axis, true, NULL, &err), &err, "interrupted");
    }
    qkv_interrupt_clear();
    qkv_tensor_release(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_softmax), TEST(test_odd_values), TEST(test_log_sum_exp),
        TEST(test_order), TEST(test_names), TEST(test_threads),
        TEST(test_refused), TEST(test_memory), TEST(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
