/*
 * names.h - the names in a file: kept, printable, no two alike, found quickly
 *
 * A file's names are not NUL-terminated and not to be trusted. Here they are
 * copied, and sorted rather than hashed: names that are chosen to collide cost
 * nothing, and neither do a few hundred comparisons.
 */
#ifndef QKV_NAMES_H
#define QKV_NAMES_H
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "format/json.h"        /* qkv_slice */

enum { QKV_NAME_BYTES = 4096 };

/* UTF-8 without control characters: safe to show on a terminal. */
bool qkv_is_printable(qkv_slice s);

typedef struct qkv_names {
    int64_t n, room;
    qkv_text pool;              /* the names, each with its NUL */
    const char **at;            /* [n] in the order they came */
    const char ***sorted;       /* [n] into at */
} qkv_names;

/* Start from {0}; room: how many there will be at most. */
bool qkv_names_begin(qkv_names *names, int64_t room, qkv_error *err);
/* Refuses empty and overlong names and what is not printable.
 * `what` says whose name it is in the message: "key", "tensor". */
bool qkv_names_put(qkv_names *names, qkv_slice name, const char *what,
                   qkv_error *err);
/* After the last: refuses a name that came twice. */
bool qkv_names_end(qkv_names *names, const char *what, qkv_error *err);
void qkv_names_free(qkv_names *names);

/* After qkv_names_end. The number of a name, or -1. */
int64_t qkv_names_find(const qkv_names *names, const char *name);

#endif
