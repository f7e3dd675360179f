/*
 * gguf.c - GGUF files: see gguf.h
 *
 *     0  "GGUF"              header, all numbers little-endian
 *     4  u32 version         2 or 3
 *     8  u64 tensors
 *    16  u64 keys
 *    24  keys: string name, u32 type, value
 *        tensors: string name, u32 n_dims, u64 dims[n_dims] (innermost
 *          first), u32 type, u64 offset from the data's start
 *        padding to general.alignment (32 unless the key says otherwise)
 *        data
 *
 * A string is u64 bytes and the bytes; an array u32 type, u64 count and the
 * elements. Source: docs/gguf.md of ggml. Opening walks the header once, so
 * it costs as much as the header is long, and reads none of the data. Arrays
 * of arrays are refused, as ggml does; so are the files of big-endian
 * machines.
 */
#include "config.h"

#include "format/gguf.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "format/names.h"
#include "format/spans.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "mapped files are little-endian: so must the machine be"
#endif

enum {
    LEAST_KEY = 8 + 1 + 4 + 1,          /* bytes of the shortest key */
    LEAST_TENSOR = 8 + 1 + 4 + 4 + 8,   /* and tensor entry */
    DEFAULT_ALIGNMENT = 32,
    SHOWN = 200                         /* bytes of a name in a message */
};

typedef struct value {
    qkv_gguf_type type;
    qkv_gguf_array array;       /* arrays; a scalar: its type, 1, its place */
} value;

typedef struct entry {
    int n_dims;
    int64_t shape[QKV_MAX_DIMS];        /* outermost first */
    uint32_t type;                      /* GGML's number */
    bool known;                         /* it is in dtype.def: bytes is right */
    qkv_dtype dtype;
    size_t offset, bytes;               /* in the file */
} entry;

struct qkv_gguf {
    qkv_map *map;
    qkv_storage *storage;       /* the map, for tensors */
    qkv_names keys, names;
    value *values;              /* [keys.n] */
    entry *tensors;             /* [names.n] */
};

/* ---- types ---- */

static const struct {
    const char *name;
    size_t bytes;               /* 0: not of one size */
} types[] = {
    [QKV_GGUF_U8] = {"u8", 1},          [QKV_GGUF_I8] = {"i8", 1},
    [QKV_GGUF_U16] = {"u16", 2},        [QKV_GGUF_I16] = {"i16", 2},
    [QKV_GGUF_U32] = {"u32", 4},        [QKV_GGUF_I32] = {"i32", 4},
    [QKV_GGUF_F32] = {"f32", 4},        [QKV_GGUF_BOOL] = {"a boolean", 1},
    [QKV_GGUF_STRING] = {"a string", 0}, [QKV_GGUF_ARRAY] = {"an array", 0},
    [QKV_GGUF_U64] = {"u64", 8},        [QKV_GGUF_I64] = {"i64", 8},
    [QKV_GGUF_F64] = {"f64", 8},
};
enum { N_TYPES = sizeof types / sizeof types[0] };

/* GGML's types that are not in dtype.def, to be named when they are met. */
static const char *ggml_name(uint32_t type)
{
    static const char *const names[] = {
        [4] = "q4_2", [5] = "q4_3", [9] = "q8_1", [15] = "q8_k",
        [16] = "iq2_xxs", [17] = "iq2_xs", [18] = "iq3_xxs", [19] = "iq1_s",
        [21] = "iq3_s", [22] = "iq2_s", [24] = "i8", [25] = "i16",
        [28] = "f64", [29] = "iq1_m", [31] = "q4_0_4_4", [32] = "q4_0_4_8",
        [33] = "q4_0_8_8", [34] = "tq1_0", [35] = "tq2_0", [39] = "mxfp4",
    };
    const bool listed = type < sizeof names / sizeof names[0];
    return listed && names[type] != NULL ? names[type] : "unknown";
}

/* ---- the header, walked ---- */

typedef struct cursor {
    const unsigned char *data;
    size_t at, end;
} cursor;

static size_t left(const cursor *c)
{
    return c->end - c->at;
}

/* The next n bytes, or NULL. */
static const unsigned char *take(cursor *c, size_t n)
{
    if (n > left(c))
        return NULL;
    const unsigned char *p = c->data + c->at;
    c->at += n;
    return p;
}

static bool take_u32(uint32_t *out, cursor *c)
{
    const unsigned char *p = take(c, sizeof *out);
    if (p != NULL)
        memcpy(out, p, sizeof *out);
    return p != NULL;
}

