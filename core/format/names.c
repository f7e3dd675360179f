/*
 * names.c - the names in a file: see names.h
 */
#include "config.h"

#include "format/names.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

bool qkv_is_printable(qkv_slice s)
{
    for (size_t i = 0; i < s.bytes; i++) {
        const unsigned char c = (unsigned char)s.data[i];
        if (c < ' ' || c == 0x7f)
            return false;
        if (c == 0xc2 && i + 1 < s.bytes
            && (unsigned char)s.data[i + 1] < 0xa0)     /* U+0080 to 9F */
            return false;
    }
    return qkv_is_utf8(s);
}

bool qkv_names_begin(qkv_names *names, int64_t room, qkv_error *err)
{
    names->at = qkv_alloc_zero((size_t)room, sizeof *names->at, err);
    names->sorted = names->at == NULL ? NULL
        : qkv_alloc_zero((size_t)room, sizeof *names->sorted, err);
    names->room = room;
    return names->sorted != NULL;
}

bool qkv_names_put(qkv_names *names, qkv_slice name, const char *what,
                   qkv_error *err)
{
    if (names->n == names->room)
        return qkv_fail(err, QKV_EFORMAT, "more than %" PRId64 " %ss",
                        names->room, what);
    if (name.bytes == 0 || name.bytes > QKV_NAME_BYTES)
        return qkv_fail(err, QKV_EFORMAT, "%s %" PRId64 " has a name of %zu "
                        "bytes, expected 1 to %d", what, names->n, name.bytes,
                        QKV_NAME_BYTES);
    if (!qkv_is_printable(name))
        return qkv_fail(err, QKV_EFORMAT, "the name of %s %" PRId64 " holds "
                        "control characters or is not UTF-8", what, names->n);
    names->n++;
    return qkv_text_put(&names->pool, name.data, name.bytes, err)
        && qkv_text_put(&names->pool, "", 1, err);
}

static int compare(const void *a, const void *b)
{
    const char *const *const *x = a, *const *const *y = b;
    return strcmp(**x, **y);
}

bool qkv_names_end(qkv_names *names, const char *what, qkv_error *err)
{
    const char *name = names->pool.data;
    for (int64_t i = 0; i < names->n; i++) {
        names->at[i] = name;
        names->sorted[i] = &names->at[i];
        name += strlen(name) + 1;
    }
    if (names->n > 1)
        qsort(names->sorted, (size_t)names->n, sizeof *names->sorted, compare);
    for (int64_t i = 1; i < names->n; i++)
        if (strcmp(*names->sorted[i - 1], *names->sorted[i]) == 0)
            return qkv_fail(err, QKV_EFORMAT, "two %ss are called %.200s",
                            what, *names->sorted[i]);
    return true;
}

void qkv_names_free(qkv_names *names)
{
    qkv_text_free(&names->pool);
    qkv_free(names->at);
    qkv_free(names->sorted);
    *names = (qkv_names){0};
}

int64_t qkv_names_find(const qkv_names *names, const char *name)
{
    int64_t from = 0, to = names->n;
    while (from < to) {
        const int64_t middle = from + (to - from) / 2;
        const int order = strcmp(name, *names->sorted[middle]);
        if (order == 0)
            return names->sorted[middle] - names->at;
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    return -1;
}
