/*
 * parallel.c - the one thread pool: see parallel.h
 */
#include "config.h"

#include "base/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum { MOST = 256 };

static int n_threads;           /* 0: not asked yet */

int qkv_threads(void)
{
    if (n_threads == 0) {
#ifdef _OPENMP
        qkv_set_threads(omp_get_max_threads());
#else
        n_threads = 1;
#endif
    }
    return n_threads;
}

void qkv_set_threads(int n)
{
#ifdef _OPENMP
    n_threads = n < 1 ? 1 : n > MOST ? MOST : n;
#else
    (void)n;
    n_threads = 1;
#endif
}

void qkv_parallel(int64_t n, int64_t chunk, qkv_body *body, void *context)
{
    if (chunk < 1)
        chunk = 1;
    const int64_t pieces = n / chunk + (n % chunk != 0);
#ifdef _OPENMP
    if (pieces > 1 && qkv_threads() > 1 && !omp_in_parallel()) {
        const int team = pieces < n_threads ? (int)pieces : n_threads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t begin = i * chunk;
            body(context, begin, begin + chunk < n ? begin + chunk : n,
                 omp_get_thread_num());
        }
        return;
    }
    const int thread = omp_in_parallel() ? omp_get_thread_num() : 0;
#else
    const int thread = 0;
#endif
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t begin = i * chunk;
        body(context, begin, begin + chunk < n ? begin + chunk : n, thread);
    }
}
