/*
 * test_linalg.c - factorisations and linear systems
 *
 * Laws, on matrices of every kind of shape and rank: what a factorisation
 * gives multiplies back, is orthonormal or triangular, in the order and with
 * the signs that linalg.h promises. Matrices whose factors are known in closed
 * form: diagonals, min(i, j), the second difference. What is refused.
 */
#include "config.h"

#include "base/interrupt.h"
#include "base/random.h"
#include "tensor/linalg.h"
#include "tensors.h"

/* Computed in double; factors are rounded to float, and so are off by 6e-8
 * for each of up to 70 terms. */
static const double TOL = 4e-6;

static double at(const qkv_tensor *t, int64_t i, int64_t j)
{
    return qkv_tensor_get(t, t->n_dims > 1 ? (const int64_t[]){i, j}
                                           : (const int64_t[]){i});
}

static int64_t columns(const qkv_tensor *t)
{
    return t->n_dims > 1 ? t->shape[1] : 1;
}

/* op(a) diag(scale) op(b) = want, in double; no scale: 1; no want: the
 * identity. */
static void expect_product(const char *what, const qkv_tensor *a, bool ta,
                           const qkv_tensor *scale, const qkv_tensor *b,
                           bool tb, const qkv_tensor *want)
{
    const int64_t m = ta ? columns(a) : a->shape[0];
    const int64_t k = ta ? a->shape[0] : columns(a);
    const int64_t n = tb ? b->shape[0] : columns(b);
    assert_int_equal(tb ? columns(b) : b->shape[0], k);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (int64_t l = 0; l < k; l++) {
                const double term = (ta ? at(a, l, i) : at(a, i, l))
                    * (scale != NULL ? at(scale, l, 0) : 1.0)
                    * (tb ? at(b, j, l) : at(b, l, j));
                sum += term;
                size += fabs(term);
            }
            const double right = want != NULL ? at(want, i, j) : i == j;
            if (!(fabs(sum - right) <= TOL * (1.0 + size)))
                fail_msg("%s: [%d, %d] is %.9g, not %.9g", what, (int)i,
                         (int)j, sum, right);
        }
}

/* In each row (or column) of v the largest element is positive. */
static void expect_signs(const char *what, const qkv_tensor *v, bool by_rows)
{
    const int64_t n = by_rows ? v->shape[0] : columns(v);
    const int64_t d = by_rows ? columns(v) : v->shape[0];
    for (int64_t i = 0; i < n; i++) {
        double low = 0, high = 0;
        for (int64_t j = 0; j < d; j++) {
            const double x = by_rows ? at(v, i, j) : at(v, j, i);
            low = x < low ? x : low;
            high = x > high ? x : high;
        }
        if (!(high >= -low * (1 - 1e-6)))
            fail_msg("%s: vector %d has %.9g and %.9g", what, (int)i, low,
                     high);
    }
}

static void expect_falling(const char *what, const qkv_tensor *s, double least)
{
    for (int64_t i = 0; i < s->shape[0]; i++)
        if (!(at(s, i, 0) >= least)
            || (i > 0 && !(at(s, i, 0) <= at(s, i - 1, 0))))
            fail_msg("%s: value %d is %.9g", what, (int)i, at(s, i, 0));
}

/* ---- matrices ---- */

/* [m, n] of normal numbers, of that rank: a product of [m, r] and [r, n]. */
static qkv_tensor *of_rank(int64_t m, int64_t n, int64_t r, uint64_t seed)
{
    qkv_error err;
    qkv_random random;
    qkv_random_seed(&random, seed);
    double *left = test_malloc((size_t)(m * r + 1) * sizeof *left);
    double *right = test_malloc((size_t)(r * n + 1) * sizeof *right);
    for (int64_t i = 0; i < m * r; i++)
        left[i] = qkv_random_normal(&random);
    for (int64_t i = 0; i < r * n; i++)
        right[i] = qkv_random_normal(&random);
    qkv_tensor *t = qkv_tensor_new(QKV_F32, DIMS(m, n), NULL, &err);
    for (int64_t i = 0; i < m * n; i++) {
        double sum = 0;
        for (int64_t l = 0; l < r; l++)
            sum += left[i / n * r + l] * right[l * n + i % n];
        ((float *)qkv_tensor_data(t))[i] = (float)sum;
    }
    test_free(left);
    test_free(right);
    return t;
}

