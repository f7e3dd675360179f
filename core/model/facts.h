/*
 * facts.h - what a file says about its model: flat names and values
 *
 * A config.json, or a GGUF's metadata, read once into a list. Nested objects
 * become dotted names ("rope_parameters.rope_theta"); a GGUF's keys lose
 * their "<architecture>." in front. Arrays hold their length as a number
 * under their own name, and elements that are no containers under
 * "name.0", "name.1" ... (the first 1024).
 */
#ifndef QKV_FACTS_H
#define QKV_FACTS_H
#include "format/gguf.h"

typedef enum qkv_fact_kind {
    QKV_FACT_NULL, QKV_FACT_BOOLEAN, QKV_FACT_NUMBER, QKV_FACT_STRING,
    QKV_FACT_ARRAY
} qkv_fact_kind;

typedef struct qkv_fact {
    char *name;
    qkv_fact_kind kind;
    double number;              /* boolean: 0 or 1; array: its length */
    char *string;               /* NUL-terminated; NULL unless a string */
} qkv_fact;

typedef struct qkv_facts {      /* start from {0}; qkv_facts_free */
    qkv_fact *list;
    int64_t count, room;
    char *source;               /* the file, for messages */
} qkv_facts;

bool qkv_facts_json(qkv_facts *f, const char *path, qkv_error *err);
bool qkv_facts_gguf(qkv_facts *f, const qkv_gguf *g, qkv_error *err);
void qkv_facts_free(qkv_facts *f);

/* The first of some names, separated by '|', that is there and not null. */
const qkv_fact *qkv_facts_find(const qkv_facts *f, const char *names);

/* Is one of these names there, and null? */
bool qkv_facts_is_null(const qkv_facts *f, const char *names);

/* false with a message when the fact is there and of another kind; *out stays
 * as it is when there is none. */
bool qkv_facts_integer(int64_t *out, const qkv_facts *f, const char *names,
                       qkv_error *err);
bool qkv_facts_number(double *out, const qkv_facts *f, const char *names,
                      qkv_error *err);
bool qkv_facts_boolean(bool *out, const qkv_facts *f, const char *names,
                       qkv_error *err);
/* The string is lent by f. */
bool qkv_facts_string(const char **out, const qkv_facts *f, const char *names,
                      qkv_error *err);

#endif
