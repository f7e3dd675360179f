/*
 * facts.c - what a file says about its model: see facts.h
 */
#include "config.h"

#include "model/facts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"

enum { MOST_FACTS = 1 << 16, MOST_ELEMENTS = 1024 };

void qkv_facts_free(qkv_facts *f)
{
    for (int64_t i = 0; i < f->count; i++) {
        qkv_free(f->list[i].name);
        qkv_free(f->list[i].string);
    }
    qkv_free(f->list);
    qkv_free(f->source);
    *f = (qkv_facts){0};
}

/* A new fact with this name, or NULL. */
static qkv_fact *add(qkv_facts *f, const char *name, size_t bytes,
                     qkv_fact_kind kind, qkv_error *err)
{
    if (f->count == MOST_FACTS) {
        qkv_fail(err, QKV_EFORMAT, "%s: more than %d entries", f->source,
                 MOST_FACTS);
        return NULL;
    }
    if (f->count == f->room) {
        const int64_t room = f->room == 0 ? 64 : 2 * f->room;
        qkv_fact *list = qkv_realloc(f->list, (size_t)room * sizeof *list, err);
        if (list == NULL)
            return NULL;
        f->list = list;
        f->room = room;
    }
    qkv_fact *fact = &f->list[f->count];
    *fact = (qkv_fact){.kind = kind};
    fact->name = qkv_strndup(name, bytes, err);
    if (fact->name == NULL)
        return NULL;
    f->count++;
    return fact;
}

static bool add_number(qkv_facts *f, const qkv_text *name, qkv_fact_kind kind,
                       double number, qkv_error *err)
{
    qkv_fact *fact = add(f, name->data, name->bytes, kind, err);
    if (fact != NULL)
        fact->number = number;
    return fact != NULL;
}

static bool add_string(qkv_facts *f, const qkv_text *name, qkv_slice s,
                       qkv_error *err)
{
    qkv_fact *fact = add(f, name->data, name->bytes, QKV_FACT_STRING, err);
    if (fact == NULL)
        return false;
    fact->string = qkv_strndup(s.data, s.bytes, err);
    return fact->string != NULL;
}

static void cut(qkv_text *t, size_t bytes)
{
    t->bytes = bytes;
    t->data[bytes] = '\0';
}

static bool read_value(qkv_facts *f, qkv_json *j, qkv_text *name,
                       qkv_error *err);

static bool read_object(qkv_facts *f, qkv_json *j, qkv_text *name,
                        qkv_error *err)
{
    const size_t outer = name->bytes;
    qkv_slice key;
    qkv_json_object(j);
    while (qkv_json_key(j, &key)) {
        if ((outer > 0 && !qkv_text_put(name, ".", 1, err))
            || !qkv_text_put(name, key.data, key.bytes, err)
            || !read_value(f, j, name, err))
            return false;
        cut(name, outer);
    }
    return true;
}

static bool read_array(qkv_facts *f, qkv_json *j, qkv_text *name,
                       qkv_error *err)
{
    const size_t outer = name->bytes;
    int64_t n = 0;
    qkv_json_array(j);
    for (; qkv_json_item(j); n++) {
        if (n >= MOST_ELEMENTS) {
            qkv_json_skip(j);
            continue;
        }
        if (!qkv_text_printf(name, err, ".%lld", (long long)n)
            || !read_value(f, j, name, err))
            return false;
        cut(name, outer);
    }
    return add_number(f, name, QKV_FACT_ARRAY, (double)n, err);
}

static bool read_value(qkv_facts *f, qkv_json *j, qkv_text *name,
                       qkv_error *err)
{
    switch (qkv_json_peek(j)) {
    case QKV_JSON_OBJECT:
        return read_object(f, j, name, err);
    case QKV_JSON_ARRAY:
        return read_array(f, j, name, err);
    case QKV_JSON_STRING:
        return add_string(f, name, qkv_json_string(j), err);
    case QKV_JSON_NUMBER:
        return add_number(f, name, QKV_FACT_NUMBER, qkv_json_number(j), err);
    case QKV_JSON_BOOLEAN:
        return add_number(f, name, QKV_FACT_BOOLEAN, qkv_json_boolean(j), err);
    case QKV_JSON_NULL:
        qkv_json_skip(j);
        return add_number(f, name, QKV_FACT_NULL, 0, err);
    case QKV_JSON_NONE:
        break;
    }
    return true;                /* the parser keeps the error for its end */
}

bool qkv_facts_json(qkv_facts *f, const char *path, qkv_error *err)
{
    *f = (qkv_facts){0};
    qkv_map *map = qkv_map_open(path, err);
    if (map == NULL)
        return false;
    qkv_text name = {0};
    qkv_json j;
    qkv_json_begin(&j, map->data, map->bytes);
    bool done = (f->source = qkv_strdup(path, err)) != NULL
        && qkv_text_put(&name, "", 0, err)
        && read_object(f, &j, &name, err);
    qkv_error parse;
    if (!qkv_json_end(&j, &parse) && done) {
        *err = parse;
        done = qkv_fail_in(err, "%s", path);
    }
    qkv_text_free(&name);
    qkv_map_release(map);
    if (!done)
        qkv_facts_free(f);
    return done;
}

