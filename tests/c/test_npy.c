/*
 * test_npy.c - .npy and .npz, both ways, against NumPy
 *
 * The files of oracle/npy and their values: see make.py there. What we write
 * is read by NumPy itself where python3 has it.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "files.h"
#include "format/npy.h"

/* Element i in C order, as make.py has it. */
static double expected(char kind, int64_t i)
{
    const double x = (double)(i - 3) * 1.5;
    return kind == 'b' ? i % 3 == 0 : kind == 'u' ? (double)(i * 7)
        : kind == 'i' ? (double)(int64_t)x : x;
}

static void check_values(const qkv_tensor *t, char kind)
{
    int64_t index[QKV_MAX_DIMS] = {0};
    for (int64_t i = 0; i < qkv_tensor_count(t); i++) {
        int64_t rest = i;
        for (int d = t->n_dims - 1; d >= 0; d--) {
            index[d] = rest % t->shape[d];
            rest /= t->shape[d];
        }
        assert_true(qkv_tensor_get(t, index) == expected(kind, i));
    }
}

static const struct {
    const char *name;
    char kind;
    qkv_dtype dtype;
    int n_dims;
    int64_t shape[3];
} files[] = {
    {"npy/v1.npy", 'f', QKV_F32, 3, {2, 3, 4}},
    {"npy/v2.npy", 'f', QKV_F32, 1, {5}},
    {"npy/v3.npy", 'i', QKV_I32, 0, {0}},
    {"npy/fortran.npy", 'f', QKV_F32, 3, {2, 3, 4}},
    {"npy/empty.npy", 'f', QKV_F32, 2, {0, 3}},
};

static void test_files(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof files / sizeof files[0]; k++) {
        qkv_error err;
        qkv_tensor *t = qkv_npy_load(oracle(files[k].name), &err);
        if (t == NULL)
            fail_msg("%s", err.msg);
        assert_int_equal(t->dtype, files[k].dtype);
        assert_int_equal(t->n_dims, files[k].n_dims);
        for (int d = 0; d < t->n_dims; d++)
            assert_int_equal(t->shape[d], files[k].shape[d]);
        assert_true(qkv_tensor_is_contiguous(t));
        assert_false(t->read_only);
        check_values(t, files[k].kind);
        qkv_tensor_release(t);
    }
}

static qkv_dtype read_as(const char *name)
{
    static const struct {
        const char *kind;
        qkv_dtype dtype;
    } rows[] = {
        {"b1", QKV_U8}, {"u1", QKV_U8}, {"i1", QKV_I32}, {"u2", QKV_I32},
        {"i2", QKV_I32}, {"u4", QKV_I64}, {"i4", QKV_I32}, {"u8", QKV_I64},
        {"i8", QKV_I64}, {"f2", QKV_F16}, {"f4", QKV_F32}, {"f8", QKV_F32},
    };
    size_t i = 0;
    while (strncmp(rows[i].kind, name, 2) != 0)
        i++;
    return rows[i].dtype;
}

static const char *const archives[] = {"npy/stored.npz", "npy/deflated.npz"};