/* a [n, n] = f(i, j) */
static qkv_tensor *made_of(int64_t n, double (*f)(int64_t i, int64_t j))
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_F32, DIMS(n, n), NULL, &err);
    for (int64_t i = 0; i < n * n; i++)
        ((float *)qkv_tensor_data(t))[i] = (float)f(i / n, i % n);
    return t;
}

static double least_index(int64_t i, int64_t j)
{
    return (double)(i < j ? i : j) + 1;
}

static double second_difference(int64_t i, int64_t j)
{
    return i == j ? 2 : i - j == 1 || j - i == 1 ? -1 : 0;
}

/* x + x' + shift, of a random x */
static qkv_tensor *symmetric(int64_t n, double shift)
{
    qkv_error err;
    qkv_tensor *x = of_rank(n, n, n, 3);
    qkv_tensor *a = qkv_tensor_new(QKV_F32, DIMS(n, n), NULL, &err);
    for (int64_t i = 0; i < n * n; i++)
        ((float *)qkv_tensor_data(a))[i] = (float)(at(x, i / n, i % n)
            + at(x, i % n, i / n) + (i / n == i % n ? shift : 0));
    qkv_tensor_release(x);
    return a;
}

/* ---- singular values, q and r ---- */

static void expect_same(const qkv_tensor *a, const qkv_tensor *b)
{
    assert_int_equal(qkv_tensor_count(a), qkv_tensor_count(b));
    assert_memory_equal(qkv_tensor_data(a), qkv_tensor_data(b),
                        (size_t)qkv_tensor_count(a) * sizeof(float));
}

static void check_svd(const qkv_tensor *a)
{
    qkv_error err;
    qkv_tensor *u, *s, *vt, *alone;
    if (!qkv_svd(&u, &s, &vt, a, &err))
        fail_msg("%s", err.msg);
    expect_product("u s vt", u, false, s, vt, false, a);
    expect_product("u' u", u, true, NULL, u, false, NULL);
    expect_product("vt v", vt, false, NULL, vt, true, NULL);
    expect_falling("s", s, 0);
    expect_signs("vt", vt, true);
    assert_true(qkv_svd(NULL, &alone, NULL, a, &err));
    expect_same(alone, s);
    qkv_tensor *all[] = {u, s, vt, alone};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

static void check_qr(const qkv_tensor *a)
{
    qkv_error err;
    qkv_tensor *q, *r;
    if (!qkv_qr(&q, &r, a, &err))
        fail_msg("%s", err.msg);
    expect_product("q r", q, false, NULL, r, false, a);
    expect_product("q' q", q, true, NULL, q, false, NULL);
    for (int64_t i = 0; i < r->shape[0]; i++) {
        assert_true(at(r, i, i) >= 0);
        for (int64_t j = 0; j < i; j++)
            assert_true(at(r, i, j) == 0);
    }
    qkv_tensor_release(q);
    qkv_tensor_release(r);
}

static const struct {
    int64_t m, n, rank;
} sizes[] = {
    {1, 1, 1}, {1, 6, 1}, {6, 1, 1}, {5, 5, 5}, {40, 7, 7}, {7, 40, 7},
    {33, 33, 33}, {70, 30, 30}, {20, 12, 3}, {12, 20, 3}, {6, 6, 1},
    {4, 4, 0}, {1, 1, 0},
};

static void test_svd_and_qr(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        qkv_tensor *a = of_rank(sizes[i].m, sizes[i].n, sizes[i].rank, i);
        check_svd(a);
        check_qr(a);
        qkv_tensor_release(a);
    }
    for (int layout = 0; layout < N_LAYOUTS; layout++) {
        qkv_tensor *a = laid_out(layout, 5, 4);
        check_svd(a);
        check_qr(a);
        qkv_tensor_release(a);
    }
}