static bool take_u64(uint64_t *out, cursor *c)
{
    const unsigned char *p = take(c, sizeof *out);
    if (p != NULL)
        memcpy(out, p, sizeof *out);
    return p != NULL;
}

static bool take_string(qkv_slice *out, cursor *c)
{
    uint64_t bytes;
    if (!take_u64(&bytes, c) || bytes > left(c))
        return false;
    out->bytes = (size_t)bytes;
    out->data = (const char *)take(c, out->bytes);
    return true;
}

static bool ends_in(const cursor *c, const char *what, int64_t i,
                    qkv_error *err)
{
    return qkv_fail(err, QKV_EFORMAT, "the file ends, at %zu bytes, inside "
                    "%s %" PRId64 ", which goes on at byte %zu", c->end, what,
                    i, c->at);
}

/* One value of the type; array: its type, count and start, elements passed. */
static bool take_elements(qkv_gguf_array *array, cursor *c)
{
    const size_t size = types[array->type].bytes;
    array->at = c->data + c->at;
    if (size > 0)
        return (uint64_t)array->count <= left(c) / size
            && take(c, (size_t)array->count * size) != NULL;
    qkv_slice ignored;
    for (int64_t i = 0; i < array->count; i++)
        if (!take_string(&ignored, c))
            return false;
    return true;
}

static bool take_value(value *v, cursor *c, const char *name, int64_t i,
                       qkv_error *err)
{
    uint32_t type, element;
    uint64_t count = 1;
    if (!take_u32(&type, c))
        return ends_in(c, "key", i, err);
    if (type >= N_TYPES)
        return qkv_fail(err, QKV_EFORMAT, "key %.*s is of type %" PRIu32
                        ", types run 0..%d", SHOWN, name, type, N_TYPES - 1);
    v->type = (qkv_gguf_type)type;
    element = type;
    if (v->type == QKV_GGUF_ARRAY) {
        if (!take_u32(&element, c) || !take_u64(&count, c))
            return ends_in(c, "key", i, err);
        if (element >= N_TYPES || element == QKV_GGUF_ARRAY)
            return qkv_fail(err, QKV_EFORMAT, "key %.*s is an array of type %"
                            PRIu32 ", expected a plain type or strings",
                            SHOWN, name, element);
        if (count > left(c))            /* an element has a byte at least */
            return qkv_fail(err, QKV_EFORMAT, "key %.*s is an array of %"
                            PRIu64 " elements, %zu bytes are left in the file",
                            SHOWN, name, count, left(c));
    }
    v->array.type = (qkv_gguf_type)element;
    v->array.count = (int64_t)count;
    if (!take_elements(&v->array, c))
        return qkv_fail(err, QKV_EFORMAT, "key %.*s (%s) goes past the end of "
                        "the file, at %zu bytes", SHOWN, name,
                        types[v->type].name, c->end);
    return true;
}

/* The last name put, as text for messages. */
static const char *last_name(const qkv_names *names, qkv_slice name)
{
    return names->pool.data + names->pool.bytes - name.bytes - 1;
}

static bool read_keys(qkv_gguf *g, cursor *c, uint64_t n, qkv_error *err)
{
    if (n > left(c) / LEAST_KEY)
        return qkv_fail(err, QKV_EFORMAT, "%" PRIu64 " keys do not fit in the "
                        "%zu bytes of the file", n, c->end);
    if (!qkv_names_begin(&g->keys, (int64_t)n, err))
        return false;
    g->values = qkv_alloc_zero((size_t)n, sizeof *g->values, err);
    if (g->values == NULL)
        return false;
    for (int64_t i = 0; i < (int64_t)n; i++) {
        qkv_slice name;
        if (!take_string(&name, c))
            return ends_in(c, "key", i, err);
        if (!qkv_names_put(&g->keys, name, "key", err)
            || !take_value(&g->values[i], c, last_name(&g->keys, name), i, err))
            return false;
    }
    return qkv_names_end(&g->keys, "key", err);
}

