/*
 * test_terminal.c - what terminals answer, and what is sent to them
 *
 * Answers are those that the programs' documents and sources give; base64 is
 * checked against the vectors of RFC 4648, section 10.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "repl/terminal.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void test_answer(void **state)
{
    static const struct {
        const char *name, *answer;
        qkv_graphics want;
    } rows[] = {
        {"kitty", "\033_Gi=31;OK\033\\\033[?62;c", QKV_KITTY},
        {"foot", "\033[?62;4;22;28;29c", QKV_SIXEL},
        {"xterm -ti 340", "\033[?63;1;2;4;6;9;15;16;22;28c", QKV_SIXEL},
        {"sixel last", "\033[?1;2;4c", QKV_SIXEL},
        {"xterm", "\033[?64;1;2;6;9;15;16;17;18;21;22;28c", QKV_TEXT},
        {"vt102", "\033[?6c", QKV_TEXT},
        {"class 4 is no sixel", "\033[?4;6c", QKV_TEXT},
        {"24 and 44 are no 4", "\033[?62;24;44c", QKV_TEXT},
        {"kitty says no", "\033_Gi=31;ENOTSUPPORTED:x\033\\\033[?62c",
         QKV_TEXT},
        {"cut", "\033[?62;4", QKV_TEXT},
        {"cut", "\033[?", QKV_TEXT},
        {"nothing", "", QKV_TEXT},
        {"typed ahead", "ls;4;c\n", QKV_TEXT}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (qkv_terminal_answer(rows[i].answer, strlen(rows[i].answer))
            != rows[i].want)
            fail_msg("%s", rows[i].name);
}

static void test_base64(void **state)
{
    static const char *rows[][2] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
        {"\xff\xfe\xfd", "//79"}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char want[128];
        qkv_text out = {0};
        qkv_error err;
        snprintf(want, sizeof want,
                 "\033]1337;File=inline=1;size=%zu:%s\a\n", strlen(rows[i][0]),
                 rows[i][1]);
        assert_true(qkv_terminal_encode(&out, QKV_ITERM, rows[i][0],
                                        strlen(rows[i][0]), &err));
        assert_string_equal(out.data, want);
        qkv_text_free(&out);
    }
}

/* Messages of at most 4096 bytes; m=1 on all but the last. */
static void test_kitty(void **state)
{
    static const size_t sizes[] = {1, 3072, 3073, 6144, 10000};
    static char picture[10000];
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        qkv_text out = {0};
        qkv_error err;
        assert_true(qkv_terminal_encode(&out, QKV_KITTY, picture, sizes[i],
                                        &err));
        const size_t want = (sizes[i] + 3071) / 3072;
        size_t messages = 0;
        const char *at = out.data;
        while (strncmp(at, "\033_G", 3) == 0) {
            messages++;
            const char *body = strchr(at, ';'), *end = strstr(at, "\033\\");
            assert_non_null(body);
            assert_non_null(end);
            assert_true(end - body - 1 <= 4096);
            assert_int_equal(body[-1], messages < want ? '1' : '0');
            assert_memory_equal(body - 4, messages == 1 ? ",m=" : "Gm=", 3);
            at = end + 2;
        }
        assert_int_equal(messages, want);
        assert_string_equal(at, "\n");
        qkv_text_free(&out);
    }
}

static void test_sixel(void **state)
{
    static const char *rows[][2] = {
        {"\033Pq#0!9~\033\\", "\033Pq#0!9~\033\\\n"},
        {"\033[H\033Pq#0!9~\033\\", "\033Pq#0!9~\033\\\n"}, {"no", NULL}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_text out = {0};
        qkv_error err;
        assert_int_equal(qkv_terminal_encode(&out, QKV_SIXEL, rows[i][0],
                                             strlen(rows[i][0]), &err),
                         rows[i][1] != NULL);
        if (rows[i][1] != NULL)
            assert_string_equal(out.data, rows[i][1]);
        qkv_text_free(&out);
    }
}

static void test_no_graphics(void **state)
{
    (void)state;
    qkv_text out = {0};
    qkv_error err;
    assert_false(qkv_terminal_encode(&out, QKV_TEXT, "x", 1, &err));
    assert_int_equal(err.code, QKV_EINVAL);
    qkv_text_free(&out);
}

