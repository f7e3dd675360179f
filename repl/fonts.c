/*
 * fonts.c - one bit for each code point that some font covers: fonts.h
 *
 * fc-list prints the character set of each font as hexadecimal ranges,
 * "20-7e a0-17f 192". Type 1 and bitmap fonts are left out: pango has not
 * drawn with them since 1.44.
 */
#include "config.h"

#include "repl/fonts.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "repl/plot.h"

enum { N_CODES = 0x110000, ASK_MS = 5000 };

struct qkv_fonts {
    bool asked;
    unsigned char bits[N_CODES / 8];
};

qkv_fonts *qkv_fonts_new(qkv_error *err)
{
    return qkv_alloc_zero(1, sizeof(qkv_fonts), err);
}

void qkv_fonts_free(qkv_fonts *f)
{
    qkv_free(f);
}

static void add_range(qkv_fonts *f, unsigned long from, unsigned long to)
{
    for (unsigned long c = from; c <= to && c < N_CODES; c++)
        f->bits[c / 8] |= (unsigned char)(1u << c % 8);
}

/* "TrueType 20-7e a0-17f": one line of the answer. */
static void add_font(qkv_fonts *f, char *line)
{
    if (strncmp(line, "TrueType ", 9) != 0 && strncmp(line, "CFF ", 4) != 0)
        return;
    char *at = strchr(line, ' ');
    for (;;) {
        char *end;
        const unsigned long from = strtoul(at, &end, 16);
        unsigned long to = from;
        if (end == at)
            return;
        if (*end == '-')
            to = strtoul(end + 1, &end, 16);
        add_range(f, from, to);
        at = end;
    }
}

static void take_dejavu(qkv_fonts *f)
{
    static const unsigned short ranges[][2] = {
        {0x20, 0x7e}, {0xa1, 0x24f}, {0x384, 0x38a}, {0x38e, 0x3a1},
        {0x3a3, 0x3ff}, {0x400, 0x4ff}, {0x2010, 0x2027}, {0x2030, 0x205e},
        {0x2190, 0x21ff}, {0x2200, 0x22ff}, {0x2500, 0x25ff}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        add_range(f, ranges[i][0], ranges[i][1]);
}

static void ask(qkv_fonts *f)
{
    char program[] = "fc-list", option[] = "--format",
         format[] = "%{fontformat} %{charset}\n";
    char *argv[] = {program, option, format, NULL};
    qkv_text answer = {0};
    qkv_error err;
    f->asked = true;
    if (qkv_plot_ask(&answer, argv, ASK_MS, &err) && answer.data != NULL) {
        char *rest = NULL;
        for (char *line = strtok_r(answer.data, "\n", &rest); line != NULL;
             line = strtok_r(NULL, "\n", &rest))
            add_font(f, line);
    } else {
        take_dejavu(f);
    }
    qkv_text_free(&answer);
}

bool qkv_fonts_cover(void *fonts, uint32_t code_point)
{
    qkv_fonts *f = fonts;
    if (code_point < 0x7f)
        return true;
    if (!f->asked)
        ask(f);
    return code_point < N_CODES
        && (f->bits[code_point / 8] >> code_point % 8 & 1);
}
