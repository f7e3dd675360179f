/*
 * test_hostile.c - files that are cut, lie, or rot; and memory that runs out
 *
 * Small files of each format. Every prefix; every count, length and offset at
 * its extremes; random bytes changed (fixed seed); the n-th allocation failed.
 * Each must open or give an error with a message, read to its last byte if it
 * opens, and leave nothing behind. Some files end where a page ends, so that a
 * byte too far may not be there.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "files.h"
#include "format/csv.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/npy.h"
#include "format/safetensors.h"

static volatile uint64_t sum;           /* so that reading is not left out */

static void read_bytes(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++)
        sum += at[i];
}

static void read_tensor(qkv_tensor *t)
{
    size_t bytes;
    qkv_error err;
    assert_true(qkv_tensor_bytes(&bytes, t->dtype, t->n_dims, t->shape, &err));
    if (bytes > 0)
        read_bytes(qkv_tensor_data(t), bytes);
    qkv_tensor_release(t);
}

/* A type that is not read is no fault of the file's. */
static bool took_tensor(qkv_tensor *t, const qkv_error *why, qkv_error *err)
{
    if (t != NULL)
        read_tensor(t);
    else if (why->code != QKV_EUNSUPPORTED)
        *err = *why;
    return t != NULL || why->code == QKV_EUNSUPPORTED;
}

/* ---- one reader a format: all that can be read; false: an error ---- */

static void read_array(qkv_gguf_array a)
{
    for (int64_t i = 0; i < a.count; i++) {
        if (a.type == QKV_GGUF_STRING) {
            const qkv_slice s = qkv_gguf_next_string(&a);
            read_bytes(s.data, s.bytes);
        } else {
            sum += qkv_gguf_next_number(&a) > 0;
        }
    }
}

static bool read_gguf(const char *path, qkv_error *err)
{
    qkv_gguf *g = qkv_gguf_open(path, err);
    if (g == NULL)
        return false;
    for (int64_t i = 0; i < qkv_gguf_n_keys(g); i++) {
        qkv_gguf_type type;
        qkv_gguf_array a;
        qkv_slice s;
        int64_t n;
        qkv_error ignored;
        const char *key = qkv_gguf_key(g, i, &type);
        assert_true(qkv_gguf_has(g, key));
        qkv_gguf_integer(&n, g, key, &ignored);
        if (qkv_gguf_string(&s, g, key, &ignored))
            read_bytes(s.data, s.bytes);
        if (qkv_gguf_array_of(&a, g, key, &ignored))
            read_array(a);
    }
    bool good = true;
    for (int64_t i = 0; i < qkv_gguf_n_tensors(g); i++) {
        qkv_error why;
        qkv_tensor *t = qkv_gguf_tensor(g, qkv_gguf_tensor_name(g, i), &why);
        good = took_tensor(t, &why, err) && good;
    }
    qkv_gguf_close(g);
    return good;
}

static bool read_safetensors(const char *path, qkv_error *err)
{
    qkv_safetensors *s = qkv_safetensors_open(path, err);
    if (s == NULL)
        return false;
    bool good = true;
    for (int64_t i = 0; i < qkv_safetensors_count(s); i++) {
        qkv_error why;
        qkv_tensor *t = qkv_safetensors_tensor(s, qkv_safetensors_name(s, i),
                                               &why);
        good = took_tensor(t, &why, err) && good;
    }
    qkv_safetensors_close(s);
    return good;
}

static bool read_npy(const char *path, qkv_error *err)
{
    qkv_tensor *t = qkv_npy_load(path, err);
    if (t != NULL)
        read_tensor(t);
    return t != NULL;
}

static bool read_npz(const char *path, qkv_error *err)
{
    int64_t n;
    char **names;
    qkv_tensor **t;
    if (!qkv_npz_load(path, &n, &names, &t, err))
        return false;
    for (int64_t i = 0; i < n; i++) {
        read_bytes(names[i], strlen(names[i]));
        qkv_free(names[i]);
        read_tensor(t[i]);
    }
    qkv_free(names);
    qkv_free(t);
    return true;
}

static bool read_csv(const char *path, qkv_error *err)
{
    qkv_tensor *t = qkv_csv_load(path, ',', err);
    if (t != NULL)
        read_tensor(t);
    return t != NULL;
}