/* ---- symmetric matrices ---- */

static void check_eigh(const qkv_tensor *a)
{
    qkv_error err;
    qkv_tensor *w, *v, *alone;
    if (!qkv_eigh(&w, &v, a, &err))
        fail_msg("%s", err.msg);
    expect_product("v w v'", v, false, w, v, true, a);
    expect_product("v' v", v, true, NULL, v, false, NULL);
    expect_falling("w", w, -(double)INFINITY);
    expect_signs("v", v, false);
    assert_true(qkv_eigh(&alone, NULL, a, &err));
    expect_same(alone, w);
    qkv_tensor *all[] = {w, v, alone};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

static void check_cholesky(const qkv_tensor *a)
{
    qkv_error err;
    qkv_tensor *l = qkv_cholesky(a, &err);
    if (l == NULL)
        fail_msg("%s", err.msg);
    expect_product("l l'", l, false, NULL, l, true, a);
    for (int64_t i = 0; i < l->shape[0]; i++) {
        assert_true(at(l, i, i) > 0);
        for (int64_t j = i + 1; j < l->shape[0]; j++)
            assert_true(at(l, i, j) == 0);
    }
    qkv_tensor_release(l);
}

static void test_symmetric(void **state)
{
    static const int64_t n[] = {1, 2, 5, 33, 60};
    (void)state;
    for (size_t i = 0; i < COUNT(n); i++) {
        qkv_tensor *a = symmetric(n[i], 0);
        qkv_tensor *positive = symmetric(n[i], 10 * (double)n[i]);
        qkv_tensor *one = made_of(n[i], least_index);
        check_eigh(a);
        check_eigh(one);
        check_cholesky(positive);
        check_cholesky(one);
        qkv_tensor_release(a);
        qkv_tensor_release(positive);
        qkv_tensor_release(one);
    }
}

/* ---- what is known in closed form ---- */

/* min(i, j) = l l' with ones at and below the diagonal. */
static void test_known_cholesky(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = made_of(12, least_index), *l = qkv_cholesky(a, &err);
    for (int64_t i = 0; i < 144; i++)
        assert_true(at(l, i / 12, i % 12) == (i / 12 >= i % 12));
    qkv_tensor_release(a);
    qkv_tensor_release(l);
}

/* The second difference of n points: 2 - 2 cos(pi k / (n + 1)), k = n .. 1,
 * which are its singular values, too. */
static void test_known_values(void **state)
{
    enum { N = 31 };
    qkv_error err;
    qkv_tensor *a = made_of(N, second_difference), *w, *s;
    (void)state;
    assert_true(qkv_eigh(&w, NULL, a, &err));
    assert_true(qkv_svd(NULL, &s, NULL, a, &err));
    for (int64_t i = 0; i < N; i++) {
        const double known = 2 - 2 * cos(acos(-1.0) * (double)(N - i)
                                         / (N + 1));
        assert_true(is_near(at(w, i, 0), known, 1e-7));
        assert_true(is_near(at(s, i, 0), known, 1e-7));
    }
    qkv_tensor_release(a);
    qkv_tensor_release(w);
    qkv_tensor_release(s);
}

/* diag(3, -5, 2), with the names that results carry. */
static void test_names_and_signs(void **state)
{
    qkv_error err;
    qkv_tensor *u, *s, *vt, *w, *v, *q, *r;
    (void)state;
    qkv_tensor *a = make("pos d", DIMS(3, 3), F(3, 0, 0, 0, -5, 0, 0, 0, 2));
    assert_true(qkv_svd(&u, &s, &vt, a, &err));
    expect(u, &err, "u", "f32 [pos 3, comp 3]",
           F(0, 1, 0, -1, 0, 0, 0, 0, 1), 0);
    expect(s, &err, "s", "f32 [comp 3]", F(5, 3, 2), 0);
    expect(vt, &err, "vt", "f32 [comp 3, d 3]",
           F(0, 1, 0, 1, 0, 0, 0, 0, 1), 0);
    assert_true(qkv_eigh(&w, &v, a, &err));
    expect(w, &err, "w", "f32 [comp 3]", F(3, 2, -5), 0);
    expect(v, &err, "v", "f32 [pos 3, comp 3]",
           F(1, 0, 0, 0, 0, 1, 0, 1, 0), 0);
    assert_true(qkv_qr(&q, &r, a, &err));
    expect(q, &err, "q", "f32 [pos 3, 3]", F(1, 0, 0, 0, -1, 0, 0, 0, 1), 0);
    expect(r, &err, "r", "f32 [3, d 3]", F(3, 0, 0, 0, 5, 0, 0, 0, 2), 0);
    qkv_tensor_release(a);
}

/* ---- linear systems ---- */

static void test_solve(void **state)
{
    static const int64_t n[] = {1, 2, 7, 33, 60};
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(n); i++)
        for (int layout = 0; layout < N_LAYOUTS; layout++) {
            qkv_tensor *a = symmetric(n[i], 10 * (double)n[i]);
            ((float *)qkv_tensor_data(a))[n[i] - 1] += 1;   /* no more */
            qkv_tensor *b = laid_out(layout, n[i], 3);
            qkv_tensor *x = qkv_solve(a, b, &err);
            qkv_tensor *first = qkv_tensor_select(b, 1, 0, &err);
            qkv_tensor *y = qkv_solve(a, first, &err);
            assert_int_equal(x->n_dims, 2);
            assert_int_equal(y->n_dims, 1);
            expect_product("a x", a, false, NULL, x, false, b);
            for (int64_t k = 0; k < n[i]; k++)
                assert_true(is_near(at(y, k, 0), at(x, k, 0), 1e-7));
            qkv_tensor *all[] = {a, b, x, first, y};
            for (size_t k = 0; k < COUNT(all); k++)
                qkv_tensor_release(all[k]);
        }
}

