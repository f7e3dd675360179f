/*
 * line.h - lines from a person or a pipe
 *
 * On a terminal: GNU Readline with history, multi-line entries, completion
 * and Ctrl-C. On anything else: plain lines of stdin. The only room that
 * knows Readline; knows no Lua.
 */
#ifndef QKV_LINE_H
#define QKV_LINE_H
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/text.h"

/* What Tab asks. Readline's callbacks carry no context: one helper a
 * process. */
typedef struct qkv_line_helper {
    void *context;
    /* How many words could stand in place of line[*start .. point)? -1: names
     * of files. Sets *start. */
    int (*complete)(void *context, const char *line, size_t point,
                    size_t *start);
    /* The i-th of them, from 0; valid until the next call. */
    const char *(*word)(void *context, int i);
} qkv_line_helper;

typedef enum qkv_line_result {
    QKV_LINE_READ, QKV_LINE_END, QKV_LINE_INTERRUPTED, QKV_LINE_FAILED
} qkv_line_result;

/* Prepare the terminal's editor; the helper must live on. The history is read
 * from $XDG_STATE_HOME/qkv/history (or ~/.local/state); without one that can
 * be written, the session has its own. */
void qkv_line_open(const qkv_line_helper *helper);
void qkv_line_close(void);

/* One line (several when they were pasted) without its newline, put behind
 * what `line` holds. The caller frees it. From the terminal after
 * qkv_line_open, else from stdin, where the prompt is not shown. */
qkv_line_result qkv_line_read(qkv_text *line, const char *prompt,
                              qkv_error *err);

/* Append an input to the history, as one entry however many lines it has;
 * not when it begins with a space or repeats the last one. */
void qkv_line_remember(const char *input);

const char *qkv_line_version(void);         /* Readline's, "8.2" */

#endif
