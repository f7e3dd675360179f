/*
 * pretokenize.c - text cut into words by patterns: see pretokenize.h
 *
 * Steps call each other: step k finds its next piece and hands it to step
 * k + 1, the last hands it to the caller, so that no list of pieces is ever
 * kept. Where Oniguruma and PCRE2 read a pattern differently it is rewritten:
 * \s is White_Space (PCRE2 adds U+180E), \w has marks and circled letters.
 * What cannot be rewritten is refused. Look-behind sees the piece only, as in
 * Hugging Face's tokenizers.
 */
#include "config.h"

#include "text/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/text.h"

const char QKV_GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
    "|\\s+(?!\\S)|\\s+";
const char QKV_DIGIT_PATTERN[] = "\\p{N}";

/* Each digit alone and then GPT-2's pattern, in one: a piece ends at a digit
 * as it ends at the end of the text. Twice as fast as two steps. */
static const char digit_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
    "|\\s+(?![^\\s\\p{N}])|\\s+";

enum {
    MOST_STEPS = 16,
    MATCH_LIMIT = 10000000      /* about a second of backtracking */
};

typedef struct step {
    pcre2_code *code;           /* NULL: the space in front */
    bool jit;                   /* compiled to machine code */
    bool is_digits;             /* QKV_DIGIT_PATTERN, isolated */
    bool invert;
    qkv_delimiter delimiter;
    qkv_text spaced;            /* a piece with its space */
} step;

struct qkv_pretokenizer {
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_match_data *match;
    bool jit;
    int n_steps;
    step steps[MOST_STEPS];
};

/* ---- life ---- */

static void *pcre_alloc(size_t bytes, void *unused)
{
    (void)unused;
    qkv_error err;
    return qkv_alloc(bytes, &err);
}

static void pcre_free(void *block, void *unused)
{
    (void)unused;
    qkv_free(block);
}

qkv_pretokenizer *qkv_pretokenizer_new(bool jit, qkv_error *err)
{
    qkv_pretokenizer *p = qkv_alloc_zero(1, sizeof *p, err);
    if (p == NULL)
        return NULL;
    p->jit = jit;
    p->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (p->memory != NULL) {
        p->limits = pcre2_match_context_create(p->memory);
        p->match = pcre2_match_data_create(1, p->memory);
    }
    if (p->limits == NULL || p->match == NULL) {
        qkv_pretokenizer_free(p);
        qkv_fail(err, QKV_ENOMEM, "no memory for a pre-tokenizer");
        return NULL;
    }
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    return p;
}

void qkv_pretokenizer_free(qkv_pretokenizer *p)
{
    if (p == NULL)
        return;
    for (int k = 0; k < p->n_steps; k++) {
        pcre2_code_free(p->steps[k].code);
        qkv_text_free(&p->steps[k].spaced);
    }
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->limits);
    pcre2_general_context_free(p->memory);
    qkv_free(p);
}

/* ---- patterns ---- */

/* \w and what it is not, inside brackets; \s likewise. */
typedef struct rewrite {
    char letter;
    const char *inside, *outside;
} rewrite;

#define WORD "\\p{Alphabetic}\\p{M}\\p{N}\\p{Pc}"
static const rewrite rewrites[] = {
    {'s', "\\p{White_Space}", "\\p{White_Space}"},
    {'S', "\\P{White_Space}", "\\P{White_Space}"},
    {'w', WORD, "[" WORD "]"},
    {'W', NULL, "[^" WORD "]"},         /* inside brackets it cannot be said */
    {'h', "0-9A-Fa-f", "[0-9A-Fa-f]"},  /* Oniguruma: a hexadecimal digit */
    {'H', NULL, "[^0-9A-Fa-f]"},
};

static const rewrite *rewrite_of(char letter)
{
    for (size_t i = 0; i < sizeof rewrites / sizeof *rewrites; i++)
        if (rewrites[i].letter == letter)
            return &rewrites[i];
    return NULL;
}

static bool put_escape(qkv_text *out, char letter, bool in_class,
                       qkv_error *err)
{
    const rewrite *r = rewrite_of(letter);
    if (r == NULL)
        return qkv_text_put(out, "\\", 1, err)
            && qkv_text_put(out, &letter, 1, err);
    const char *as = in_class ? r->inside : r->outside;
    if (as == NULL)
        return qkv_fail(err, QKV_EUNSUPPORTED,
                        "\\%c in the brackets of a pattern", letter);
    return qkv_text_put(out, as, strlen(as), err);
}