static void test_archives(void **state)
{
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        qkv_error err;
        int64_t n;
        char **names;
        qkv_tensor **t;
        if (!qkv_npz_load(oracle(archives[k]), &n, &names, &t, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(n, 21);            /* 12 types, 9 also big-endian */
        assert_string_equal(names[0], "b1");
        assert_string_equal(names[20], "f8_big");
        for (int64_t i = 0; i < n; i++) {
            assert_int_equal(t[i]->n_dims, 2);
            assert_int_equal(t[i]->shape[1], 4);
            assert_int_equal(t[i]->dtype, read_as(names[i]));
            check_values(t[i], names[i][0]);
            qkv_free(names[i]);
            qkv_tensor_release(t[i]);
        }
        qkv_free(names);
        qkv_free(t);
    }
    assert_int_equal(qkv_alloc_live(), live);
}

/* ---- refusals ---- */

static const struct {
    const char *name, *error;
} refused[] = {
    {"npy/complex.npy", "elements are '<c8', only numbers"},
    {"npy/object.npy", "elements are '|O', only numbers"},
    {"npy/record.npy", "records are not read"},
    {"npy/make.py", "it does not begin with \\x93NUMPY"},
    {"npy/none.npy", "No such file"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof refused / sizeof refused[0]; k++) {
        qkv_error err;
        assert_null(qkv_npy_load(oracle(refused[k].name), &err));
        if (strstr(err.msg, refused[k].error) == NULL)
            fail_msg("%s, expected %s", err.msg, refused[k].error);
    }
}

/* A header of version 1, then 24 bytes of data. */
static const struct {
    const char *header, *error;     /* NULL: it is read */
} headers[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", NULL},
    {"{'shape':(2,3),'fortran_order':True,'descr':'=f4'}", NULL},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (6L,)}", NULL},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, "
     "9223372036854775807, 9223372036854775807)}",
     "more than can be addressed"},
    {"", "{ was expected in the header"},
    {"{", "the header's keys are not"},
    {"{}", "the header's keys are not"},
    {"{'descr': '<f4', 'shape': (2, 3)}", "the header's keys are not"},
    {"{'descr': '<f4', 'descr': '<f4'}", "the header's keys are not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} x",
     "the header's keys are not"},
    {"{'descr': '<f4', 'fortran_order': 1, 'shape': (2, 3)}",
     "False was expected"},
    {"{'descr': <f4, 'fortran_order': False, 'shape': (2, 3)}",
     "' was expected"},
    {"{'descr': '<f4", "descr has 0 bytes"},
    {"{'descr': '', ", "descr has 0 bytes"},
    {"{'descr': '<f3', ", "elements are '<f3'"},
    {"{'descr': '<f16', ", "elements are '<f16'"},
    {"{'descr': '<\x1b[2', ", "descr is not text"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3",
     ") was expected"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}",
     ") was expected"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3)}",
     "shape has something other than numbers"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': 6}", "( was expected"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}",
     "7 elements of 4 bytes, the file has 24 bytes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(4294967296, 4294967296)}", "its dimensions are too large"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(4611686018427387905,)}", "4611686018427387905 elements of 4 bytes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(9223372036854775808,)}", "a dimension of over 63 bits"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(1, 1, 1, 1, 1, 1, 1, 1, 6)}", "more than 8 dimensions"},
};

static void test_headers(void **state)
{
    static const char *const path = "test_npy.npy";
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t k = 0; k < sizeof headers / sizeof headers[0]; k++) {
        unsigned char file[300] = "\x93NUMPY\1";
        qkv_error err = {0};
        const size_t n = strlen(headers[k].header);
        file[8] = (unsigned char)n;
        memcpy(file + 10, headers[k].header, n);
        write_file(path, file, 10 + n + 24);
        qkv_tensor *t = qkv_npy_load(path, &err);
        if ((t != NULL) != (headers[k].error == NULL)
            || (t == NULL && strstr(err.msg, headers[k].error) == NULL))
            fail_msg("%s: \"%s\", expected \"%s\"", headers[k].header, err.msg,
                     headers[k].error);
        qkv_tensor_release(t);
        assert_int_equal(qkv_alloc_live(), live);
    }
    remove(path);
}

/* Version, and the header's length, 2 or 4 bytes of it. */
static const struct {
    unsigned char version;
    uint32_t length;
    const char *error;
} lengths[] = {
    {0, 10, ".npy version 0, versions 1 to 3 are read"},
    {4, 10, ".npy version 4"},
    {1, 0xffff, "a header of 65535 bytes in a file of 16"},
    {1, 7, "a header of 7 bytes in a file of 16"},
    {2, 0xffffffff, "a header of 4294967295 bytes in a file of 16"},
    {3, 5, "a header of 5 bytes in a file of 16"},
};

static void test_lengths(void **state)
{
    static const char *const path = "test_npy.npy";
    (void)state;
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
        unsigned char file[16] = "\x93NUMPY";
        qkv_error err;
        file[6] = lengths[k].version;
        memcpy(file + 8, &lengths[k].length, 4);
        write_file(path, file, sizeof file);
        assert_null(qkv_npy_load(path, &err));
        if (strstr(err.msg, lengths[k].error) == NULL)
            fail_msg("%s, expected %s", err.msg, lengths[k].error);
    }
    remove(path);
}

/* u8 is read as i64, where the largest do not fit. */
static void test_large(void **state)
{
    static const char header[] =
        "{'descr': '>u8', 'fortran_order': False, 'shape': (1,)}";
    static const char *const path = "test_npy.npy";
    unsigned char file[100] = "\x93NUMPY\1";
    qkv_error err;
    (void)state;
    file[8] = sizeof header - 1;
    memcpy(file + 10, header, sizeof header - 1);
    memset(file + 10 + sizeof header - 1, 0xff, 8);
    write_file(path, file, 10 + sizeof header - 1 + 8);
    assert_null(qkv_npy_load(path, &err));
    assert_string_equal(err.msg, "test_npy.npy: an element is "
                        "18446744073709551615, the largest i64 is "
                        "9223372036854775807");
    file[10 + sizeof header - 1] = 0x7f;
    write_file(path, file, 10 + sizeof header - 1 + 8);
    qkv_tensor *t = qkv_npy_load(path, &err);
    assert_non_null(t);
    assert_true(*(int64_t *)qkv_tensor_data(t) == INT64_MAX);
    qkv_tensor_release(t);
    remove(path);
}

