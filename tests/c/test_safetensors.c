/*
 * test_safetensors.c - safetensors files, against the safetensors package
 *
 * safetensors/types.safetensors and its values: see make.py beside it.
 * llama_bf16 was read with safe_open (torch). The errors are rows of headers.
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
#include "format/safetensors.h"

static const char *const FILE_NAME = "test_safetensors.safetensors";

/* ---- types ---- */

static const struct {
    const char *name;
    qkv_dtype dtype;
    double values[5];
} types[] = {
    {"BOOL", QKV_U8, {1, 0, 0, 1, 0}},
    {"U8", QKV_U8, {0, 7, 14, 21, 28}},
    {"I8", QKV_I32, {-3, -1, 0, 1, 3}},
    {"U16", QKV_I32, {0, 7, 14, 21, 28}},
    {"I16", QKV_I32, {-3, -1, 0, 1, 3}},
    {"U32", QKV_I64, {0, 7, 14, 21, 28}},
    {"I32", QKV_I32, {-3, -1, 0, 1, 3}},
    {"U64", QKV_I64, {0, 7, 14, 21, 28}},
    {"I64", QKV_I64, {-3, -1, 0, 1, 3}},
    {"F16", QKV_F16, {-3, -1.5, 0, 1.5, 3}},
    {"BF16", QKV_BF16, {-3, -1.5, 0, 1.5, 3}},
    {"F32", QKV_F32, {-3, -1.5, 0, 1.5, 3}},
    {"F64", QKV_F32, {-3, -1.5, 0, 1.5, 3}},
};
enum { N_KINDS = sizeof types / sizeof types[0] };

static void test_types(void **state)
{
    qkv_error err;
    const size_t live = qkv_alloc_live();
    qkv_safetensors *s = qkv_safetensors_open(
        oracle("safetensors/types.safetensors"), &err);
    (void)state;
    assert_non_null(s);
    assert_int_equal(qkv_safetensors_count(s), N_KINDS + 3);
    assert_string_equal(qkv_safetensors_name(s, 0), "U8");
    for (size_t k = 0; k < N_KINDS; k++) {
        qkv_tensor *t = qkv_safetensors_tensor(s, types[k].name, &err);
        assert_non_null(t);
        assert_int_equal(t->dtype, types[k].dtype);
        assert_int_equal(t->n_dims, 1);
        assert_int_equal(t->shape[0], 5);
        assert_int_equal((uintptr_t)qkv_tensor_data(t)
                         % (uintptr_t)qkv_dtypes[t->dtype].bytes, 0);
        for (int64_t i = 0; i < 5; i++)
            assert_true(qkv_tensor_get(t, &i) == types[k].values[i]);
        qkv_tensor_release(t);
    }
    qkv_tensor *t = qkv_safetensors_tensor(s, "scalar", &err);
    assert_non_null(t);
    assert_int_equal(t->n_dims, 0);
    assert_true(qkv_tensor_get(t, NULL) == 2.5);
    qkv_tensor_release(t);
    t = qkv_safetensors_tensor(s, "empty", &err);
    assert_non_null(t);
    assert_int_equal(qkv_tensor_count(t), 0);
    qkv_tensor_release(t);
    assert_null(qkv_safetensors_tensor(s, "f8", &err));
    assert_int_equal(err.code, QKV_EUNSUPPORTED);
    assert_non_null(strstr(err.msg, "tensor f8: dtype F8_E4M3 is not read"));
    assert_null(qkv_safetensors_tensor(s, "nosuch", &err));
    assert_int_equal(err.code, QKV_ENOTFOUND);
    assert_false(qkv_safetensors_has(s, "__metadata__"));
    qkv_safetensors_close(s);
    assert_int_equal(qkv_alloc_live(), live);
}

/* ---- shards ---- */

