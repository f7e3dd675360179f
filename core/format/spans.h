/*
 * spans.h - the bytes of a file that its tensors take: none over another
 */
#ifndef QKV_SPANS_H
#define QKV_SPANS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct qkv_span {
    size_t begin, end;          /* begin <= end; empty ones are nowhere */
    const char *name;
} qkv_span;

/* Sorts the spans [n]; false, naming both, if two have a byte in common. */
bool qkv_spans_apart(qkv_span *spans, int64_t n, qkv_error *err);

#endif