/* b [m, k] - a [m, n] x [n, k]; b NULL: zeros */
static qkv_tensor *rest_of(const qkv_tensor *b, const qkv_tensor *a,
                           const qkv_tensor *x)
{
    qkv_error err;
    const int64_t k = columns(x);
    qkv_tensor *out = qkv_tensor_new(QKV_F32, DIMS(a->shape[0], k), NULL,
                                     &err);
    for (int64_t i = 0; i < qkv_tensor_count(out); i++) {
        double sum = b != NULL ? at(b, i / k, i % k) : 0;
        for (int64_t l = 0; l < columns(a); l++)
            sum -= at(a, i / k, l) * at(x, l, i % k);
        ((float *)qkv_tensor_data(out))[i] = (float)sum;
    }
    return out;
}

static double norm_of(const qkv_tensor *t)
{
    double squares = 0;
    for (int64_t i = 0; i < qkv_tensor_count(t); i++)
        squares += element(t, i) * element(t, i);
    return sqrt(squares);
}

/* What is left over is orthogonal to the columns of a, and x has no part that
 * a does not see: vt's rows from the rank on give 0. */
static void test_lstsq(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const int64_t m = sizes[i].m, n = sizes[i].n, rank = sizes[i].rank;
        qkv_tensor *a = of_rank(m, n, rank, i), *b = of_rank(m, 4, 4, 99);
        qkv_tensor *x = qkv_lstsq(a, b, &err);
        if (x == NULL)
            fail_msg("%s", err.msg);
        qkv_tensor *rest = rest_of(b, a, x);
        qkv_tensor *vt, *back = qkv_tensor_transpose(a, 0, 1, &err);
        qkv_tensor *across = rest_of(NULL, back, rest);     /* - a' rest */
        assert_true(norm_of(across) <= TOL * norm_of(a)
                    * (norm_of(a) * norm_of(x) + norm_of(b)));
        qkv_tensor_release(back);
        assert_true(qkv_svd(NULL, NULL, &vt, a, &err));
        qkv_tensor *seen = qkv_tensor_slice(vt, 0, 0, rank, &err);
        qkv_tensor *shares = rest_of(NULL, seen, x);        /* - v' x */
        back = qkv_tensor_transpose(seen, 0, 1, &err);
        qkv_tensor *again = rest_of(NULL, back, shares);    /* v v' x */
        for (int64_t k = 0; k < n * 4; k++)
            assert_true(fabs(element(again, k) - element(x, k))
                        <= TOL * norm_of(x));
        qkv_tensor *all[] = {a, b, x, rest, across, vt, seen, shares, back,
                             again};
        for (size_t k = 0; k < COUNT(all); k++)
            qkv_tensor_release(all[k]);
    }
}

