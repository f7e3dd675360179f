/*
 * test_labels.c - words in pictures: spelling, widths, places
 *
 * Widths are sums of DejaVu Sans' advance widths, read from the font's hmtx
 * table (units of 1/2048 em: M 1767, i 569, l 569, space 651). Placement has
 * laws: no two labels that are shown overlap, all lie in the frame.
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "repl/labels.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- spelling ---- */

static bool covers_latin(void *context, uint32_t code)
{
    ++*(int *)context;
    return code < 0x250;
}

static void test_spell(void **state)
{
    static const struct {
        const char *token;
        size_t bytes;
        bool dots;
        const char *want;
    } rows[] = {
        {"", 0, true, ""},
        {"Mary", 4, true, "Mary"},
        {" Mary", 5, true, "\u00b7Mary"},
        {"   ", 3, true, "\u00b7\u00b7\u00b7"},
        {" a b ", 5, true, "\u00b7a b "},
        {" a b ", 5, false, " a b "},
        {"\n", 1, true, "\u21b5"},
        {"\n x", 3, true, "\u21b5 x"},
        {"\tx", 2, true, "\u21e5x"},
        {"\0", 1, true, "\\x00"},
        {"\033[m", 3, true, "\\x1B[m"},
        {"\x7f", 1, true, "\\x7F"},
        {"\xc3", 1, true, "\\xC3"},                 /* half a letter */
        {"a\xe2\x82", 3, true, "a\\xE2\\x82"},
        {"\xc0\x80", 2, true, "\\xC0\\x80"},        /* overlong */
        {"\xed\xa0\x80", 3, true, "\\xED\\xA0\\x80"},   /* surrogate */
        {"\xf4\x90\x80\x80", 4, true, "\\xF4\\x90\\x80\\x80"},
        {"\xff", 1, true, "\\xFF"},
        {"\u00e9", 2, true, "\u00e9"},
        {"\u03b1", 2, true, "\\u{3B1}"},        /* beyond covers_latin */
        {"\U0001f9e0", 4, true, "\\u{1F9E0}"},
        {"\u200b", 3, true, "\\u{200B}"},           /* zero width */
        {"\u202e", 3, true, "\\u{202E}"},           /* right to left */
        {"\u00a0", 2, true, "\\u{A0}"},
        {"\u0378", 2, true, "\\u{378}"},            /* unassigned */
        {"\ue000", 3, true, "\\u{E000}"},           /* private */
        {"\u0301e", 3, true, "\\u{301}e"},       /* nothing to combine with */
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_text out = {0};
        qkv_error err;
        int asked = 0;
        assert_true(qkv_label_spell(&out, rows[i].token, rows[i].bytes,
                                    rows[i].dots, covers_latin, &asked, &err));
        assert_string_equal(out.bytes > 0 ? out.data : "", rows[i].want);
        qkv_text_free(&out);
    }
    qkv_text out = {0};         /* without a question all is covered */
    qkv_error err;
    assert_true(qkv_label_spell(&out, "\u03b1e\u0301", 5, true, NULL, NULL,
                                &err));
    assert_string_equal(out.data, "\u03b1e\u0301");
    qkv_text_free(&out);
}

/* ---- measuring ---- */

static void test_width(void **state)
{
    static const struct {
        const char *text;
        double em;
        int columns;
    } rows[] = {{"", 0, 0}, {"M", 1767 / 2048.0, 1}, {"MMMM", 7068 / 2048.0, 4},
                {"il", 1138 / 2048.0, 2}, {" ", 651 / 2048.0, 1},
                {"\u65e5\u672c", 2, 4}, {"e\u0301", 1260 / 2048.0, 1}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const size_t n = strlen(rows[i].text);
        const double got = qkv_label_width(rows[i].text, n);
        assert_true(fabs(got - rows[i].em) <= 0.001 * (double)(n + 1));
        assert_int_equal(qkv_label_columns(rows[i].text, n), rows[i].columns);
    }
}

