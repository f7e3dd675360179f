/*
 * test_plot.c - a gnuplot child that dies, hangs, floods, lies or is missing
 *
 * Most rows run a shell script in gnuplot's place, so that they need no
 * gnuplot; the last tests draw with the real one where there is one. After
 * every row: no descriptor, no child and no byte is left behind.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "repl/plot.h"

#define FAKE "./test_plot.fake"
#define MARK(seq, values) "printf '\\001QKV " seq " " values "\\002'\n"
/* Listens, and answers the first two requests, each when it comes. */
#define ANSWERS(first, second) "while read -r a; do case $a in\n" \
    "*'QKV 1 '*)" MARK("1", first) ";; *'QKV 2 '*)" MARK("2", second) \
    ";; esac; done\n"

static int count_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    return n;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void write_fake(const char *body)
{
    FILE *f = fopen(FAKE, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s", body);
    fclose(f);
    chmod(FAKE, 0755);
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' does not hold '%s'", text, part);
}

static void assert_nothing_left(int descriptors, size_t bytes)
{
    assert_int_equal(count_descriptors(), descriptors);
    assert_int_equal(qkv_alloc_live(), bytes);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* ---- in gnuplot's place ---- */

static void test_fakes(void **state)
{
    enum { LITTLE = 400, MUCH = 7000 };     /* ms */
    static const struct {
        const char *name;
        int patience;               /* ms */
        const char *body;           /* NULL: there is no such program */
        qkv_code code;
        const char *says;
    } rows[] = {
        {"missing", MUCH, NULL, QKV_ENOTFOUND, "apt-get install gnuplot-nox"},
        {"ends", MUCH, "exit 0\n", QKV_EIO,
         "ended (exit status 0), without a word"},
        {"fails", MUCH, "echo 'libcairo.so.2: cannot open' >&2\nexit 127\n",
         QKV_EIO,
         "ended (exit status 127); it said: libcairo.so.2: cannot open"},
        {"killed", MUCH, "kill -9 $$\n", QKV_EIO, "killed by signal 9"},
        {"hangs", LITTLE, "sleep 100\n", QKV_EIO, "gave no answer in 0.4 s"},
        {"ignores signals", LITTLE,
         "trap '' TERM INT HUP\nwhile :; do sleep 9; done\n", QKV_EIO,
         "gave no answer"},
        {"does not listen", LITTLE, "exec 0<&-\necho deaf\nsleep 100\n",
         QKV_EIO, "gave no answer in 0.4 s and was stopped; it said: deaf"},
        {"echoes", LITTLE, "cat\n", QKV_EIO, "gave no answer"},
        {"floods", MUCH, "yes flood\n", QKV_EIO, "talks without end"},
        {"half a mark", LITTLE, "printf '\\001QKV 1 '\nsleep 100\n", QKV_EIO,
         "gave no answer"},
        {"wrong mark", LITTLE, MARK("7", " pngcairo ") "sleep 100\n", QKV_EIO,
         "gave no answer"},
        {"lacks the terminal", LITTLE, MARK("1", " dumb ") "sleep 100\n",
         QKV_EUNSUPPORTED, "without its terminal 'pngcairo'"},
        {"NUL in the mark", LITTLE,
         "printf '\\001QKV 1 \\000x\\002'\nsleep 100\n",
         QKV_EUNSUPPORTED, "pngcairo"},
        {"dies at work", LITTLE, MARK("1", " pngcairo ") "read a\nexit 5\n",
         QKV_EIO, "ended (exit status 5)"},
        {"says an error", LITTLE, ANSWERS(" pngcairo ", "1 no such thing"),
         QKV_EINVAL, "gnuplot: no such thing"},
        {"draws nothing", LITTLE, ANSWERS(" pngcairo ", "0 "), QKV_EIO,
         "gnuplot drew nothing"},
    };
    (void)state;
    const int descriptors = count_descriptors();
    const size_t bytes = qkv_alloc_live();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("  %s\n", rows[i].name);
        unlink(FAKE);
        if (rows[i].body != NULL)
            write_fake(rows[i].body);
        const qkv_plot_options options = {.program = FAKE,
                                          .timeout_ms = rows[i].patience};
        qkv_error err = {0};
        qkv_text picture = {0};
        qkv_plot *p = qkv_plot_new(&options, &err);
        assert_non_null(p);
        const double begin = seconds();
        for (int again = 0; again < 2; again++) {   /* each time anew */
            err = (qkv_error){0};
            /* the second time the marks count on from the first */
            const bool ok = qkv_plot_draw(&picture, NULL, p, "pngcairo", "", 0,
                                          &err);
            assert_false(ok);
            if (again == 0) {
                assert_has(err.msg, rows[i].says);
                assert_int_equal(err.code, rows[i].code);
            }
        }
        assert_true(seconds() - begin < 8);
        assert_int_equal(picture.bytes, 0);
        qkv_text_free(&picture);
        qkv_plot_free(p);
        assert_nothing_left(descriptors, bytes);
    }
    unlink(FAKE);
}

static void test_is_installed(void **state)
{
    (void)state;
    assert_true(qkv_plot_is_installed("sh"));
    assert_true(qkv_plot_is_installed("/bin/sh"));
    assert_false(qkv_plot_is_installed("no-such-program-here"));
    assert_false(qkv_plot_is_installed("/etc/passwd"));
}

static void test_ask(void **state)
{
    (void)state;
    char sh[] = "sh", c[] = "-c", good[] = "echo 1; echo 2 >&2",
         bad[] = "exit 9", slow[] = "sleep 100";
    char *const lists[][4] = {{sh, c, good, NULL}, {sh, c, bad, NULL},
                              {sh, c, slow, NULL}};
    const char *says[] = {NULL, "exit status 9", "gave no answer"};
    for (int i = 0; i < 3; i++) {
        qkv_text out = {0};
        qkv_error err = {0};
        const bool ok = qkv_plot_ask(&out, lists[i], 300, &err);
        assert_int_equal(ok, says[i] == NULL);
        if (ok)
            assert_string_equal(out.data, "1\n2\n");
        else
            assert_has(err.msg, says[i]);
        qkv_text_free(&out);
    }
}

/* ---- the real one ---- */

static const char CURVE[] = "plot sin(x)\n";

static void need_gnuplot(void)
{
    if (!qkv_plot_is_installed(NULL)) {
        print_message("  no gnuplot in PATH\n");
        skip();
    }
}

static bool draw(qkv_text *picture, qkv_plot *p, const char *terminal,
                 const char *script, qkv_error *err)
{
    return qkv_plot_draw(picture, NULL, p, terminal, script, strlen(script),
                         err);
}

static void test_formats(void **state)
{
    static const struct {
        const char *terminal, *begins;
    } rows[] = {{"pngcairo size 300,200", "\x89PNG\r\n\x1a\n"},
                {"svg size 300,200", "<?xml"},
                {"pdfcairo", "%PDF"}};
    (void)state;
    need_gnuplot();
    for (int files = 0; files < 2; files++) {
        const qkv_plot_options options = {.no_memfd = files == 1};
        qkv_error err = {0};
        qkv_plot *p = qkv_plot_new(&options, &err);
        for (size_t i = 0; i < 3; i++) {
            qkv_text picture = {0};
            if (!draw(&picture, p, rows[i].terminal, CURVE, &err))
                fail_msg("%s", err.msg);
            assert_true(picture.bytes > 1000);
            assert_memory_equal(picture.data, rows[i].begins,
                                strlen(rows[i].begins));
            qkv_text_free(&picture);
        }
        qkv_plot_free(p);
    }
}

static void test_errors(void **state)
{
    static const struct {
        const char *name, *terminal, *script, *says;
    } rows[] = {
        {"function", "pngcairo", "plot nosuch(x)\n",
         "gnuplot: undefined function: nosuch"},
        {"multiplot", "pngcairo", "set multiplot\nplot sin(x)\nplot f(x)\n",
         "undefined function: f"},
        {"terminal", "nosuch", CURVE, "without its terminal 'nosuch'"},
        {"file", "pngcairo", "load '/nonexistent'\n", "gnuplot: "},
        {"syntax", "pngcairo", "plot (\n", "gnuplot: "},
        {"block", "pngcairo", "$d << END\n1 2\n", "gnuplot"},
        {"killed", "pngcairo", "x = system('kill -9 $PPID')\n", "signal 9"},
        {"no picture", "pngcairo", "x = 1\n", "gnuplot drew nothing"},
        {"leaves", "pngcairo", "exit\n", "gnuplot"},
        {"hangs", "pngcairo", "pause 100\n", "gave no answer in 1.5 s"}};
    (void)state;
    need_gnuplot();
    const int descriptors = count_descriptors();
    const size_t bytes = qkv_alloc_live();
    const qkv_plot_options options = {.timeout_ms = 1500};
    qkv_error err = {0};
    qkv_plot *p = qkv_plot_new(&options, &err);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("  %s\n", rows[i].name);
        qkv_text bad = {0}, good = {0};
        const bool ok = draw(&bad, p, rows[i].terminal, rows[i].script, &err);
        assert_false(ok);
        assert_has(err.msg, rows[i].says);
        assert_int_equal(bad.bytes, 0);
        /* and the next picture is as it should be */
        if (!draw(&good, p, "pngcairo", CURVE, &err))
            fail_msg("after '%s': %s", rows[i].name, err.msg);
        assert_memory_equal(good.data, "\x89PNG", 4);
        qkv_text_free(&bad);
        qkv_text_free(&good);
    }
    qkv_plot_free(p);
    assert_nothing_left(descriptors, bytes);
}

