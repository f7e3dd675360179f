/*
 * terminal.c - finding out what a terminal can show: see terminal.h
 *
 * Sources: kitty's "Terminal graphics protocol" (the query is a=q, followed
 * by a request for device attributes, which every terminal answers, so that
 * there is no need to wait for one that knows nothing of graphics); iTerm2's
 * "Inline images protocol"; DEC's DA1 answer, in which parameter 4 is sixel.
 */
#include "config.h"

#include "repl/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MS = 200, CHUNK = 4096 };

static bool env_is(const char *name, const char *value)
{
    const char *v = getenv(name);
    return v != NULL && strcmp(v, value) == 0;
}

static bool env_has(const char *name, const char *part)
{
    const char *v = getenv(name);
    return v != NULL && strstr(v, part) != NULL;
}

static bool env_set(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && *v != '\0';
}

/* ---- what is it? ---- */

static bool forced(qkv_graphics *out)
{
    static const struct {
        const char *name;
        qkv_graphics graphics;
    } names[] = {{"none", QKV_NO_TERMINAL}, {"text", QKV_TEXT},
                 {"kitty", QKV_KITTY}, {"iterm", QKV_ITERM},
                 {"sixel", QKV_SIXEL}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (env_is("QKV_GRAPHICS", names[i].name)) {
            *out = names[i].graphics;
            return true;
        }
    return false;
}

/* Inside tmux and screen the variables are those of a terminal further out,
 * which their own windows do not reach: then only an answer counts. */
static bool known(qkv_graphics *out)
{
    if (env_is("TERM", "linux")) {
        *out = QKV_TEXT;            /* it would print the question */
        return true;
    }
    if (env_set("TMUX") || env_set("STY"))
        return false;
    if (env_set("KITTY_WINDOW_ID") || env_has("TERM", "kitty")
        || env_has("TERM", "ghostty") || env_is("TERM_PROGRAM", "ghostty")
        || env_is("TERM_PROGRAM", "WezTerm"))
        *out = QKV_KITTY;
    else if (env_is("TERM_PROGRAM", "iTerm.app")
             || env_is("LC_TERMINAL", "iTerm2"))
        *out = QKV_ITERM;
    else
        return false;
    return true;
}

qkv_graphics qkv_terminal_answer(const char *answer, size_t bytes)
{
    static const char ok[] = "_Gi=31;OK", da[] = "\033[?";
    if (memmem(answer, bytes, ok, sizeof ok - 1) != NULL)
        return QKV_KITTY;
    const char *at = memmem(answer, bytes, da, sizeof da - 1);
    const char *end = answer + bytes;
    /* "\033[?62;4;22c": numbers between semicolons, the first a class */
    for (at = at != NULL ? at + 3 : end; at < end && *at != 'c'; at++)
        if (at + 2 < end && at[0] == ';' && at[1] == '4'
            && (at[2] == ';' || at[2] == 'c'))
            return QKV_SIXEL;
    return QKV_TEXT;
}

/* Up to the 'c' that ends the device attributes, or the time-out. */
static size_t read_answer(int fd, char *out, size_t room)
{
    size_t n = 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const int64_t end = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000
        + ANSWER_MS;
    while (n < room) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        const int64_t rest = end - (int64_t)t.tv_sec * 1000
            - t.tv_nsec / 1000000;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (rest <= 0 || poll(&p, 1, (int)rest) <= 0)
            break;
        const ssize_t got = read(fd, out + n, room - n);
        if (got <= 0)
            break;
        n += (size_t)got;
        const char *da = memmem(out, n, "\033[?", 3);
        if (da != NULL && memchr(da, 'c', n - (size_t)(da - out)) != NULL)
            break;
    }
    return n;
}

/* Ask, unless we are in the background or the user has typed ahead (those
 * letters would be swallowed with the answer). */
static bool ask(qkv_graphics *out)
{
    static const char question[] =
        "\033_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\033\\\033[c";
    const int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct termios before, raw;
    int waiting = 0;
    const bool may = tcgetpgrp(fd) == getpgrp()
        && ioctl(fd, FIONREAD, &waiting) == 0 && waiting == 0
        && tcgetattr(fd, &before) == 0;
    if (may) {
        raw = before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        tcsetattr(fd, TCSANOW, &raw);
        char answer[256];
        size_t n = 0;
        if (write(fd, question, sizeof question - 1)
            == (ssize_t)sizeof question - 1)
            n = read_answer(fd, answer, sizeof answer);
        tcsetattr(fd, TCSANOW, &before);
        *out = qkv_terminal_answer(answer, n);
    }
    close(fd);
    return may;
}

static int count_colours(void)
{
    if (env_set("NO_COLOR"))
        return 0;
    if (env_is("COLORTERM", "truecolor") || env_is("COLORTERM", "24bit")
        || env_has("TERM", "direct") || env_has("TERM", "kitty")
        || env_has("TERM", "ghostty"))
        return 1 << 24;
    return 256;
}