/* One key of a GGUF under its short name. */
static bool read_key(qkv_facts *f, const qkv_gguf *g, const char *key,
                     const char *name, qkv_gguf_type type, qkv_error *err)
{
    qkv_text t = {0};
    bool done = qkv_text_put(&t, name, strlen(name), err);
    qkv_slice s;
    double number;
    qkv_gguf_array a;
    if (done && type == QKV_GGUF_STRING)
        done = qkv_gguf_string(&s, g, key, err) && add_string(f, &t, s, err);
    else if (done && type == QKV_GGUF_ARRAY)
        done = qkv_gguf_array_of(&a, g, key, err)
            && add_number(f, &t, QKV_FACT_ARRAY, (double)a.count, err);
    else if (done)
        done = qkv_gguf_number(&number, g, key, err)
            && add_number(f, &t, type == QKV_GGUF_BOOL ? QKV_FACT_BOOLEAN
                          : QKV_FACT_NUMBER, number, err);
    qkv_text_free(&t);
    return done;
}

bool qkv_facts_gguf(qkv_facts *f, const qkv_gguf *g, qkv_error *err)
{
    *f = (qkv_facts){0};
    qkv_slice arch = {"", 0};
    qkv_error absent;
    qkv_gguf_string(&arch, g, "general.architecture", &absent);
    bool done = (f->source = qkv_strdup(qkv_gguf_path(g), err)) != NULL;
    for (int64_t i = 0; done && i < qkv_gguf_n_keys(g); i++) {
        qkv_gguf_type type;
        const char *key = qkv_gguf_key(g, i, &type), *name = key;
        if (arch.bytes > 0 && strncmp(key, arch.data, arch.bytes) == 0
            && key[arch.bytes] == '.')
            name = key + arch.bytes + 1;
        done = read_key(f, g, key, name, type, err);
    }
    if (!done)
        qkv_facts_free(f);
    return done;
}

const qkv_fact *qkv_facts_find(const qkv_facts *f, const char *names)
{
    for (const char *at = names; *at != '\0'; ) {
        const size_t bytes = strcspn(at, "|");
        for (int64_t i = 0; i < f->count; i++) {
            const qkv_fact *fact = &f->list[i];
            if (fact->kind != QKV_FACT_NULL
                && strncmp(fact->name, at, bytes) == 0
                && fact->name[bytes] == '\0')
                return fact;
        }
        at += bytes + (at[bytes] == '|');
    }
    return NULL;
}

bool qkv_facts_is_null(const qkv_facts *f, const char *names)
{
    for (int64_t i = 0; i < f->count; i++)
        if (f->list[i].kind == QKV_FACT_NULL
            && qkv_text_is_one_of(names, f->list[i].name))
            return true;
    return false;
}

static bool wrong_kind(const qkv_facts *f, const qkv_fact *fact,
                       const char *wanted, qkv_error *err)
{
    static const char *const kinds[] = {"null", "a boolean", "a number",
                                        "a string", "an array"};
    return qkv_fail(err, QKV_EFORMAT, "%s: %s is %s, %s was expected",
                    f->source, fact->name, kinds[fact->kind], wanted);
}

bool qkv_facts_integer(int64_t *out, const qkv_facts *f, const char *names,
                       qkv_error *err)
{
    const qkv_fact *fact = qkv_facts_find(f, names);
    if (fact == NULL)
        return true;
    if (fact->kind != QKV_FACT_NUMBER)
        return wrong_kind(f, fact, "an integer", err);
    if (!(fabs(fact->number) < 9e15) || fact->number != floor(fact->number))
        return qkv_fail(err, QKV_EFORMAT, "%s: %s is %g, an integer was "
                        "expected", f->source, fact->name, fact->number);
    *out = (int64_t)fact->number;
    return true;
}

bool qkv_facts_number(double *out, const qkv_facts *f, const char *names,
                      qkv_error *err)
{
    const qkv_fact *fact = qkv_facts_find(f, names);
    if (fact == NULL)
        return true;
    if (fact->kind != QKV_FACT_NUMBER)
        return wrong_kind(f, fact, "a number", err);
    if (!isfinite(fact->number))
        return qkv_fail(err, QKV_EFORMAT, "%s: %s is %g, a finite number was "
                        "expected", f->source, fact->name, fact->number);
    *out = fact->number;
    return true;
}

bool qkv_facts_boolean(bool *out, const qkv_facts *f, const char *names,
                       qkv_error *err)
{
    const qkv_fact *fact = qkv_facts_find(f, names);
    if (fact == NULL)
        return true;
    if (fact->kind != QKV_FACT_BOOLEAN)
        return wrong_kind(f, fact, "true or false", err);
    *out = fact->number != 0;
    return true;
}

bool qkv_facts_string(const char **out, const qkv_facts *f, const char *names,
                      qkv_error *err)
{
    const qkv_fact *fact = qkv_facts_find(f, names);
    if (fact == NULL)
        return true;
    if (fact->kind != QKV_FACT_STRING)
        return wrong_kind(f, fact, "a string", err);
    *out = fact->string;
    return true;
}
