/*
 * test_gguf.c - GGUF files, against the gguf package and by hand
 *
 * What is in llama/Q4_1.gguf was listed with gguf.GGUFReader 0.19. The errors
 * are those of a tiny file with one field set to something else.
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
#include "format/gguf.h"

static const char *const TINY = "test_gguf.gguf";

static qkv_gguf *open_tiny(const tiny *t, qkv_error *err)
{
    write_file(TINY, t->data, t->bytes);
    return qkv_gguf_open(TINY, err);
}

/* ---- a real file ---- */

static const struct {
    const char *key;
    qkv_gguf_type type;
    double number;
} keys[] = {
    {"general.architecture", QKV_GGUF_STRING, 0},
    {"llama.vocab_size", QKV_GGUF_U32, 320},
    {"llama.block_count", QKV_GGUF_U32, 3},
    {"llama.attention.head_count_kv", QKV_GGUF_U32, 2},
    {"llama.attention.layer_norm_rms_epsilon", QKV_GGUF_F32, (double)1e-4f},
    {"llama.rope.freq_base", QKV_GGUF_F32, 10000},
    {"tokenizer.ggml.tokens", QKV_GGUF_ARRAY, 0},
    {"tokenizer.ggml.add_bos_token", QKV_GGUF_BOOL, 1},
    {"general.file_type", QKV_GGUF_U32, 3},
};

static void test_keys(void **state)
{
    qkv_error err;
    qkv_gguf *g = qkv_gguf_open(oracle("llama/Q4_1.gguf"), &err);
    (void)state;
    assert_non_null(g);
    assert_int_equal(qkv_gguf_n_keys(g), 25);
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        qkv_gguf_type type = QKV_GGUF_U8;
        int64_t i = 0;
        while (i < 25 && strcmp(qkv_gguf_key(g, i, &type), keys[k].key) != 0)
            i++;
        assert_int_not_equal(i, 25);
        assert_int_equal(type, keys[k].type);
        double x = 0;
        if (type != QKV_GGUF_STRING && type != QKV_GGUF_ARRAY)
            assert_true(qkv_gguf_number(&x, g, keys[k].key, &err));
        assert_true(x == keys[k].number);
    }
    qkv_slice s;
    assert_true(qkv_gguf_string(&s, g, "general.architecture", &err));
    assert_true(qkv_json_is(&s, "llama"));
    qkv_gguf_close(g);
}

static void test_arrays(void **state)
{
    static const char *const first[] = {"<unk>", "<s>", "</s>", "<0x00>",
                                        "<0x01>"};
    qkv_error err;
    qkv_gguf_array a;
    qkv_slice s = {0};
    qkv_gguf *g = qkv_gguf_open(oracle("llama/Q4_1.gguf"), &err);
    (void)state;
    assert_non_null(g);
    assert_true(qkv_gguf_array_of(&a, g, "tokenizer.ggml.tokens", &err));
    assert_int_equal(a.type, QKV_GGUF_STRING);
    assert_int_equal(a.count, 320);
    for (int64_t i = 0; i < a.count; i++) {
        s = qkv_gguf_next_string(&a);
        if (i < 5)
            assert_true(qkv_json_is(&s, first[i]));
    }
    assert_true(qkv_json_is(&s, "\xe2\x96\x81T"));
    assert_true(qkv_gguf_array_of(&a, g, "tokenizer.ggml.token_type", &err));
    assert_int_equal(a.type, QKV_GGUF_I32);
    assert_true(qkv_gguf_next_number(&a) == 2);
    qkv_gguf_close(g);
}

static const struct {
    int64_t i;
    const char *name;
    qkv_dtype dtype;
    int n_dims;
    int64_t shape[2];
    size_t offset, bytes;
    unsigned char first[4];
} tensors[] = {
    {0, "token_embd.weight", QKV_Q4_1, 2, {320, 64}, 9632, 12800,
     {83, 44, 194, 181}},
    {2, "blk.0.attn_k.weight", QKV_Q4_1, 2, {32, 64}, 24992, 1280,
     {208, 40, 240, 179}},
    {7, "blk.0.ffn_down.weight", QKV_Q4_1, 2, {64, 96}, 37792, 3840, {0}},
    {28, "output_norm.weight", QKV_F32, 1, {64}, 81568, 256, {0}},
    {29, "output.weight", QKV_Q4_1, 2, {320, 64}, 81824, 12800,
     {72, 40, 46, 179}},
};

