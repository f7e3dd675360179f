/*
 * labels.h - words in pictures: how they are spelt, how wide they are, and
 * where they go beside their points
 *
 * Everything is in pixels, x to the right and y downward. Widths are those of
 * DejaVu Sans, the font that pictures ask for; another font is a little off,
 * which alignment towards the point absorbs.
 */
#ifndef QKV_LABELS_H
#define QKV_LABELS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"

/* Can some installed font draw this code point? NULL stands for yes. */
typedef bool qkv_covers_fn(void *context, uint32_t code_point);

/* Append `bytes` of a token as a reader should see it, valid UTF-8 on one
 * line: each leading blank as U+00B7 (middle dot), newline as U+21B5 (return
 * sign), tab as U+21E5; other control bytes and bytes that are not UTF-8 as
 * \xNN; invisible or unassigned code points, a combining mark with nothing to
 * combine with, and what no font covers as \u{...}. dots = false leaves
 * leading blanks alone (for titles). */
bool qkv_label_spell(qkv_text *out, const char *token, size_t bytes, bool dots,
                     qkv_covers_fn *covers, void *context, qkv_error *err);

/* Width of UTF-8 text in em; multiply by the font's size. */
double qkv_label_width(const char *text, size_t bytes);

/* Bytes of the longest beginning of text, whole characters, that is at most
 * `em` wide. */
size_t qkv_label_cut(const char *text, size_t bytes, double em);

/* Columns that UTF-8 text takes on a terminal. */
int qkv_label_columns(const char *text, size_t bytes);

typedef struct qkv_label {
    double x, y;                /* in: the point */
    double width, height;       /* in: the text's box; width 0: no label */
    double anchor_x, anchor_y;  /* out: where the text is held, mid-height */
    int align;                  /* out: held at its left 0, centre 1, right 2 */
    bool leader;                /* out: far enough to want a line to it */
    bool shown;                 /* out: false when there was no room */
} qkv_label;

typedef struct qkv_label_frame {
    double left, top, right, bottom;    /* labels stay inside */
    double radius;                      /* of a point's mark */
    const double (*segments)[4];        /* lines to keep clear: x0 y0 x1 y1 */
    size_t n_segments;
} qkv_label_frame;

enum { QKV_LABELS_MAX = 400 };      /* as many labels as are tried at all */

/* Place n labels so that no two that are shown overlap, none leaves the
 * frame, and as few points and segments as can be are covered. Points that
 * are not finite get no label. Deterministic. false: Ctrl-C or no memory. */
bool qkv_labels_place(qkv_label *labels, size_t n,
                      const qkv_label_frame *frame, qkv_error *err);

#endif
