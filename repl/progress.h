/*
 * progress.h - the bar that long work draws
 *
 * On stderr, and only when that is a terminal. It appears when the work has
 * taken half a second, is drawn ten times a second at most, and goes when the
 * work is done.
 */
#ifndef QKV_PROGRESS_H
#define QKV_PROGRESS_H

void qkv_progress_install(void);    /* for qkv_set_progress; base/interrupt.h */
void qkv_progress_erase(void);      /* also when the work did not end well */

#endif
