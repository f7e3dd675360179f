/*
 * kernel.c - which table of inner loops this processor gets: see kernel.h
 */
#include "config.h"

#include "tensor/kernel.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/kernel_impl.h"

static bool always(void)
{
    return true;
}

/* The compiler's run-time support asks the processor, and whether the system
 * saves the wide registers. */
#if defined(__x86_64__) || defined(__i386__)
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f")
        && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512dq");
}
#else
static bool has_avx2(void)
{
    return false;
}

static bool has_avx512(void)
{
    return false;
}
#endif

/* From the one that always works to the fastest. */
static const struct {
    const char *name;
    const qkv_kernels *table;
    bool (*runs_here)(void);
} all[] = {
    {"portable", &qkv_kernels_portable, always},
    {"avx2", &qkv_kernels_avx2, has_avx2},
    {"avx512", &qkv_kernels_avx512, has_avx512},
};
enum { N_ALL = sizeof all / sizeof all[0] };

static _Atomic(const qkv_kernels *) chosen;

static bool usable(int i)
{
    return all[i].table->name != NULL && all[i].runs_here();
}

static const qkv_kernels *best(void)
{
    for (int i = N_ALL - 1; i > 0; i--)
        if (usable(i))
            return all[i].table;
    return all[0].table;
}

bool qkv_kernel_choose(const char *name, qkv_error *err)
{
    if (name == NULL)
        name = getenv("QKV_CPU");
    if (name == NULL || *name == '\0') {
        atomic_store(&chosen, best());
        return true;
    }
    for (int i = 0; i < N_ALL; i++) {
        if (strcmp(name, all[i].name) != 0)
            continue;
        if (!usable(i))
            return qkv_fail(err, QKV_EUNSUPPORTED,
                            "this processor, or this build of qkv, has no %s "
                            "kernels; the best it has is %s", name,
                            best()->name);
        atomic_store(&chosen, all[i].table);
        return true;
    }
    return qkv_fail(err, QKV_EINVAL, "no kernels called \"%s\" (QKV_CPU); "
                    "there are portable, avx2 and avx512", name);
}

const qkv_kernels *qkv_kernel(void)
{
    const qkv_kernels *k = atomic_load_explicit(&chosen, memory_order_acquire);
    if (k != NULL)
        return k;
    qkv_error err;
    if (!qkv_kernel_choose(NULL, &err))
        atomic_store(&chosen, best());
    return atomic_load(&chosen);
}

int qkv_kernel_names(const char **names, int room)
{
    int n = 0;
    for (int i = 0; i < N_ALL && n < room; i++)
        if (usable(i))
            names[n++] = all[i].name;
    return n;
}