/* By hand: the line through (0, 1), (1, 3), (2, 5), (3, 8); and of all x with
 * x0 + 2 x1 = 5 the shortest. */
static void test_known_solutions(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *a = make("pos term", DIMS(4, 2), F(1, 0, 1, 1, 1, 2, 1, 3));
    qkv_tensor *b = make("pos", DIMS(4), F(1, 3, 5, 8));
    expect(qkv_lstsq(a, b, &err), &err, "line", "f32 [term 2]",
           F(0.8f, 2.3f), 1e-7);
    qkv_tensor *row = make("", DIMS(1, 2), F(1, 2));
    qkv_tensor *five = make("", DIMS(1), F(5));
    expect(qkv_lstsq(row, five, &err), &err, "shortest", "f32 [2]", F(1, 2),
           1e-7);
    qkv_tensor *c = make("row col", DIMS(2, 2), F(0, 2, -4, 1));
    qkv_tensor *d = make("row k", DIMS(2, 3), F(2, 4, 6, 1, 2, -5));
    expect(qkv_solve(c, d, &err), &err, "solve", "f32 [col 2, k 3]",
           F(0, 0, 2, 1, 2, 3), 1e-7);
    qkv_tensor *all[] = {a, b, row, five, c, d};
    for (size_t i = 0; i < COUNT(all); i++)
        qkv_tensor_release(all[i]);
}

/* ---- what is refused ---- */

typedef bool verb(const qkv_tensor *a, qkv_error *err);

static bool do_svd(const qkv_tensor *a, qkv_error *err)
{
    return qkv_svd(NULL, NULL, NULL, a, err);
}
static bool do_eigh(const qkv_tensor *a, qkv_error *err)
{
    return qkv_eigh(NULL, NULL, a, err);
}
static bool do_qr(const qkv_tensor *a, qkv_error *err)
{
    qkv_tensor *q = NULL, *r = NULL;
    const bool good = qkv_qr(&q, &r, a, err);
    assert_int_equal(good, q != NULL && r != NULL);
    qkv_tensor_release(q);
    qkv_tensor_release(r);
    return good;
}
static bool do_cholesky(const qkv_tensor *a, qkv_error *err)
{
    qkv_tensor *t = qkv_cholesky(a, err);
    qkv_tensor_release(t);
    return t != NULL;
}
static bool do_solve(const qkv_tensor *a, qkv_error *err)
{
    qkv_tensor *b = ramp("", DIMS(2)), *t = qkv_solve(a, b, err);
    qkv_tensor_release(b);
    qkv_tensor_release(t);
    return t != NULL;
}
static bool do_lstsq(const qkv_tensor *a, qkv_error *err)
{
    qkv_tensor *b = ramp("", DIMS(2)), *t = qkv_lstsq(a, b, err);
    qkv_tensor_release(b);
    qkv_tensor_release(t);
    return t != NULL;
}