static void test_shards(void **state)
{
    qkv_error err;
    qkv_safetensors *s = qkv_safetensors_open(
        oracle("llama_bf16/model.safetensors.index.json"), &err);
    (void)state;
    assert_non_null(s);
    assert_int_equal(qkv_safetensors_count(s), 21);
    assert_int_equal(qkv_safetensors_bytes(s), 154080);
    qkv_tensor *head = qkv_safetensors_tensor(s, "lm_head.weight", &err);
    qkv_tensor *k = qkv_safetensors_tensor(
        s, "model.layers.0.self_attn.k_proj.weight", &err);
    assert_non_null(head);
    assert_non_null(k);
    qkv_safetensors_close(s);
    assert_int_equal(head->dtype, QKV_BF16);
    assert_true(head->read_only);
    assert_int_equal(head->shape[0], 320);
    assert_int_equal(head->shape[1], 48);
    assert_true(qkv_tensor_get(head, (int64_t[]){319, 47}) == 0.09228515625);
    assert_true(qkv_tensor_get(k, (int64_t[]){0, 1}) == -0.0177001953125);
    assert_true(qkv_tensor_get(k, (int64_t[]){47, 47}) == 0.2021484375);
    qkv_tensor_release(head);
    qkv_tensor_release(k);
}

static void write_header(const char *path, const char *header, size_t data)
{
    unsigned char file[4096] = {0};
    const uint64_t n = strlen(header);
    memcpy(file, &n, sizeof n);
    memcpy(file + sizeof n, header, n);
    write_file(path, file, sizeof n + n + data);
}

static const struct {
    const char *index, *error;
} indices[] = {
    {"{}", "no weight_map"},
    {"{\"weight_map\": {\"a\": \"../x.safetensors\"}}",
     "names the file '../x.safetensors', expected one in the same folder"},
    {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "in the same folder"},
    {"{\"weight_map\": {\"a\": \"sub/x.safetensors\"}}", "in the same folder"},
    {"{\"weight_map\": {\"a\": \"..\"}}", "in the same folder"},
    {"{\"weight_map\": {\"a\": \"\"}}", "a file in 0 bytes"},
    {"{\"weight_map\": {\"a\": \"test_shard\\u0000x\"}}", "a file in 12 bytes"},
    {"{\"weight_map\": {\"a\": 3}}", "a string was expected, found a number"},
    {"{\"weight_map\": []}", "an object was expected, found an array"},
    {"{\"weight_map\": {\"b\": \"test_shard\"}}",
     "weight_map has tensor b in test_shard, where it is not"},
    {"{\"weight_map\": {\"a\": \"test_shard\", \"a\": \"test_shard\"}}",
     "two tensors are called a"},
    {"{\"weight_map\": {\"a\": \"test_none\"}}", "test_none: No such file"},
    {"{\"weight_map\": {\"a\": \"test_shard\"}", "',' or '}' was expected"},
};

static void test_indices(void **state)
{
    static const char *const path = "test_index.json";
    qkv_error err;
    const size_t live = qkv_alloc_live();
    (void)state;
    write_header("test_shard", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],"
                 "\"data_offsets\":[0,8]}}", 8);
    for (size_t i = 0; i < sizeof indices / sizeof indices[0]; i++) {
        write_file(path, indices[i].index, strlen(indices[i].index));
        assert_null(qkv_safetensors_open(path, &err));
        if (strstr(err.msg, indices[i].error) == NULL)
            fail_msg("%s: \"%s\", expected \"%s\"", indices[i].index, err.msg,
                     indices[i].error);
        assert_int_equal(qkv_alloc_live(), live);
    }
    remove(path);
    remove("test_shard");
}

/* ---- headers that lie; 24 bytes of data follow each ---- */

#define A(dtype, shape, offsets) \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape \
    ",\"data_offsets\":" offsets "}}"