/* The pattern as PCRE2 must read it to find what Oniguruma finds. */
static bool translate(qkv_text *out, qkv_slice from, qkv_error *err)
{
    int depth = 0;              /* 1 in [...], 2 in [[:alpha:]] */
    for (size_t i = 0; i < from.bytes; i++) {
        const char c = from.data[i];
        const char next = i + 1 < from.bytes ? from.data[i + 1] : '\0';
        if (c == '\\' && i + 1 < from.bytes) {
            if (!put_escape(out, next, depth > 0, err))
                return false;
            i++;
            continue;
        }
        if (depth > 0
            && ((c == '&' && next == '&') || (c == '[' && next != ':')))
            return qkv_fail(err, QKV_EUNSUPPORTED,
                            "a class within a class in the pattern \"%.*s\"",
                            (int)(from.bytes < 200 ? from.bytes : 200),
                            from.data);
        depth += c == '[' ? 1 : c == ']' && depth > 0 ? -1 : 0;
        if (!qkv_text_put(out, &c, 1, err))
            return false;
    }
    return true;
}

static pcre2_code *compile(qkv_pretokenizer *p, const qkv_split *split,
                           qkv_error *err)
{
    qkv_text text = {0};
    pcre2_code *code = NULL;
    pcre2_compile_context *how = pcre2_compile_context_create(p->memory);
    if (how == NULL) {
        qkv_fail(err, QKV_ENOMEM, "no memory for a pattern");
        return NULL;
    }
    pcre2_set_newline(how, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(how, 100);
    const bool ready = split->literal
        ? qkv_text_put(&text, split->pattern.data, split->pattern.bytes, err)
        : translate(&text, split->pattern, err);
    if (ready) {
        int why;
        size_t where;
        const uint32_t flags = PCRE2_UTF
            | (split->literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
        code = pcre2_compile((PCRE2_SPTR)text.data, text.bytes, flags, &why,
                             &where, how);
        if (code == NULL && why == PCRE2_ERROR_HEAP_FAILED) {
            qkv_fail(err, QKV_ENOMEM, "no memory for the pattern \"%.200s\"",
                     text.data);
        } else if (code == NULL) {
            char said[128] = "";
            pcre2_get_error_message(why, (PCRE2_UCHAR *)said, sizeof said);
            qkv_fail(err, QKV_EFORMAT, "the pattern \"%.200s\", at %zu: %s",
                     text.data, where, said);
        }
    }
    pcre2_compile_context_free(how);
    qkv_text_free(&text);
    return code;
}

static step *new_step(qkv_pretokenizer *p, qkv_error *err)
{
    if (p->n_steps == MOST_STEPS) {
        qkv_fail(err, QKV_EUNSUPPORTED,
                 "a pre-tokenizer of more than %d steps", MOST_STEPS);
        return NULL;
    }
    return &p->steps[p->n_steps];
}

/* Is split this pattern, its matches isolated? */
static bool is_split(const qkv_split *split, const char *pattern)
{
    return split->delimiter == QKV_ISOLATED && !split->literal
        && !split->invert && split->pattern.bytes == strlen(pattern)
        && memcmp(split->pattern.data, pattern, split->pattern.bytes) == 0;
}

bool qkv_pretokenizer_add_split(qkv_pretokenizer *p, const qkv_split *split,
                                qkv_error *err)
{
    const qkv_split both = {.pattern = {digit_gpt2, strlen(digit_gpt2)}};
    if (p->n_steps > 0 && p->steps[p->n_steps - 1].is_digits
        && is_split(split, QKV_GPT2_PATTERN)) {
        pcre2_code_free(p->steps[--p->n_steps].code);
        split = &both;
    }
    step *s = new_step(p, err);
    if (s == NULL)
        return false;
    s->is_digits = is_split(split, QKV_DIGIT_PATTERN);
    s->code = compile(p, split, err);
    if (s->code == NULL)
        return false;
    s->invert = split->invert;
    s->delimiter = split->delimiter;
    p->n_steps++;
    return true;
}

bool qkv_pretokenizer_add_space(qkv_pretokenizer *p, qkv_error *err)
{
    if (new_step(p, err) == NULL)
        return false;
    p->n_steps++;
    return true;
}

/* ---- cutting ---- */

typedef struct cut {            /* one call of qkv_pretokenize */
    qkv_pretokenizer *p;
    qkv_word_fn *word;
    void *context;
    qkv_error *err;
} cut;

static bool run_step(cut *c, int k, qkv_slice text);

/* The pieces of one step, as they are joined to their neighbours. */
typedef struct joiner {
    cut *c;
    int next_step;
    qkv_delimiter delimiter;
    const char *text;
    size_t begin, end;          /* the piece that may still grow */
    bool pending, was_match;    /* is there one; was the last part a match */
} joiner;

static bool flush(joiner *j)
{
    if (!j->pending || j->begin == j->end)
        return true;
    j->pending = false;
    const qkv_slice piece = {j->text + j->begin, j->end - j->begin};
    return run_step(j->c, j->next_step, piece);
}

/* Does this part belong to the piece before it? */
static bool joins(const joiner *j, bool is_match)
{
    switch (j->delimiter) {
    case QKV_MERGED_WITH_PREVIOUS: return is_match && !j->was_match;
    case QKV_MERGED_WITH_NEXT: return !is_match && j->was_match;
    case QKV_CONTIGUOUS: return is_match == j->was_match;
    default: return false;
    }
}

/* The part [begin, end) of the text, matched or between matches. */
static bool put_part(joiner *j, size_t begin, size_t end, bool is_match)
{
    if (j->pending && joins(j, is_match)) {
        j->end = end;
    } else {
        if (!flush(j))
            return false;
        j->begin = begin;
        j->end = end;
        j->pending = !(is_match && j->delimiter == QKV_REMOVED);
    }
    j->was_match = is_match;
    return true;
}

static bool match_failed(cut *c, int why)
{
    if (why == PCRE2_ERROR_NOMEMORY)
        return qkv_fail(c->err, QKV_ENOMEM, "no memory to match a pattern");
    char said[128] = "";
    pcre2_get_error_message(why, (PCRE2_UCHAR *)said, sizeof said);
    return qkv_fail(c->err, QKV_EUNSUPPORTED,
                    "a pattern of the pre-tokenizer gave up: %s", said);
}

/* The next match from `at` on: 1, 0 for none, below 0 for PCRE2's error. */
static int find(const cut *c, const step *s, qkv_slice text, size_t at)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)text.data;
    const qkv_pretokenizer *p = c->p;
    int n = s->jit
        ? pcre2_jit_match(s->code, subject, text.bytes, at, 0, p->match,
                          p->limits)
        : PCRE2_ERROR_JIT_STACKLIMIT;
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)    /* the interpreter uses the heap */
        n = pcre2_match(s->code, subject, text.bytes, at,
                        PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, p->match,
                        p->limits);
    return n == PCRE2_ERROR_NOMATCH ? 0 : n < 0 ? n : 1;
}