/* Views outlive the file they come from. */
static void test_tensors(void **state)
{
    qkv_error err;
    qkv_tensor *held[5];
    const size_t live = qkv_alloc_live();
    qkv_gguf *g = qkv_gguf_open(oracle("llama/Q4_1.gguf"), &err);
    (void)state;
    assert_non_null(g);
    assert_int_equal(qkv_gguf_n_tensors(g), 30);
    for (size_t k = 0; k < 5; k++) {
        size_t offset, bytes;
        qkv_tensor *t = qkv_gguf_tensor(g, tensors[k].name, &err);
        assert_non_null(t);
        assert_string_equal(qkv_gguf_tensor_name(g, tensors[k].i),
                            tensors[k].name);
        qkv_gguf_tensor_place(g, tensors[k].i, &offset, &bytes);
        assert_int_equal(offset, tensors[k].offset);
        assert_int_equal(bytes, tensors[k].bytes);
        assert_int_equal(t->dtype, tensors[k].dtype);
        assert_int_equal(t->n_dims, tensors[k].n_dims);
        for (int d = 0; d < t->n_dims; d++)
            assert_int_equal(t->shape[d], tensors[k].shape[d]);
        assert_true(t->read_only);
        held[k] = t;
    }
    qkv_gguf_close(g);
    for (size_t k = 0; k < 5; k++)
        if (tensors[k].first[0] != 0)
            assert_memory_equal(qkv_tensor_data(held[k]), tensors[k].first, 4);
    assert_true(fabs(qkv_tensor_get(held[3], (int64_t[]){1}) - 1.5557365)
                < 1e-6);
    for (size_t k = 0; k < 5; k++)
        qkv_tensor_release(held[k]);
    assert_int_equal(qkv_alloc_live(), live);
}

/* ---- the tiny file ---- */

static void test_tiny(void **state)
{
    qkv_error err;
    tiny t;
    int64_t n;
    double x;
    qkv_gguf_array a;
    (void)state;
    tiny_gguf(&t);
    qkv_gguf *g = open_tiny(&t, &err);
    assert_non_null(g);
    assert_true(qkv_gguf_integer(&n, g, "n", &err) && n == -1);
    assert_true(qkv_gguf_number(&x, g, "x", &err) && x == 0.1);
    assert_true(qkv_gguf_integer(&n, g, "flag", &err) && n == 1);
    assert_true(qkv_gguf_array_of(&a, g, "words", &err) && a.count == 3);
    qkv_slice s = qkv_gguf_next_string(&a);
    assert_true(qkv_json_is(&s, "one"));
    s = qkv_gguf_next_string(&a);
    assert_true(qkv_json_is(&s, ""));
    s = qkv_gguf_next_string(&a);
    assert_true(qkv_json_is(&s, "three"));
    assert_true(qkv_gguf_array_of(&a, g, "scores", &err) && a.count == 2);
    assert_true(qkv_gguf_next_number(&a) == 1.5);
    assert_true(qkv_gguf_next_number(&a) == -2);
    qkv_tensor *w = qkv_gguf_tensor(g, "a.weight", &err);
    assert_non_null(w);
    assert_int_equal(w->shape[0], 2);
    assert_int_equal(w->shape[1], 3);
    assert_true(qkv_tensor_get(w, (int64_t[]){1, 0}) == 3);
    qkv_tensor_release(w);
    assert_true(qkv_gguf_has(g, "n"));
    assert_false(qkv_gguf_has(g, "m"));
    qkv_gguf_close(g);
}