/* Two rows are one line: ink above, paper below; an odd one has no paper. */
static void test_blocks(void **state)
{
    static const unsigned char rgb[] = {255, 0, 0, 0, 255, 0,
                                        0, 0, 255, 255, 255, 255,
                                        0, 0, 0, 128, 128, 128};
    (void)state;
    qkv_text out = {0};
    qkv_error err;
    assert_true(qkv_terminal_blocks(&out, rgb, 2, 3, 1 << 24, &err));
    assert_string_equal(out.data,
        "\033[38;2;255;0;0m\033[48;2;0;0;255m\u2580"
        "\033[38;2;0;255;0m\033[48;2;255;255;255m\u2580\033[0m\n"
        "\033[38;2;0;0;0m\u2580\033[38;2;128;128;128m\u2580\033[0m\n");
    out.bytes = 0;
    /* xterm's cube: 16 + 36 r + 6 g + b */
    assert_true(qkv_terminal_blocks(&out, rgb, 2, 1, 256, &err));
    assert_string_equal(out.data,
                        "\033[38;5;196m\u2580\033[38;5;46m\u2580\033[0m\n");
    out.bytes = 0;
    assert_true(qkv_terminal_blocks(&out, rgb, 0, 0, 256, &err));
    assert_int_equal(out.bytes, 0);
    qkv_text_free(&out);
}

/* Output to a file is no terminal, whatever TERM says; QKV_GRAPHICS wins. */
static void test_detect(void **state)
{
    static const struct {
        const char *graphics, *term, *colorterm, *no_color;
        qkv_graphics want;
        int colours;
    } rows[] = {
        {NULL, "xterm-kitty", NULL, NULL, QKV_NO_TERMINAL, 1 << 24},
        {"none", "xterm", NULL, NULL, QKV_NO_TERMINAL, 256},
        {"text", "xterm", NULL, NULL, QKV_TEXT, 256},
        {"text", "xterm", "truecolor", NULL, QKV_TEXT, 1 << 24},
        {"text", "xterm", "truecolor", "1", QKV_TEXT, 0},
        {"text", "dumb", "truecolor", NULL, QKV_TEXT, 0},
        {"text", NULL, NULL, NULL, QKV_TEXT, 0},
        {"kitty", "xterm", NULL, NULL, QKV_KITTY, 256},
        {"iterm", "xterm", NULL, NULL, QKV_ITERM, 256},
        {"sixel", "xterm", NULL, NULL, QKV_SIXEL, 256},
        {"nonsense", "xterm", NULL, NULL, QKV_NO_TERMINAL, 256}};
    (void)state;
    fflush(NULL);
    const int saved = dup(STDOUT_FILENO);
    assert_non_null(freopen("/dev/null", "w", stdout));
    size_t wrong = COUNT(rows);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *set[][2] = {{"QKV_GRAPHICS", rows[i].graphics},
                                {"TERM", rows[i].term},
                                {"COLORTERM", rows[i].colorterm},
                                {"NO_COLOR", rows[i].no_color}};
        for (size_t k = 0; k < COUNT(set); k++) {
            if (set[k][1] != NULL)
                setenv(set[k][0], set[k][1], 1);
            else
                unsetenv(set[k][0]);
        }
        qkv_terminal t;
        qkv_terminal_detect(&t);
        if (t.graphics != rows[i].want || t.colours != rows[i].colours
            || t.columns != 80 || t.rows != 24)
            wrong = i;
    }
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    if (wrong < COUNT(rows))
        fail_msg("row %zu", wrong);
}

static void test_no_memory(void **state)
{
    (void)state;
    static char picture[10000] = "\033P";
    const size_t bytes = qkv_alloc_live();
    for (int graphics = QKV_KITTY; graphics <= QKV_SIXEL; graphics++) {
        bool done = false;
        for (long n = 0; !done && n < 100; n++) {
            qkv_text out = {0};
            qkv_error err;
            qkv_alloc_fail_after(n);
            done = qkv_terminal_encode(&out, (qkv_graphics)graphics, picture,
                                       sizeof picture, &err);
            qkv_alloc_fail_after(-1);
            if (!done)
                assert_int_equal(err.code, QKV_ENOMEM);
            qkv_text_free(&out);
            assert_int_equal(qkv_alloc_live(), bytes);
        }
        assert_true(done);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer), cmocka_unit_test(test_base64),
        cmocka_unit_test(test_kitty), cmocka_unit_test(test_sixel),
        cmocka_unit_test(test_no_graphics), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_detect), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