/* Bytes of the character at p. */
static size_t char_bytes(const char *p)
{
    const unsigned char u = (unsigned char)*p;
    return u < 0xC0 ? 1 : u < 0xE0 ? 2 : u < 0xF0 ? 3 : 4;
}

static bool run_split(cut *c, int k, qkv_slice text)
{
    const step *s = &c->p->steps[k];
    joiner j = {.c = c, .next_step = k + 1, .delimiter = s->delimiter,
                .text = text.data};
    const size_t *found = pcre2_get_ovector_pointer(c->p->match);
    size_t done = 0, at = 0;
    while (at <= text.bytes) {
        const int n = find(c, s, text, at);
        if (n < 0)
            return match_failed(c, n);
        if (n == 0)
            break;
        const size_t begin = found[0], end = found[1];
        if (begin > end || begin < done)    /* \K in a look-around */
            return qkv_fail(c->err, QKV_EUNSUPPORTED,
                            "a pattern of the pre-tokenizer goes backwards");
        if (begin > done && !put_part(&j, done, begin, s->invert))
            return false;
        if (end > begin && !put_part(&j, begin, end, !s->invert))
            return false;
        done = end;
        at = end > begin ? end
            : end < text.bytes ? end + char_bytes(text.data + end)
            : end + 1;
    }
    if (done < text.bytes && !put_part(&j, done, text.bytes, s->invert))
        return false;
    return flush(&j);
}

static bool run_space(cut *c, int k, qkv_slice text)
{
    if (text.data[0] == ' ')
        return run_step(c, k + 1, text);
    qkv_text *spaced = &c->p->steps[k].spaced;
    spaced->bytes = 0;
    if (!qkv_text_put(spaced, " ", 1, c->err)
        || !qkv_text_put(spaced, text.data, text.bytes, c->err))
        return false;
    return run_step(c, k + 1, (qkv_slice){spaced->data, spaced->bytes});
}

static bool run_step(cut *c, int k, qkv_slice text)
{
    if (k == c->p->n_steps)
        return c->word(c->context, text, c->err);
    return c->p->steps[k].code != NULL ? run_split(c, k, text)
        : run_space(c, k, text);
}

bool qkv_pretokenize(qkv_pretokenizer *p, qkv_slice text, qkv_word_fn *word,
                     void *context, qkv_error *err)
{
    if (p->jit) {               /* now that a text is there to be cut */
        for (int k = 0; k < p->n_steps; k++)
            if (p->steps[k].code != NULL)
                p->steps[k].jit = pcre2_jit_compile(p->steps[k].code,
                                                    PCRE2_JIT_COMPLETE) == 0;
        p->jit = false;
    }
    cut c = {p, word, context, err};
    return text.bytes == 0 || run_step(&c, 0, text);
}
