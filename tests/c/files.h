/*
 * files.h - files for tests: oracles, and what a test writes for itself
 *
 * tiny: a small file built field by field, each field's place remembered, so
 * that a test can set one to something else.
 */
#ifndef QKV_TEST_FILES_H
#define QKV_TEST_FILES_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tests/oracle/NAME; valid until the fourth next call. */
static inline const char *oracle(const char *name)
{
    static char paths[4][1024];
    static int next;
    const char *srcdir = getenv("srcdir");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/tests/oracle/%s",
             srcdir != NULL ? srcdir : ".", name);
    return path;
}

static inline void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

/* The whole file; *bytes its size. free() it. */
static inline unsigned char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    *bytes = (size_t)ftell(f);
    unsigned char *data = malloc(*bytes + 1);
    rewind(f);
    if (data == NULL || fread(data, 1, *bytes, f) != *bytes)
        exit(1);
    fclose(f);
    return data;
}

enum { TINY_FIELDS = 100 };

typedef struct tiny {
    unsigned char data[2048];
    size_t bytes;
    struct {
        const char *name;
        size_t at;
        int width;
    } field[TINY_FIELDS];
    int n_fields;
} tiny;

static inline void tiny_set(tiny *t, int field, uint64_t value)
{
    for (int i = 0; i < t->field[field].width; i++)
        t->data[t->field[field].at + (size_t)i]
            = (unsigned char)(value >> (8 * i));
}

/* A little-endian number of 1 to 8 bytes. */
static inline void tiny_put(tiny *t, const char *name, int width,
                            uint64_t value)
{
    const int i = t->n_fields++;
    t->field[i].name = name;
    t->field[i].at = t->bytes;
    t->field[i].width = width;
    t->bytes += (size_t)width;
    tiny_set(t, i, value);
}

static inline void tiny_bytes(tiny *t, const char *text, size_t bytes)
{
    memcpy(t->data + t->bytes, text, bytes);
    t->bytes += bytes;
}

/* GGUF's string: its length, 8 bytes, and the text. */
static inline void tiny_string(tiny *t, const char *name, const char *text)
{
    tiny_put(t, name, 8, strlen(text));
    tiny_bytes(t, text, strlen(text));
}

static inline int tiny_find(const tiny *t, const char *name)
{
    for (int i = 0; i < t->n_fields; i++)
        if (strcmp(t->field[i].name, name) == 0)
            return i;
    fprintf(stderr, "no field %s\n", name);
    exit(1);
}

static inline void tiny_tensor(tiny *t, const char *const names[6],
                               const char *text, uint64_t inner,
                               uint64_t outer, uint64_t type, uint64_t offset)
{
    tiny_string(t, names[0], text);
    tiny_put(t, names[1], 4, 2);
    tiny_put(t, names[2], 8, inner);
    tiny_put(t, names[3], 8, outer);
    tiny_put(t, names[4], 4, type);
    tiny_put(t, names[5], 8, offset);
}

/* A GGUF file of seven keys and two tensors: a [2, 3] f32 0 .. 5, b [1, 32]
 * q8_0. */
static inline void tiny_gguf(tiny *t)
{
    static const char *const a[] = {"a", "a.n_dims", "a.inner", "a.outer",
                                    "a.type", "a.offset"};
    static const char *const b[] = {"b", "b.n_dims", "b.inner", "b.outer",
                                    "b.type", "b.offset"};
    memset(t, 0, sizeof *t);
    tiny_bytes(t, "GGUF", 4);
    tiny_put(t, "version", 4, 3);
    tiny_put(t, "tensors", 8, 2);
    tiny_put(t, "keys", 8, 7);
    tiny_string(t, "arch", "general.architecture");
    tiny_put(t, "arch.type", 4, 8);
    tiny_string(t, "arch.value", "llama");
    tiny_string(t, "align", "general.alignment");
    tiny_put(t, "align.type", 4, 4);
    tiny_put(t, "align.value", 4, 32);
    tiny_string(t, "n", "n");
    tiny_put(t, "n.type", 4, 11);
    tiny_put(t, "n.value", 8, UINT64_MAX);          /* i64 -1 */
    tiny_string(t, "words", "words");
    tiny_put(t, "words.type", 4, 9);
    tiny_put(t, "words.element", 4, 8);
    tiny_put(t, "words.count", 8, 3);
    tiny_string(t, "word0", "one");
    tiny_string(t, "word1", "");
    tiny_string(t, "word2", "three");
    tiny_string(t, "scores", "scores");
    tiny_put(t, "scores.type", 4, 9);
    tiny_put(t, "scores.element", 4, 6);
    tiny_put(t, "scores.count", 8, 2);
    tiny_put(t, "score0", 4, 0x3fc00000);           /* 1.5 */
    tiny_put(t, "score1", 4, 0xc0000000);           /* -2 */
    tiny_string(t, "flag", "flag");
    tiny_put(t, "flag.type", 4, 7);
    tiny_put(t, "flag.value", 1, 1);
    tiny_string(t, "x", "x");
    tiny_put(t, "x.type", 4, 12);
    tiny_put(t, "x.value", 8, 0x3fb999999999999a);  /* f64 0.1 */
    tiny_tensor(t, a, "a.weight", 3, 2, 0, 0);
    tiny_tensor(t, b, "b.weight", 32, 1, 8, 32);
    t->bytes = (t->bytes + 31) / 32 * 32;
    for (int i = 0; i < 6; i++) {
        const float x = (float)i;
        tiny_bytes(t, (const char *)&x, sizeof x);
    }
    t->bytes += 8 + 34;                             /* padding, a block */
}

#endif
