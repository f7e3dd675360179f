/*
 * test_elementwise.c - arithmetic element by element, and broadcasting
 *
 * Rows of odd values with what NumPy 2.4 makes of them in float32; every
 * layout and every pair of shapes against one element after another in
 * double, which rounds to what float arithmetic gives (+ - * /; Figueroa,
 * "When is double rounding innocuous?", 1995).
 */
#include "config.h"

#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/elementwise.h"
#include "tensors.h"

/* exp, tanh, log, pow: some units of float's last place, 6e-8. */
static const double TOL_FUNCTION = 5e-7;

/* ---- values ---- */

#define INF INFINITY
#define X NAN
static const float left[] = {1.5f, -2.5f, 0, INF, X, 3, -INF, 0.1f, -8, 1e38f};
static const float right[] = {2, 0.5f, 0, INF, 1, X, 2, 0.2f, 3, 10};
static const float one[] = {0, -1.5f, 2.5f, 0.5f, INF, -INF, X, 1e-3f, 100,
                            -100};
enum { N_VALUES = COUNT(left) };

static const struct {
    qkv_binary op;
    const char *name;
    float want[N_VALUES];
} binaries[] = {
    {QKV_ADD, "add", {3.5f, -2, 0, INF, X, X, -INF, 0.300000012f, -5, 1e38f}},
    {QKV_SUB, "sub", {-0.5f, -3, 0, X, X, X, -INF, -0.1f, -11, 1e38f}},
    {QKV_MUL, "mul", {3, -1.25f, 0, INF, X, X, -INF, 0.0200000014f, -24, INF}},
    {QKV_DIV, "div", {0.75f, -5, X, X, X, X, -INF, 0.5f, -2.66666675f,
                      9.99999993e+36f}},
    {QKV_POW, "pow", {2.25f, X, 1, INF, X, X, INF, 0.630957305f, -512, INF}},
    {QKV_MIN_OF, "min", {1.5f, -2.5f, 0, INF, X, X, -INF, 0.1f, -8, 10}},
    {QKV_MAX_OF, "max", {2, 0.5f, 0, INF, X, X, 2, 0.2f, 3, 1e38f}},
    {QKV_LT, "lt", {1, 1, 0, 0, 0, 0, 1, 1, 1, 0}},
    {QKV_LE, "le", {1, 1, 1, 1, 0, 0, 1, 1, 1, 0}},
    {QKV_GT, "gt", {0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
    {QKV_GE, "ge", {0, 0, 1, 1, 0, 0, 0, 0, 0, 1}},
    {QKV_EQ, "eq", {0, 0, 1, 1, 0, 0, 0, 0, 0, 0}},
};

static const struct {
    qkv_unary op;
    const char *name;
    float want[N_VALUES];
} unaries[] = {
    {QKV_NEG, "neg", {0, 1.5f, -2.5f, -0.5f, -INF, INF, X, -1e-3f, -100, 100}},
    {QKV_EXP, "exp", {1, 0.223130152f, 12.1824932f, 1.64872122f, INF, 0, X,
                      1.00100052f, INF, 0}},
    {QKV_LOG, "log", {-INF, X, 0.91629076f, -0.693147182f, INF, X, X,
                      -6.90775537f, 4.60517025f, X}},
    {QKV_SQRT, "sqrt", {0, X, 1.58113885f, 0.707106769f, INF, X, X,
                        0.0316227786f, 10, X}},
    {QKV_ABS, "abs", {0, 1.5f, 2.5f, 0.5f, INF, INF, X, 1e-3f, 100, 100}},
    {QKV_TANH, "tanh", {0, -0.905148208f, 0.986614287f, 0.462117195f, 1, -1, X,
                        0.000999999698f, 1, -1}},
    {QKV_ROUND, "round", {0, -2, 2, 0, INF, -INF, X, 0, 100, -100}},
    {QKV_ISNAN, "isnan", {0, 0, 0, 0, 0, 0, 1, 0, 0, 0}},
};

static double tolerance(bool function)
{
    return function ? TOL_FUNCTION : 0.0;
}

static void test_values(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = make("pos", DIMS(N_VALUES), left);
    qkv_tensor *b = make("", DIMS(N_VALUES), right);
    qkv_tensor *x = make("pos", DIMS(N_VALUES), one);
    for (size_t i = 0; i < COUNT(binaries); i++)
        expect(qkv_binary_op(binaries[i].op, a, b, &err), &err,
               binaries[i].name, "f32 [pos 10]", binaries[i].want,
               tolerance(binaries[i].op == QKV_POW));
    for (size_t i = 0; i < COUNT(unaries); i++)
        expect(qkv_unary_op(unaries[i].op, x, &err), &err, unaries[i].name,
               "f32 [pos 10]", unaries[i].want,
               tolerance(unaries[i].op == QKV_EXP || unaries[i].op == QKV_LOG
                         || unaries[i].op == QKV_TANH));
    qkv_tensor_release(a);
    qkv_tensor_release(b);
    qkv_tensor_release(x);
}

/* With a number: the same as with a tensor of it, on either side. */
static void test_number(void **state)
{
    static const double numbers[] = {0, 2, -1.5, (double)INF, (double)X};
    qkv_error err;
    (void)state;
    qkv_tensor *a = make("", DIMS(N_VALUES), left);
    for (size_t i = 0; i < COUNT(binaries); i++)
        for (size_t k = 0; k < COUNT(numbers); k++)
            for (int swapped = 0; swapped < 2; swapped++) {
                const qkv_binary op = binaries[i].op;
                qkv_tensor *n = make("", 0, NULL, F((float)numbers[k]));
                qkv_tensor *want = swapped ? qkv_binary_op(op, n, a, &err)
                                           : qkv_binary_op(op, a, n, &err);
                expect(qkv_binary_number(op, a, numbers[k], swapped, &err),
                       &err, binaries[i].name, "f32 [10]",
                       qkv_tensor_data(want), 0);
                qkv_tensor_release(want);
                qkv_tensor_release(n);
            }
    qkv_tensor_release(a);
}

/* ---- shapes ---- */

static const struct {
    const char *axes_a;
    int n_a;
    int64_t a[3];
    const char *axes_b;
    int n_b;
    int64_t b[3];
    const char *shape;          /* or the error */
} shapes[] = {
    {"", 0, {0}, "", 0, {0}, "f32 []"},
    {"pos", 1, {3}, "", 0, {0}, "f32 [pos 3]"},
    {"", 2, {2, 3}, "d", 1, {3}, "f32 [2, d 3]"},
    {"head pos", 2, {2, 1}, "", 1, {3}, "f32 [head 2, pos 3]"},
    {"", 1, {1}, "head pos d", 3, {2, 3, 4}, "f32 [head 2, pos 3, d 4]"},
    {"", 3, {2, 1, 4}, "", 3, {1, 3, 1}, "f32 [2, 3, 4]"},
    {"", 2, {0, 3}, "", 2, {1, 3}, "f32 [0, 3]"},
    {"", 1, {0}, "", 1, {1}, "f32 [0]"},
    {"", 2, {2, 3}, "", 1, {2},
     "f32 [2, 3] and f32 [2]: axis -1 has 3 and 2; sizes must agree or be 1"},
    {"", 1, {0}, "", 1, {2},
     "f32 [0] and f32 [2]: axis -1 has 0 and 2; sizes must agree or be 1"},
    {"query key", 2, {3, 3}, "key query", 2, {3, 3},
     "f32 [query 3, key 3] and f32 [key 3, query 3]: axis -1 is 'key' and "
     "'query'; names must agree"},
    {"pos", 2, {2, 3}, "pos", 1, {3},
     "f32 [pos 2, 3] and f32 [pos 3]: axis name 'pos' for axes 0 and 1"},
};

/* Element `flat` of what t is when it is spread to the shape of `to`. */
static double spread(const qkv_tensor *t, const qkv_tensor *to, int64_t flat)
{
    int64_t index[QKV_MAX_DIMS] = {0};
    for (int i = to->n_dims - 1; i >= 0; i--) {
        const int here = i - (to->n_dims - t->n_dims);
        if (here >= 0)
            index[here] = t->shape[here] == 1 ? 0 : flat % to->shape[i];
        flat /= to->shape[i];
    }
    return qkv_tensor_get(t, index);
}

static void test_shapes(void **state)
{
    qkv_error err;
    char got[160];
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        qkv_tensor *a = ramp(shapes[i].axes_a, shapes[i].n_a, shapes[i].a);
        qkv_tensor *b = ramp(shapes[i].axes_b, shapes[i].n_b, shapes[i].b);
        qkv_tensor *c = qkv_binary_op(QKV_SUB, a, b, &err);
        if (strncmp(shapes[i].shape, "f32 [", 5) != 0
            || strstr(shapes[i].shape, " and ") != NULL) {
            expect_error(c, &err, shapes[i].shape);
        } else {
            assert_non_null(c);
            qkv_tensor_describe(c, got, sizeof got);
            assert_string_equal(got, shapes[i].shape);
            for (int64_t k = 0; k < qkv_tensor_count(c); k++)
                assert_true(element(c, k) == spread(a, c, k) - spread(b, c, k));
        }
        qkv_tensor_release(a);
        qkv_tensor_release(b);
        qkv_tensor_release(c);
    }
}

/* ---- layouts ---- */

static void test_layouts(void **state)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 5}, {2, 600}, {600, 2}};
    qkv_error err;
    (void)state;
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (int la = 0; la < N_LAYOUTS; la++) {
            qkv_tensor *a = laid_out(la, sizes[s][0], sizes[s][1]);
            qkv_tensor *neg = qkv_unary_op(QKV_NEG, a, &err);
            for (int64_t k = 0; k < qkv_tensor_count(a); k++)
                assert_true(element(neg, k) == -element(a, k));
            for (int lb = 0; lb < N_LAYOUTS; lb++) {
                qkv_tensor *b = laid_out(lb, 1, sizes[s][1]);
                qkv_tensor *c = qkv_binary_op(QKV_MUL, a, b, &err);
                for (int64_t k = 0; k < qkv_tensor_count(c); k++)
                    assert_true(element(c, k)
                                == element(a, k) * spread(b, c, k));
                qkv_tensor_release(b);
                qkv_tensor_release(c);
            }
            qkv_tensor_release(neg);
            qkv_tensor_release(a);
        }
}

