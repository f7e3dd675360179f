/*
 * interrupt.c - Ctrl-C and progress: see interrupt.h
 */
#include "config.h"

#include "base/interrupt.h"

#include <stdatomic.h>
#include <stddef.h>

static atomic_bool pressed;
static qkv_progress_fn *bar;

void qkv_interrupt(void)
{
    atomic_store(&pressed, true);
}

bool qkv_interrupted(void)
{
    return atomic_load_explicit(&pressed, memory_order_relaxed);
}

void qkv_interrupt_clear(void)
{
    atomic_store(&pressed, false);
}

bool qkv_check(qkv_error *err)
{
    return !qkv_interrupted() || qkv_fail(err, QKV_EINTERRUPTED, "interrupted");
}

void qkv_set_progress(qkv_progress_fn *fn)
{
    bar = fn;
}

void qkv_progress(const char *what, double done)
{
    if (bar != NULL)
        bar(what, done);
}
