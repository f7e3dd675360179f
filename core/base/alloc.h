/*
 * alloc.h - all memory comes from here
 *
 * So that tests can make the n-th allocation fail, and so that the Lua face
 * can tell its collector how much is held. Every block is aligned to 64 bytes
 * (a cache line, an AVX-512 register) and is released by qkv_free.
 * Thread-safe; but kernels and parallel bodies allocate nothing.
 */
#ifndef QKV_ALLOC_H
#define QKV_ALLOC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* NULL, with a message that names the size, when there is none. A size of 0
 * gives a block all the same. */
void *qkv_alloc(size_t bytes, qkv_error *err);
/* count * size bytes, all 0; the product is checked. Large blocks cost
 * nothing until they are touched. */
void *qkv_alloc_zero(size_t count, size_t size, qkv_error *err);
/* Grow or shrink; the old block stays valid on failure. */
void *qkv_realloc(void *block, size_t bytes, qkv_error *err);
void qkv_free(void *block);

char *qkv_strndup(const char *s, size_t n, qkv_error *err);
char *qkv_strdup(const char *s, qkv_error *err);

/* Bytes held now. */
size_t qkv_alloc_live(void);

/* For tests: after n more successful allocations every one fails; -1: none. */
void qkv_alloc_fail_after(long n);

/* Physical memory of this machine (or its control group), and what could be
 * had now without swapping, in bytes. */
size_t qkv_memory_total(void);
size_t qkv_memory_available(void);

/* Checked arithmetic for what files and callers say. */
bool qkv_size_mul(size_t *out, size_t a, size_t b);
bool qkv_size_add(size_t *out, size_t a, size_t b);
bool qkv_int_mul(int64_t *out, int64_t a, int64_t b);
bool qkv_int_add(int64_t *out, int64_t a, int64_t b);

#endif