/* Values of every plain type take part as what they are. */
static void test_types(void **state)
{
    static const qkv_dtype types[] = {QKV_F32, QKV_F16, QKV_BF16, QKV_I32,
                                      QKV_I64, QKV_U8};
    qkv_error err;
    (void)state;
    qkv_tensor *x = make("", DIMS(4), F(0, 1, 7, 200));
    for (size_t i = 0; i < COUNT(types); i++)
        for (size_t k = 0; k < COUNT(types); k++) {
            qkv_tensor *a = qkv_tensor_to(x, types[i], &err);
            qkv_tensor *b = qkv_tensor_to(x, types[k], &err);
            expect(qkv_binary_op(QKV_ADD, a, b, &err), &err, "types",
                   "f32 [4]", F(0, 2, 14, 400), 0);
            qkv_tensor_release(a);
            qkv_tensor_release(b);
        }
    qkv_tensor_release(x);
}

/* More than one piece: the same bits on one thread and on three. */
static void test_threads(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = ramp("", DIMS(3, 70001)), *b = ramp("", DIMS(70001));
    qkv_tensor *t = qkv_binary_number(QKV_MUL, a, 0.1, false, &err);
    qkv_tensor *c[2];
    for (int i = 0; i < 2; i++) {
        qkv_set_threads(i == 0 ? 3 : 1);
        c[i] = qkv_binary_op(QKV_DIV, t, b, &err);
    }
    assert_memory_equal(qkv_tensor_data(c[0]), qkv_tensor_data(c[1]),
                        3 * 70001 * sizeof(float));
    for (int64_t k = 0; k < 3 * 70001; k += 997)
        assert_true(is_near(element(c[0], k), (double)(float)(element(t, k)
                            / element(b, k % 70001)), 0));
    qkv_tensor *all[] = {a, b, t, c[0], c[1]};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

/* ---- clamp, where, triu, near ---- */

static void test_clamp(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = make("pos", DIMS(5), F(-2, 0.5f, 3, X, -INF));
    expect(qkv_clamp(a, -1, 2, &err), &err, "clamp", "f32 [pos 5]",
           F(-1, 0.5f, 2, X, -1), 0);
    expect(qkv_clamp(a, 1, (double)INF, &err), &err, "clamp", "f32 [pos 5]",
           F(1, 1, 3, X, 1), 0);
    expect_error(qkv_clamp(a, 2, 1, &err), &err, "clamp from 2 to 1: the "
                 "first must not be above the second");
    assert_null(qkv_clamp(a, 0, (double)X, &err));
    qkv_tensor_release(a);
}

static void test_where(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *c = make("a b", DIMS(2, 3), F(1, 0, -1, X, 0, 0.5f));
    qkv_tensor *t = make("", DIMS(3), F(1, 2, X));
    qkv_tensor *u = make("a", DIMS(2, 1), F(INF, -5));
    expect(qkv_where(c, t, u, &err), &err, "where", "f32 [a 2, b 3]",
           F(1, INF, X, 1, -5, X), 0);
    expect(qkv_where(t, c, u, &err), &err, "where", "f32 [a 2, b 3]",
           F(1, 0, -1, X, 0, 0.5f), 0);
    qkv_tensor *bad = ramp("", DIMS(4));
    expect_error(qkv_where(c, t, bad, &err), &err, "f32 [a 2, b 3] and "
                 "f32 [4]: axis -1 has 3 and 4; sizes must agree or be 1");
    qkv_tensor *all[] = {c, t, u, bad};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

static void test_triu(void **state)
{
    static const int64_t diagonals[] = {0, 1, -1, 2, -2, 5, -5, INT64_MAX,
                                        INT64_MIN, INT64_MIN + 1};
    qkv_error err;
    (void)state;
    for (int layout = 0; layout < N_LAYOUTS; layout++)
        for (size_t d = 0; d < COUNT(diagonals); d++) {
            qkv_tensor *a = laid_out(layout, 4, 3);
            qkv_tensor *u = qkv_triu(a, diagonals[d], &err);
            for (int64_t i = 0; i < 12; i++)
                assert_true(element(u, i) == (i % 3 - i / 3 >= diagonals[d]
                                              ? element(a, i) : 0));
            qkv_tensor_release(a);
            qkv_tensor_release(u);
        }
    qkv_tensor *v = ramp("pos", DIMS(3)), *empty = ramp("", DIMS(2, 0));
    expect_error(qkv_triu(v, 0, &err), &err,
                 "triu of f32 [pos 3]: two axes at least");
    expect(qkv_triu(empty, 0, &err), &err, "triu", "f32 [2, 0]", NULL, 0);
    qkv_tensor_release(v);
    qkv_tensor_release(empty);
}

static void test_near(void **state)
{
    static const struct {
        float a[2], b[2];
        double tol;
        bool near;
    } rows[] = {
        {{1, 2}, {1, 2}, 0, true},      {{1, 2}, {1, 2.5f}, 0.4, false},
        {{1, 2}, {1, 2.5f}, 0.5, true}, {{X, 2}, {X, 2}, 1, false},
        {{INF, 2}, {INF, 2}, 0, true},  {{INF, 2}, {-INF, 2}, 1, false},
        {{INF, 2}, {1, 2}, 1e300, false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_tensor *a = make("a", DIMS(2), rows[i].a);
        qkv_tensor *b = make("b", DIMS(2), rows[i].b);
        assert_int_equal(qkv_tensor_near(a, b, rows[i].tol), rows[i].near);
        assert_int_equal(qkv_tensor_near(b, a, rows[i].tol), rows[i].near);
        qkv_tensor_release(a);
        qkv_tensor_release(b);
    }
    qkv_tensor *a = ramp("", DIMS(2)), *b = ramp("", DIMS(2, 1));
    assert_false(qkv_tensor_near(a, b, (double)INF));
    qkv_tensor_release(a);
    qkv_tensor_release(b);
}

/* ---- in place ---- */

static void test_into(void **state)
{
    static const struct {
        qkv_binary op;
        float want[6];
    } rows[] = {{QKV_ADD, {-1.5f, 3, -1.5f, 3.5f, 2.5f, -2}},
                {QKV_SUB, {-3.5f, -1, -0.5f, 1.5f, -1.5f, -1}},
                {QKV_MUL, {-2.5f, 2, 0.5f, 2.5f, 1, 0.75f}},
                {QKV_DIV, {-2.5f, 0.5f, 2, 2.5f, 0.25f, 3}}};
    qkv_error err;
    (void)state;
    qkv_tensor *b = make("", DIMS(3), F(1, 2, -0.5f));
    for (size_t i = 0; i < COUNT(rows); i++)
        for (int layout = 0; layout < N_LAYOUTS; layout++) {
            qkv_tensor *t = laid_out(layout, 2, 3);
            assert_true(qkv_binary_into(rows[i].op, t, b, &err));
            expect(t, &err, "into", layout == 4 ? "f16 [2, 3]" : "f32 [2, 3]",
                   rows[i].want, 0);
        }
    qkv_tensor *t = ramp("a b", DIMS(2, 3)), *wide = ramp("", DIMS(2, 2, 3));
    assert_false(qkv_binary_into(QKV_POW, t, b, &err));
    assert_string_equal(err.msg, "in place there are add, sub, mul and div");
    assert_false(qkv_binary_into(QKV_ADD, t, wide, &err));
    assert_string_equal(err.msg, "f32 [2, 2, 3] does not broadcast to "
                                 "f32 [a 2, b 3]");
    t->read_only = true;
    assert_false(qkv_binary_into(QKV_ADD, t, b, &err));
    assert_string_equal(err.msg, "f32 [a 2, b 3] is read-only; change a "
                                 "clone");
    qkv_tensor_release(t);
    qkv_tensor_release(wide);
    qkv_tensor_release(b);
}

/* t[1:] += t[:-1], t[:-1] += t[1:], t += t as if through a copy: of ones,
 * over several runs (walk.h) and vectors, 2 but for one end. */
static void test_overlap(void **state)
{
    enum { N = 1500 };
    qkv_error err;
    (void)state;
    for (int way = 0; way < 3; way++) {
        qkv_tensor *t = qkv_tensor_new(QKV_F32, DIMS(N), NULL, &err);
        assert_true(qkv_tensor_fill(t, 1, &err));
        qkv_tensor *low = qkv_tensor_slice(t, 0, 0, N - (way != 2), &err);
        qkv_tensor *high = qkv_tensor_slice(t, 0, way != 2, N, &err);
        assert_true(qkv_binary_into(QKV_ADD, way == 0 ? high : low,
                                    way == 0 ? low : high, &err));
        for (int i = 0; i < N; i++)
            assert_true(element(t, i) == (way == 0 && i == 0 ? 1
                                          : way == 1 && i == N - 1 ? 1 : 2));
        qkv_tensor_release(low);
        qkv_tensor_release(high);
        qkv_tensor_release(t);
    }
}

/* Integers round to even, or stay as they were when one does not fit. */
static void test_integers(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *x = make("", DIMS(3), F(1, 3, 250)), *half, *ten;
    qkv_tensor *t = qkv_tensor_to(x, QKV_U8, &err);
    half = make("", 0, NULL, F(0.5f));
    ten = make("", 0, NULL, F(10));
    assert_true(qkv_binary_into(QKV_MUL, t, half, &err));   /* .5 1.5 125 */
    assert_true(qkv_binary_into(QKV_MUL, t, ten, &err) == false);
    assert_string_equal(err.msg, "1250 does not fit into u8");
    expect(t, &err, "u8", "u8 [3]", F(0, 2, 125), 0);
    qkv_tensor_release(x);
    qkv_tensor_release(half);
    qkv_tensor_release(ten);
}

/* ---- blocks, memory, Ctrl-C ---- */

static void test_refused(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *q = qkv_tensor_new(QKV_Q4_0, DIMS(2, 32), NULL, &err);
    qkv_tensor *x = ramp("", DIMS(2, 32));
    static const char message[] = "arithmetic on the elements of q4_0 "
        "[2, 32]: a quantised tensor has rows and products only; convert it "
        "to float first";
    expect_error(qkv_binary_op(QKV_ADD, x, q, &err), &err, message);
    expect_error(qkv_unary_op(QKV_EXP, q, &err), &err, message);
    expect_error(qkv_binary_number(QKV_ADD, q, 1, true, &err), &err, message);
    assert_false(qkv_binary_into(QKV_ADD, x, q, &err));
    assert_string_equal(err.msg, message);
    assert_null(qkv_triu(q, 0, &err));
    assert_false(qkv_tensor_near(x, q, 1));
    qkv_tensor_release(q);
    qkv_tensor_release(x);
}

static qkv_tensor *compute(qkv_tensor *const *operands, qkv_error *err)
{
    qkv_tensor *operand = operands[0];
    qkv_tensor *t = qkv_triu(operand, 1, err);
    qkv_tensor *u = t != NULL ? qkv_where(t, operand, t, err) : NULL;
    const bool good = u != NULL
        && qkv_binary_into(QKV_ADD, u, u, err);
    qkv_tensor *out = good ? qkv_unary_op(QKV_EXP, u, err) : NULL;
    qkv_tensor_release(t);
    qkv_tensor_release(u);
    return out;
}

static void test_memory(void **state)
{
    (void)state;
    sweep_memory(compute, (qkv_tensor *[]){ramp("a b", DIMS(3, 4)), NULL});
}

static void test_interrupt(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = ramp("", DIMS(20, 30));
    qkv_interrupt();
    expect_error(qkv_binary_op(QKV_ADD, a, a, &err), &err, "interrupted");
    expect_error(qkv_triu(a, 0, &err), &err, "interrupted");
    assert_false(qkv_binary_into(QKV_ADD, a, a, &err));
    assert_false(qkv_tensor_near(a, a, 1));
    qkv_interrupt_clear();
    qkv_tensor_release(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_values), TEST(test_number), TEST(test_shapes),
        TEST(test_layouts), TEST(test_types), TEST(test_threads),
        TEST(test_clamp), TEST(test_where), TEST(test_triu), TEST(test_near),
        TEST(test_into), TEST(test_overlap), TEST(test_integers),
        TEST(test_refused), TEST(test_memory), TEST(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
