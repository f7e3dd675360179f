/*
 * test_json.c - the pull parser, against RFC 8259 by hand
 *
 * Which texts are JSON follows the cases of JSONTestSuite (Seriot, "Parsing
 * JSON is a minefield"); strings are as RFC 8259 section 7 has them.
 */
#include "config.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "format/json.h"
#include "format/number.h"

#define TEXT(s) s, sizeof s - 1

static const struct {
    const char *text;
    size_t bytes;
    const char *error;          /* NULL: it is JSON; else part of the message */
} texts[] = {
    {TEXT("null"), NULL},
    {TEXT(" \t\r\n[ ] \n"), NULL},
    {TEXT("{}"), NULL},
    {TEXT("{\"a\":[1,{\"b\":[]},\"c\"],\"\":false}"), NULL},
    {TEXT("\"\""), NULL},
    {TEXT("\"a\\u0000b\\\"\\\\\\/\\b\\f\\n\\r\\t\""), NULL},
    {TEXT("\"\x7f\""), NULL},
    {TEXT("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\""), NULL},
    {TEXT("\"\\ud83d\\ude00 \\ud83d \\ude00\""), NULL},
    {TEXT("[0,-0,-1,1.5,1e5,1E-5,0.0e+0,123456789012345678901234]"), NULL},
    {TEXT("\xef\xbb\xbf[]"), NULL},
    {TEXT("[true,false,null]"), NULL},
    {TEXT(""), "byte 0: a value was expected, found the end of the text"},
    {TEXT(" "), "byte 1: a value was expected, found the end of the text"},
    {TEXT("[1,]"), "byte 3: a value was expected, found ']'"},
    {TEXT("[,1]"), "byte 1: a value was expected, found ','"},
    {TEXT("[1 2]"), "byte 3: ',' or ']' was expected, found '2'"},
    {TEXT("[1"), "byte 2: ',' or ']' was expected, found the end"},
    {TEXT("["), "byte 1: a value was expected, found the end"},
    {TEXT("[1}"), "byte 2: ',' or ']' was expected, found '}'"},
    {TEXT("]"), "byte 0: a value was expected, found ']'"},
    {TEXT("{\"a\":1,}"), "byte 7: a key in quotes was expected, found '}'"},
    {TEXT("{\"a\" 1}"), "byte 5: ':' was expected, found '1'"},
    {TEXT("{\"a\":}"), "byte 5: a value was expected, found '}'"},
    {TEXT("{a:1}"), "byte 1: a key in quotes was expected, found 'a'"},
    {TEXT("{'a':1}"), "byte 1: a key in quotes"},
    {TEXT("{1:1}"), "byte 1: a key in quotes"},
    {TEXT("{\"a\":1"), "byte 6: ',' or '}' was expected, found the end"},
    {TEXT("{\"a\":1]"), "byte 6: ',' or '}' was expected, found ']'"},
    {TEXT("[1]x"), "byte 3: the end of the text was expected, found 'x'"},
    {TEXT("1 2"), "byte 2: the end of the text was expected, found '2'"},
    {TEXT("[1]\0"), "byte 3: the end of the text was expected, found byte 0x"},
    {TEXT("tru"), "byte 0: true was expected"},
    {TEXT("True"), "byte 0: a value was expected, found 'T'"},
    {TEXT("nul"), "byte 0: null was expected"},
    {TEXT("falsey"), "byte 5: the end of the text was expected"},
    {TEXT("NaN"), "byte 0: a value was expected, found 'N'"},
    {TEXT("-Infinity"), "byte 1: a digit was expected, found 'I'"},
    {TEXT("01"), "byte 1: the end of the text was expected, found '1'"},
    {TEXT("-"), "byte 1: a digit was expected, found the end"},
    {TEXT("+1"), "byte 0: a value was expected, found '+'"},
    {TEXT(".5"), "byte 0: a value was expected, found '.'"},
    {TEXT("1."), "byte 2: a digit was expected"},
    {TEXT("1.e5"), "byte 2: a digit was expected, found 'e'"},
    {TEXT("1e"), "byte 2: a digit was expected"},
    {TEXT("1e+"), "byte 3: a digit was expected"},
    {TEXT("0x10"), "byte 1: the end of the text was expected, found 'x'"},
    {TEXT("\"abc"), "byte 0: the string that begins here has no end"},
    {TEXT("\"abc\\"), "byte 4: not an escape"},
    {TEXT("\"abcdefghijkl\\\""), "byte 0: the string that begins here has no"},
    {TEXT("\"\\a\""), "byte 1: not an escape"},
    {TEXT("\"\\\0\""), "byte 1: not an escape"},
    {TEXT("\"\\u12g4\""), "byte 1: not an escape"},
    {TEXT("\"\\u12"), "byte 1: not an escape"},
    {TEXT("\"\\U1234\""), "byte 1: not an escape"},
    {TEXT("\"\\x41\""), "byte 1: not an escape"},
    {TEXT("\"a\nb\""), "byte 2: control character 0x0a in a string"},
    {TEXT("\"a\0b\""), "byte 2: control character 0x00 in a string"},
    {TEXT("\"01234567\x1f\""), "byte 9: control character 0x1f"},
    {TEXT("\"\x80\""), "byte 1: 0x80 begins no UTF-8"},
    {TEXT("\"\xc0\xaf\""), "byte 1: 0xc0 begins no UTF-8"},
    {TEXT("\"\xe0\x80\xaf\""), "byte 1: 0xe0 begins no UTF-8"},
    {TEXT("\"\xed\xa0\x80\""), "byte 1: 0xed begins no UTF-8"},
    {TEXT("\"\xf4\x90\x80\x80\""), "byte 1: 0xf4 begins no UTF-8"},
    {TEXT("\"\xf8\x88\x80\x80\x80\""), "byte 1: 0xf8 begins no UTF-8"},
    {TEXT("\"\xe2\x82\""), "byte 1: 0xe2 begins no UTF-8"},
    {TEXT("\"\xf0\x9f\x98"), "byte 1: 0xf0 begins no UTF-8"},
    {TEXT("[1]\xef\xbb\xbf"), "byte 3: the end of the text was expected"},
    {TEXT("[1/**/]"), "byte 2: ',' or ']' was expected, found '/'"},
};

