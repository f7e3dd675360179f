/*
 * test_pretokenize.c - text cut into words
 *
 * Expected: pre_tokenizers.Split of Hugging Face's tokenizers 0.23.3, pieces
 * joined by |. Laws: with and without machine code the pieces are the same;
 * each digit alone and then GPT-2's pattern is the same in one step and two.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "text/pretokenize.h"
#include "text/unicode.h"

#define GPT2 QKV_GPT2_PATTERN

typedef struct row {
    const char *pattern;
    qkv_delimiter delimiter;
    bool invert, literal;
    const char *text, *pieces;
} row;

static const row rows[] = {
    {GPT2, QKV_ISOLATED, false, false,
     "Hello world's  12 x\012\012 y",
     "Hello| world|'s| | 12| x|\012\012| y"},
    {GPT2, QKV_ISOLATED, false, false,
     "it'S we're\011\011go  ",
     "it|'|S| we|'re|\011|\011|go|  "},
    {GPT2, QKV_ISOLATED, false, false,
     "  a \303\251\314\201 \344\270\255\346\226\207 \331\243\302\275",
     " | a| \303\251|\314\201| \344\270\255\346\226\207| \331\243\302\275"},
    {GPT2, QKV_ISOLATED, false, false,
     "a\302\205b\341\240\216c \341\240\216 d\343\200\200\343\200\200e",
     "a|\302\205|b|\341\240\216|c| \341\240\216| d|\343\200\200|\343\200\200"
     "|e"},
    {"-", QKV_ISOLATED, false, true,
     "the--final-countdown-",
     "the|-|-|final|-|countdown|-"},
    {"-", QKV_ISOLATED, true, true,
     "the--final-countdown-",
     "the|-|-|final|-|countdown|-"},
    {"-", QKV_REMOVED, false, true,
     "the--final-countdown-",
     "the|final|countdown"},
    {"-", QKV_REMOVED, true, true,
     "the--final-countdown-",
     "-|-|-|-"},
    {"-", QKV_MERGED_WITH_PREVIOUS, false, true,
     "the--final-countdown-",
     "the-|-|final-|countdown-"},
    {"-", QKV_MERGED_WITH_PREVIOUS, true, true,
     "the--final-countdown-",
     "the|-|-final|-countdown|-"},
    {"-", QKV_MERGED_WITH_NEXT, false, true,
     "the--final-countdown-",
     "the|-|-final|-countdown|-"},
    {"-", QKV_MERGED_WITH_NEXT, true, true,
     "the--final-countdown-",
     "the-|-|final-|countdown-"},
    {"-", QKV_CONTIGUOUS, false, true,
     "the--final-countdown-",
     "the|--|final|-|countdown|-"},
    {"-", QKV_CONTIGUOUS, true, true,
     "the--final-countdown-",
     "the|--|final|-|countdown|-"},
    {"-", QKV_ISOLATED, false, true,
     "--a---b",
     "-|-|a|-|-|-|b"},
    {"-", QKV_MERGED_WITH_PREVIOUS, false, true,
     "--a---b",
     "-|-|a-|-|-|b"},
    {"-", QKV_MERGED_WITH_NEXT, false, true,
     "--a---b",
     "-|-a|-|-|-b"},
    {"-", QKV_CONTIGUOUS, false, true,
     "--a---b",
     "--|a|---|b"},
    {"\\w+", QKV_ISOLATED, false, false,
     "na\303\257ve_x2 \342\222\266\302\275 e\314\201 \342\200\215!",
     "na\303\257ve_x2| |\342\222\266\302\275| |e\314\201| \342\200\215!"},
    {"[\\w\\s]+", QKV_ISOLATED, false, false,
     "a b\302\205c.d\341\240\216e",
     "a b\302\205c|.|d|\341\240\216|e"},
    {"[^\\s]+", QKV_ISOLATED, false, false,
     "a b\302\205c.d\341\240\216e",
     "a| |b|\302\205|c.d\341\240\216e"},
    {"\\d+", QKV_ISOLATED, false, false,
     "12 \331\243\331\244 \302\275",
     "12| |\331\243\331\244| \302\275"},
    {"\\h+", QKV_ISOLATED, false, false,
     "beef cog 09",
     "beef| |c|og |09"},
    {"[[:alpha:]]+", QKV_ISOLATED, false, false,
     "abc 12",
     "abc| 12"},
    {".", QKV_ISOLATED, true, true,
     "a.b\012c",
     "a|.|b\012c"},
    {".+", QKV_ISOLATED, false, false,
     "a.b\012c",
     "a.b|\012|c"},
    {"^a", QKV_ISOLATED, false, false,
     "aa\012a",
     "a|a\012|a"},
    {"(?<=a)b", QKV_ISOLATED, false, false,
     "abab b",
     "a|b|a|b| b"},
    {"(?i:re)", QKV_ISOLATED, false, false,
     "are RE",
     "a|re| |RE"},
    {" ", QKV_REMOVED, false, true,
     "   ",
     ""},
    {"x*", QKV_ISOLATED, false, false,
     "axxb",
     "a|xx|b"},
};

static qkv_slice slice_of(const char *s)
{
    return (qkv_slice){s, strlen(s)};
}

/* Appends the word and a |; a context of NULL stops at once. */
static bool join(void *context, qkv_slice word, qkv_error *err)
{
    qkv_text *out = context;
    if (out == NULL)
        return qkv_fail(err, QKV_EHOOK, "stopped");
    assert_true(word.bytes > 0);
    return (out->bytes == 0 || qkv_text_put(out, "|", 1, err))
        && qkv_text_put(out, word.data, word.bytes, err);
}

