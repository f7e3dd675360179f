/*
 * unicode.c - UTF-8, character classes, NFC, bytes as characters: unicode.h
 *
 * Categories and composition are utf8proc's; the rest is small enough to be
 * written down.
 */
#include "config.h"

#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"

enum { REPLACEMENT = 0xFFFD };

/* ---- UTF-8 ---- */

/* What may follow a first byte: how many bytes, and the range of the second
 * (Unicode, table 3-7). More than 0 only for C2..F4. */
static int follow(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (first < 0xC2 || first > 0xF4)
        return 0;
    if (first < 0xE0)
        return 1;
    if (first < 0xF0) {
        if (first == 0xE0)
            *low = 0xA0;
        if (first == 0xED)
            *high = 0x9F;
        return 2;
    }
    if (first == 0xF0)
        *low = 0x90;
    if (first == 0xF4)
        *high = 0x8F;
    return 3;
}

int qkv_utf8_next(uint32_t *c, const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80) {
        *c = u[0];
        return 1;
    }
    unsigned char low, high;
    const int more = follow(u[0], &low, &high);
    uint32_t value = u[0] & (0x3Fu >> more);
    for (int i = 1; i <= more; i++) {
        if ((size_t)i >= n || u[i] < low || u[i] > high) {
            *c = REPLACEMENT;
            return -i;
        }
        value = value << 6 | (u[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    if (more == 0) {
        *c = REPLACEMENT;
        return -1;
    }
    *c = value;
    return more + 1;
}

uint32_t qkv_utf8_last(const char *p, size_t n)
{
    size_t at = n - 1;
    while (at > 0 && ((unsigned char)p[at] & 0xC0) == 0x80)
        at--;
    uint32_t c;
    qkv_utf8_next(&c, p + at, n - at);
    return c;
}

int qkv_utf8_put(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char mark[] = {0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(mark[more] | c >> (6 * more));
    for (int i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (c >> (6 * (more - i)) & 0x3F));
    return more + 1;
}

/* How many of the n bytes at p are ASCII before the first that is not, to a
 * multiple of 8: most text is, and this passes it 8 bytes at a time. */
static size_t ascii_run(const char *p, size_t n)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t eight;
        memcpy(&eight, p + i, 8);
        if ((eight & UINT64_C(0x8080808080808080)) != 0)
            break;
    }
    return i;
}

size_t qkv_utf8_valid(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        i += ascii_run(p + i, n - i);
        for (int k = 0; k < 8 && i < n; k++) {
            uint32_t c;
            const int bytes = qkv_utf8_next(&c, p + i, n - i);
            if (bytes < 0)
                return i;
            i += (size_t)bytes;
        }
    }
    return n;
}

bool qkv_utf8_repair(qkv_text *out, qkv_slice text, qkv_error *err)
{
    for (size_t i = 0; i < text.bytes; ) {
        const size_t good = qkv_utf8_valid(text.data + i, text.bytes - i);
        if (!qkv_text_put(out, text.data + i, good, err))
            return false;
        i += good;
        if (i == text.bytes)
            break;
        uint32_t c;
        i += (size_t)-qkv_utf8_next(&c, text.data + i, text.bytes - i);
        if (!qkv_text_put(out, "\xEF\xBF\xBD", 3, err))
            return false;
    }
    return true;
}

/* ---- classes ---- */

bool qkv_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0
        || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028
        || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Letters that Unicode files under symbols: circled and squared ones. */
static bool is_symbol_letter(uint32_t c)
{
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149)
        || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool qkv_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200C || c == 0x200D || is_symbol_letter(c);
    }
}

/* ---- NFC ---- */

bool qkv_is_plain_nfc(qkv_slice text)
{
    /* U+0300 is CC 80: below it every first byte is under CC. */
    for (size_t i = 0; i < text.bytes; i++) {
        i += ascii_run(text.data + i, text.bytes - i);
        if (i < text.bytes && (unsigned char)text.data[i] >= 0xCC)
            return false;
    }
    return true;
}

bool qkv_nfc(qkv_text *out, qkv_slice text, qkv_error *err)
{
    const utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    const utf8proc_uint8_t *from = (const utf8proc_uint8_t *)text.data;
    const utf8proc_ssize_t bytes = (utf8proc_ssize_t)text.bytes;
    if (text.bytes == 0)
        return true;
    utf8proc_ssize_t n = utf8proc_decompose(from, bytes, NULL, 0, how);
    size_t room;
    if (n < 0 || !qkv_size_mul(&room, (size_t)n + 1, sizeof(int32_t)))
        return qkv_fail(err, QKV_EFORMAT, "NFC of a text of %zu bytes: %s",
                        text.bytes, utf8proc_errmsg(n));
    utf8proc_int32_t *points = qkv_alloc(room, err);
    if (points == NULL)
        return false;
    n = utf8proc_decompose(from, bytes, points, n, how);
    if (n >= 0)     /* in place: the UTF-8 overwrites the code points */
        n = utf8proc_reencode(points, n, how);
    const bool done = n >= 0
        ? qkv_text_put(out, (const char *)points, (size_t)n, err)
        : qkv_fail(err, QKV_EFORMAT, "NFC of a text of %zu bytes: %s",
                   text.bytes, utf8proc_errmsg(n));
    qkv_free(points);
    return done;
}

/* ---- bytes as characters ---- */

/* Does a byte stand for itself in GPT-2's table? */
static bool is_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC)
        || (c >= 0xAE && c <= 0xFF);
}

uint32_t qkv_byte_to_char(unsigned char byte)
{
    if (is_itself(byte))
        return byte;
    /* 00..20 first, then 7F..A0, then AD */
    return byte <= 0x20 ? 0x100u + byte
        : byte == 0xAD ? 0x143u : 0x121u + (byte - 0x7Fu);
}

int qkv_char_to_byte(uint32_t c)
{
    if (is_itself(c))
        return (int)c;
    if (c < 0x100 || c > 0x143)
        return -1;
    return c <= 0x120 ? (int)(c - 0x100)
        : c == 0x143 ? 0xAD : (int)(c - 0x121 + 0x7F);
}

/* The byte that the n bytes at p are written for, -1 for none; *used of them
 * were read. All characters of the table have one or two bytes. */
static inline int read_byte(const unsigned char *p, size_t n, size_t *used)
{
    *used = 1;
    if (p[0] < 0x80)
        return p[0] > 0x20 && p[0] < 0x7F ? p[0] : -1;
    *used = 2;
    if (p[0] < 0xC2 || p[0] > 0xC5 || n < 2 || (p[1] & 0xC0) != 0x80)
        return -1;
    return qkv_char_to_byte((p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu));
}

bool qkv_byte_level_read(char *to, size_t *n, qkv_slice piece)
{
    const unsigned char *from = (const unsigned char *)piece.data;
    *n = 0;
    for (size_t i = 0, used; i < piece.bytes; i += used) {
        const int byte = read_byte(from + i, piece.bytes - i, &used);
        if (byte < 0)
            return false;
        to[(*n)++] = (char)byte;
    }
    return true;
}
