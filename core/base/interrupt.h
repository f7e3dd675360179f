/*
 * interrupt.h - Ctrl-C reaches long computations, and long work shows itself
 *
 * The program's signal handler calls qkv_interrupt(); loops that may run over
 * 100 ms ask qkv_interrupted(), or use qkv_check(err) between blocks of work.
 * Whoever gave the user the prompt back calls qkv_interrupt_clear().
 */
#ifndef QKV_INTERRUPT_H
#define QKV_INTERRUPT_H
#include <stdbool.h>

#include "base/error.h"

void qkv_interrupt(void);           /* async-signal-safe */
bool qkv_interrupted(void);
void qkv_interrupt_clear(void);

/* false, with EINTERRUPTED "interrupted", once Ctrl-C was pressed. */
bool qkv_check(qkv_error *err);

/* Long work calls qkv_progress with what it does and how far it is (0 to 1);
 * the program's bar, if one is set, decides whether and when to draw it.
 * done >= 1 ends it. Call it from the interpreter's thread only. */
typedef void qkv_progress_fn(const char *what, double done);
void qkv_set_progress(qkv_progress_fn *fn);
void qkv_progress(const char *what, double done);
/* Until it is called with NULL, progress of any kind counts as the part [from,
 * to) of this piece of work, which is made of many. */
void qkv_progress_within(const char *what, double from, double to);

#endif