static bool cut(qkv_text *out, const qkv_split *splits, int n, bool jit,
                qkv_slice text, qkv_error *err)
{
    qkv_pretokenizer *p = qkv_pretokenizer_new(jit, err);
    bool done = p != NULL;
    for (int i = 0; done && i < n; i++)
        done = qkv_pretokenizer_add_split(p, &splits[i], err);
    done = done && qkv_pretokenize(p, text, join, out, err);
    qkv_pretokenizer_free(p);
    return done;
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof rows / sizeof *rows); i++) {
        const row *r = &rows[i / 2];
        const qkv_split split = {slice_of(r->pattern), r->literal, r->invert,
                                 r->delimiter};
        qkv_error err;
        qkv_text out = {0};
        if (!cut(&out, &split, 1, i % 2, slice_of(r->text), &err))
            fail_msg("row %zu: %s", i / 2, err.msg);
        if (strcmp(out.data != NULL ? out.data : "", r->pieces) != 0)
            fail_msg("row %zu: \"%s\"", i / 2, out.data);
        qkv_text_free(&out);
    }
}

/* ---- laws ---- */

/* A text of what makes splits differ. Never empty. */
static void random_text(qkv_text *out, qkv_random *r)
{
    static const char *const bits[] = {
        "a", "the", "'s", "'ll", "'", " ", "  ", "\n", "\t", "1", "42", ".",
        "--", "\xC3\xA9", "\xC2\xA0", "\xE3\x80\x80", "\xD9\xA3", "\xC2\xBD",
        "\xE1\xA0\x8E", "\xF0\x9F\x98\x80", "\xCC\x81", "_"};
    qkv_error err;
    out->bytes = 0;
    for (int64_t n = qkv_random_integer(r, 1, 30); n > 0; n--) {
        const int64_t k = qkv_random_integer(r, 0, sizeof bits / sizeof *bits);
        assert_true(qkv_text_put(out, bits[k], strlen(bits[k]), &err));
    }
}

