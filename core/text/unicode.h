/*
 * unicode.h - UTF-8 as tokenizers need it
 *
 * Walking characters, replacing what is not UTF-8, the classes that special
 * tokens ask about, NFC, and GPT-2's table that gives every byte a printable
 * character. UTF-8 is Unicode's table 3-7: no surrogates, nothing over-long,
 * nothing above 10FFFF.
 */
#ifndef QKV_UNICODE_H
#define QKV_UNICODE_H
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "format/json.h"        /* qkv_slice */

/* The character at p, of n > 0 bytes: its length in bytes (1..4), or minus
 * the length of the maximal piece that is not UTF-8 (c is then U+FFFD): the
 * longest start of a character, at least one byte (Unicode 3.9, best practice
 * for U+FFFD; Python's and Rust's rule). */
int qkv_utf8_next(uint32_t *c, const char *p, size_t n);
/* The character that ends at p + n, n > 0; p must be UTF-8. */
uint32_t qkv_utf8_last(const char *p, size_t n);
/* c as UTF-8: its length. c must be a scalar value. */
int qkv_utf8_put(char out[4], uint32_t c);
/* The number of bytes that are UTF-8 before the first that is not. */
size_t qkv_utf8_valid(const char *p, size_t n);
/* Appends text with each maximal piece that is not UTF-8 as one U+FFFD. */
bool qkv_utf8_repair(qkv_text *out, qkv_slice text, qkv_error *err);

/* White_Space and \w as Rust's regex crate has them (UTS 18, annex C). */
bool qkv_is_space(uint32_t c);
bool qkv_is_word(uint32_t c);

/* Is text its own NFC for certain? (All below U+0300 is.) */
bool qkv_is_plain_nfc(qkv_slice text);
/* Appends NFC of text, which must be UTF-8. */
bool qkv_nfc(qkv_text *out, qkv_slice text, qkv_error *err);

/* GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other 68
 * bytes for U+0100, U+0101 ... in order. */
uint32_t qkv_byte_to_char(unsigned char byte);
int qkv_char_to_byte(uint32_t c);               /* -1: stands for no byte */
/* The bytes that `piece` is written for, at most as many as it has itself, and
 * *n of them; to has room. false if one of its characters stands for none. */
bool qkv_byte_level_read(char *to, size_t *n, qkv_slice piece);

#endif
