/*
 * spans.c - the bytes of a file that its tensors take: see spans.h
 */
#include "config.h"

#include "format/spans.h"

#include <stdlib.h>
#include <string.h>

static int by_begin(const void *a, const void *b)
{
    const qkv_span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);    /* the same order everywhere */
}

bool qkv_spans_apart(qkv_span *spans, int64_t n, qkv_error *err)
{
    const qkv_span *before = NULL;
    if (n > 1)
        qsort(spans, (size_t)n, sizeof *spans, by_begin);
    for (int64_t i = 0; i < n; i++) {
        if (spans[i].begin == spans[i].end)
            continue;
        if (before != NULL && before->end > spans[i].begin)
            return qkv_fail(err, QKV_EFORMAT, "tensor %.150s begins at byte "
                            "%zu, inside tensor %.150s, which ends at %zu",
                            spans[i].name, spans[i].begin, before->name,
                            before->end);
        before = &spans[i];
    }
    return true;
}
