/*
 * test_csv.c - tables as text, by hand from RFC 4180
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "files.h"
#include "format/csv.h"

static const char *const PATH = "test_csv.csv";

#define INF ((double)INFINITY)
#define NONE ((double)NAN)

static const struct {
    const char *text;
    char separator;
    int64_t rows, columns;
    double values[6];
} good[] = {
    {"1,2\n3,4\n", ',', 2, 2, {1, 2, 3, 4}},
    {"1,2\n3,4", ',', 2, 2, {1, 2, 3, 4}},
    {"1\t2\r\n3\t4\r\n\r\n", '\t', 2, 2, {1, 2, 3, 4}},
    {"a,b\n1,2\n", ',', 1, 2, {1, 2}},
    {"\"a,\n\"\"b\"\"\",c\n1,2\n", ',', 1, 2, {1, 2}},
    {"\"1\",\" 2 \"\n", ',', 1, 2, {1, 2}},
    {" 1 ,\t-2.5e-1\n", ',', 1, 2, {1, -0.25}},
    {"1,,\n,,3\n", ',', 2, 3, {1, NONE, NONE, NONE, NONE, 3}},
    {"nan,NaN,inf\n-Inf,+1,.5\n", ',', 2, 3, {NONE, NONE, INF, -INF, 1, .5}},
    {"\xef\xbb\xbf" "1\n2\n", ',', 2, 1, {1, 2}},
    {"1\n\n2\n\n\n", ',', 3, 1, {1, NONE, 2}},
    {"x;y\r\n1;2\r\n", ';', 1, 2, {1, 2}},
    {"7", ',', 1, 1, {7}},
    {",\n1,2\n", ',', 2, 2, {NONE, NONE, 1, 2}},
};

static void test_good(void **state)
{
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
        qkv_error err;
        write_file(PATH, good[k].text, strlen(good[k].text));
        qkv_tensor *t = qkv_csv_load(PATH, good[k].separator, &err);
        if (t == NULL)
            fail_msg("'%s': %s", good[k].text, err.msg);
        if (t->shape[0] != good[k].rows || t->shape[1] != good[k].columns)
            fail_msg("'%s' is %lld by %lld", good[k].text,
                     (long long)t->shape[0], (long long)t->shape[1]);
        assert_string_equal(t->axis[0], "row");
        assert_string_equal(t->axis[1], "col");
        for (int64_t i = 0; i < good[k].rows * good[k].columns; i++) {
            const double x = qkv_tensor_get(t, (int64_t[]){
                i / good[k].columns, i % good[k].columns});
            const double want = good[k].values[i];
            if (x != want && !(isnan(x) && isnan(want)))
                fail_msg("'%s': value %d is %g", good[k].text, (int)i, x);
        }
        qkv_tensor_release(t);
    }
    assert_int_equal(qkv_alloc_live(), live);
}

static const struct {
    const char *text, *error;
} bad[] = {
    {"", "no numbers in it"},
    {"\n\n", "no numbers in it"},
    {"a,b\n", "a header and no numbers"},
    {"1,2\n3\n", "line 2 has 1 cells, the first has 2"},
    {"1,2\n3,4,5\n", "line 2 has 3 cells, the first has 2"},
    {"a\n1,2\n", "line 2 has 2 cells, the first has 1"},
    {"1,2\n\n3,4\n", "line 2 has 1 cells, the first has 2"},
    {"1,2\n3,x\n", "line 2, cell 2: 'x' was found, a number was expected"},
    {"\"a\nb\",c\n1,2\n3,x\n", "line 4, cell 2: 'x' was found"},
    {"1\n0x10\n", "line 2, cell 1: '0x10' was found"},
    {"1\n1,5\n", "line 2 has 2 cells"},
    {"1\n1 2\n", "line 2, cell 1: '1 2' was found"},
    {"1\n\x1b[2J\n", "line 2, cell 1: text was found"},
    {"1\n\"2", "line 2: a quote has no end"},
    {"1\n\"2\"3\n", "line 2: text behind a closing quote"},
    {"\"1\"2\n", "line 1: text behind a closing quote"},
};

static void test_bad(void **state)
{
    char want[200];
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        qkv_error err;
        write_file(PATH, bad[k].text, strlen(bad[k].text));
        assert_null(qkv_csv_load(PATH, ',', &err));
        snprintf(want, sizeof want, "%s: %s", PATH, bad[k].error);
        if (strncmp(err.msg, want, strlen(want)) != 0
            || err.code != QKV_EFORMAT)
            fail_msg("'%s': \"%s\", expected \"%s\"", bad[k].text, err.msg,
                     want);
    }
    assert_int_equal(qkv_alloc_live(), live);
}

static qkv_tensor *table(qkv_dtype dtype, int n_dims, const int64_t *shape,
                         const double *values)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(dtype, n_dims, shape, NULL, &err);
    assert_non_null(t);
    for (int64_t i = 0; i < qkv_tensor_count(t); i++) {
        const int64_t last = n_dims > 0 ? shape[n_dims - 1] : 1;
        const int64_t one[] = {i}, two[] = {i / last, i % last};
        assert_true(qkv_tensor_set(t, n_dims == 2 ? two : one, values[i],
                                   &err));
    }
    return t;
}

static const struct {
    qkv_dtype dtype;
    int n_dims;
    int64_t shape[2];
    double values[4];
    char separator;
    const char *text;
} written[] = {
    {QKV_F32, 2, {2, 2}, {1, 0.1, -2.5e-8, 16777217}, ',',
     "1,0.100000001\n-2.50000003e-08,16777216\n"},
    {QKV_F32, 1, {3}, {0.5, NONE, -INF}, ',', "0.5\nnan\n-inf\n"},
    {QKV_F32, 0, {0}, {3}, ',', "3\n"},
    {QKV_F32, 2, {0, 2}, {0}, ',', ""},
    {QKV_I64, 2, {1, 2}, {1234567890123, -1}, '\t', "1234567890123\t-1\n"},
    {QKV_U8, 1, {2}, {255, 0}, ',', "255\n0\n"},
    {QKV_F16, 1, {1}, {0.333251953125}, ',', "0.333251953\n"},
};

static void test_written(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof written / sizeof written[0]; k++) {
        qkv_error err;
        size_t bytes;
        qkv_tensor *t = table(written[k].dtype, written[k].n_dims,
                              written[k].shape, written[k].values);
        assert_true(qkv_csv_save(PATH, t, written[k].separator, &err));
        unsigned char *file = read_file(PATH, &bytes);
        if (bytes != strlen(written[k].text)
            || memcmp(file, written[k].text, bytes) != 0)
            fail_msg("row %zu: %.*s", k, (int)bytes, file);
        free(file);
        qkv_tensor_release(t);
    }
}

/* Nine digits: every float comes back as it was. */
static void test_round_trip(void **state)
{
    enum { N = 2000 };
    qkv_error err;
    uint32_t bits = 12345;
    const int64_t shape[] = {N / 4, 4};
    qkv_tensor *t = qkv_tensor_new(QKV_F32, 2, shape, NULL, &err);
    (void)state;
    assert_non_null(t);
    float *x = qkv_tensor_data(t);
    for (int i = 0; i < N; i++) {
        bits = bits * 1664525 + 1013904223;         /* Numerical Recipes */
        const uint32_t finite = bits & 0xbfffffff;
        memcpy(&x[i], &finite, sizeof x[i]);
    }
    assert_true(qkv_csv_save(PATH, t, ',', &err));
    qkv_tensor *back = qkv_csv_load(PATH, ',', &err);
    assert_non_null(back);
    assert_memory_equal(qkv_tensor_data(back), x, N * sizeof *x);
    qkv_tensor_release(back);
    qkv_tensor_release(t);
}

static void test_refused(void **state)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_zeros(QKV_F32, 3, (int64_t[]){1, 1, 1}, NULL,
                                     &err);
    (void)state;
    assert_non_null(t);
    assert_false(qkv_csv_save(PATH, t, ',', &err));
    assert_int_equal(err.code, QKV_ESHAPE);
    assert_string_equal(err.msg, "cannot write test_csv.csv: a table has rows "
                        "and columns, this is f32 [1, 1, 1]");
    qkv_tensor_release(t);
    assert_null(qkv_csv_load("no/such.csv", ',', &err));
    assert_int_equal(err.code, QKV_EIO);
    remove(PATH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
