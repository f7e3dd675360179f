/*
 * text.c - growing byte strings, nearest names: see text.h
 */
#include "config.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static bool make_room(qkv_text *t, size_t more, qkv_error *err)
{
    size_t need;
    if (!qkv_size_add(&need, t->bytes, more)
        || !qkv_size_add(&need, need, 1))
        return qkv_fail(err, QKV_ENOMEM, "a string of %zu bytes", more);
    if (need <= t->room)
        return true;
    size_t room = t->room < 64 ? 64 : t->room;
    while (room < need)
        room += room / 2;
    char *data = qkv_realloc(t->data, room, err);
    if (data == NULL)
        return false;
    t->data = data;
    t->room = room;
    return true;
}

bool qkv_text_put(qkv_text *t, const char *data, size_t bytes, qkv_error *err)
{
    if (!make_room(t, bytes, err))
        return false;
    if (bytes > 0)
        memcpy(t->data + t->bytes, data, bytes);
    t->bytes += bytes;
    t->data[t->bytes] = '\0';
    return true;
}

bool qkv_text_printf(qkv_text *t, qkv_error *err, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    const bool fits = n >= 0 && make_room(t, (size_t)n, err);
    if (fits) {
        vsnprintf(t->data + t->bytes, (size_t)n + 1, fmt, again);
        t->bytes += (size_t)n;
    }
    va_end(again);
    return fits;
}

void qkv_text_free(qkv_text *t)
{
    qkv_free(t->data);
    *t = (qkv_text){0};
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

int qkv_text_distance(const char *a, const char *b)
{
    enum { MOST = 64 };             /* longer names: only their start counts */
    const int n = least((int)strlen(a), MOST), m = least((int)strlen(b), MOST);
    int d[MOST + 1][MOST + 1];
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            const int change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1, change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[n][m];
}

const char *qkv_text_nearest(const char *word, const char *const *names,
                             size_t n)
{
    const char *best = NULL;
    int least_distance = 2 + (int)strlen(word) / 3;
    for (size_t i = 0; i < n; i++) {
        const int distance = qkv_text_distance(word, names[i]);
        if (distance < least_distance) {
            least_distance = distance;
            best = names[i];
        }
    }
    return best;
}

bool qkv_text_is_one_of(const char *list, const char *word)
{
    const size_t bytes = strlen(word);
    while (*list != '\0') {
        const size_t n = strcspn(list, "|");
        if (n == bytes && strncmp(list, word, n) == 0)
            return true;
        list += n + (list[n] == '|');
    }
    return false;
}

bool qkv_text_match(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL;  /* last *, and where it stands */
    while (*name != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star + 1;
            name = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}