static const char CL100K[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static void test_laws(void **state)
{
    const qkv_split plain[] = {{.pattern = slice_of(QKV_DIGIT_PATTERN)},
                               {.pattern = slice_of(GPT2)}};
    /* Spelled otherwise, it is not seen that the two can be one. */
    const qkv_split twice[] = {{.pattern = slice_of("(?:\\p{N})")},
                               {.pattern = slice_of(GPT2)}};
    const qkv_split other[] = {{.pattern = slice_of(CL100K)},
                               {.pattern = slice_of("[aeiou\\s]"),
                                .delimiter = QKV_MERGED_WITH_NEXT}};
    const qkv_split *const all[] = {plain, twice, other};
    qkv_random r;
    qkv_text text = {0}, out[6] = {{0}};
    (void)state;
    qkv_random_seed(&r, 1);
    for (int turn = 0; turn < 300; turn++) {
        qkv_error err;
        random_text(&text, &r);
        const qkv_slice s = {text.data, text.bytes};
        for (int k = 0; k < 6; k++) {
            out[k].bytes = 0;
            assert_true(cut(&out[k], all[k / 2], 2, k % 2, s, &err));
        }
        assert_string_equal(out[0].data, out[1].data);
        assert_string_equal(out[2].data, out[3].data);
        assert_string_equal(out[4].data, out[5].data);
        assert_string_equal(out[0].data, out[2].data);
    }
    qkv_text_free(&text);
    for (int k = 0; k < 6; k++)
        qkv_text_free(&out[k]);
}

/* ---- the space in front ---- */

static void test_space(void **state)
{
    static const char *const texts[][2] = {
        {"a b", " a| b"}, {" a", " a"}, {"\ta", " |\t|a"}, {"", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        qkv_error err;
        qkv_text out = {0};
        const qkv_split split = {.pattern = slice_of(GPT2)};
        qkv_pretokenizer *p = qkv_pretokenizer_new(true, &err);
        assert_true(qkv_pretokenizer_add_space(p, &err)
                    && qkv_pretokenizer_add_split(p, &split, &err)
                    && qkv_pretokenize(p, slice_of(texts[i][0]), join, &out,
                                       &err));
        assert_string_equal(out.data != NULL ? out.data : "", texts[i][1]);
        qkv_pretokenizer_free(p);
        qkv_text_free(&out);
    }
}

/* ---- what is refused ---- */

static const struct {
    const char *pattern;
    qkv_code code;
    const char *says;
} refused[] = {
    {"(a", QKV_EFORMAT, "the pattern \"(a\", at 2: missing"},
    {"[a", QKV_EFORMAT, "missing terminating ]"},
    {"\\", QKV_EFORMAT, "\\ at end of pattern"},
    {"\xFF", QKV_EFORMAT, "UTF-8"},
    {"\\p{Nonsense}", QKV_EFORMAT, "unknown property"},
    {"[a&&b]", QKV_EUNSUPPORTED, "a class within a class"},
    {"[a[b]]", QKV_EUNSUPPORTED, "a class within a class"},
    {"[\\W]", QKV_EUNSUPPORTED, "\\W in the brackets"},
    {"(a+)+$", QKV_EUNSUPPORTED, "gave up: match limit exceeded"},
};

static void test_refused(void **state)
{
    static const char text[] =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof refused / sizeof *refused); i++) {
        qkv_error err;
        qkv_text out = {0};
        const qkv_split split = {
            .pattern = slice_of(refused[i / 2].pattern)};
        assert_false(cut(&out, &split, 1, i % 2, slice_of(text), &err));
        assert_int_equal(err.code, refused[i / 2].code);
        if (strstr(err.msg, refused[i / 2].says) == NULL)
            fail_msg("row %zu: %s", i / 2, err.msg);
        qkv_text_free(&out);
    }
}

static void test_stop(void **state)
{
    const qkv_split split = {.pattern = slice_of(GPT2)};
    qkv_error err;
    (void)state;
    assert_false(cut(NULL, &split, 1, true, slice_of("a b"), &err));
    assert_int_equal(err.code, QKV_EHOOK);
    qkv_pretokenizer *p = qkv_pretokenizer_new(true, &err);
    for (int i = 0; i < 16; i++)
        assert_true(qkv_pretokenizer_add_space(p, &err));
    assert_false(qkv_pretokenizer_add_space(p, &err));
    assert_int_equal(err.code, QKV_EUNSUPPORTED);
    qkv_pretokenizer_free(p);
}

/* A pattern that needs more stack than machine code has goes on without. */
static void test_deep(void **state)
{
    const qkv_split split = {.pattern = slice_of("(?:a|(b))*c")};
    (void)state;
    enum { LONG = 100000 };
    static char text[LONG + 1];
    memset(text, 'a', LONG);
    text[LONG] = 'c';
    for (int jit = 0; jit < 2; jit++) {
        qkv_error err;
        qkv_text out = {0};
        if (!cut(&out, &split, 1, jit, (qkv_slice){text, LONG + 1}, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(out.bytes, LONG + 1);
        qkv_text_free(&out);
    }
}

static void test_no_memory(void **state)
{
    const qkv_split split = {.pattern = slice_of(GPT2)};
    const size_t before = qkv_alloc_live();
    (void)state;
    for (long n = 0; ; n++) {
        qkv_error err;
        qkv_text out = {0};
        qkv_alloc_fail_after(n);
        const bool done = cut(&out, &split, 1, true, slice_of("a b"), &err);
        qkv_alloc_fail_after(-1);
        qkv_text_free(&out);
        assert_int_equal(qkv_alloc_live(), before);
        if (done)
            break;
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_laws),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
