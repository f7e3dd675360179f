/*
 * interrupt.c - Ctrl-C and progress: see interrupt.h
 */
#include "config.h"

#include "base/interrupt.h"

#include <stdatomic.h>
#include <stddef.h>

static atomic_bool pressed;
static qkv_progress_fn *bar;
static struct {
    const char *what;           /* NULL: nothing is around the work */
    double from, to;
} around;

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
    if (bar == NULL)
        return;
    if (around.what == NULL) {
        bar(what, done);
        return;
    }
    const double part = done < 1 ? done : 1;
    const double whole = around.from + part * (around.to - around.from);
    bar(around.what, whole < 1 ? whole : 0.999);    /* 1 is said at the end */
}

void qkv_progress_within(const char *what, double from, double to)
{
    if (bar != NULL && what == NULL && around.what != NULL)
        bar(around.what, 1);
    around.what = what;
    around.from = from;
    around.to = to;
}
