/*
 * json.c - a pull parser: see json.h
 *
 * A string is looked at twice at most: once to find its end and check it, and
 * once more, in a copy, if it has escapes. What is skipped is checked as well
 * as what is read. Nothing recurses. The grammar is RFC 8259's, the UTF-8
 * table RFC 3629's.
 */
#include "config.h"

#include "format/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format/number.h"

/* ---- errors ---- */

void qkv_json_fail(qkv_json *j, const char *fmt, ...)
{
    if (j->failed)                      /* the first error is the one to tell */
        return;
    char what[sizeof j->err.msg];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    qkv_fail(&j->err, QKV_EFORMAT, "byte %zu: %s", (size_t)(j->at - j->start),
             what);
    j->failed = true;
}

/* "<what> was expected, found <what stands there>" */
static void expected(qkv_json *j, const char *what)
{
    if (j->at == j->end)
        qkv_json_fail(j, "%s was expected, found the end of the text", what);
    else if (*j->at > ' ' && *j->at < 0x7f)
        qkv_json_fail(j, "%s was expected, found '%c'", what, *j->at);
    else
        qkv_json_fail(j, "%s was expected, found byte 0x%02x", what,
                      (unsigned)(unsigned char)*j->at);
}

/* ---- beginning and end ---- */

void qkv_json_begin(qkv_json *j, const void *data, size_t bytes)
{
    static const char mark[] = "\xef\xbb\xbf";
    *j = (qkv_json){0};
    j->start = j->at = bytes > 0 ? data : "";
    j->end = j->start + bytes;
    if (bytes >= 3 && memcmp(j->start, mark, 3) == 0)
        j->at += 3;
}