static const struct {
    const char *header, *error;     /* NULL: it opens */
} headers[] = {
    {A("\"F32\"", "[2,3]", "[0,24]"), NULL},
    {A("\"F32\"", "[6]", "[0,24]") "   ", NULL},
    {A("\"F32\"", "[3]", "[9,21]"), NULL},
    {"{}", NULL},
    {"{\"__metadata__\":{\"a\":\"b\"}}", NULL},
    {"{\"a\":{\"data_offsets\":[0,4],\"dtype\":\"F32\",\"new\":[{}],"
     "\"shape\":[]}}", NULL},
    {A("\"F32\"", "[3,0]", "[24,24]"), NULL},
    {"", "byte 0: an object was expected, found the end of the text"},
    {"[]", "byte 0: an object was expected, found an array"},
    {"{}x", "byte 2: the end of the text was expected"},
    {A("\"F32\"", "[2,3]", "[0,20]"), "tensor a: byte "},
    {A("\"F32\"", "[2,3]", "[0,25]"),
     "data_offsets are 0 and 25, the data has 24 bytes"},
    {A("\"F32\"", "[2]", "[8,0]"), "data_offsets are 8 and 0"},
    {A("\"F32\"", "[2]", "[-8,0]"), "data_offsets has a negative one"},
    {A("\"F32\"", "[2]", "[0]"), "data_offsets has 1 numbers"},
    {A("\"F32\"", "[2]", "[0,8,16]"), "data_offsets has more than two numbers"},
    {A("\"F32\"", "[2]", "[0,9223372036854775807]"),
     "data_offsets are 0 and 9223372036854775807"},
    {A("\"F32\"", "[2]", "[0,18446744073709551615]"),
     "does not fit in 64 bits"},
    {A("\"F32\"", "[2]", "[0,1e400]"), "1e400 is too large for a double"},
    {A("\"F32\"", "[2.5]", "[0,8]"), "an integer was expected, found 2.5"},
    {A("\"F32\"", "[-2]", "[0,8]"), "a dimension of -2"},
    {A("\"F32\"", "[9223372036854775807,9223372036854775807,0]", "[0,0]"),
     "its dimensions are too large"},
    {A("\"F32\"", "[4294967296,4294967296]", "[0,0]"),
     "its dimensions are too large"},
    {A("\"F32\"", "[9223372036854775807]", "[0,24]"),
     "its dimensions are too large"},
    {A("\"F32\"", "[4611686018427387905]", "[0,4]"),
     "its dimensions are too large"},
    {A("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), "more than 8 dimensions"},
    {A("\"F32\"", "2", "[0,8]"), "an array was expected, found a number"},
    {A("32", "[2]", "[0,8]"), "a string was expected, found a number"},
    {A("\"\"", "[2]", "[0,8]"), "a dtype of 0 bytes"},
    {A("\"F\\u0000\"", "[2]", "[0,8]"), "a dtype of 2 bytes"},
    {A("\"ABCDEFGHIJKLMNOP\"", "[2]", "[0,8]"), "a dtype of 16 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}",
     "tensor a: byte 32: no data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\"}}", "a second dtype"},
    {"{\"a\":null}", "an object was expected, found null"},
    {"{\"\":{}}", "tensor 0 has a name of 0 bytes"},
    {"{\"a\\u001b\":{}}", "the name of tensor 0 holds control characters"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     "two tensors are called a"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[4,9]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}",
     "inside tensor b, which ends at"},
};

static void test_headers(void **state)
{
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        qkv_error err = {0};
        write_header(FILE_NAME, headers[i].header, 24);
        qkv_safetensors *s = qkv_safetensors_open(FILE_NAME, &err);
        if ((s != NULL) != (headers[i].error == NULL)
            || (s == NULL && (strstr(err.msg, headers[i].error) == NULL
                              || strncmp(err.msg, FILE_NAME,
                                         strlen(FILE_NAME)) != 0)))
            fail_msg("%s: \"%s\", expected \"%s\"", headers[i].header, err.msg,
                     headers[i].error);
        qkv_safetensors_close(s);
        assert_int_equal(qkv_alloc_live(), live);
    }
}

static const uint64_t lengths[] = {25, 0x80000000, INT64_MAX, UINT64_MAX,
                                   UINT64_MAX - 7};