static void read_value(qkv_json *j)
{
    qkv_slice s;
    switch (qkv_json_peek(j)) {
    case QKV_JSON_NUMBER: sum += qkv_json_number(j) > 0; break;
    case QKV_JSON_STRING:
        s = qkv_json_string(j);
        read_bytes(s.data, s.bytes);
        break;
    case QKV_JSON_ARRAY:
        for (qkv_json_array(j); qkv_json_item(j); )
            read_value(j);
        break;
    case QKV_JSON_OBJECT:
        for (qkv_json_object(j); qkv_json_key(j, &s); ) {
            read_bytes(s.data, s.bytes);
            read_value(j);
        }
        break;
    default: qkv_json_skip(j);
    }
}

/* Read and passed over, which must agree; the text in a block of its size. */
static bool read_json(const char *path, qkv_error *err)
{
    size_t bytes;
    unsigned char *file = read_file(path, &bytes);
    char *exact = malloc(bytes);
    qkv_error skipped = {0};
    qkv_json j;
    if (bytes > 0)
        memcpy(exact, file, bytes);
    free(file);
    qkv_json_begin(&j, exact, bytes);
    read_value(&j);
    const bool good = qkv_json_end(&j, err);
    qkv_json_begin(&j, exact, bytes);
    qkv_json_skip(&j);
    const bool passed = qkv_json_end(&j, &skipped);
    assert_true(passed == good || err->code == QKV_ENOMEM
                || strstr(err->msg, "too large") != NULL);
    free(exact);
    return good;
}

/* ---- the small files ---- */

enum { ROOM = 8192, FORMATS = 7 };

typedef struct sample {
    const char *path;
    bool (*read)(const char *path, qkv_error *err);
    unsigned char data[ROOM];
    size_t bytes;
} sample;

static sample samples[FORMATS];

static void set_sample(int i, const char *path,
                       bool (*read)(const char *, qkv_error *),
                       const void *data, size_t bytes)
{
    assert_true(bytes <= ROOM);
    samples[i] = (sample){.path = path, .read = read, .bytes = bytes};
    memcpy(samples[i].data, data, bytes);
}

static void set_oracle(int i, const char *path,
                       bool (*read)(const char *, qkv_error *),
                       const char *from)
{
    size_t bytes;
    unsigned char *data = read_file(oracle(from), &bytes);
    set_sample(i, path, read, data, bytes);
    free(data);
}

static int make_samples(void **state)
{
    static const char json[] = "{\"a\\u0000\\ud83d\\ude00\": [1, -2.5e3, true, "
        "null, {\"\xc3\xa9\": \"x\\n\"}], \"long enough for eight\": false}";
    static const char csv[] = "a,\"b\"\"\n\"\r\n1,\"2.5\"\nnan,\n-1e9, 7 \n";
    static tiny t;
    (void)state;
    tiny_gguf(&t);
    set_sample(0, "test_hostile.gguf", read_gguf, t.data, t.bytes);
    set_oracle(1, "test_hostile.safetensors", read_safetensors,
               "safetensors/types.safetensors");
    set_oracle(2, "test_hostile.npy", read_npy, "npy/fortran.npy");
    set_oracle(3, "test_hostile.npz", read_npz, "npy/deflated.npz");
    set_oracle(4, "test_hostile.npz", read_npz, "npy/stored.npz");
    set_sample(5, "test_hostile.json", read_json, json, sizeof json - 1);
    set_sample(6, "test_hostile.csv", read_csv, csv, sizeof csv - 1);
    return 0;
}

/* Write, read: no memory left held, and a message where there is an error. */
static bool try(const sample *s, const void *data, size_t bytes)
{
    qkv_error err = {0};
    const size_t live = qkv_alloc_live();
    write_file(s->path, data, bytes);
    const bool good = s->read(s->path, &err);
    assert_int_equal(qkv_alloc_live(), live);
    if (!good && (err.code == QKV_OK || err.msg[0] == '\0'))
        fail_msg("%s: an error without a message", s->path);
    return good;
}

static void test_whole(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++)
        if (!try(&samples[i], samples[i].data, samples[i].bytes))
            fail_msg("%s does not open", samples[i].path);
}

