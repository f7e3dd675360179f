/*
 * special.c - added tokens in a text: see special.h
 */
#include "config.h"

#include "text/special.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "text/unicode.h"

void qkv_specials_free(qkv_specials *s)
{
    qkv_free(s->list);
    qkv_text_free(&s->text);
    *s = (qkv_specials){0};
}

bool qkv_specials_add(qkv_specials *s, qkv_slice text, qkv_special what,
                      qkv_error *err)
{
    if (text.bytes == 0)
        return true;
    if (s->count == s->room) {
        const int64_t room = s->room + s->room / 2 + 16;
        qkv_special *list =
            qkv_realloc(s->list, (size_t)room * sizeof *list, err);
        if (list == NULL)
            return false;
        s->list = list;
        s->room = room;
    }
    what.start = s->text.bytes;
    what.bytes = text.bytes;
    what.order = s->count;
    if (!qkv_text_put(&s->text, text.data, text.bytes, err))
        return false;
    s->list[s->count++] = what;
    return true;
}

/* By text, a prefix before what it begins; then by order. */
static int compare(const void *x, const void *y)
{
    const qkv_special *a = x, *b = y;
    const int c = memcmp(a->data, b->data,
                         a->bytes < b->bytes ? a->bytes : b->bytes);
    if (c != 0)
        return c;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

void qkv_specials_ready(qkv_specials *s)
{
    if (s->count == 0)
        return;
    for (int64_t i = 0; i < s->count; i++)
        s->list[i].data = s->text.data + s->list[i].start;
    qsort(s->list, (size_t)s->count, sizeof *s->list, compare);
    int64_t n = 0;              /* without doubles */
    for (int64_t i = 0; i < s->count; i++) {
        const qkv_special *a = &s->list[i], *last = &s->list[n - (n > 0)];
        if (n == 0 || a->bytes != last->bytes
            || memcmp(a->data, last->data, a->bytes) != 0)
            s->list[n++] = *a;
    }
    s->count = n;
    for (int64_t c = 0, i = 0; c <= 256; c++) {
        while (i < n && (unsigned char)s->list[i].data[0] < c)
            i++;
        s->first[c] = i;
    }
}

/* The first of list[low..high) whose byte at `depth` is over `byte`, or not
 * below it when `equal`; all are longer than depth and alike before it. */
static int64_t bound(const qkv_special *list, int64_t low, int64_t high,
                     size_t depth, unsigned char byte, bool equal)
{
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const unsigned char have = (unsigned char)list[middle].data[depth];
        if (have < byte || (have == byte && !equal))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest added token that the n bytes at p begin with, or NULL. */
static const qkv_special *longest(const qkv_specials *s, const char *p,
                                  size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    int64_t low = s->first[u[0]], high = s->first[u[0] + 1];
    const qkv_special *best = NULL;
    for (size_t depth = 1; low < high; depth++) {
        if (s->list[low].bytes == depth)
            best = &s->list[low++];
        if (depth == n)
            break;
        low = bound(s->list, low, high, depth, u[depth], true);
        high = bound(s->list, low, high, depth, u[depth], false);
    }
    return best;
}

int32_t qkv_specials_find(const qkv_specials *s, qkv_slice text)
{
    if (text.bytes == 0)
        return -1;
    const qkv_special *a = longest(s, text.data, text.bytes);
    return a != NULL && a->bytes == text.bytes ? a->id : -1;
}

static bool is_whole_word(qkv_slice text, size_t begin, size_t end)
{
    uint32_t c;
    if (begin > 0 && qkv_is_word(qkv_utf8_last(text.data, begin)))
        return false;
    if (end == text.bytes)
        return true;
    qkv_utf8_next(&c, text.data + end, text.bytes - end);
    return !qkv_is_word(c);
}

/* Where the blanks that end at `end` begin; not before `least`. */
static size_t blanks_before(qkv_slice text, size_t end, size_t least)
{
    while (end > least) {
        const uint32_t c = qkv_utf8_last(text.data, end);
        char as[4];
        if (!qkv_is_space(c))
            break;
        end -= (size_t)qkv_utf8_put(as, c);
    }
    return end;
}

static size_t blanks_after(qkv_slice text, size_t begin)
{
    while (begin < text.bytes) {
        uint32_t c;
        const int n =
            qkv_utf8_next(&c, text.data + begin, text.bytes - begin);
        if (!qkv_is_space(c))
            break;
        begin += (size_t)n;
    }
    return begin;
}

bool qkv_specials_split(const qkv_specials *s, qkv_slice text,
                        qkv_part_fn *part, void *context, qkv_error *err)
{
    size_t done = 0;            /* all before it was handed on */
    for (size_t i = 0; s->count > 0 && i < text.bytes; ) {
        const unsigned char c = (unsigned char)text.data[i];
        const qkv_special *a = s->first[c] == s->first[c + 1] ? NULL
            : longest(s, text.data + i, text.bytes - i);
        if (a == NULL) {
            i++;
            continue;
        }
        size_t begin = i, end = i + a->bytes;
        i = end;
        if (a->single_word && !is_whole_word(text, begin, end))
            continue;
        if (a->lstrip)
            begin = blanks_before(text, begin, done);
        if (a->rstrip)
            end = blanks_after(text, end);
        if (begin > done && !part(context, (qkv_slice){text.data + done,
                                           begin - done}, -1, err))
            return false;
        /* A token within blanks that the last one took is still a token. */
        if (!part(context, (qkv_slice){text.data + begin, end - begin}, a->id,
                  err))
            return false;
        done = end;
    }
    if (done < text.bytes)
        return part(context, (qkv_slice){text.data + done, text.bytes - done},
                    -1, err);
    return true;
}