/* Shape, type and offset (still from the data's start) of one tensor. */
static bool read_tensor(entry *t, cursor *c, const char *name, int64_t i,
                        qkv_error *err)
{
    uint32_t n_dims;
    uint64_t dim, offset;
    if (!take_u32(&n_dims, c))
        return ends_in(c, "tensor", i, err);
    if (n_dims > QKV_MAX_DIMS)
        return qkv_fail(err, QKV_EFORMAT, "tensor %.*s has %" PRIu32
                        " dimensions, at most %d are possible", SHOWN, name,
                        n_dims, QKV_MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        if (!take_u64(&dim, c))
            return ends_in(c, "tensor", i, err);
        if (dim > INT64_MAX)
            return qkv_fail(err, QKV_EFORMAT, "tensor %.*s has a dimension of "
                            "%" PRIu64 ", which is too large", SHOWN, name,
                            dim);
        t->shape[d] = (int64_t)dim;
    }
    if (!take_u32(&t->type, c) || !take_u64(&offset, c))
        return ends_in(c, "tensor", i, err);
    if (offset > c->end)
        return qkv_fail(err, QKV_EFORMAT, "tensor %.*s begins %" PRIu64
                        " bytes into the data of a file of %zu", SHOWN, name,
                        offset, c->end);
    t->offset = (size_t)offset;
    t->known = qkv_dtype_gguf(&t->dtype, t->type);
    if (t->known && !qkv_tensor_bytes(&t->bytes, t->dtype, t->n_dims, t->shape,
                                      err)) {
        err->code = QKV_EFORMAT;    /* a file's shape, not a caller's */
        return qkv_fail_in(err, "tensor %.*s", SHOWN, name);
    }
    return true;
}

static bool read_tensors(qkv_gguf *g, cursor *c, uint64_t n, qkv_error *err)
{
    if (n > left(c) / LEAST_TENSOR)
        return qkv_fail(err, QKV_EFORMAT, "%" PRIu64 " tensors do not fit in "
                        "the %zu bytes of the file", n, c->end);
    if (!qkv_names_begin(&g->names, (int64_t)n, err))
        return false;
    g->tensors = qkv_alloc_zero((size_t)n, sizeof *g->tensors, err);
    if (g->tensors == NULL)
        return false;
    for (int64_t i = 0; i < (int64_t)n; i++) {
        qkv_slice name;
        if (!take_string(&name, c))
            return ends_in(c, "tensor", i, err);
        if (!qkv_names_put(&g->names, name, "tensor", err)
            || !read_tensor(&g->tensors[i], c, last_name(&g->names, name), i,
                            err))
            return false;
    }
    return qkv_names_end(&g->names, "tensor", err);
}

/* ---- where tensors lie ---- */

static bool alignment_of(size_t *out, const qkv_gguf *g, qkv_error *err)
{
    int64_t a = DEFAULT_ALIGNMENT;
    if (qkv_gguf_has(g, "general.alignment")
        && !qkv_gguf_integer(&a, g, "general.alignment", err))
        return false;
    if (a < 8 || a > UINT32_MAX || (a & (a - 1)) != 0)
        return qkv_fail(err, QKV_EFORMAT, "general.alignment is %" PRId64
                        ", expected a power of two from 8 on", a);
    *out = (size_t)a;
    return true;
}

/* Offsets become those in the file; every tensor ends inside it. */
static bool place_tensors(qkv_gguf *g, size_t header, qkv_error *err)
{
    size_t alignment = 0, data, end;
    if (!alignment_of(&alignment, g, err))
        return false;
    data = (header + alignment - 1) & ~(alignment - 1);
    for (int64_t i = 0; i < g->names.n; i++) {
        entry *t = &g->tensors[i];
        if (t->offset % alignment != 0)
            return qkv_fail(err, QKV_EFORMAT, "tensor %.*s begins at %zu of "
                            "the data, expected a multiple of %zu", SHOWN,
                            g->names.at[i], t->offset, alignment);
        if (!qkv_size_add(&t->offset, t->offset, data)
            || !qkv_size_add(&end, t->offset, t->bytes) || end > g->map->bytes)
            return qkv_fail(err, QKV_EFORMAT, "tensor %.*s needs %zu bytes "
                            "from byte %zu on, the file has %zu", SHOWN,
                            g->names.at[i], t->bytes, t->offset,
                            g->map->bytes);
    }
    return true;
}

static bool check_overlaps(const qkv_gguf *g, qkv_error *err)
{
    const int64_t n = g->names.n;
    qkv_span *spans = qkv_alloc_zero((size_t)n, sizeof *spans, err);
    if (spans == NULL)
        return false;
    for (int64_t i = 0; i < n; i++) {
        const entry *t = &g->tensors[i];
        spans[i] = (qkv_span){t->offset, t->offset + t->bytes, g->names.at[i]};
    }
    const bool good = qkv_spans_apart(spans, n, err);
    qkv_free(spans);
    return good;
}

/* ---- opening and closing ---- */

