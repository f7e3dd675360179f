/*
 * test_unicode.c - UTF-8, classes, NFC, GPT-2's bytes as characters
 *
 * Expected: Python's bytes.decode("utf-8", "replace") and unicodedata (14.0),
 * Rust's regex classes, bytes_to_unicode of openai/gpt-2's encoder.py.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "text/unicode.h"

#define S(text) {text, sizeof text - 1}
#define R "\xEF\xBF\xBD"        /* U+FFFD */

typedef struct pair {
    qkv_slice from, to;
} pair;

static bool is_equal(qkv_text got, qkv_slice want)
{
    return got.bytes == want.bytes
        && (want.bytes == 0 || memcmp(got.data, want.data, want.bytes) == 0);
}

static const pair repairs[] = {
    {S(""), S("")},
    {S("plain, and long enough for eight"),
     S("plain, and long enough for eight")},
    {S("nul\0nul"), S("nul\0nul")},
    {S("\xFF"), S(R)},
    {S("\x80"), S(R)},
    {S("abc\xFF\xFE""def"), S("abc" R R "def")},
    {S("\xE2\x82""A"), S(R "A")},
    {S("\xE2\x82"), S(R)},
    {S("\xF0\x80\x80""A"), S(R R R "A")},
    {S("\xED\xA0\x80"), S(R R R)},              /* a surrogate */
    {S("\xC0\x80"), S(R R)},                    /* over-long NUL */
    {S("\xC1\xBF"), S(R R)},
    {S("\xE0\x9F\xBF"), S(R R R)},
    {S("\xF0\x8F\xBF\xBF"), S(R R R R)},
    {S("\xF4\x90\x80\x80"), S(R R R R)},        /* over 10FFFF */
    {S("\xF5\x80"), S(R R)},
    {S("\xF4\x8F\xBF\xBF"), S("\xF4\x8F\xBF\xBF")},
    {S("\xED\x9F\xBF\xEE\x80\x80"), S("\xED\x9F\xBF\xEE\x80\x80")},
    {S("\xF0\x9F\x98\x80\xF0\x9F\x98"), S("\xF0\x9F\x98\x80" R)},
    {S("\xF0\x9F\xC3\xA9"), S(R "\xC3\xA9")},
    {S("\xC3\xC3\xA9"), S(R "\xC3\xA9")},
    {S("12345678\xE9""12345678"), S("12345678" R "12345678")},
};

static void test_repair(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof repairs / sizeof *repairs; i++) {
        const pair *p = &repairs[i];
        qkv_error err;
        qkv_text out = {0};
        assert_true(qkv_utf8_repair(&out, p->from, &err));
        if (!is_equal(out, p->to))
            fail_msg("row %zu", i);
        const size_t valid = qkv_utf8_valid(p->from.data, p->from.bytes);
        assert_true((valid == p->from.bytes) == is_equal(out, p->from));
        qkv_text_free(&out);
    }
}

/* Every scalar value there and back; surrogates and more are not UTF-8. */
static void test_walk(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c < 0xE000)
            continue;
        char as[4];
        uint32_t back = ~c;
        const int n = qkv_utf8_put(as, c);
        assert_int_equal(n, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3
                         : 4);
        assert_int_equal(qkv_utf8_next(&back, as, (size_t)n), n);
        assert_true(back == c && qkv_utf8_last(as, (size_t)n) == c);
        if (n > 1)
            assert_int_equal(qkv_utf8_next(&back, as, (size_t)n - 1), 1 - n);
    }
}

