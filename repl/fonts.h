/*
 * fonts.h - which characters the installed fonts can draw
 *
 * A code point that no font covers makes gnuplot's cairo terminals paint a
 * box of hexadecimal digits as large as the page, over everything. So words
 * are checked against fontconfig first (through its program fc-list, which
 * comes with the pango that gnuplot draws with; nothing is linked for it).
 */
#ifndef QKV_FONTS_H
#define QKV_FONTS_H
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct qkv_fonts qkv_fonts;

qkv_fonts *qkv_fonts_new(qkv_error *err);
void qkv_fonts_free(qkv_fonts *f);          /* NULL is allowed */

/* Can some font draw it? fc-list is run by the first question about a code
 * point beyond ASCII; without it, what DejaVu Sans has is taken for granted.
 * `fonts` is a qkv_fonts *, void so that it is a qkv_covers_fn. */
bool qkv_fonts_cover(void *fonts, uint32_t code_point);

#endif
