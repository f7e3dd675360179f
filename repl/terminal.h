/*
 * terminal.h - pictures in a terminal: what it can show, and sending it
 *
 * Three ways to send a picture are known: kitty's graphics protocol (kitty,
 * Ghostty, WezTerm, Konsole), iTerm2's OSC 1337, and sixel (foot, xterm,
 * Windows Terminal, tmux). Else there are coloured half-blocks, two dots a
 * character; and where the output is not a terminal, nothing.
 */
#ifndef QKV_TERMINAL_H
#define QKV_TERMINAL_H
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/text.h"

typedef enum qkv_graphics {
    QKV_NO_TERMINAL,            /* a pipe or a file: print paths only */
    QKV_TEXT,
    QKV_KITTY,
    QKV_ITERM,
    QKV_SIXEL
} qkv_graphics;

typedef struct qkv_terminal {
    qkv_graphics graphics;
    int columns, rows;          /* characters */
    int width, height;          /* pixels; 0 when it does not say */
    int colours;                /* 0, 256, or 1 << 24 */
} qkv_terminal;

/* What standard output is, from the environment, else by asking the terminal
 * itself and waiting 200 ms at most (the answer is kept; sizes are read anew
 * each time). QKV_GRAPHICS=kitty|iterm|sixel|text|none overrides it all. */
void qkv_terminal_detect(qkv_terminal *out);

/* Read an answer to our question: what can it do? For tests. */
qkv_graphics qkv_terminal_answer(const char *answer, size_t bytes);

/* The bytes that show a picture: a PNG for kitty and iTerm2, sixel data (as
 * gnuplot makes them) for sixel. A line feed follows. */
bool qkv_terminal_encode(qkv_text *out, qkv_graphics graphics,
                         const char *picture, size_t bytes, qkv_error *err);

/* rgb [height, width, 3] as half-blocks, ceil(height / 2) lines. colours: 256
 * or 1 << 24. */
bool qkv_terminal_blocks(qkv_text *out, const unsigned char *rgb, int width,
                         int height, int colours, qkv_error *err);

#endif