static const struct {
    const char *name;
    verb *call;
    bool square;
} verbs[] = {
    {"svd", do_svd, false}, {"eigh", do_eigh, true}, {"qr", do_qr, false},
    {"cholesky", do_cholesky, true}, {"solve", do_solve, true},
    {"lstsq", do_lstsq, false},
};

/* Each verb with each of these: its name and this are the error. */
static const struct {
    int n_dims;
    int64_t shape[3];
    float x[6];
    bool rectangular;           /* only the square ones refuse it */
    const char *message;
} matrices[] = {
    {1, {2}, {1, 2}, false, " of f32 [2]: a matrix was expected"},
    {3, {1, 1, 1}, {1}, false, " of f32 [1, 1, 1]: a matrix was expected"},
    {0, {0}, {1}, false, " of f32 []: a matrix was expected"},
    {2, {0, 0}, {0}, false, " of no elements: f32 [0, 0]"},
    {2, {2, 3}, {1, 2, 3, 4, 5, 6}, true,
     " of f32 [2, 3]: as many rows as columns were expected"},
    {2, {2, 2}, {1, NAN, NAN, 1}, false,
     " of f32 [2, 2]: element [0, 1] is nan"},
    {2, {2, 2}, {1, 0, 0, -INFINITY}, false,
     " of f32 [2, 2]: element [1, 1] is -inf"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(matrices); i++)
        for (size_t k = 0; k < COUNT(verbs); k++) {
            qkv_error err;
            char message[120];
            if (matrices[i].rectangular && !verbs[k].square)
                continue;
            qkv_tensor *a = make("", matrices[i].n_dims, matrices[i].shape,
                                 matrices[i].x);
            snprintf(message, sizeof message, "%s%s", verbs[k].name,
                     matrices[i].message);
            assert_false(verbs[k].call(a, &err));
            assert_string_equal(err.msg, message);
            qkv_tensor_release(a);
        }
    qkv_error err;
    qkv_tensor *q = qkv_tensor_new(QKV_Q4_0, DIMS(32, 32), NULL, &err);
    for (size_t k = 0; k < COUNT(verbs); k++) {
        assert_false(verbs[k].call(q, &err));
        assert_int_equal(err.code, QKV_EUNSUPPORTED);
    }
    qkv_tensor_release(q);
}

/* Matrices that one of them cannot do. */
static void test_singular(void **state)
{
    static const struct {
        verb *call;
        float x[4];
        const char *message;
    } rows[] = {
        {do_eigh, {1, 2, 3, 4}, "eigh of a matrix that is not symmetric: "
         "[1, 0] is 3, [0, 1] is 2"},
        {do_cholesky, {1, 2, 3, 4}, "cholesky of a matrix that is not "
         "symmetric: [1, 0] is 3, [0, 1] is 2"},
        {do_cholesky, {1, 2, 2, 4}, "cholesky of a matrix that is not "
         "positive definite: its leading 2 x 2 part is not"},
        {do_cholesky, {-1, 0, 0, 1}, "cholesky of a matrix that is not "
         "positive definite: its leading 1 x 1 part is not"},
        {do_solve, {1, 2, 2, 4}, "solve with a singular matrix (reciprocal "
         "condition 0.0e+00); lstsq gives the solution of least norm"},
        {do_solve, {0, 0, 0, 0}, "solve with a singular matrix (reciprocal "
         "condition 0.0e+00); lstsq gives the solution of least norm"},
    };
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_tensor *a = make("", DIMS(2, 2), rows[i].x);
        assert_false(rows[i].call(a, &err));
        assert_string_equal(err.msg, rows[i].message);
        qkv_tensor_release(a);
    }
    /* what float arithmetic leaves is symmetric enough */
    qkv_tensor *a = make("", DIMS(2, 2), F(1, 2, 2.0001f, 1));
    assert_true(do_eigh(a, &err));
    qkv_tensor_release(a);
}