static void skip_blanks(qkv_json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n'
                              || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

bool qkv_json_end(qkv_json *j, qkv_error *err)
{
    if (!j->failed) {
        skip_blanks(j);
        if (j->at != j->end)
            expected(j, "the end of the text");
    }
    qkv_text_free(&j->scratch);
    if (j->failed)
        *err = j->err;
    return !j->failed;
}

/* ---- what comes next ---- */

static const char *const kind_words[] = {
    [QKV_JSON_NONE] = "a value",          [QKV_JSON_NULL] = "null",
    [QKV_JSON_BOOLEAN] = "true or false", [QKV_JSON_NUMBER] = "a number",
    [QKV_JSON_STRING] = "a string",       [QKV_JSON_ARRAY] = "an array",
    [QKV_JSON_OBJECT] = "an object",
};

qkv_json_kind qkv_json_peek(qkv_json *j)
{
    if (j->failed)
        return QKV_JSON_NONE;
    skip_blanks(j);
    if (j->at == j->end)
        return QKV_JSON_NONE;
    switch (*j->at) {
    case '"': return QKV_JSON_STRING;
    case '{': return QKV_JSON_OBJECT;
    case '[': return QKV_JSON_ARRAY;
    case 'n': return QKV_JSON_NULL;
    case 't': case 'f': return QKV_JSON_BOOLEAN;
    case '-': case '0': case '1': case '2': case '3': case '4': case '5':
    case '6': case '7': case '8': case '9': return QKV_JSON_NUMBER;
    case ']': case '}': return QKV_JSON_NONE;
    default:
        expected(j, "a value");
        return QKV_JSON_NONE;
    }
}

static bool expect(qkv_json *j, qkv_json_kind kind)
{
    const qkv_json_kind found = qkv_json_peek(j);
    if (found == kind || j->failed)
        return !j->failed;
    if (found == QKV_JSON_NONE)
        expected(j, kind_words[kind]);
    else
        qkv_json_fail(j, "%s was expected, found %s", kind_words[kind],
                      kind_words[found]);
    return false;
}

/* ---- containers ---- */

static void enter(qkv_json *j, qkv_json_kind kind)
{
    if (!expect(j, kind))
        return;
    if (j->depth == QKV_JSON_DEPTH) {
        qkv_json_fail(j, "more than %d levels deep", QKV_JSON_DEPTH);
        return;
    }
    j->open[j->depth++] = *j->at++;
    j->first = true;
}

void qkv_json_object(qkv_json *j)
{
    enter(j, QKV_JSON_OBJECT);
}

void qkv_json_array(qkv_json *j)
{
    enter(j, QKV_JSON_ARRAY);
}

/* Up to the next member of the innermost container, past a comma; false at its
 * end, which is consumed. */
static bool next_member(qkv_json *j, char close)
{
    if (j->failed)
        return false;
    assert(j->depth > 0 && j->open[j->depth - 1] == (close == '}' ? '{' : '['));
    skip_blanks(j);
    const bool first = j->first;
    j->first = false;
    if (j->at < j->end && *j->at == close) {
        j->at++;
        j->depth--;
        return false;
    }
    if (first)
        return true;
    if (j->at == j->end || *j->at != ',') {
        expected(j, close == '}' ? "',' or '}'" : "',' or ']'");
        return false;
    }
    j->at++;
    skip_blanks(j);
    return true;
}

bool qkv_json_item(qkv_json *j)
{
    if (!next_member(j, ']'))
        return false;
    if (qkv_json_peek(j) == QKV_JSON_NONE)      /* [1,] */
        expected(j, "a value");
    return !j->failed;
}

/* ---- strings ---- */

/* Bytes of the UTF-8 sequence at `at`, whose first byte is over 0x7f; 0 if it
 * is none. RFC 3629, section 4. */
static size_t utf8_bytes(const char *at, const char *end)
{
    const unsigned char *s = (const unsigned char *)at;
    const size_t left = (size_t)(end - at);
    const size_t n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < n)
        return 0;
    const unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool qkv_is_utf8(qkv_slice s)
{
    const char *at = s.data, *end = at + s.bytes;
    while (at < end) {
        const size_t n = (unsigned char)*at < 0x80 ? 1 : utf8_bytes(at, end);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0'
        : c >= 'a' && c <= 'f' ? c - 'a' + 10
        : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The four digits behind \u, or -1. */
static int32_t hex_4(const char *at, const char *end)
{
    int32_t value = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const int digit = hex_digit(at[i]);
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Bytes of the escape at the backslash `at`; 0 if it is none. */
static size_t escape_bytes(const char *at, const char *end)
{
    if (end - at < 2)
        return 0;
    switch (at[1]) {
    case '"': case '\\': case '/':
    case 'b': case 'f': case 'n': case 'r': case 't':
        return 2;
    case 'u':
        return hex_4(at + 2, end) >= 0 ? 6 : 0;
    default:
        return 0;
    }
}

/* To the first byte that does not stand for itself: '"', '\\', a control or one
 * over 0x7f. Eight at a time, by the tests for a zero byte and for a byte below
 * n of "Bit Twiddling Hacks" (Anderson): what they mark first is right, what
 * stands above it may not be. */
static const char *skip_plain(const char *at, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    for (; end - at >= 8; at += 8) {
        uint64_t w;
        memcpy(&w, at, 8);
        const uint64_t quote = w ^ (ones * '"'), slash = w ^ (ones * '\\');
        const uint64_t odd = (((quote - ones) & ~quote)
            | ((slash - ones) & ~slash) | ((w - ones * ' ') & ~w) | w) & tops;
        if (odd != 0)
            return at + __builtin_ctzll(odd) / 8;   /* little-endian */
    }
    while (at < end && *at >= ' ' && *at <= 0x7e && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* From behind the opening quote to the closing one; NULL after an error. */
static const char *string_end(qkv_json *j, bool *escapes)
{
    const char *at = j->at + 1;
    *escapes = false;
    for (;;) {
        at = skip_plain(at, j->end);
        if (at == j->end) {
            qkv_json_fail(j, "the string that begins here has no end");
            return NULL;
        }
        const unsigned char c = (unsigned char)*at;
        size_t n = 1;
        if (c == '"')
            return at;
        if (c == '\\')
            *escapes = true, n = escape_bytes(at, j->end);
        else if (c < ' ')
            n = 0;
        else if (c > 0x7f)
            n = utf8_bytes(at, j->end);
        if (n == 0) {
            j->at = at;
            qkv_json_fail(j, c == '\\' ? "not an escape of JSON"
                          : c < ' ' ? "control character 0x%02x in a string"
                          : "0x%02x begins no UTF-8 sequence", (unsigned)c);
            return NULL;
        }
        at += n;
    }
}

static char *put_utf8(char *to, int32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const int lead[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (char)(lead[more] | c >> (6 * more));
    for (int i = more - 1; i >= 0; i--)
        *to++ = (char)(0x80 | (c >> (6 * i) & 0x3f));
    return to;
}

/* The character of the escape at `*from` (checked before), which is passed:
 * two escapes for a surrogate pair; half a pair is U+FFFD. */
static int32_t unfold_escape(const char **from, const char *end)
{
    const char *at = *from;
    *from += 2;
    switch (at[1]) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': break;
    default: return at[1];
    }
    const int32_t c = hex_4(at + 2, end);
    *from += 4;
    if (c < 0xd800 || c > 0xdfff)
        return c;
    if (c < 0xdc00 && end - *from >= 6 && (*from)[0] == '\\'
        && (*from)[1] == 'u') {
        const int32_t low = hex_4(*from + 2, end);
        if (low >= 0xdc00 && low <= 0xdfff) {
            *from += 6;
            return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return 0xfffd;
}

/* Copy to scratch and unfold there in place: no escape is shorter than what it
 * stands for. */
static qkv_slice unfold(qkv_json *j, const char *from, const char *end)
{
    j->scratch.bytes = 0;
    if (!qkv_text_put(&j->scratch, from, (size_t)(end - from), &j->err)) {
        j->failed = true;
        return (qkv_slice){"", 0};
    }
    const char *at = j->scratch.data, *last = at + j->scratch.bytes;
    char *to = j->scratch.data;
    while (at < last) {
        const char *slash = memchr(at, '\\', (size_t)(last - at));
        const size_t n = (size_t)((slash != NULL ? slash : last) - at);
        memmove(to, at, n);
        to += n;
        at += n;
        if (slash != NULL)
            to = put_utf8(to, unfold_escape(&at, last));
    }
    return (qkv_slice){j->scratch.data, (size_t)(to - j->scratch.data)};
}

/* The string at the quote; out NULL: only passed over. */
static bool read_string(qkv_json *j, qkv_slice *out)
{
    bool escapes;
    const char *from = j->at + 1, *end = string_end(j, &escapes);
    if (end == NULL)
        return false;
    j->at = end + 1;
    if (out != NULL)
        *out = escapes ? unfold(j, from, end)
            : (qkv_slice){from, (size_t)(end - from)};
    return !j->failed;
}

static bool next_key(qkv_json *j, qkv_slice *key)
{
    if (!next_member(j, '}'))
        return false;
    if (j->at == j->end || *j->at != '"') {
        expected(j, "a key in quotes");
        return false;
    }
    if (!read_string(j, key))
        return false;
    skip_blanks(j);
    if (j->at == j->end || *j->at != ':') {
        expected(j, "':'");
        return false;
    }
    j->at++;
    skip_blanks(j);
    return true;
}

bool qkv_json_key(qkv_json *j, qkv_slice *key)
{
    *key = (qkv_slice){"", 0};
    return next_key(j, key);
}

qkv_slice qkv_json_string(qkv_json *j)
{
    qkv_slice s = {"", 0};
    if (expect(j, QKV_JSON_STRING))
        read_string(j, &s);
    return s;
}

bool qkv_json_is(const qkv_slice *s, const char *word)
{
    const size_t n = strlen(word);
    return s->bytes == n && memcmp(s->data, word, n) == 0;
}

/* ---- numbers and words ---- */

static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

/* Pass over a number; *whole: it has neither point nor exponent. */
static qkv_slice scan_number(qkv_json *j, bool *whole)
{
    const char *from = j->at;
    j->at += *from == '-';
    const char *digits = j->at;
    j->at = skip_digits(digits, j->end);
    if (j->at - digits > 1 && *digits == '0')
        j->at = digits + 1;                     /* 01: the 1 is too much */
    bool good = j->at > digits;
    *whole = true;
    if (good && j->at < j->end && *j->at == '.') {
        digits = j->at + 1;
        j->at = skip_digits(digits, j->end);
        good = j->at > digits;
        *whole = false;
    }
    if (good && j->at < j->end && (*j->at | 0x20) == 'e') {
        j->at++;
        j->at += j->at < j->end && (*j->at == '+' || *j->at == '-');
        digits = j->at;
        j->at = skip_digits(digits, j->end);
        good = j->at > digits;
        *whole = false;
    }
    if (!good)
        expected(j, "a digit");
    return (qkv_slice){from, (size_t)(j->at - from)};
}

static double to_double(qkv_json *j, const qkv_slice *text)
{
    double value = 0;
    if (!qkv_number_read(&value, text->data, text->bytes)) {
        qkv_json_fail(j, "a number of %zu bytes, at most %d are read",
                      text->bytes, QKV_NUMBER_BYTES - 1);
    } else if (isinf(value)) {
        qkv_json_fail(j, "%.*s is too large for a double", (int)text->bytes,
                      text->data);
    }
    return j->failed ? 0 : value;
}

double qkv_json_number(qkv_json *j)
{
    bool whole;
    if (!expect(j, QKV_JSON_NUMBER))
        return 0;
    const qkv_slice text = scan_number(j, &whole);
    return j->failed ? 0 : to_double(j, &text);
}

/* Digits with a sign; false if it does not fit. */
static bool to_integer(int64_t *out, const qkv_slice *text)
{
    const bool negative = text->data[0] == '-';
    const uint64_t most = (uint64_t)INT64_MAX + negative;
    uint64_t value = 0;
    for (size_t i = negative; i < text->bytes; i++) {
        const uint64_t digit = (uint64_t)(text->data[i] - '0');
        if (value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

int64_t qkv_json_integer(qkv_json *j)
{
    bool whole;
    int64_t value = 0;
    if (!expect(j, QKV_JSON_NUMBER))
        return 0;
    const qkv_slice text = scan_number(j, &whole);
    if (j->failed)
        return 0;
    if (whole) {
        if (!to_integer(&value, &text))
            qkv_json_fail(j, "%.*s does not fit in 64 bits",
                          (int)(text.bytes < 100 ? text.bytes : 100),
                          text.data);
        return value;
    }
    const double x = to_double(j, &text);
    if (j->failed)
        return 0;
    if (x != floor(x) || !(fabs(x) < 0x1p63)) {
        qkv_json_fail(j, "an integer was expected, found %.*s",
                      (int)text.bytes, text.data);
        return 0;
    }
    return (int64_t)x;
}

static bool read_word(qkv_json *j, const char *word)
{
    const size_t n = strlen(word);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0) {
        qkv_json_fail(j, "%s was expected", word);
        return false;
    }
    j->at += n;
    return true;
}

bool qkv_json_boolean(qkv_json *j)
{
    if (!expect(j, QKV_JSON_BOOLEAN))
        return false;
    return *j->at == 't' ? read_word(j, "true")
        : (read_word(j, "false"), false);
}

/* ---- passing over ---- */

/* A scalar is passed, a container entered. */
static void skip_one(qkv_json *j)
{
    bool whole;
    switch (qkv_json_peek(j)) {
    case QKV_JSON_NONE: expected(j, "a value"); break;
    case QKV_JSON_NULL: read_word(j, "null"); break;
    case QKV_JSON_BOOLEAN: qkv_json_boolean(j); break;
    case QKV_JSON_NUMBER: scan_number(j, &whole); break;
    case QKV_JSON_STRING: read_string(j, NULL); break;
    case QKV_JSON_ARRAY: qkv_json_array(j); break;
    case QKV_JSON_OBJECT: qkv_json_object(j); break;
    }
}

void qkv_json_skip(qkv_json *j)
{
    const int outside = j->depth;
    bool value = true;                  /* one comes next */
    do {
        if (value)
            skip_one(j);
        if (j->depth > outside)
            value = j->open[j->depth - 1] == '{' ? next_key(j, NULL)
                : qkv_json_item(j);
    } while (!j->failed && j->depth > outside);
}

qkv_slice qkv_json_text(qkv_json *j)
{
    qkv_json_peek(j);                   /* past blanks */
    const char *from = j->at;
    qkv_json_skip(j);
    return j->failed ? (qkv_slice){"", 0}
        : (qkv_slice){from, (size_t)(j->at - from)};
}