/* Whatever a script before it set, the same script gives the same bytes. */
static void test_no_state_is_left(void **state)
{
    (void)state;
    need_gnuplot();
    qkv_error err = {0};
    qkv_plot *p = qkv_plot_new(NULL, &err);
    qkv_text first = {0}, second = {0}, other = {0};
    assert_true(draw(&first, p, "pngcairo size 300,200", CURVE, &err));
    assert_true(draw(&other, p, "pngcairo size 900,200",
                     "set multiplot\nset title 'x'\nset xrange [3:4]\n"
                     "set logscale y\nunset border\nplot 5\n", &err));
    assert_true(draw(&second, p, "pngcairo size 300,200", CURVE, &err));
    assert_int_equal(first.bytes, second.bytes);
    assert_memory_equal(first.data, second.data, first.bytes);
    assert_true(other.bytes != first.bytes);
    qkv_text_free(&first);
    qkv_text_free(&second);
    qkv_text_free(&other);
    qkv_plot_free(p);
}

static void test_warnings_are_heard(void **state)
{
    (void)state;
    need_gnuplot();
    qkv_error err = {0};
    qkv_plot *p = qkv_plot_new(NULL, &err);
    qkv_text picture = {0}, heard = {0};
    static const char script[] = "set print '-'\nprint 'by the way'\n"
        "set print\nplot sin(x)\n";
    assert_true(qkv_plot_draw(&picture, &heard, p, "pngcairo", script,
                              sizeof script - 1, &err));
    assert_has(heard.data, "by the way");
    qkv_text_free(&picture);
    qkv_text_free(&heard);
    qkv_plot_free(p);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    qkv_interrupt();
}

