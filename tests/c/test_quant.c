/*
 * test_quant.c - blocks against the gguf package, bit by bit
 *
 * tests/oracle/quant (made by make_oracles.py with gguf 0.19 and NumPy) has
 * raw blocks of every type, odd ones among them, and their values. The halves
 * of the conversions are rows whose results are NumPy's (float16) or follow
 * from the format.
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "files.h"
#include "tensor/kernel.h"
#include "tensor/quant.h"

typedef struct bytes {
    unsigned char *data;
    size_t n;
} bytes;

static bytes read_oracle(const char *name, const char *ending)
{
    char path[64];
    snprintf(path, sizeof path, "quant/%s.%s", name, ending);
    bytes b;
    b.data = read_file(oracle(path), &b.n);
    return b;
}

/* The numbers of tensor "values" in a safetensors file. */
static const unsigned char *values_of(const bytes *file, int64_t *n)
{
    uint64_t header;
    memcpy(&header, file->data, 8);
    assert_true(header < 4096 && header + 8 < file->n);
    char text[4096] = "";
    memcpy(text, file->data + 8, header);
    const char *at = strstr(text, "\"values\"");
    assert_non_null(at);
    at = strstr(at, "\"data_offsets\":[");
    assert_non_null(at);
    char *end;
    const long long from = strtoll(at + 16, &end, 10);
    const long long to = strtoll(end + 1, &end, 10);
    *n = (to - from) / 4;
    return file->data + 8 + header + (size_t)from;
}

static const struct {
    qkv_dtype type;
    const char *file;
} files[] = {
    {QKV_F16, "F16"}, {QKV_BF16, "BF16"}, {QKV_Q4_0, "Q4_0"},
    {QKV_Q4_1, "Q4_1"}, {QKV_Q5_0, "Q5_0"}, {QKV_Q5_1, "Q5_1"},
    {QKV_Q8_0, "Q8_0"}, {QKV_Q2_K, "Q2_K"}, {QKV_Q3_K, "Q3_K"},
    {QKV_Q4_K, "Q4_K"}, {QKV_Q5_K, "Q5_K"}, {QKV_Q6_K, "Q6_K"},
    {QKV_IQ4_NL, "IQ4_NL"}, {QKV_IQ4_XS, "IQ4_XS"}
};
enum { N_FILES = sizeof files / sizeof files[0] };

/* All of the file by one unpacker, from an address that is not even. */
static void compare(const char *what, const char *type, qkv_unpack_fn *unpack,
                    const bytes *raw, const unsigned char *want, int64_t n)
{
    unsigned char *odd = malloc(raw->n + 1);
    float *got = malloc((size_t)n * sizeof *got + 1);
    assert_true(odd != NULL && got != NULL);
    memcpy(odd + 1, raw->data, raw->n);
    unpack(got, odd + 1, n);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(got + i, want + 4 * i, 4) != 0) {
            float w;
            memcpy(&w, want + 4 * i, 4);
            fail_msg("%s %s[%lld] = %a, expected %a", what, type,
                     (long long)i, (double)got[i], (double)w);
        }
    free(odd);
    free(got);
}

static void blocks(void **state)
{
    (void)state;
    const char *names[8];
    const int n_names = qkv_kernel_names(names, 8);
    for (int f = 0; f < N_FILES; f++) {
        const bytes raw = read_oracle(files[f].file, "bin");
        const bytes file = read_oracle(files[f].file, "safetensors");
        int64_t n;
        const unsigned char *want = values_of(&file, &n);
        const qkv_dtype t = files[f].type;
        const int64_t block = qkv_dtypes[t].block;
        assert_int_equal(raw.n, n / block * qkv_dtypes[t].bytes);
        assert_true(n > 700);
        compare("plain", files[f].file, qkv_unpackers[t], &raw, want, n);
        for (int i = 0; i < n_names; i++) {
            qkv_error err;
            assert_true(qkv_kernel_choose(names[i], &err));
            compare(names[i], files[f].file, qkv_kernel()->unpack[t], &raw,
                    want, n);
        }
        free(raw.data);
        free(file.data);
    }
}

/* Every f16 there is: value from the format's definition, and back. */
static void halves(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        const int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        const double sign = h & 0x8000 ? -1 : 1;
        const float x = qkv_from_f16((uint16_t)h);
        if (e == 31 && m != 0) {
            assert_true(isnan(x));
            assert_true((qkv_to_f16(x) & 0x7e00) == 0x7e00);
            continue;
        }
        const double want = e == 31 ? HUGE_VAL
            : e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
        assert_true((double)x == sign * want);
        assert_int_equal(signbit(x) != 0, h >> 15);
        assert_int_equal(qkv_to_f16(x), h);
    }
}

static const struct {
    float x;
    uint16_t f16, bf16;
} rounding[] = {                        /* NumPy's float16; bfloat16 by hand */
    {1.0f, 0x3c00, 0x3f80},
    {0x1.004p0f, 0x3c01, 0x3f80},       /* 1 + 2^-10: f16 has it */
    {0x1.002p0f, 0x3c00, 0x3f80},       /* half way: to even, down */
    {0x1.006p0f, 0x3c02, 0x3f80},       /* half way: to even, up */
    {0x1.002002p0f, 0x3c01, 0x3f80},
    {0x1.01p0f, 0x3c04, 0x3f80},        /* bf16: half way, down */
    {0x1.03p0f, 0x3c0c, 0x3f82},        /* bf16: half way, up */
    {65504.0f, 0x7bff, 0x4780},
    {65519.99f, 0x7bff, 0x4780},
    {65520.0f, 0x7c00, 0x4780},
    {-1e30f, 0xfc00, 0xf14a},
    {INFINITY, 0x7c00, 0x7f80},
    {0x1p-24f, 0x0001, 0x3380},
    {0x1p-25f, 0x0000, 0x3300},         /* half way to the smallest */
    {0x1.8p-25f, 0x0001, 0x3340},
    {0x1.ffep-15f, 0x0400, 0x3880},     /* half way up to the normal ones */
    {-0.0f, 0x8000, 0x8000},
    {3.4028235e38f, 0x7c00, 0x7f80}
};

static void to_sixteen_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rounding / sizeof rounding[0]; i++) {
        if (qkv_to_f16(rounding[i].x) != rounding[i].f16
            || qkv_to_bf16(rounding[i].x) != rounding[i].bf16)
            fail_msg("%a gives %04x and %04x, expected %04x and %04x",
                     (double)rounding[i].x, qkv_to_f16(rounding[i].x),
                     qkv_to_bf16(rounding[i].x), rounding[i].f16,
                     rounding[i].bf16);
    }
    assert_true(isnan(qkv_from_bf16(qkv_to_bf16(NAN))));
    for (unsigned h = 0; h < 65536; h++) {
        const float x = qkv_from_bf16((uint16_t)h);
        if (!isnan(x))
            assert_int_equal(qkv_to_bf16(x), h);
    }
}

/* ORDER dtype: a type without an unpacker would be a call of nothing. */
static void every_type_has_one(void **state)
{
    (void)state;
    for (int t = 0; t < QKV_N_DTYPES; t++) {
        const bool wanted = qkv_is_float((qkv_dtype)t)
            || qkv_is_quantised((qkv_dtype)t);
        assert_int_equal(qkv_unpackers[t] != NULL, wanted);
    }
    assert_int_equal(QKV_N_DTYPES, N_FILES + 4);    /* f32, i32, i64, u8 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks),
        cmocka_unit_test(halves),
        cmocka_unit_test(to_sixteen_bits),
        cmocka_unit_test(every_type_has_one)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