static bool read_header(qkv_gguf *g, qkv_error *err)
{
    cursor c = {g->map->data, 0, g->map->bytes};
    const unsigned char *magic = take(&c, 4);
    uint32_t version;
    uint64_t n_tensors, n_keys;
    if (magic == NULL || memcmp(magic, "GGUF", 4) != 0)
        return qkv_fail(err, QKV_EFORMAT, "not a GGUF file: it does not begin "
                        "with \"GGUF\"");
    if (!take_u32(&version, &c))
        return qkv_fail(err, QKV_EFORMAT, "a file of %zu bytes, a header has "
                        "24", c.end);
    if ((version & 0xffff) == 0 && version != 0)
        return qkv_fail(err, QKV_EUNSUPPORTED, "a big-endian GGUF file; only "
                        "little-endian ones are read");
    if (version != 2 && version != 3)
        return qkv_fail(err, QKV_EUNSUPPORTED, "GGUF version %" PRIu32
                        ", versions 2 and 3 are read", version);
    if (!take_u64(&n_tensors, &c) || !take_u64(&n_keys, &c))
        return qkv_fail(err, QKV_EFORMAT, "a file of %zu bytes, a header has "
                        "24", c.end);
    return read_keys(g, &c, n_keys, err)
        && read_tensors(g, &c, n_tensors, err)
        && place_tensors(g, c.at, err) && check_overlaps(g, err);
}

static void release_map(void *map)
{
    qkv_map_release(map);
}

/* Nobody writes through it: tensors over it are read-only. */
static bool make_storage(qkv_gguf *g, qkv_error *err)
{
    g->storage = qkv_storage_wrap((void *)(uintptr_t)g->map->data,
                                  g->map->bytes, release_map, g->map, err);
    if (g->storage != NULL)
        qkv_map_retain(g->map);
    return g->storage != NULL;
}

qkv_gguf *qkv_gguf_open(const char *path, qkv_error *err)
{
    qkv_gguf *g = qkv_alloc_zero(1, sizeof *g, err);
    if (g == NULL)
        return NULL;
    g->map = qkv_map_open(path, err);
    if (g->map != NULL) {
        if (read_header(g, err) && make_storage(g, err))
            return g;
        qkv_fail_in(err, "%s", path);
    }
    qkv_gguf_close(g);
    return NULL;
}

void qkv_gguf_close(qkv_gguf *g)
{
    if (g == NULL)
        return;
    qkv_names_free(&g->keys);
    qkv_names_free(&g->names);
    qkv_free(g->values);
    qkv_free(g->tensors);
    qkv_storage_release(g->storage);
    qkv_map_release(g->map);
    qkv_free(g);
}

const char *qkv_gguf_path(const qkv_gguf *g)
{
    return g->map->path;
}

/* ---- metadata ---- */

static bool is_number(qkv_gguf_type type)
{
    return type != QKV_GGUF_STRING && type != QKV_GGUF_ARRAY;
}

/* A number of any numeric type; exact for integers up to 2^53. */
static double number_at(qkv_gguf_type type, const unsigned char *at)
{
    switch (type) {
#define READ(ID, C) \
    case QKV_GGUF_##ID: { C x; memcpy(&x, at, sizeof x); return (double)x; }
    READ(U8, uint8_t) READ(I8, int8_t) READ(U16, uint16_t) READ(I16, int16_t)
    READ(U32, uint32_t) READ(I32, int32_t) READ(F32, float)
    READ(U64, uint64_t) READ(I64, int64_t) READ(F64, double)
#undef READ
    case QKV_GGUF_BOOL: return *at != 0;
    case QKV_GGUF_STRING: case QKV_GGUF_ARRAY: break;
    }
    assert(is_number(type));
    return 0;
}

static const value *find(const qkv_gguf *g, const char *key, qkv_error *err)
{
    const int64_t i = qkv_names_find(&g->keys, key);
    if (i >= 0)
        return &g->values[i];
    qkv_fail(err, QKV_ENOTFOUND, "%s has no key %s", g->map->path, key);
    return NULL;
}

static bool wrong_type(const qkv_gguf *g, const char *key, const value *v,
                       const char *wanted, qkv_error *err)
{
    return qkv_fail(err, QKV_EFORMAT, "%s: key %s is %s, %s was expected",
                    g->map->path, key, types[v->type].name, wanted);
}

bool qkv_gguf_has(const qkv_gguf *g, const char *key)
{
    return qkv_names_find(&g->keys, key) >= 0;
}