/* Reads everything, as skip does, but takes each value. */
static void read_all(qkv_json *j)
{
    qkv_slice key;
    switch (qkv_json_peek(j)) {
    case QKV_JSON_NUMBER: qkv_json_number(j); break;
    case QKV_JSON_STRING: qkv_json_string(j); break;
    case QKV_JSON_BOOLEAN: qkv_json_boolean(j); break;
    case QKV_JSON_ARRAY:
        for (qkv_json_array(j); qkv_json_item(j); )
            read_all(j);
        break;
    case QKV_JSON_OBJECT:
        for (qkv_json_object(j); qkv_json_key(j, &key); )
            read_all(j);
        break;
    default: qkv_json_skip(j);
    }
}

static void test_grammar(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (int reading = 0; reading < 2; reading++) {
            qkv_error err = {0};
            qkv_json j;
            /* A copy of the exact size: the sanitizer sees one byte more. */
            char *copy = malloc(texts[i].bytes);
            if (texts[i].bytes > 0)
                memcpy(copy, texts[i].text, texts[i].bytes);
            qkv_json_begin(&j, copy, texts[i].bytes);
            if (reading)
                read_all(&j);
            else
                qkv_json_skip(&j);
            const bool good = qkv_json_end(&j, &err);
            if (good != (texts[i].error == NULL)
                || (!good && strncmp(err.msg, texts[i].error,
                                     strlen(texts[i].error)) != 0))
                fail_msg("text %zu, reading %d: \"%s\", expected \"%s\"", i,
                         reading, good ? "it is JSON" : err.msg,
                         texts[i].error != NULL ? texts[i].error : "JSON");
            free(copy);
        }
}

static const struct {
    const char *text;
    const char *value;
    size_t bytes;
} strings[] = {
    {"\"plain\"", TEXT("plain")},
    {"\"a\\u0000b\"", TEXT("a\0b")},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", TEXT("\"\\/\b\f\n\r\t")},
    {"\"\\u0120the\"", TEXT("\xc4\xa0the")},
    {"\"\\u20AC\\u20ac\"", TEXT("\xe2\x82\xac\xe2\x82\xac")},
    {"\"\\ud83d\\ude00\"", TEXT("\xf0\x9f\x98\x80")},
    {"\"\\udbff\\udfff\"", TEXT("\xf4\x8f\xbf\xbf")},
    {"\"\\ud83d\"", TEXT("\xef\xbf\xbd")},
    {"\"\\ude00!\"", TEXT("\xef\xbf\xbd!")},
    {"\"\\ud83dx\"", TEXT("\xef\xbf\xbdx")},
    {"\"\\ud83d\\n\"", TEXT("\xef\xbf\xbd\n")},
    {"\"\\ud83d\\ud83d\\ude00\"", TEXT("\xef\xbf\xbd\xf0\x9f\x98\x80")},
    {"\"\\ude00\\ud83d\"", TEXT("\xef\xbf\xbd\xef\xbf\xbd")},
    {"\"\\uffff\\u0001\"", TEXT("\xef\xbf\xbf\x01")},
    {"\"12345678\\n12345678\"", TEXT("12345678\n12345678")},
};