static void test_classes(void **state)
{
    static const uint32_t spaces[] = {9, 10, 11, 12, 13, 32, 0x85, 0xA0,
        0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    static const uint32_t no_spaces[] = {8, 14, 0x180E, 0x200B, 0x2060,
        0xFEFF, 'a'};
    static const uint32_t words[] = {'a', 'Z', '0', '_', 0xE9, 0x301, 0x663,
        0x2167, 0x24B6, 0x200D, 0x4E2D, 0x203F, 0x1F130};
    static const uint32_t no_words[] = {' ', '-', 0xBD, 0x1F600, 0x200B, 0xB2,
        0x2460, 0x20A0};
    (void)state;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        assert_true(qkv_is_space(spaces[i]));
    for (size_t i = 0; i < sizeof no_spaces / sizeof *no_spaces; i++)
        assert_false(qkv_is_space(no_spaces[i]));
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        assert_true(qkv_is_word(words[i]));
    for (size_t i = 0; i < sizeof no_words / sizeof *no_words; i++)
        assert_false(qkv_is_word(no_words[i]));
}

static const pair composed[] = {
    {S(""), S("")},
    {S("abc"), S("abc")},
    {S("e\xCC\x81"), S("\xC3\xA9")},
    {S("a\xCC\x88\xCC\xA3"), S("\xE1\xBA\xA1\xCC\x88")},    /* reordered */
    {S("\xE1\x84\x80\xE1\x85\xA1"), S("\xEA\xB0\x80")},     /* Hangul */
    {S("\xE2\x84\xAB"), S("\xC3\x85")},                     /* Angstrom */
    {S("\xEF\xAC\x81"), S("\xEF\xAC\x81")},     /* fi: not compatibility */
    {S("\xE0\xA5\x98"), S("\xE0\xA4\x95\xE0\xA4\xBC")},     /* excluded */
    {S("a\0e\xCC\x81"), S("a\0\xC3\xA9")},
};

static void test_nfc(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof composed / sizeof *composed; i++) {
        qkv_error err;
        qkv_text out = {0};
        assert_true(qkv_nfc(&out, composed[i].from, &err));
        if (!is_equal(out, composed[i].to))
            fail_msg("row %zu", i);
        if (qkv_is_plain_nfc(composed[i].from))
            assert_true(is_equal(out, composed[i].from));
        qkv_text_free(&out);
    }
    qkv_error err;
    qkv_text out = {0};
    qkv_alloc_fail_after(0);
    assert_false(qkv_nfc(&out, composed[2].from, &err));
    qkv_alloc_fail_after(-1);
    assert_int_equal(err.code, QKV_ENOMEM);
}

static void test_bytes(void **state)
{
    static const struct {
        unsigned char byte;
        uint32_t as;
    } rows[] = {{0, 0x100}, {0x0A, 0x10A}, {' ', 0x120}, {'!', '!'},
                {'~', '~'}, {0x7F, 0x121}, {0x80, 0x122}, {0xA0, 0x142},
                {0xA1, 0xA1}, {0xAC, 0xAC}, {0xAD, 0x143}, {0xAE, 0xAE},
                {0xFF, 0xFF}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(qkv_byte_to_char(rows[i].byte) == rows[i].as);
    int found = 0;
    for (uint32_t c = 0; c < 0x400; c++) {
        const int byte = qkv_char_to_byte(c);
        found += byte >= 0;
        assert_true(byte < 0 || qkv_byte_to_char((unsigned char)byte) == c);
    }
    assert_int_equal(found, 256);
}

static void test_byte_level(void **state)
{
    static const struct {
        qkv_slice piece, bytes;
        bool readable;
    } rows[] = {
        {S(""), S(""), true},
        {S("\xC4\xA0the"), S(" the"), true},
        {S("\xC3\xA9\xC4\x8A\xC5\x83"), S("\xE9\n\xAD"), true},
        {S(" the"), S(""), false},              /* a blank is written U+0120 */
        {S("\xE2\x96\x81the"), S(""), false},
        {S("\xC5\x84"), S(""), false},          /* one past the last */
        {S("a\xC4"), S(""), false},             /* cut */
        {S("a\0"), S(""), false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char to[16];
        size_t n;
        assert_true(qkv_byte_level_read(to, &n, rows[i].piece)
                    == rows[i].readable);
        if (rows[i].readable) {
            assert_int_equal(n, rows[i].bytes.bytes);
            assert_memory_equal(to, rows[i].bytes.data, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repair),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_byte_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