/* A prefix of a table is a table; of the others only the whole file is one. */
static void test_prefixes(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++)
        for (size_t n = 0; n < samples[i].bytes; n++)
            if (try(&samples[i], samples[i].data, n)
                && samples[i].read != read_csv)
                fail_msg("%zu bytes of %s open", n, samples[i].path);
}

static const uint64_t extremes[] = {
    0, 1, 7, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffff8,
    0xffffffff, 0x100000000, INT64_MAX - 7, INT64_MAX,
    (uint64_t)INT64_MAX + 1, UINT64_MAX - 31, UINT64_MAX - 7, UINT64_MAX,
};
enum { N_EXTREMES = sizeof extremes / sizeof extremes[0] };

/* Each field of a GGUF header at each extreme, and every two of them. */
static void test_gguf_fields(void **state)
{
    tiny whole;
    (void)state;
    tiny_gguf(&whole);
    for (int f = 0; f < whole.n_fields; f++)
        for (int e = 0; e < N_EXTREMES; e++) {
            tiny t = whole;
            tiny_set(&t, f, extremes[e]);
            try(&samples[0], t.data, t.bytes);
            t = whole;
            tiny_set(&t, f, extremes[e]);
            tiny_set(&t, (f + 1) % t.n_fields, extremes[N_EXTREMES - 1 - e]);
            try(&samples[0], t.data, t.bytes);
        }
}

/* Each field of the tables in .npz and the numbers before .npy and safetensors:
 * at every byte, numbers of 2, 4 and 8 bytes. */
static void test_binary_fields(void **state)
{
    static const struct {
        int sample;
        size_t from_start, from_end;    /* bytes; 0: not there */
    } rows[] = {{1, 8, 0}, {2, 16, 0}, {3, 64, 300}, {4, 64, 300}};
    unsigned char data[ROOM];
    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        const sample *s = &samples[rows[r].sample];
        for (size_t at = 0; at + 8 < s->bytes; at++) {
            if (at == rows[r].from_start)
                at = s->bytes - rows[r].from_end;
            for (int e = 0; e < N_EXTREMES && at + 8 < s->bytes; e++) {
                const size_t width = extremes[e] <= 0xffff ? 2
                    : extremes[e] <= 0xffffffff ? 4 : 8;
                memcpy(data, s->data, s->bytes);
                memcpy(data + at, &extremes[e], width);
                try(s, data, s->bytes);
            }
        }
    }
}