/* Asking for what is not there, or is of another type. */
static void test_asking(void **state)
{
    qkv_error err;
    tiny t;
    int64_t n;
    double x;
    qkv_slice s;
    qkv_gguf_array a;
    (void)state;
    tiny_gguf(&t);
    tiny_set(&t, tiny_find(&t, "b.type"), 16);
    qkv_gguf *g = open_tiny(&t, &err);
    assert_non_null(g);
    assert_false(qkv_gguf_integer(&n, g, "m", &err));
    assert_int_equal(err.code, QKV_ENOTFOUND);
    assert_string_equal(err.msg, "test_gguf.gguf has no key m");
    assert_false(qkv_gguf_integer(&n, g, "x", &err));
    assert_int_equal(err.code, QKV_EFORMAT);
    assert_string_equal(err.msg, "test_gguf.gguf: key x is 0.1, an integer was "
                        "expected");
    assert_false(qkv_gguf_number(&x, g, "words", &err));
    assert_string_equal(err.msg, "test_gguf.gguf: key words is an array, a "
                        "number was expected");
    assert_false(qkv_gguf_string(&s, g, "n", &err));
    assert_string_equal(err.msg, "test_gguf.gguf: key n is i64, a string was "
                        "expected");
    assert_false(qkv_gguf_array_of(&a, g, "general.architecture", &err));
    assert_string_equal(err.msg, "test_gguf.gguf: key general.architecture is "
                        "a string, an array was expected");
    assert_null(qkv_gguf_tensor(g, "c.weight", &err));
    assert_int_equal(err.code, QKV_ENOTFOUND);
    assert_null(qkv_gguf_tensor(g, "b.weight", &err));
    assert_int_equal(err.code, QKV_EUNSUPPORTED);
    assert_string_equal(err.msg, "test_gguf.gguf: tensor b.weight is of GGML's "
                        "type 16 (iq2_xxs), which is not read");
    qkv_gguf_close(g);
}

static const struct {
    const char *field;
    uint64_t value;
    qkv_code code;
    const char *error;
} bad[] = {
    {"version", 1, QKV_EUNSUPPORTED,
     "GGUF version 1, versions 2 and 3 are read"},
    {"version", 4, QKV_EUNSUPPORTED, "GGUF version 4, versions 2 and 3"},
    {"version", 0x03000000, QKV_EUNSUPPORTED, "a big-endian GGUF file"},
    {"keys", UINT64_MAX, QKV_EFORMAT,
     "18446744073709551615 keys do not fit in the"},
    {"keys", 8, QKV_EFORMAT, "the file ends, at 450 bytes, inside tensor 0"},
    {"keys", 6, QKV_EFORMAT, "tensor x has 12 dimensions"},
    {"tensors", INT64_MAX, QKV_EFORMAT,
     "9223372036854775807 tensors do not fit"},
    {"tensors", 3, QKV_EFORMAT, "tensor 2 has a name of 0 bytes"},
    {"arch", 0, QKV_EFORMAT, "key 0 has a name of 0 bytes, expected 1 to"},
    {"arch", UINT64_MAX, QKV_EFORMAT, "the file ends, at "},
    {"arch.type", 13, QKV_EFORMAT,
     "key general.architecture is of type 13, types run 0..12"},
    {"arch.value", INT64_MAX, QKV_EFORMAT,
     "key general.architecture (a string) goes past the end of the file"},
    {"words.element", 9, QKV_EFORMAT,
     "key words is an array of type 9, expected a plain type or strings"},
    {"words.element", 13, QKV_EFORMAT, "key words is an array of type 13"},
    {"words.count", UINT64_MAX, QKV_EFORMAT,
     "key words is an array of 18446744073709551615 elements,"},
    {"word1", UINT64_MAX - 7, QKV_EFORMAT, "key words (an array) goes past"},
    {"scores.count", 200, QKV_EFORMAT, "key scores (an array) goes past"},
    {"align.value", 0, QKV_EFORMAT,
     "general.alignment is 0, expected a power of two from 8 on"},
    {"align.value", 4, QKV_EFORMAT, "general.alignment is 4, expected"},
    {"align.value", 48, QKV_EFORMAT, "general.alignment is 48, expected"},
    {"align.value", 0x80000000, QKV_EFORMAT, "tensor a.weight needs 24 bytes "
     "from byte 2147483648 on"},
    {"align.type", 6, QKV_EFORMAT, "test_gguf.gguf: key general.alignment is "},
    {"a.n_dims", 9, QKV_EFORMAT,
     "tensor a.weight has 9 dimensions, at most 8 are possible"},
    {"a.n_dims", UINT32_MAX, QKV_EFORMAT, "tensor a.weight has 4294967295 dim"},
    {"a.inner", UINT64_MAX, QKV_EFORMAT,
     "tensor a.weight has a dimension of 18446744073709551615"},
    {"a.inner", INT64_MAX, QKV_EFORMAT, "tensor a.weight: "},
    {"a.outer", (uint64_t)1 << 61, QKV_EFORMAT, "tensor a.weight: "},
    {"a.outer", 100, QKV_EFORMAT, "tensor a.weight needs 1200 bytes from byte"},
    {"a.outer", 5, QKV_EFORMAT, "tensor b.weight begins at byte"},
    {"b.inner", 33, QKV_EFORMAT, "tensor b.weight: "},
    {"b.outer", 2, QKV_EFORMAT, "tensor b.weight needs 68 bytes from byte"},
    {"b.offset", 0, QKV_EFORMAT, "tensor b.weight begins at byte"},
    {"b.offset", 16, QKV_EFORMAT,
     "tensor b.weight begins at 16 of the data, expected a multiple of 32"},
    {"b.offset", 64, QKV_EFORMAT, "tensor b.weight needs 34 bytes from byte"},
    {"b.offset", UINT64_MAX - 31, QKV_EFORMAT,
     "tensor b.weight begins 18446744073709551584 bytes into the data of a"},
};