static void test_strings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        qkv_error err;
        qkv_json j;
        qkv_json_begin(&j, strings[i].text, strlen(strings[i].text));
        const qkv_slice s = qkv_json_string(&j);
        if (s.bytes != strings[i].bytes
            || memcmp(s.data, strings[i].value, s.bytes) != 0)
            fail_msg("%s gave %zu bytes", strings[i].text, s.bytes);
        assert_true(qkv_json_end(&j, &err));
    }
}

static const struct {
    const char *text;
    double value;
    const char *error;
} numbers[] = {
    {"0", 0, NULL}, {"-0", -0.0, NULL}, {"1.5", 1.5, NULL},
    {"1e-05", 1e-05, NULL}, {"0.1", 0.1, NULL},
    {"123456789.123456789", 123456789.123456789, NULL},
    {"91399620.84340797", 91399620.84340797, NULL},    /* 16 digits */
    {"9007199254740993", 9007199254740992.0, NULL},     /* a tie, to even */
    {"9007199254740993.0000000001", 9007199254740994.0, NULL},
    {"1.7976931348623157e308", 1.7976931348623157e308, NULL},
    {"4.9e-324", 4.9e-324, NULL}, {"1e-400", 0, NULL},
    {"2.2250738585072011e-308", 2.2250738585072011e-308, NULL},
    {"1e400", 0, "byte 5: 1e400 is too large for a double"},
    {"true", 0, "byte 0: a number was expected, found true or false"},
    {"\"1\"", 0, "byte 0: a number was expected, found a string"},
    {"[1]", 0, "byte 0: a number was expected, found an array"},
};

static void test_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        qkv_error err;
        qkv_json j;
        qkv_json_begin(&j, numbers[i].text, strlen(numbers[i].text));
        const double x = qkv_json_number(&j);
        const bool good = qkv_json_end(&j, &err);
        assert_int_equal(good, numbers[i].error == NULL);
        if (!good)
            assert_string_equal(err.msg, numbers[i].error);
        else if (x != numbers[i].value
                 || signbit(x) != signbit(numbers[i].value))
            fail_msg("%s gave %.17g", numbers[i].text, x);
    }
}

static const struct {
    const char *text;
    int64_t value;
    const char *error;
} integers[] = {
    {"5", 5, NULL}, {"-0", 0, NULL}, {"5.0", 5, NULL}, {"5e2", 500, NULL},
    {"9007199254740993", 9007199254740993, NULL},
    {"9223372036854775807", INT64_MAX, NULL},
    {"-9223372036854775808", INT64_MIN, NULL},
    {"9223372036854775808", 0,
     "byte 19: 9223372036854775808 does not fit in 64 bits"},
    {"-9223372036854775809", 0,
     "byte 20: -9223372036854775809 does not fit in 64 bits"},
    {"18446744073709551617", 0,
     "byte 20: 18446744073709551617 does not fit in 64 bits"},
    {"5.5", 0, "byte 3: an integer was expected, found 5.5"},
    {"1e300", 0, "byte 5: an integer was expected, found 1e300"},
    {"null", 0, "byte 0: a number was expected, found null"},
};

static void test_integers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        qkv_error err;
        qkv_json j;
        qkv_json_begin(&j, integers[i].text, strlen(integers[i].text));
        const int64_t x = qkv_json_integer(&j);
        const bool good = qkv_json_end(&j, &err);
        assert_int_equal(good, integers[i].error == NULL);
        if (good)
            assert_true(x == integers[i].value);
        else
            assert_string_equal(err.msg, integers[i].error);
    }
}

/* 128 levels are read, 129 are not; and many more do not overflow a stack. */
static void test_depth(void **state)
{
    static const int levels[] = {1, 128, 129, 100000};
    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        const size_t n = (size_t)levels[i];
        char *text = test_malloc(2 * n);
        qkv_error err;
        qkv_json j;
        memset(text, '[', n);
        memset(text + n, ']', n);
        qkv_json_begin(&j, text, 2 * n);
        qkv_json_skip(&j);
        assert_int_equal(qkv_json_end(&j, &err), n <= 128);
        if (n > 128)
            assert_string_equal(err.msg, "byte 128: more than 128 levels deep");
        test_free(text);
    }
}

/* The reader of the header's example, with a value passed over and one read
 * again. */
