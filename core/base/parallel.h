/*
 * parallel.h - the one thread pool
 *
 * Loops over independent pieces. The number of threads is OMP_NUM_THREADS,
 * else the processors this process may run on. Pieces are handed out in the
 * same fixed chunks whatever the number of threads, so that results do not
 * depend on it.
 * A body sees raw pointers and sizes: no Lua, no refcount, no error, no
 * allocation. Loops nest: an inner one runs on the thread that met it; so
 * does a loop that meets the pool at work for another thread.
 */
#ifndef QKV_PARALLEL_H
#define QKV_PARALLEL_H
#include <stdint.h>

typedef void qkv_body(void *context, int64_t begin, int64_t end, int thread);

/* body(context, b, e, thread) for consecutive [b, e) of at most `chunk` that
 * cover [0, n). One thread does it all when n <= chunk. 0 <= thread <
 * qkv_threads(); no two bodies of a loop have the same one at a time. */
void qkv_parallel(int64_t n, int64_t chunk, qkv_body *body, void *context);

int qkv_threads(void);
/* 1 <= n <= 256; out of range is clamped. */
void qkv_set_threads(int n);

#endif
