/*
 * number.h - numbers as text, whatever the locale
 *
 * In a German locale strtod stops at the point of "1.5" and printf writes a
 * comma. Files know no locale: their readers and writers come through here.
 */
#ifndef QKV_NUMBER_H
#define QKV_NUMBER_H
#include <stdbool.h>
#include <stddef.h>

enum { QKV_NUMBER_BYTES = 512 };    /* a longer number is refused */

/* All of text [bytes] as a decimal number (no blanks; inf and nan as strtod
 * has them; no hexadecimal). Correctly rounded; what is too large becomes an
 * infinity. false if it is not a number. */
bool qkv_number_read(double *out, const char *text, size_t bytes);

/* As printf's %.*g into out [room]; the number of bytes. */
int qkv_number_write(char *out, size_t room, int digits, double value);

#endif