static void test_reading(void **state)
{
    static const char text[] =
        "{\"skip\": {\"vocab_size\": [\"\\u0041\", {}]}, \"vo\\u0063ab_size\": "
        "7, \"later\": [1, 2], \"none\": null, \"last\": [true, false]}";
    qkv_error err;
    qkv_json j, again;
    qkv_slice key, later = {0};
    int64_t n = 0, sum = 0;
    int nulls = 0, yes = 0;
    (void)state;
    qkv_json_begin(&j, text, sizeof text - 1);
    for (qkv_json_object(&j); qkv_json_key(&j, &key); )
        if (qkv_json_is(&key, "vocab_size"))
            n = qkv_json_integer(&j);
        else if (qkv_json_is(&key, "later"))
            later = qkv_json_text(&j);
        else if (qkv_json_is(&key, "none"))
            nulls += qkv_json_null(&j);
        else if (qkv_json_is(&key, "last"))
            for (qkv_json_array(&j); qkv_json_item(&j); )
                yes += qkv_json_boolean(&j);
        else
            qkv_json_skip(&j);
    assert_true(qkv_json_end(&j, &err));
    assert_int_equal(n, 7);
    assert_int_equal(nulls, 1);
    assert_int_equal(yes, 1);
    assert_int_equal(later.bytes, 6);
    qkv_json_begin(&again, later.data, later.bytes);
    for (qkv_json_array(&again); qkv_json_item(&again); )
        sum += qkv_json_integer(&again);
    assert_true(qkv_json_end(&again, &err));
    assert_int_equal(sum, 3);
}

/* The first error is kept, calls after it do nothing, and a reader's own
 * complaint counts. */
static void test_errors_stick(void **state)
{
    qkv_error err;
    qkv_json j;
    qkv_slice key;
    (void)state;
    qkv_json_begin(&j, TEXT("{\"a\": 1, \"b\": 2}"));
    qkv_json_object(&j);
    assert_true(qkv_json_key(&j, &key));
    qkv_json_string(&j);
    assert_false(qkv_json_key(&j, &key));
    assert_int_equal(qkv_json_integer(&j), 0);
    assert_int_equal(qkv_json_peek(&j), QKV_JSON_NONE);
    qkv_json_fail(&j, "too late");
    assert_false(qkv_json_end(&j, &err));
    assert_string_equal(err.msg,
                        "byte 6: a string was expected, found a number");
    assert_int_equal(err.code, QKV_EFORMAT);

    qkv_json_begin(&j, TEXT("[3]"));
    qkv_json_array(&j);
    qkv_json_item(&j);
    qkv_json_fail(&j, "%d layers, expected %d", 3, 4);
    assert_false(qkv_json_end(&j, &err));
    assert_string_equal(err.msg, "byte 1: 3 layers, expected 4");
}

static void test_no_memory(void **state)
{
    qkv_error err;
    qkv_json j;
    const size_t live = qkv_alloc_live();
    (void)state;
    qkv_json_begin(&j, TEXT("\"\\n\""));
    qkv_alloc_fail_after(0);
    assert_int_equal(qkv_json_string(&j).bytes, 0);
    qkv_alloc_fail_after(-1);
    assert_false(qkv_json_end(&j, &err));
    assert_int_equal(err.code, QKV_ENOMEM);
    assert_int_equal(qkv_alloc_live(), live);
}

/* Where the decimal point is a comma. */
static void test_locale(void **state)
{
    char text[40];
    double x;
    (void)state;
    if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL
        && setlocale(LC_ALL, "fr_FR.UTF-8") == NULL)
        skip();
    assert_true(qkv_number_read(&x, "1.25e3", 6));
    assert_true(x == 1250);
    assert_false(qkv_number_read(&x, "1,25", 4));
    qkv_number_write(text, sizeof text, 9, 0.5);
    setlocale(LC_ALL, "C");
    assert_string_equal(text, "0.5");
}

static const struct {
    const char *text;
    bool good;
} decimals[] = {
    {"1", true}, {"-1.5", true}, {".5", true}, {"5.", true}, {"+5", true},
    {"1e5", true}, {"inf", true}, {"-Infinity", true}, {"nan", true},
    {"", false}, {"-", false}, {".", false}, {" 1", false}, {"1 ", false},
    {"0x10", false}, {"1e", false}, {"1.2.3", false}, {"nan(1)", false},
    {"abc", false}, {"1_000", false}, {"\xef\xbc\x91", false},
};

static void test_decimals(void **state)
{
    double x;
    (void)state;
    for (size_t i = 0; i < sizeof decimals / sizeof decimals[0]; i++)
        if (qkv_number_read(&x, decimals[i].text, strlen(decimals[i].text))
            != decimals[i].good)
            fail_msg("'%s'", decimals[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_errors_stick),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_locale),
        cmocka_unit_test(test_decimals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