/* Each number in the text of a header replaced by each of these. */
static void test_safetensors_numbers(void **state)
{
    static const char *const words[] = {
        "0", "1", "2147483648", "4294967296", "9223372036854775807",
        "9223372036854775808", "18446744073709551615", "-1", "1e400", "1.5",
        "null", "[]", "\"\"", "1e18", "-9223372036854775808"};
    static const char *const parts[] = {
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[", "2", ",", "3",
        "],\"data_offsets\":[", "0", ",", "24",
        "]},\"b\":{\"shape\":[", "5", "],\"dtype\":\"U8\",\"data_offsets\":[",
        "24", ",", "29", "]}}"};
    enum { N_PARTS = sizeof parts / sizeof parts[0],
           N_WORDS = sizeof words / sizeof words[0] };
    (void)state;
    for (int p = 1; p < N_PARTS; p += 2)
        for (int q = p; q < N_PARTS; q += 2)
            for (int w = 0; w < N_WORDS; w++) {
                unsigned char file[1024] = {0};
                char *text = (char *)file + 8;
                for (int i = 0; i < N_PARTS; i++)
                    strcat(text, i == p || i == q ? words[w] : parts[i]);
                const uint64_t n = strlen(text);
                memcpy(file, &n, sizeof n);
                try(&samples[1], file, 8 + n + 29);
            }
}

static uint32_t next(uint32_t *seed)            /* xorshift32, Marsaglia 2003 */
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

static void test_random_bytes(void **state)
{
    enum { TIMES = 2000 };
    uint32_t seed = 20240607;
    unsigned char data[ROOM];
    (void)state;
    for (int i = 0; i < FORMATS; i++)
        for (int k = 0; k < TIMES; k++) {
            const sample *s = &samples[i];
            memcpy(data, s->data, s->bytes);
            const uint32_t changes = 1 + next(&seed) % 4;
            for (uint32_t c = 0; c < changes; c++) {
                const size_t at = next(&seed) % s->bytes;
                data[at] = (unsigned char)(next(&seed) % 2 == 0 ? next(&seed)
                    : data[at] ^ 1u << next(&seed) % 8);
            }
            try(s, data, s->bytes);
        }
}

/* Files that end where a page ends: the next byte is not mapped. */
static void test_page_end(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *text = test_calloc(1, page);
    (void)state;
    memset(text, '1', page);
    for (size_t i = 1; i < page; i += 2)
        text[i] = ',';
    qkv_error err;
    for (const char *end = "1\"\n\r, "; *end != '\0'; end++) {
        text[page - 2] = *end == '"' ? '"' : ',';
        text[page - 1] = *end;
        write_file(samples[6].path, text, page);
        qkv_tensor *t = qkv_csv_load(samples[6].path, ',', &err);
        assert_true(t == NULL || t->shape[1] >= (int64_t)page / 2);
        qkv_tensor_release(t);
    }

    qkv_json j;
    text[0] = '[';
    for (const char *end = "1]tfn\"-e.\\ {"; *end != '\0'; end++) {
        text[page - 1] = *end;
        write_file(samples[5].path, text, page);
        qkv_map *map = qkv_map_open(samples[5].path, &err);
        assert_non_null(map);
        qkv_json_begin(&j, map->data, map->bytes);
        qkv_json_skip(&j);
        qkv_json_end(&j, &err);
        qkv_map_release(map);
    }
    test_free(text);
}

/* The n-th allocation fails, for each n until none does. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const sample *s = &samples[i];
        bool good = false;
        long n = 0;
        write_file(s->path, s->data, s->bytes);
        for (; !good; n++) {
            qkv_error err = {0};
            const size_t live = qkv_alloc_live();
            qkv_alloc_fail_after(n);
            good = s->read(s->path, &err);
            qkv_alloc_fail_after(-1);
            assert_int_equal(qkv_alloc_live(), live);
            if (!good && err.code != QKV_ENOMEM)
                fail_msg("%s, allocation %ld: %s", s->path, n, err.msg);
            assert_true(n < 1000);
        }
        assert_true(n > 1);             /* or nothing was allocated at all */
    }
}

/* Writing when memory runs out leaves no file, and what was there stays. */
static bool save(int format, qkv_tensor *const *t, qkv_error *err)
{
    static const char *const names[] = {"a", "b"};
    static const char *const path = "test_hostile.out";
    switch (format) {
    case 0: return qkv_safetensors_save(path, 2, names, t, err);
    case 1: return qkv_npy_save(path, t[0], err);
    case 2: return qkv_npz_save(path, 2, names, t, err);
    default: return qkv_csv_save(path, t[0], ',', err);
    }
}

static void test_saving_without_memory(void **state)
{
    qkv_error err;
    qkv_tensor *whole = qkv_tensor_zeros(QKV_F32, 2, (int64_t[]){2, 3}, NULL,
                                         &err);
    qkv_tensor *t[2];
    (void)state;
    assert_non_null(whole);
    t[0] = qkv_tensor_transpose(whole, 0, 1, &err);
    t[1] = qkv_tensor_zeros(QKV_BF16, 1, (int64_t[]){3}, NULL, &err);
    for (int format = 0; format < 4; format++) {
        bool good = false;
        for (long n = 0; !good; n++) {
            const size_t live = qkv_alloc_live();
            write_file("test_hostile.out", "old", 3);
            qkv_alloc_fail_after(n);
            good = save(format, t, &err);
            qkv_alloc_fail_after(-1);
            assert_int_equal(qkv_alloc_live(), live);
            assert_true(good || err.code == QKV_ENOMEM);
            size_t bytes;
            free(read_file("test_hostile.out", &bytes));
            assert_true(good ? bytes > 3 : bytes == 3);
            assert_true(n < 1000);
        }
    }
    qkv_tensor_release(whole);
    qkv_tensor_release(t[0]);
    qkv_tensor_release(t[1]);
    remove("test_hostile.out");
}

static int remove_samples(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++)
        remove(samples[i].path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_gguf_fields),
        cmocka_unit_test(test_binary_fields),
        cmocka_unit_test(test_safetensors_numbers),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_page_end),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_saving_without_memory),
    };
    return cmocka_run_group_tests(tests, make_samples, remove_samples);
}
