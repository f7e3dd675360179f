/*
 * progress.c - the bar that long work draws: see progress.h
 *
 * The time left is that of the work so far, in proportion.
 */
#include "config.h"

#include "repl/progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/interrupt.h"

enum { WIDTH = 30 };

static const double patience = 0.5, interval = 0.1;     /* s */
static double began, drawn;                             /* s; 0: not */
static char work[64];                   /* what is being done, or "" */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void qkv_progress_erase(void)
{
    if (drawn > 0.0) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    drawn = 0.0;
    work[0] = '\0';
}

static void draw(double done, double left)
{
    char bar[WIDTH + 1];
    const int full = (int)(done * (double)WIDTH);
    memset(bar, '-', WIDTH);
    memset(bar, '#', (size_t)full);
    bar[WIDTH] = '\0';
    const long s = (long)(left + 0.5);
    fprintf(stderr, "\r%s [%s] %3.0f %%  %ld:%02ld left\033[K", work, bar,
            100.0 * done, s / 60, s % 60);
    fflush(stderr);
}

static void show(const char *what, double done)
{
    const double now = seconds();
    if (done >= 1.0) {
        qkv_progress_erase();
        return;
    }
    if (strncmp(work, what, sizeof work - 1) != 0) {
        qkv_progress_erase();
        snprintf(work, sizeof work, "%s", what);
        began = now;
    }
    if (!(done > 0.0) || now - began < patience || now - drawn < interval)
        return;
    drawn = now;
    draw(done, (now - began) * (1.0 - done) / done);
}

void qkv_progress_install(void)
{
    if (isatty(STDERR_FILENO))
        qkv_set_progress(show);
}
