/*
 * json.h - a pull parser: one value after another, no tree
 *
 * A 30 MB tokenizer.json should not become a tree, and a vocabulary may hold
 * NUL, so strings come with their length. RFC 8259; input is hostile: depth
 * over 128, bad escapes, bad UTF-8, trailing text are errors that name the
 * byte. An escape that is half a surrogate pair becomes U+FFFD, so that what
 * comes out is always UTF-8. A byte order mark in front is passed over. Keys
 * that stand twice are the reader's affair.
 *
 *     qkv_json j;
 *     qkv_json_begin(&j, data, bytes);
 *     for (qkv_json_object(&j); qkv_json_key(&j, &key); )
 *         if (qkv_json_is(&key, "vocab_size")) n = qkv_json_integer(&j);
 *         else qkv_json_skip(&j);
 *     if (!qkv_json_end(&j, err)) ...
 *
 * The first error sticks: after it every call returns nothing at once, so a
 * reader is checked at its end. Reading a value of another kind is an error.
 */
#ifndef QKV_JSON_H
#define QKV_JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"

typedef struct qkv_slice {
    const char *data;           /* not NUL-terminated; may hold NUL */
    size_t bytes;
} qkv_slice;

typedef enum qkv_json_kind {
    QKV_JSON_NONE,              /* end of container, or after an error */
    QKV_JSON_NULL, QKV_JSON_BOOLEAN, QKV_JSON_NUMBER, QKV_JSON_STRING,
    QKV_JSON_ARRAY, QKV_JSON_OBJECT
} qkv_json_kind;

enum { QKV_JSON_DEPTH = 128 };

typedef struct qkv_json {
    const char *start, *at, *end;
    int depth;
    char open[QKV_JSON_DEPTH];  /* '{' or '[' */
    bool first;                 /* nothing read in the innermost one yet */
    qkv_text scratch;           /* strings with escapes are unfolded here */
    bool failed;
    qkv_error err;
} qkv_json;

void qkv_json_begin(qkv_json *j, const void *data, size_t bytes);
/* Frees; true if no error was met and nothing but blanks is left. */
bool qkv_json_end(qkv_json *j, qkv_error *err);
/* Fail from outside: a value that reads well but is wrong. */
void qkv_json_fail(qkv_json *j, const char *fmt, ...) QKV_PRINTF(2, 3);

qkv_json_kind qkv_json_peek(qkv_json *j);       /* kind of the next value */
void qkv_json_object(qkv_json *j);              /* enter { */
/* The next key, or false at } (which is consumed) or after an error. Valid
 * until the next string is read. */
bool qkv_json_key(qkv_json *j, qkv_slice *key);
void qkv_json_array(qkv_json *j);               /* enter [ */
/* Is there another item? If not, ] is consumed. */
bool qkv_json_item(qkv_json *j);
/* Strings are valid until the next string is read. */
qkv_slice qkv_json_string(qkv_json *j);
double qkv_json_number(qkv_json *j);
int64_t qkv_json_integer(qkv_json *j);          /* 5, 5.0, 5e2; 5.5: an error */
bool qkv_json_boolean(qkv_json *j);
void qkv_json_skip(qkv_json *j);                /* any value */
static inline bool qkv_json_null(qkv_json *j)   /* null? then it is consumed */
{
    return qkv_json_peek(j) == QKV_JSON_NULL ? (qkv_json_skip(j), true) : false;
}
bool qkv_json_is(const qkv_slice *s, const char *word);
bool qkv_is_utf8(qkv_slice s);                  /* RFC 3629: no surrogates */

/* Pass over a value and give its text, to be read later, or twice, by a parser
 * of its own: qkv_json_begin(&k, t.data, t.bytes). Empty after an error. */
qkv_slice qkv_json_text(qkv_json *j);

/* Where the parser stands: at the value, after key or item said true. */
static inline const char *qkv_json_position(const qkv_json *j)
{
    return j->at;
}

#endif