bool qkv_gguf_integer(int64_t *out, const qkv_gguf *g, const char *key,
                      qkv_error *err)
{
    const value *v = find(g, key, err);
    if (v == NULL)
        return false;
    if (!is_number(v->type))
        return wrong_type(g, key, v, "an integer", err);
    if (v->type == QKV_GGUF_I64) {
        memcpy(out, v->array.at, sizeof *out);
        return true;
    }
    if (v->type == QKV_GGUF_U64) {
        uint64_t x;
        memcpy(&x, v->array.at, sizeof x);
        if (x > INT64_MAX)
            return qkv_fail(err, QKV_EFORMAT, "%s: key %s is %" PRIu64
                            ", which is too large", g->map->path, key, x);
        *out = (int64_t)x;
        return true;
    }
    const double x = number_at(v->type, v->array.at);
    if (!(fabs(x) < 0x1p63) || x != floor(x))
        return qkv_fail(err, QKV_EFORMAT, "%s: key %s is %g, an integer was "
                        "expected", g->map->path, key, x);
    *out = (int64_t)x;
    return true;
}

bool qkv_gguf_number(double *out, const qkv_gguf *g, const char *key,
                     qkv_error *err)
{
    const value *v = find(g, key, err);
    if (v == NULL)
        return false;
    if (!is_number(v->type))
        return wrong_type(g, key, v, "a number", err);
    *out = number_at(v->type, v->array.at);
    return true;
}

bool qkv_gguf_string(qkv_slice *out, const qkv_gguf *g, const char *key,
                     qkv_error *err)
{
    const value *v = find(g, key, err);
    if (v == NULL)
        return false;
    if (v->type != QKV_GGUF_STRING)
        return wrong_type(g, key, v, "a string", err);
    qkv_gguf_array one = v->array;
    *out = qkv_gguf_next_string(&one);
    return true;
}

bool qkv_gguf_array_of(qkv_gguf_array *out, const qkv_gguf *g, const char *key,
                       qkv_error *err)
{
    const value *v = find(g, key, err);
    if (v == NULL)
        return false;
    if (v->type != QKV_GGUF_ARRAY)
        return wrong_type(g, key, v, "an array", err);
    *out = v->array;
    return true;
}

qkv_slice qkv_gguf_next_string(qkv_gguf_array *a)
{
    uint64_t bytes;
    assert(a->type == QKV_GGUF_STRING);
    memcpy(&bytes, a->at, sizeof bytes);
    const qkv_slice s = {(const char *)a->at + sizeof bytes, (size_t)bytes};
    a->at += sizeof bytes + s.bytes;
    return s;
}

double qkv_gguf_next_number(qkv_gguf_array *a)
{
    const double x = number_at(a->type, a->at);
    a->at += types[a->type].bytes;
    return x;
}

int64_t qkv_gguf_n_keys(const qkv_gguf *g)
{
    return g->keys.n;
}

const char *qkv_gguf_key(const qkv_gguf *g, int64_t i, qkv_gguf_type *type)
{
    *type = g->values[i].type;
    return g->keys.at[i];
}

/* ---- tensors ---- */

int64_t qkv_gguf_n_tensors(const qkv_gguf *g)
{
    return g->names.n;
}

const char *qkv_gguf_tensor_name(const qkv_gguf *g, int64_t i)
{
    return g->names.at[i];
}

void qkv_gguf_tensor_place(const qkv_gguf *g, int64_t i, size_t *offset,
                           size_t *bytes)
{
    *offset = g->tensors[i].offset;
    *bytes = g->tensors[i].bytes;
}

qkv_tensor *qkv_gguf_tensor(const qkv_gguf *g, const char *name,
                            qkv_error *err)
{
    const int64_t i = qkv_names_find(&g->names, name);
    if (i < 0) {
        qkv_fail(err, QKV_ENOTFOUND, "%s has no tensor %s", g->map->path,
                 name);
        return NULL;
    }
    const entry *e = &g->tensors[i];
    if (!e->known) {
        qkv_fail(err, QKV_EUNSUPPORTED, "%s: tensor %s is of GGML's type %"
                 PRIu32 " (%s), which is not read", g->map->path, name,
                 e->type, ggml_name(e->type));
        return NULL;
    }
    qkv_tensor *t = qkv_tensor_over(g->storage, e->offset, e->dtype, e->n_dims,
                                    e->shape, NULL, err);
    if (t == NULL)
        qkv_fail_in(err, "%s: tensor %s", g->map->path, name);
    else
        t->read_only = true;
    return t;
}
