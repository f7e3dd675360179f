/*
 * pretokenize.h - text cut into words, before any algorithm sees it
 *
 * A pre-tokenizer is a list of steps; each cuts the pieces that the one before
 * it left, by a pattern, and says what becomes of the matches. These are
 * Hugging Face's Split (Digits and the pattern of ByteLevel are rows of it)
 * and the space that some put in front. Patterns are those of the Oniguruma
 * library in Ruby's syntax, as tokenizer.json has them; here PCRE2 runs them.
 */
#ifndef QKV_PRETOKENIZE_H
#define QKV_PRETOKENIZE_H
#include "base/error.h"
#include "format/json.h"        /* qkv_slice */

typedef struct qkv_pretokenizer qkv_pretokenizer;

/* What becomes of what the pattern matches (what it does not match is always
 * a piece). Names: SplitDelimiterBehavior of Hugging Face's tokenizers. */
typedef enum qkv_delimiter {
    QKV_ISOLATED,               /* each match is a piece of its own */
    QKV_REMOVED,
    QKV_MERGED_WITH_PREVIOUS,   /* to the piece before, if that is no match */
    QKV_MERGED_WITH_NEXT,
    QKV_CONTIGUOUS              /* neighbouring matches are one piece */
} qkv_delimiter;

/* GPT-2's pattern (encoder.py of openai/gpt-2), and any digit. */
extern const char QKV_GPT2_PATTERN[], QKV_DIGIT_PATTERN[];

/* jit: compile patterns to machine code where PCRE2 can. Results are equal. */
qkv_pretokenizer *qkv_pretokenizer_new(bool jit, qkv_error *err);
void qkv_pretokenizer_free(qkv_pretokenizer *p);    /* NULL is allowed */

typedef struct qkv_split {
    qkv_slice pattern;
    bool literal;               /* the pattern is plain text */
    bool invert;                /* what does not match is the delimiter */
    qkv_delimiter delimiter;
} qkv_split;
/* EFORMAT if it does not compile, EUNSUPPORTED for what PCRE2 reads otherwise
 * (&& in a class). */
bool qkv_pretokenizer_add_split(qkv_pretokenizer *p, const qkv_split *split,
                                qkv_error *err);
/* A space before every piece that does not begin with one. */
bool qkv_pretokenizer_add_space(qkv_pretokenizer *p, qkv_error *err);

/* word(context, piece) for each piece in order, none empty; false stops. text
 * must be UTF-8. A piece is lent for that call. A pattern that backtracks
 * without end is EUNSUPPORTED. One thread at a time. */
typedef bool qkv_word_fn(void *context, qkv_slice word, qkv_error *err);
bool qkv_pretokenize(qkv_pretokenizer *p, qkv_slice text, qkv_word_fn *word,
                     void *context, qkv_error *err);

#endif