static void test_interrupt(void **state)
{
    (void)state;
    need_gnuplot();
    const int descriptors = count_descriptors();
    const size_t bytes = qkv_alloc_live();
    qkv_error err = {0};
    qkv_plot *p = qkv_plot_new(NULL, &err);
    qkv_text picture = {0};
    assert_true(draw(&picture, p, "pngcairo", CURVE, &err));
    signal(SIGALRM, on_alarm);
    const struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    const double begin = seconds();
    assert_false(draw(&picture, p, "pngcairo", "pause 20\n", &err));
    assert_true(seconds() - begin < 1.0);
    assert_int_equal(err.code, QKV_EINTERRUPTED);
    assert_string_equal(err.msg, "interrupted");
    qkv_interrupt_clear();
    assert_true(draw(&picture, p, "pngcairo", CURVE, &err));
    qkv_text_free(&picture);
    qkv_plot_free(p);
    assert_nothing_left(descriptors, bytes);
}

static void test_no_memory(void **state)
{
    (void)state;
    need_gnuplot();
    const int descriptors = count_descriptors();
    const size_t bytes = qkv_alloc_live();
    bool done = false;
    for (long n = 0; !done && n < 200; n++) {
        qkv_error err = {0};
        qkv_text picture = {0};
        qkv_alloc_fail_after(n);
        qkv_plot *p = qkv_plot_new(NULL, &err);
        done = p != NULL && draw(&picture, p, "pngcairo", CURVE, &err);
        qkv_alloc_fail_after(-1);
        if (!done)
            assert_int_equal(err.code, QKV_ENOMEM);
        qkv_text_free(&picture);
        qkv_plot_free(p);
        assert_nothing_left(descriptors, bytes);
    }
    assert_true(done);
}

int main(void)
{
    signal(SIGPIPE, SIG_DFL);       /* one would end us: there is none */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fakes), cmocka_unit_test(test_is_installed),
        cmocka_unit_test(test_ask), cmocka_unit_test(test_formats),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_state_is_left),
        cmocka_unit_test(test_warnings_are_heard),
        cmocka_unit_test(test_interrupt), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