static void test_lengths(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        unsigned char file[32] = {0};
        memcpy(file, &lengths[i], 8);
        write_file(FILE_NAME, file, sizeof file);
        assert_null(qkv_safetensors_open(FILE_NAME, &err));
        assert_non_null(strstr(err.msg, " bytes in a file of 32"));
    }
    write_file(FILE_NAME, "1234567", 7);
    assert_null(qkv_safetensors_open(FILE_NAME, &err));
    assert_non_null(strstr(err.msg, "a file of 7 bytes"));
    remove(FILE_NAME);
}

/* ---- writing ---- */

/* Read back by the safetensors package, if there is one. */
static const char *const check_py =
    "import sys\n"
    "try:\n"
    "    import numpy as np\n"
    "    from safetensors import safe_open\n"
    "except ImportError:\n"
    "    sys.exit(77)\n"
    "with safe_open('test_safetensors.safetensors', 'numpy') as f:\n"
    "    assert sorted(f.keys()) == ['a\"\\\\b', 'bytes', 'wide'], f.keys()\n"
    "    assert f.metadata() == {'format': 'pt'}\n"
    "    assert np.array_equal(f.get_tensor('a\"\\\\b'),"
    " np.arange(6, dtype='f4').reshape(2, 3).T)\n"
    "    assert f.get_tensor('bytes').dtype == np.uint8\n"
    "    assert f.get_tensor('wide').tolist() == [-1, 2 ** 53]\n";

static int run_python(const char *program)
{
    write_file("test_safetensors.py", program, strlen(program));
    const int status = system("python3 test_safetensors.py");
    remove("test_safetensors.py");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void test_save(void **state)
{
    qkv_error err;
    qkv_tensor *t[3], *turned;
    static const char *const names[] = {"bytes", "a\"\\b", "wide"};
    (void)state;
    t[0] = qkv_tensor_zeros(QKV_U8, 1, (int64_t[]){3}, NULL, &err);
    turned = qkv_tensor_new(QKV_F32, 2, (int64_t[]){2, 3}, NULL, &err);
    for (int i = 0; i < 6; i++)
        ((float *)qkv_tensor_data(turned))[i] = (float)i;
    t[1] = qkv_tensor_transpose(turned, 0, 1, &err);
    t[2] = qkv_tensor_new(QKV_I64, 1, (int64_t[]){2}, NULL, &err);
    ((int64_t *)qkv_tensor_data(t[2]))[0] = -1;
    ((int64_t *)qkv_tensor_data(t[2]))[1] = (int64_t)1 << 53;
    assert_true(qkv_safetensors_save(FILE_NAME, 3, names, t, &err));

    qkv_safetensors *s = qkv_safetensors_open(FILE_NAME, &err);
    assert_non_null(s);
    assert_int_equal(qkv_safetensors_count(s), 3);
    assert_string_equal(qkv_safetensors_name(s, 0), "wide");
    qkv_tensor *back = qkv_safetensors_tensor(s, names[1], &err);
    assert_non_null(back);
    assert_int_equal(back->shape[0], 3);
    assert_true(qkv_tensor_get(back, (int64_t[]){2, 1}) == 5);
    assert_true(back->read_only);           /* aligned: a view */
    qkv_tensor_release(back);
    qkv_safetensors_close(s);
    const int python = run_python(check_py);
    assert_true(python == 0 || python == 77 || python == 127);

    static const char *const twice[] = {"x", "y", "x"};
    assert_false(qkv_safetensors_save(FILE_NAME, 3, twice, t, &err));
    assert_int_equal(err.code, QKV_EINVAL);
    assert_false(qkv_safetensors_save("no/such/x.safetensors", 3, names, t,
                                      &err));
    assert_int_equal(err.code, QKV_EIO);
    qkv_tensor_release(turned);
    for (int i = 0; i < 3; i++)
        qkv_tensor_release(t[i]);
    remove(FILE_NAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_indices),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_save),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