static void test_cut(void **state)
{
    const struct {
        const char *text;
        double em;
        size_t bytes;
    } rows[] = {{"MMMM", 100, 4}, {"MMMM", 1.8, 2}, {"MMMM", 0.5, 0},
                {"MMMM", -1, 0}, {"MMMM", nan(""), 0}, {"", 1, 0},
                {"\u65e5\u672c", 1.5, 3}, {"\u65e5\u672c", 0.5, 0},
                {"e\u0301x", 0.7, 3}};      /* the accent stays with its e */
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(qkv_label_cut(rows[i].text, strlen(rows[i].text),
                                       rows[i].em), rows[i].bytes);
}

/* ---- placing ---- */

enum { MOST = 700 };
static qkv_label labels[MOST], again[MOST];
static const qkv_label_frame PAGE = {.left = 50, .top = 20, .right = 850,
                                     .bottom = 620, .radius = 5};

typedef struct box {
    double x0, y0, x1, y1;
} box;

/* Where gnuplot will draw it, from what it is told: anchor and alignment. */
static box drawn(const qkv_label *l)
{
    const double left = l->align == 0 ? l->anchor_x
        : l->align == 1 ? l->anchor_x - l->width / 2 : l->anchor_x - l->width;
    return (box){left, l->anchor_y - l->height / 2, left + l->width,
                 l->anchor_y + l->height / 2};
}

/* Checks the laws; returns how many are shown. */
static size_t assert_lawful(const qkv_label *list, size_t n,
                            const qkv_label_frame *f)
{
    const double eps = 1e-9;
    size_t shown = 0;
    for (size_t i = 0; i < n; i++) {
        if (!list[i].shown)
            continue;
        shown++;
        assert_true(list[i].width > 0);
        const box a = drawn(&list[i]);
        assert_true(a.x0 >= f->left - eps && a.x1 <= f->right + eps);
        assert_true(a.y0 >= f->top - eps && a.y1 <= f->bottom + eps);
        for (size_t j = 0; j < i; j++) {
            const box b = drawn(&list[j]);
            if (list[j].shown)
                assert_false(a.x0 < b.x1 - eps && b.x0 < a.x1 - eps
                             && a.y0 < b.y1 - eps && b.y0 < a.y1 - eps);
        }
    }
    return shown;
}

static void scatter(size_t n, uint64_t seed, double spread)
{
    qkv_random r;
    qkv_random_seed(&r, seed);
    for (size_t i = 0; i < n; i++)
        labels[i] = (qkv_label){
            .x = fmin(fmax(450 + spread * qkv_random_normal(&r), 60), 840),
            .y = fmin(fmax(320 + 0.7 * spread * qkv_random_normal(&r), 30),
                      610),
            .width = 20 + 60 * qkv_random_uniform(&r), .height = 16};
}

