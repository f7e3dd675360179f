/*
 * plot.h - one gnuplot child process that turns scripts into pictures
 *
 * The child is started by the first picture and kept (a start costs 50 ms, a
 * picture 30 ms). It never sees a path of the user's: the script reaches it
 * through a file in memory, and the picture comes back through another.
 * Nothing here blocks for longer than the time-out: a child that hangs, dies,
 * talks nonsense or is missing is an error, and the next picture starts
 * another one. Single owner; one thread.
 */
#ifndef QKV_PLOT_H
#define QKV_PLOT_H
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/text.h"

typedef struct qkv_plot qkv_plot;

typedef struct qkv_plot_options {
    const char *program;    /* NULL: "gnuplot", looked for in PATH */
    int timeout_ms;         /* for the start, and for each picture; 0: 60 s */
    bool no_memfd;          /* temporary files, as where memfd is missing */
} qkv_plot_options;

/* Starts nothing yet. options may be NULL. */
qkv_plot *qkv_plot_new(const qkv_plot_options *options, qkv_error *err);
void qkv_plot_free(qkv_plot *p);        /* ends the child; NULL is allowed */

/* Run `script` (bytes) on `terminal` (what stands after "set terminal", as
 * "pngcairo size 900,600"; its first word is checked to exist). The file that
 * gnuplot made is appended to *picture, its warnings (if not NULL) to *heard.
 * The script sets neither terminal nor output, and runs up to its first error.
 * ENOTFOUND: there is no gnuplot. EUNSUPPORTED: it lacks that terminal.
 * EINVAL: gnuplot's own words about the script. EIO: it died or hung.
 * EINTERRUPTED: Ctrl-C; the child is ended then, so that it cannot be out of
 * step later. */
bool qkv_plot_draw(qkv_text *picture, qkv_text *heard, qkv_plot *p,
                   const char *terminal, const char *script, size_t bytes,
                   qkv_error *err);

/* Is there a file `program` (NULL: gnuplot) to start in PATH? */
bool qkv_plot_is_installed(const char *program);

/* Run `argv` and append what it prints to *out; errors as above. For small
 * questions to other programs (fc-list). */
bool qkv_plot_ask(qkv_text *out, char *const argv[], int timeout_ms,
                  qkv_error *err);

#endif