void qkv_terminal_detect(qkv_terminal *out)
{
    static qkv_graphics asked = QKV_NO_TERMINAL;    /* not yet */
    *out = (qkv_terminal){.columns = 80, .rows = 24};
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        out->columns = size.ws_col;
        out->rows = size.ws_row;
        out->width = size.ws_xpixel;
        out->height = size.ws_ypixel;
    }
    const bool dumb = !env_set("TERM") || env_is("TERM", "dumb");
    out->colours = dumb ? 0 : count_colours();
    if (forced(&out->graphics))
        return;
    if (!isatty(STDOUT_FILENO))
        return;
    if (dumb) {
        out->graphics = QKV_TEXT;
        return;
    }
    if (asked == QKV_NO_TERMINAL && !known(&asked) && !ask(&asked)) {
        out->graphics = QKV_TEXT;           /* and ask again another time */
        return;
    }
    out->graphics = asked;
}

/* ---- sending ---- */

static bool put_base64(qkv_text *out, const char *data, size_t bytes,
                       qkv_error *err)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        "abcdefghijklmnopqrstuvwxyz0123456789+/";
    bool ok = true;
    for (size_t i = 0; ok && i < bytes; i += 3) {
        const size_t left = bytes - i;
        uint32_t v = (uint32_t)(unsigned char)data[i] << 16;
        if (left > 1)
            v |= (uint32_t)(unsigned char)data[i + 1] << 8;
        if (left > 2)
            v |= (uint32_t)(unsigned char)data[i + 2];
        const char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                              left > 1 ? digits[v >> 6 & 63] : '=',
                              left > 2 ? digits[v & 63] : '='};
        ok = qkv_text_put(out, four, 4, err);
    }
    return ok;
}

/* f=100: a PNG; q=2: no answers; at most 4096 bytes of base64 a message. */
static bool encode_kitty(qkv_text *out, const char *png, size_t bytes,
                         qkv_error *err)
{
    enum { RAW = CHUNK / 4 * 3 };
    bool ok = true;
    for (size_t i = 0; ok && i < bytes; i += RAW) {
        const size_t n = bytes - i < RAW ? bytes - i : RAW;
        ok = qkv_text_printf(out, err, "\033_G%sm=%d;",
                             i == 0 ? "f=100,a=T,q=2," : "", i + n < bytes)
            && put_base64(out, png + i, n, err)
            && qkv_text_put(out, "\033\\", 2, err);
    }
    return ok;
}

/* gnuplot 6.0 sends the cursor home first, onto what stands there: only what
 * is between DCS and ST is the picture. */
static bool encode_sixel(qkv_text *out, const char *data, size_t bytes,
                         qkv_error *err)
{
    const char *begin = memmem(data, bytes, "\033P", 2);
    return begin != NULL
        ? qkv_text_put(out, begin, bytes - (size_t)(begin - data), err)
        : qkv_fail(err, QKV_EINVAL, "the picture is not in sixels");
}

bool qkv_terminal_encode(qkv_text *out, qkv_graphics graphics,
                         const char *picture, size_t bytes, qkv_error *err)
{
    bool ok = false;
    switch (graphics) {
    case QKV_KITTY:
        ok = encode_kitty(out, picture, bytes, err);
        break;
    case QKV_ITERM:
        ok = qkv_text_printf(out, err, "\033]1337;File=inline=1;size=%zu:",
                             bytes)
            && put_base64(out, picture, bytes, err)
            && qkv_text_put(out, "\a", 1, err);
        break;
    case QKV_SIXEL:
        ok = encode_sixel(out, picture, bytes, err);
        break;
    default:
        return qkv_fail(err, QKV_EINVAL, "this terminal shows no pictures");
    }
    return ok && qkv_text_put(out, "\n", 1, err);
}

/* The nearest of xterm's 6 x 6 x 6 colours (levels 0, 95, 135, 175, 215,
 * 255). */
static int cube(const unsigned char rgb[3])
{
    int code = 16, weight = 36;
    for (int i = 0; i < 3; i++, weight /= 6)
        code += weight * (rgb[i] < 48 ? 0 : rgb[i] < 115 ? 1
                          : (rgb[i] - 35) / 40);
    return code;
}

/* layer: 38 for the ink (upper half), 48 for the paper (lower half). */
static bool put_colour(qkv_text *out, int layer, const unsigned char rgb[3],
                       int colours, qkv_error *err)
{
    if (colours > 256)
        return qkv_text_printf(out, err, "\033[%d;2;%d;%d;%dm", layer, rgb[0],
                               rgb[1], rgb[2]);
    return qkv_text_printf(out, err, "\033[%d;5;%dm", layer, cube(rgb));
}

bool qkv_terminal_blocks(qkv_text *out, const unsigned char *rgb, int width,
                         int height, int colours, qkv_error *err)
{
    bool ok = true;
    const size_t row = (size_t)width * 3;
    for (int y = 0; ok && y < height; y += 2) {
        for (int x = 0; ok && x < width; x++) {
            const unsigned char *top = rgb + (size_t)y * row + (size_t)x * 3;
            ok = put_colour(out, 38, top, colours, err)
                && (y + 1 == height
                    || put_colour(out, 48, top + row, colours, err))
                && qkv_text_put(out, "\xE2\x96\x80", 3, err);
        }
        ok = ok && qkv_text_put(out, "\033[0m\n", 5, err);
    }
    return ok;
}
