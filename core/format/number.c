/*
 * number.c - numbers as text, whatever the locale: see number.h
 *
 * Up to 15 digits and a power of ten up to 22 are exact in double, so that
 * one product or quotient of them is correctly rounded (Clinger, "How to read
 * floating point numbers accurately", 1990). The rest goes to strtod.
 */
#include "config.h"

#include "format/number.h"

#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double tens[] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

/* glibc and musl give a constant for "C": no cost, nothing to free. */
static locale_t plain_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* [-]digits[.digits], at most 15 of them. */
static bool read_short(double *out, const char *at, const char *end)
{
    const bool negative = at < end && *at == '-';
    int64_t mantissa = 0;
    int digits = 0, behind = 0;
    at += negative;
    for (; at < end && is_digit(*at) && digits < 16; at++, digits++)
        mantissa = mantissa * 10 + (*at - '0');
    if (at < end && *at == '.' && digits > 0)
        for (at++; at < end && is_digit(*at) && digits < 16;
             at++, digits++, behind++)
            mantissa = mantissa * 10 + (*at - '0');
    if (at != end || digits == 0 || digits > 15)
        return false;
    const double value = (double)mantissa / tens[behind];
    *out = negative ? -value : value;
    return true;
}

bool qkv_number_read(double *out, const char *text, size_t bytes)
{
    char copy[QKV_NUMBER_BYTES];        /* strtod wants a NUL behind it */
    if (read_short(out, text, text + bytes))
        return true;
    if (bytes == 0 || bytes >= sizeof copy || memchr(text, '\0', bytes) != NULL)
        return false;
    for (size_t i = 0; i < bytes; i++)  /* blanks, 0x10, nan(1): not for us */
        if (text[i] <= ' ' || text[i] == 'x' || text[i] == 'X'
            || text[i] == '(')
            return false;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    char *end;
    *out = strtod_l(copy, &end, plain_locale());
    return end == copy + bytes;
}

int qkv_number_write(char *out, size_t room, int digits, double value)
{
    const locale_t old = uselocale(plain_locale());
    const int n = snprintf(out, room, "%.*g", digits, value);
    uselocale(old);
    return n;
}