static void test_bad_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qkv_error err = {0};
        tiny t;
        tiny_gguf(&t);
        tiny_set(&t, tiny_find(&t, bad[i].field), bad[i].value);
        qkv_gguf *g = open_tiny(&t, &err);
        const char *prefix = "test_gguf.gguf: ";
        if (g != NULL)
            fail_msg("%s = %llu opened", bad[i].field,
                     (unsigned long long)bad[i].value);
        if (err.code != bad[i].code
            || strncmp(err.msg, prefix, strlen(prefix)) != 0
            || strncmp(err.msg + strlen(prefix), bad[i].error,
                       strlen(bad[i].error)) != 0)
            fail_msg("%s = %llu: \"%s\", expected \"%s\"", bad[i].field,
                     (unsigned long long)bad[i].value, err.msg, bad[i].error);
    }
}

/* Text at the field's string put over by something else of its length. */
static const struct {
    const char *field, *text, *error;
} names[] = {
    {"b", "a.weight", "two tensors are called a.weight"},
    {"flag", "n\0\0\0", "the name of key 5 holds control characters"},
    {"words", "a\nb\xc3\xa9", "the name of key 3 holds control characters"},
    {"words", "a\x1b[2J", "the name of key 3 holds control characters"},
    {"words", "a\xc2\x9b" "2J", "the name of key 3 holds control characters"},
    {"words", "abc\xff" "d", "the name of key 3 holds control characters"},
};

static void test_bad_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        qkv_error err = {0};
        tiny t;
        tiny_gguf(&t);
        const size_t at = t.field[tiny_find(&t, names[i].field)].at;
        uint64_t n;
        memcpy(&n, t.data + at, sizeof n);
        memcpy(t.data + at + 8, names[i].text, n);
        assert_null(open_tiny(&t, &err));
        if (strstr(err.msg, names[i].error) == NULL)
            fail_msg("%s, expected %s", err.msg, names[i].error);
    }
}

static void test_two_keys(void **state)
{
    qkv_error err;
    tiny t;
    (void)state;
    tiny_gguf(&t);
    t.data[t.field[tiny_find(&t, "x")].at + 8] = 'n';
    assert_null(open_tiny(&t, &err));
    assert_string_equal(err.msg, "test_gguf.gguf: two keys are called n");
}

static void test_not_there(void **state)
{
    qkv_error err;
    (void)state;
    assert_null(qkv_gguf_open("no/such.gguf", &err));
    assert_int_equal(err.code, QKV_EIO);
    write_file(TINY, "", 0);
    assert_null(qkv_gguf_open(TINY, &err));
    assert_string_equal(err.msg, "test_gguf.gguf: not a GGUF file: it does not "
                        "begin with \"GGUF\"");
    qkv_gguf_close(NULL);
    remove(TINY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_asking),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_bad_names),
        cmocka_unit_test(test_two_keys),
        cmocka_unit_test(test_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