/* ---- archives that lie: bytes of stored.npz or deflated.npz set ---- */

static const struct {
    int archive;
    int from_end;               /* of the end record, 22 bytes long; else of the
                                 * first directory entry */
    size_t at;
    int width;
    uint64_t value;
    const char *error;
} lies[] = {
    {0, 1, 0, 1, 'Q', "a zip archive's end record is not there"},
    {0, 1, 20, 2, 1, "a zip archive's end record is not there"},
    {0, 1, 4, 2, 1, "a zip archive in several parts"},
    {0, 1, 10, 2, 65535, "65535 members do not fit"},
    {0, 1, 10, 2, 22, "no member's entry at byte"},
    {0, 1, 12, 4, 0x7fffffff, "a directory of 2147483647 bytes"},
    {0, 1, 12, 4, 1092, "no member's entry at byte"},   /* the last is cut */
    {0, 1, 16, 4, 0xfffffffe, "a directory of "},
    {0, 0, 0, 1, 'Q', "no member's entry at byte"},
    {0, 0, 8, 2, 1, "member b1: it is encrypted"},
    {0, 0, 10, 2, 12, "member b1: packed by method 12"},
    {0, 0, 16, 4, 0, "member b1: its checksum is"},
    {0, 0, 20, 4, 0x7fffffff, "member b1: 2147483647 bytes from byte"},
    {0, 0, 20, 4, 5, "member b1: 136 bytes cannot come from 5"},
    {0, 0, 20, 4, 0xffffffff, "member b1: 4294967295 bytes from byte"},
    {0, 0, 24, 4, 137, "member b1: 137 bytes cannot come from 136"},
    {0, 0, 28, 2, 65535, "is longer than the directory"},
    {0, 0, 42, 4, 0x7fffffff, "member b1: no member begins at byte 2147483647"},
    {0, 0, 42, 4, 1, "member b1: no member begins at byte 1"},
    {0, 0, 46, 1, 0x1b, "the name of member 0 holds control characters"},
    {0, 0, 46, 1, 'u', "two members are called u1"},
    {1, 0, 24, 4, 0x7fffffff, "member b1: 2147483647 bytes cannot come from"},
    {1, 0, 24, 4, 137, "member b1: 1 bytes are missing"},
    {1, 0, 24, 4, 135, "member b1: its deflated data is damaged"},
    {1, 0, 20, 4, 20, "member b1: its deflated data is damaged"},
    {1, 0, 42, 4, 0, NULL},
};

static size_t first_entry(const unsigned char *file, size_t bytes)
{
    size_t at = 0;
    while (at + 4 < bytes && memcmp(file + at, "PK\1\2", 4) != 0)
        at++;
    return at;
}

static void test_lies(void **state)
{
    static const char *const path = "test_npz.npz";
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t k = 0; k < sizeof lies / sizeof lies[0]; k++) {
        qkv_error err = {0};
        size_t bytes;
        int64_t n;
        char **names;
        qkv_tensor **t;
        unsigned char *file = read_file(oracle(archives[lies[k].archive]),
                                        &bytes);
        const size_t at = (lies[k].from_end ? bytes - 22
                           : first_entry(file, bytes)) + lies[k].at;
        for (int i = 0; i < lies[k].width; i++)
            file[at + (size_t)i] = (unsigned char)(lies[k].value >> (8 * i));
        write_file(path, file, bytes);
        free(file);
        const bool good = qkv_npz_load(path, &n, &names, &t, &err);
        if (good != (lies[k].error == NULL)
            || (!good && strstr(err.msg, lies[k].error) == NULL))
            fail_msg("row %zu: \"%s\", expected \"%s\"", k, err.msg,
                     lies[k].error);
        for (int64_t i = 0; i < n; i++) {
            qkv_free(names[i]);
            qkv_tensor_release(t[i]);
        }
        if (good) {
            qkv_free(names);
            qkv_free(t);
        }
        assert_int_equal(qkv_alloc_live(), live);
    }
    remove(path);
}

