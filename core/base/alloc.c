/*
 * alloc.c - all memory comes from here: see alloc.h
 *
 * Each block is preceded by 64 bytes whose first word is its size, so that
 * what is held can be counted. Blocks of HUGE_BYTES and more come from
 * mmap: they are zero for free, and go back to the system when freed.
 */
#include "config.h"

#include "base/alloc.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEAD = 64 };
#define HUGE_BYTES ((size_t)1 << 22)

typedef struct head {
    size_t bytes;               /* as asked for */
} head;

static atomic_size_t live;
static atomic_long fail_after = -1;

void qkv_alloc_fail_after(long n)
{
    atomic_store(&fail_after, n);
}

size_t qkv_alloc_live(void)
{
    return atomic_load(&live);
}

/* What a block of so many bytes takes, head included, in whole lines. */
static size_t total_of(size_t bytes)
{
    return (bytes + HEAD + 63) & ~(size_t)63;
}

/* Is it the turn of this allocation to fail? */
static bool must_fail(void)
{
    long left = atomic_load(&fail_after);
    while (left > 0)
        if (atomic_compare_exchange_weak(&fail_after, &left, left - 1))
            return false;
    return left == 0;
}

static void *no_memory(size_t bytes, qkv_error *err)
{
    qkv_fail(err, QKV_ENOMEM, "no memory for %.1f MB (%.1f MB are held)",
             (double)bytes / 1e6, (double)qkv_alloc_live() / 1e6);
    return NULL;
}

void *qkv_alloc(size_t bytes, qkv_error *err)
{
    size_t padded;
    if (!qkv_size_add(&padded, bytes, HEAD + 63) || must_fail())
        return no_memory(bytes, err);
    const size_t total = total_of(bytes);
    void *base;
    if (total >= HUGE_BYTES) {
        base = mmap(NULL, total, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED)
            base = NULL;
#ifdef MADV_HUGEPAGE
        else
            madvise(base, total, MADV_HUGEPAGE);
#endif
    } else {
        base = aligned_alloc(64, total);
    }
    if (base == NULL)
        return no_memory(bytes, err);
    ((head *)base)->bytes = bytes;
    atomic_fetch_add(&live, bytes);
    return (char *)base + HEAD;
}

void *qkv_alloc_zero(size_t count, size_t size, qkv_error *err)
{
    size_t bytes;
    if (!qkv_size_mul(&bytes, count, size))
        return no_memory(SIZE_MAX, err);
    void *block = qkv_alloc(bytes, err);
    if (block != NULL && total_of(bytes) < HUGE_BYTES)
        memset(block, 0, bytes);    /* mmap gives zeros by itself */
    return block;
}

void qkv_free(void *block)
{
    if (block == NULL)
        return;
    head *h = (head *)(void *)((char *)block - HEAD);
    const size_t bytes = h->bytes;
    const size_t total = total_of(bytes);
    atomic_fetch_sub(&live, bytes);
    if (total >= HUGE_BYTES)
        munmap(h, total);
    else
        free(h);
}

void *qkv_realloc(void *block, size_t bytes, qkv_error *err)
{
    void *moved = qkv_alloc(bytes, err);
    if (moved == NULL || block == NULL)
        return moved;
    const head *h = (const head *)(const void *)((const char *)block - HEAD);
    memcpy(moved, block, h->bytes < bytes ? h->bytes : bytes);
    qkv_free(block);
    return moved;
}

char *qkv_strndup(const char *s, size_t n, qkv_error *err)
{
    char *copy = qkv_alloc(n + 1, err);
    if (copy != NULL) {
        memcpy(copy, s, n);
        copy[n] = '\0';
    }
    return copy;
}

char *qkv_strdup(const char *s, qkv_error *err)
{
    return qkv_strndup(s, strlen(s), err);
}

/* The number after `key` in a file of "key: value kB" lines, in bytes. */
static size_t proc_value(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return 0;
    char line[256];
    size_t kilobytes = 0;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0
            && sscanf(line + strlen(key), "%zu", &kilobytes) == 1)
            break;
    fclose(f);
    return kilobytes * 1024;
}

/* A control group's limit, if one is set; else SIZE_MAX. */
static size_t group_value(const char *path)
{
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return SIZE_MAX;
    size_t bytes = SIZE_MAX;
    if (fscanf(f, "%zu", &bytes) != 1)
        bytes = SIZE_MAX;
    fclose(f);
    return bytes;
}

size_t qkv_memory_total(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const size_t machine = pages > 0 && page > 0
        ? (size_t)pages * (size_t)page : SIZE_MAX;
    const size_t group = group_value("/sys/fs/cgroup/memory.max");
    return group < machine ? group : machine;
}

size_t qkv_memory_available(void)
{
    size_t free_bytes = proc_value("/proc/meminfo", "MemAvailable:");
    if (free_bytes == 0)
        free_bytes = qkv_memory_total();
    const size_t limit = group_value("/sys/fs/cgroup/memory.max");
    const size_t used = group_value("/sys/fs/cgroup/memory.current");
    if (limit != SIZE_MAX && used != SIZE_MAX) {
        const size_t left = limit > used ? limit - used : 0;
        return left < free_bytes ? left : free_bytes;
    }
    return free_bytes;
}

bool qkv_size_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool qkv_size_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

bool qkv_int_mul(int64_t *out, int64_t a, int64_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool qkv_int_add(int64_t *out, int64_t a, int64_t b)
{
    return !__builtin_add_overflow(a, b, out);
}
