/*
 * text.h - growing byte strings, and the nearest of some names
 */
#ifndef QKV_BASE_TEXT_H
#define QKV_BASE_TEXT_H
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Bytes that grow; always followed by a NUL that is not counted. Start from
 * {0}. */
typedef struct qkv_text {
    char *data;
    size_t bytes, room;
} qkv_text;

bool qkv_text_put(qkv_text *t, const char *data, size_t bytes, qkv_error *err);
bool qkv_text_printf(qkv_text *t, qkv_error *err, const char *fmt, ...)
    QKV_PRINTF(3, 4);
void qkv_text_free(qkv_text *t);

/* Edit distance of two names (insert, delete, replace, swap neighbours). */
int qkv_text_distance(const char *a, const char *b);

/* The name nearest to `word` among n, or NULL when none is near enough to be
 * what was meant. */
const char *qkv_text_nearest(const char *word, const char *const *names,
                             size_t n);

/* Is `word` one of a list's words, which '|' separates? */
bool qkv_text_is_one_of(const char *list, const char *word);

/* Does `name` match `pattern`, in which * stands for any bytes? */
bool qkv_text_match(const char *pattern, const char *name);

#endif