/* Two entries that point at one member's bytes. */
static void test_overlap(void **state)
{
    static const char *const path = "test_npz.npz";
    qkv_error err;
    size_t bytes;
    int64_t n;
    char **names;
    qkv_tensor **t;
    unsigned char *file = read_file(oracle(archives[0]), &bytes);
    (void)state;
    const size_t first = first_entry(file, bytes);
    const size_t second = first + 4
        + first_entry(file + first + 4, bytes - first - 4);
    memcpy(file + second + 16, file + first + 16, 12);  /* checksum, sizes */
    memcpy(file + second + 42, file + first + 42, 4);
    write_file(path, file, bytes);
    free(file);
    assert_false(qkv_npz_load(path, &n, &names, &t, &err));
    assert_non_null(strstr(err.msg, "begins at byte"));
    remove(path);
}

/* ---- writing ---- */

static const char *const check_py =
    "import sys\n"
    "try:\n"
    "    import numpy as np\n"
    "except ImportError:\n"
    "    sys.exit(77)\n"
    "a = np.load('test_npy.npy')\n"
    "assert a.dtype == 'f4' and a.flags.c_contiguous\n"
    "assert np.array_equal(a, np.arange(6, dtype='f4').reshape(2, 3).T)\n"
    "z = np.load('test_npz.npz')\n"
    "assert z.files == ['turned', 'h', 'b', 'i', 'l', 'u', 'none'], z.files\n"
    "assert z.zip.testzip() is None\n"
    "assert np.array_equal(z['turned'], a)\n"
    "kinds = [z[k].dtype.str for k in z.files]\n"
    "assert kinds == ['<f4', '<f2', '<f4', '<i4', '<i8', '|u1', '<f4'], kinds\n"
    "assert z['i'].shape == () and z['l'].shape == (1,)\n"
    "assert z['b'].tolist() == [3.0] and z['h'].tolist() == [3.0]\n"
    "assert z['none'].shape == (0, 4)\n";

static int run_python(const char *program)
{
    write_file("test_npy.py", program, strlen(program));
    const int status = system("python3 test_npy.py");
    remove("test_npy.py");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static qkv_tensor *filled(qkv_dtype dtype, int n_dims, double value)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(dtype, n_dims, (int64_t[]){1}, NULL, &err);
    assert_non_null(t);
    assert_true(qkv_tensor_fill(t, value, &err));
    return t;
}

static void test_save(void **state)
{
    static const char *const names[] = {"turned", "h", "b", "i", "l", "u",
                                        "none"};
    qkv_error err;
    qkv_tensor *t[7], *turned;
    const size_t live = qkv_alloc_live();
    (void)state;
    turned = qkv_tensor_new(QKV_F32, 2, (int64_t[]){2, 3}, NULL, &err);
    for (int i = 0; i < 6; i++)
        ((float *)qkv_tensor_data(turned))[i] = (float)i;
    t[0] = qkv_tensor_transpose(turned, 0, 1, &err);
    t[1] = filled(QKV_F16, 1, 3);
    t[2] = filled(QKV_BF16, 1, 3);
    t[3] = filled(QKV_I32, 0, 3);
    t[4] = filled(QKV_I64, 1, 3);
    t[5] = filled(QKV_U8, 1, 3);
    t[6] = qkv_tensor_new(QKV_F32, 2, (int64_t[]){0, 4}, NULL, &err);
    assert_true(qkv_npy_save("test_npy.npy", t[0], &err));
    assert_true(qkv_npz_save("test_npz.npz", 7, names, t, &err));
    const int python = run_python(check_py);
    assert_true(python == 0 || python == 77 || python == 127);

    int64_t n;
    char **back_names;
    qkv_tensor **back;
    assert_true(qkv_npz_load("test_npz.npz", &n, &back_names, &back, &err));
    assert_int_equal(n, 7);
    assert_true(qkv_tensor_get(back[0], (int64_t[]){2, 1}) == 5);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(back_names[i], names[i]);
        qkv_free(back_names[i]);
        qkv_tensor_release(back[i]);
    }
    qkv_free(back_names);
    qkv_free(back);

    static const char *const twice[] = {"x", "x"};
    assert_false(qkv_npz_save("test_npz.npz", 2, twice, t, &err));
    assert_int_equal(err.code, QKV_EINVAL);
    qkv_tensor_release(turned);
    for (int i = 0; i < 7; i++)
        qkv_tensor_release(t[i]);
    remove("test_npy.npy");
    remove("test_npz.npz");
    assert_int_equal(qkv_alloc_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_archives),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_save),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