static void test_laws(void **state)
{
    static const struct {
        size_t n;
        double spread;
        size_t least;               /* labels that must be shown */
    } rows[] = {{0, 100, 0}, {1, 0, 1}, {2, 0, 2}, {5, 0, 5}, {12, 3, 12},
                {12, 150, 12}, {80, 150, 70}, {300, 200, 60}, {700, 200, 60}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        for (uint64_t seed = 1; seed <= (rows[i].n > 100 ? 1 : 10); seed++) {
            const size_t n = rows[i].n;
            qkv_error err;
            scatter(n, seed, rows[i].spread);
            memcpy(again, labels, sizeof labels);
            assert_true(qkv_labels_place(labels, n, &PAGE, &err));
            const size_t shown = assert_lawful(labels, n, &PAGE);
            if (shown < rows[i].least)
                fail_msg("%zu of %zu labels are shown, spread %g, seed %u",
                         shown, n, rows[i].spread, (unsigned)seed);
            /* the same again: the same places */
            assert_true(qkv_labels_place(again, n, &PAGE, &err));
            for (size_t k = 0; k < n; k++)
                assert_true(again[k].anchor_x == labels[k].anchor_x
                            && again[k].anchor_y == labels[k].anchor_y
                            && again[k].shown == labels[k].shown);
        }
}

static void test_single_places(void **state)
{
    const struct {
        const char *name;
        double x, y, width;
        bool shown;
        int align;
    } rows[] = {{"free: to the right", 400, 300, 60, true, 0},
                {"right edge: to the left", 840, 300, 60, true, 2},
                {"left edge", 55, 300, 60, true, 0},
                {"too wide for the page", 400, 300, 900, false, 0},
                {"no label", 400, 300, 0, false, 0},
                {"nan", nan(""), 300, 60, false, 0},
                {"infinite", 400, HUGE_VAL, 60, false, 0},
                {"outside", -1e9, -1e9, 60, false, 0}};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        qkv_label l = {.x = rows[i].x, .y = rows[i].y,
                       .width = rows[i].width, .height = 16};
        qkv_error err;
        assert_true(qkv_labels_place(&l, 1, &PAGE, &err));
        if (l.shown != rows[i].shown
            || (l.shown && l.align != rows[i].align))
            fail_msg("%s: shown %d, align %d", rows[i].name, l.shown, l.align);
        assert_false(l.leader);
    }
}

/* Two points side by side: the left one's label covers neither. */
static void test_points_are_not_covered(void **state)
{
    (void)state;
    qkv_label two[2] = {{.x = 400, .y = 300, .width = 60, .height = 16},
                        {.x = 430, .y = 300, .width = 0, .height = 16}};
    qkv_error err;
    assert_true(qkv_labels_place(two, 2, &PAGE, &err));
    const box a = drawn(&two[0]);
    assert_true(two[0].shown && !two[1].shown);
    assert_false(430 > a.x0 && 430 < a.x1 && 300 > a.y0 && 300 < a.y1);
}

/* An arrow to the right: the label goes elsewhere. */
static void test_segments_are_not_covered(void **state)
{
    (void)state;
    const double segments[1][4] = {{400, 300, 700, 300}};
    qkv_label_frame frame = PAGE;
    frame.segments = segments;
    frame.n_segments = 1;
    qkv_label l = {.x = 400, .y = 300, .width = 60, .height = 16};
    qkv_error err;
    assert_true(qkv_labels_place(&l, 1, &frame, &err));
    const box a = drawn(&l);
    assert_true(l.shown);
    assert_true(a.x1 <= 400 || a.y0 >= 300 || a.y1 <= 300);
}

static void test_no_memory_and_interrupt(void **state)
{
    (void)state;
    const size_t bytes = qkv_alloc_live();
    qkv_error err;
    bool done = false;
    for (long n = 0; !done && n < 20; n++) {
        scatter(12, 1, 100);
        qkv_alloc_fail_after(n);
        done = qkv_labels_place(labels, 12, &PAGE, &err);
        qkv_alloc_fail_after(-1);
        if (!done)
            assert_int_equal(err.code, QKV_ENOMEM);
        assert_int_equal(qkv_alloc_live(), bytes);
    }
    assert_true(done);
    qkv_interrupt();
    assert_false(qkv_labels_place(labels, 12, &PAGE, &err));
    assert_int_equal(err.code, QKV_EINTERRUPTED);
    qkv_interrupt_clear();
    assert_int_equal(qkv_alloc_live(), bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spell), cmocka_unit_test(test_width),
        cmocka_unit_test(test_cut), cmocka_unit_test(test_laws),
        cmocka_unit_test(test_single_places),
        cmocka_unit_test(test_points_are_not_covered),
        cmocka_unit_test(test_segments_are_not_covered),
        cmocka_unit_test(test_no_memory_and_interrupt)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