static void test_right_sides(void **state)
{
    static const struct {
        int n_dims;
        int64_t shape[3];
        const char *message;
    } rows[] = {
        {1, {3}, " of f32 [2, 2] and f32 [3]: the second needs 2 rows"},
        {0, {0}, " of f32 [2, 2] and f32 []: the second needs 2 rows"},
        {2, {3, 2}, " of f32 [2, 2] and f32 [3, 2]: the second needs 2 "
                    "rows"},
        {2, {2, 0}, " of f32 [2, 2] and f32 [2, 0]: the second needs 2 "
                    "rows"},
        {3, {2, 1, 1}, " of f32 [2, 2] and f32 [2, 1, 1]: the second needs "
                       "2 rows"},
    };
    qkv_error err;
    (void)state;
    qkv_tensor *a = make("", DIMS(2, 2), F(2, 0, 0, 2));
    for (size_t i = 0; i < COUNT(rows); i++) {
        char message[120];
        qkv_tensor *b = ramp("", rows[i].n_dims, rows[i].shape);
        snprintf(message, sizeof message, "solve%s", rows[i].message);
        expect_error(qkv_solve(a, b, &err), &err, message);
        snprintf(message, sizeof message, "lstsq%s", rows[i].message);
        expect_error(qkv_lstsq(a, b, &err), &err, message);
        qkv_tensor_release(b);
    }
    qkv_tensor *b = make("", DIMS(2), F(1, NAN));
    expect_error(qkv_solve(a, b, &err), &err,
                 "solve of f32 [2]: element [1, 0] is nan");
    qkv_tensor_release(a);
    qkv_tensor_release(b);
}

/* ---- memory, Ctrl-C ---- */

static qkv_tensor *compute(qkv_tensor *const *operands, qkv_error *err)
{
    qkv_tensor *operand = operands[0];
    qkv_tensor *u, *s, *vt, *w, *v, *q, *r, *out = NULL;
    if (!qkv_svd(&u, &s, &vt, operand, err))
        return NULL;
    if (qkv_eigh(&w, &v, operand, err)) {
        if (qkv_qr(&q, &r, operand, err)) {
            qkv_tensor *l = qkv_cholesky(operand, err);
            qkv_tensor *x = l != NULL ? qkv_solve(l, u, err) : NULL;
            out = x != NULL ? qkv_lstsq(q, x, err) : NULL;
            qkv_tensor *all[] = {l, x, q, r};
            for (size_t i = 0; i < COUNT(all); i++)
                qkv_tensor_release(all[i]);
        }
        qkv_tensor_release(w);
        qkv_tensor_release(v);
    }
    qkv_tensor_release(u);
    qkv_tensor_release(s);
    qkv_tensor_release(vt);
    return out;
}

static void test_memory(void **state)
{
    (void)state;
    sweep_memory(compute, (qkv_tensor *[]){made_of(6, least_index), NULL});
}

static void test_interrupt(void **state)
{
    (void)state;
    qkv_tensor *a = made_of(2, least_index);
    for (size_t k = 0; k < COUNT(verbs); k++) {
        qkv_error err;
        qkv_interrupt();
        assert_false(verbs[k].call(a, &err));
        qkv_interrupt_clear();
        assert_string_equal(err.msg, "interrupted");
    }
    qkv_tensor_release(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_svd_and_qr), TEST(test_symmetric), TEST(test_known_cholesky),
        TEST(test_known_values), TEST(test_names_and_signs), TEST(test_solve),
        TEST(test_lstsq), TEST(test_known_solutions), TEST(test_refused),
        TEST(test_singular), TEST(test_right_sides), TEST(test_memory),
        TEST(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
