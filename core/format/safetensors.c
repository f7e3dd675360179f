/*
 * safetensors.c - safetensors files: see safetensors.h
 *
 *     0  u64 n, little-endian
 *     8  header: n bytes of JSON, spaces behind it
 *          {"__metadata__": {text: text},
 *           name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
 *     8 + n  data; offsets count from here
 *
 * Source: the format's section in github.com/huggingface/safetensors. What it
 * forbids and we let pass: bytes that belong to no tensor. The index of shards
 * is {"metadata": {}, "weight_map": {name of tensor: name of file}}; only what
 * it lists is there.
 */
#include "config.h"

#include "format/safetensors.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/json.h"
#include "format/names.h"
#include "format/scalar.h"
#include "format/spans.h"

enum {
    HEADER_MOST = 100000000,            /* bytes; as the format says */
    WORD_ROOM = 16                      /* of a dtype */
};

typedef struct entry {
    int64_t part;
    char word[WORD_ROOM];               /* dtype, as the file spells it */
    qkv_scalar type;                    /* QKV_N_SCALARS: none of ours */
    int n_dims;
    int64_t shape[QKV_MAX_DIMS];
    size_t offset, bytes;               /* in the file */
} entry;

/* The tensors of one file, or those that an index lists. */
typedef struct table {
    qkv_names names;
    entry *entries;                     /* [names.n] */
} table;

typedef struct part {                   /* one file */
    qkv_map *map;
    qkv_storage *storage;
} part;

struct qkv_safetensors {
    char *path;                         /* as it was opened */
    int64_t n_parts;
    part *parts;
    table tensors;
};

static void free_table(table *t)
{
    qkv_names_free(&t->names);
    qkv_free(t->entries);
    *t = (table){0};
}

static bool make_table(table *t, int64_t room, qkv_error *err)
{
    *t = (table){0};
    t->entries = qkv_alloc_zero((size_t)room, sizeof *t->entries, err);
    return t->entries != NULL && qkv_names_begin(&t->names, room, err);
}

/* ---- the header of one file ---- */

/* Members of the object that is the whole text. */
static bool count_members(int64_t *out, qkv_slice text, qkv_error *err)
{
    qkv_json j;
    qkv_slice key;
    *out = 0;
    qkv_json_begin(&j, text.data, text.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &key); qkv_json_skip(&j))
        ++*out;
    return qkv_json_end(&j, err);
}

static void read_dtype(entry *e, qkv_json *j)
{
    const qkv_slice word = qkv_json_string(j);
    if (j->failed)
        return;
    if (word.bytes == 0 || word.bytes >= WORD_ROOM
        || !qkv_is_printable(word)) {
        qkv_json_fail(j, "a dtype of %zu bytes, expected F32 or the like",
                      word.bytes);
        return;
    }
    memcpy(e->word, word.data, word.bytes);
    e->word[word.bytes] = '\0';
    int type = 0;
    while (type < QKV_N_SCALARS && strcmp(qkv_scalars[type].word, e->word) != 0)
        type++;
    e->type = (qkv_scalar)type;
}

static void read_shape(entry *e, qkv_json *j)
{
    e->n_dims = 0;
    for (qkv_json_array(j); qkv_json_item(j); e->n_dims++) {
        const int64_t size = qkv_json_integer(j);
        if (size < 0)
            qkv_json_fail(j, "a dimension of %" PRId64, size);
        if (e->n_dims == QKV_MAX_DIMS)
            qkv_json_fail(j, "more than %d dimensions", QKV_MAX_DIMS);
        if (j->failed)
            return;
        e->shape[e->n_dims] = size;
    }
}

/* [begin, end), in the data; room: bytes of the data. */
static void read_offsets(entry *e, qkv_json *j, size_t room)
{
    uint64_t at[2] = {0, 0};
    int n = 0;
    for (qkv_json_array(j); qkv_json_item(j); n++) {
        const int64_t x = qkv_json_integer(j);
        if (!j->failed && (n == 2 || x < 0))
            qkv_json_fail(j, "data_offsets has %s, expected [begin, end]",
                          n == 2 ? "more than two numbers" : "a negative one");
        if (j->failed)
            return;
        at[n] = (uint64_t)x;
    }
    if (!j->failed && n < 2)
        qkv_json_fail(j, "data_offsets has %d numbers, expected [begin, end]",
                      n);
    if (!j->failed && (at[0] > at[1] || at[1] > room))
        qkv_json_fail(j, "data_offsets are %" PRIu64 " and %" PRIu64
                      ", the data has %zu bytes", at[0], at[1], room);
    e->offset = (size_t)at[0];
    e->bytes = (size_t)(at[1] - at[0]);
}

/* The bytes must be those of the shape; of types that are not ours, nobody
 * knows. */
static void check_size(const entry *e, qkv_json *j)
{
    if (j->failed || e->type == QKV_N_SCALARS)
        return;
    size_t bytes = qkv_scalars[e->type].bytes;
    for (int d = 0; d < e->n_dims; d++)
        if (!qkv_size_mul(&bytes, bytes, (size_t)e->shape[d])) {
            qkv_json_fail(j, "its dimensions are too large");
            return;
        }
    if (bytes != e->bytes)
        qkv_json_fail(j, "its shape in %s takes %zu bytes, data_offsets are "
                      "%zu apart", e->word, bytes, e->bytes);
}

static void read_entry(entry *e, qkv_json *j, size_t room)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    qkv_slice key;
    int seen = 0, now;
    for (qkv_json_object(j); qkv_json_key(j, &key); seen |= now) {
        now = qkv_json_is(&key, "dtype") ? DTYPE
            : qkv_json_is(&key, "shape") ? SHAPE
            : qkv_json_is(&key, "data_offsets") ? OFFSETS : 0;
        if ((seen & now) != 0)
            qkv_json_fail(j, "a second %.*s", (int)key.bytes, key.data);
        switch (now) {
        case DTYPE: read_dtype(e, j); break;
        case SHAPE: read_shape(e, j); break;
        case OFFSETS: read_offsets(e, j, room); break;
        default: qkv_json_skip(j);
        }
    }
    if (!j->failed && seen != (DTYPE | SHAPE | OFFSETS))
        qkv_json_fail(j, "no %s", (seen & DTYPE) == 0 ? "dtype"
                      : (seen & SHAPE) == 0 ? "shape" : "data_offsets");
    check_size(e, j);
}

/* Pass an error of another part of the house to the parser. */
static void fail_with(qkv_json *j, bool good, const qkv_error *err)
{
    if (good || j->failed)
        return;
    j->failed = true;
    j->err = *err;
}

static bool read_members(table *t, qkv_slice text, size_t data, size_t room,
                         qkv_error *err)
{
    qkv_json j;
    qkv_slice key;
    const char *name = "";
    qkv_json_begin(&j, text.data, text.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &key); ) {
        if (qkv_json_is(&key, "__metadata__")) {
            qkv_json_skip(&j);
            continue;
        }
        const size_t at = t->names.pool.bytes;
        entry *e = &t->entries[t->names.n];
        fail_with(&j, qkv_names_put(&t->names, key, "tensor", err), err);
        if (j.failed)
            break;
        name = t->names.pool.data + at;
        read_entry(e, &j, room);
        e->offset += data;
        if (!j.failed)
            name = "";
    }
    if (qkv_json_end(&j, err))
        return true;
    return *name == '\0' ? false : qkv_fail_in(err, "tensor %.200s", name);
}

static bool check_overlaps(const table *t, qkv_error *err)
{
    const int64_t n = t->names.n;
    qkv_span *spans = qkv_alloc_zero((size_t)n, sizeof *spans, err);
    if (spans == NULL)
        return false;
    for (int64_t i = 0; i < n; i++) {
        const entry *e = &t->entries[i];
        spans[i] = (qkv_span){e->offset, e->offset + e->bytes, t->names.at[i]};
    }
    const bool good = qkv_spans_apart(spans, n, err);
    qkv_free(spans);
    return good;
}

static bool read_header(table *t, const qkv_map *map, qkv_error *err)
{
    uint64_t n;
    int64_t members;
    if (map->bytes < sizeof n)
        return qkv_fail(err, QKV_EFORMAT, "a file of %zu bytes, safetensors "
                        "begin with the header's length in 8", map->bytes);
    memcpy(&n, map->data, sizeof n);
    if (n > map->bytes - sizeof n || n > HEADER_MOST)
        return qkv_fail(err, QKV_EFORMAT, "a header of %" PRIu64 " bytes in a "
                        "file of %zu, at most %d are possible", n, map->bytes,
                        HEADER_MOST);
    const size_t data = sizeof n + (size_t)n;
    const qkv_slice text = {(const char *)map->data + sizeof n, (size_t)n};
    return count_members(&members, text, err) && make_table(t, members, err)
        && read_members(t, text, data, map->bytes - data, err)
        && qkv_names_end(&t->names, "tensor", err) && check_overlaps(t, err);
}

/* ---- opening ---- */

static void release_map(void *map)
{
    qkv_map_release(map);
}

/* Map one more file and read its table; entries know their part. */
static bool open_part(table *t, qkv_safetensors *s, const char *path,
                      qkv_error *err)
{
    part *grown = qkv_realloc(s->parts, (size_t)(s->n_parts + 1)
                              * sizeof *grown, err);
    if (grown == NULL)
        return false;
    s->parts = grown;
    part *p = &grown[s->n_parts];
    *p = (part){qkv_map_open(path, err), NULL};
    if (p->map == NULL)
        return false;
    s->n_parts++;
    if (!read_header(t, p->map, err))
        return qkv_fail_in(err, "%s", path);
    for (int64_t i = 0; i < t->names.n; i++)
        t->entries[i].part = s->n_parts - 1;
    p->storage = qkv_storage_wrap((void *)(uintptr_t)p->map->data,
                                  p->map->bytes, release_map, p->map, err);
    if (p->storage == NULL)
        return false;
    qkv_map_retain(p->map);
    return true;
}

/* A file that lies in the index's own folder: its name and nothing else. */
static bool shard_path(qkv_text *out, const char *index, qkv_slice shard,
                       qkv_error *err)
{
    const char *slash = strrchr(index, '/');
    const size_t folder = slash == NULL ? 0 : (size_t)(slash + 1 - index);
    if (shard.bytes == 0 || shard.bytes > 255 || !qkv_is_printable(shard))
        return qkv_fail(err, QKV_EFORMAT, "weight_map names a file in %zu "
                        "bytes that are no name", shard.bytes);
    if (shard.data[0] == '.'
        || memchr(shard.data, '/', shard.bytes) != NULL)
        return qkv_fail(err, QKV_EFORMAT, "weight_map names the file '%.*s', "
                        "expected one in the same folder", (int)shard.bytes,
                        shard.data);
    out->bytes = 0;
    return qkv_text_put(out, index, folder, err)
        && qkv_text_put(out, shard.data, shard.bytes, err);
}

/* The number of the open part of that path, else -1. */
static int64_t find_part(const qkv_safetensors *s, const char *path)
{
    for (int64_t i = s->n_parts - 1; i >= 0; i--)
        if (strcmp(s->parts[i].map->path, path) == 0)
            return i;
    return -1;
}

/* The tables of an index's shards while it is read. */
typedef struct shards {
    table *tables;              /* [n] */
    int64_t n;
    qkv_text path;
} shards;

/* The table of the shard, opened if it is the first that asks for it. */
static const table *shard_table(shards *all, qkv_safetensors *s,
                                qkv_slice name, qkv_error *err)
{
    if (!shard_path(&all->path, s->path, name, err))
        return NULL;
    const int64_t i = find_part(s, all->path.data);
    if (i >= 0)
        return &all->tables[i];
    table *grown = qkv_realloc(all->tables, (size_t)(all->n + 1)
                               * sizeof *grown, err);
    if (grown == NULL)
        return NULL;
    all->tables = grown;
    grown[all->n] = (table){0};
    return open_part(&grown[all->n++], s, all->path.data, err)
        ? &grown[all->n - 1] : NULL;
}

/* One member of weight_map: the tensor's entry in its shard becomes ours. */
static bool add_tensor(qkv_safetensors *s, shards *all, const char *name,
                       qkv_slice file, qkv_error *err)
{
    const table *t = shard_table(all, s, file, err);
    if (t == NULL)
        return false;
    const int64_t i = qkv_names_find(&t->names, name);
    if (i < 0)
        return qkv_fail(err, QKV_EFORMAT, "weight_map has tensor %.200s in "
                        "%.200s, where it is not", name, all->path.data);
    s->tensors.entries[s->tensors.names.n - 1] = t->entries[i];
    return true;
}

static bool read_weight_map(qkv_safetensors *s, shards *all, qkv_slice text,
                            qkv_error *err)
{
    int64_t members;
    qkv_json j;
    qkv_slice key;
    if (!count_members(&members, text, err)
        || !make_table(&s->tensors, members, err))
        return false;
    qkv_names *names = &s->tensors.names;
    qkv_json_begin(&j, text.data, text.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &key); ) {
        const size_t at = names->pool.bytes;
        fail_with(&j, qkv_names_put(names, key, "tensor", err), err);
        const qkv_slice file = qkv_json_string(&j);
        if (!j.failed)
            fail_with(&j, add_tensor(s, all, names->pool.data + at, file, err),
                      err);
    }
    return qkv_json_end(&j, err) && qkv_names_end(names, "tensor", err);
}

static bool read_index(qkv_safetensors *s, const qkv_map *map, qkv_error *err)
{
    qkv_json j;
    qkv_slice key, weight_map = {0};
    qkv_json_begin(&j, map->data, map->bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &key); )
        if (qkv_json_is(&key, "weight_map"))
            weight_map = qkv_json_text(&j);
        else
            qkv_json_skip(&j);
    if (!qkv_json_end(&j, err))
        return false;
    if (weight_map.data == NULL)
        return qkv_fail(err, QKV_EFORMAT, "no weight_map, which says the file "
                        "of each tensor");
    shards all = {0};
    const bool good = read_weight_map(s, &all, weight_map, err);
    for (int64_t i = 0; i < all.n; i++)
        free_table(&all.tables[i]);
    qkv_free(all.tables);
    qkv_text_free(&all.path);
    return good;
}

static bool is_index(const char *path)
{
    const size_t n = strlen(path);
    return n >= 5 && strcmp(path + n - 5, ".json") == 0;
}

qkv_safetensors *qkv_safetensors_open(const char *path, qkv_error *err)
{
    qkv_safetensors *s = qkv_alloc_zero(1, sizeof *s, err);
    if (s == NULL)
        return NULL;
    bool good = (s->path = qkv_strdup(path, err)) != NULL;
    if (good && is_index(path)) {
        qkv_map *map = qkv_map_open(path, err);
        good = map != NULL
            && (read_index(s, map, err) || qkv_fail_in(err, "%s", path));
        qkv_map_release(map);
    } else if (good) {
        good = open_part(&s->tensors, s, path, err);
    }
    if (good)
        return s;
    qkv_safetensors_close(s);
    return NULL;
}

void qkv_safetensors_close(qkv_safetensors *s)
{
    if (s == NULL)
        return;
    free_table(&s->tensors);
    for (int64_t i = 0; i < s->n_parts; i++) {
        qkv_storage_release(s->parts[i].storage);
        qkv_map_release(s->parts[i].map);
    }
    qkv_free(s->parts);
    qkv_free(s->path);
    qkv_free(s);
}

/* ---- asking ---- */

int64_t qkv_safetensors_count(const qkv_safetensors *s)
{
    return s->tensors.names.n;
}

const char *qkv_safetensors_name(const qkv_safetensors *s, int64_t i)
{
    return s->tensors.names.at[i];
}

bool qkv_safetensors_has(const qkv_safetensors *s, const char *name)
{
    return qkv_names_find(&s->tensors.names, name) >= 0;
}

size_t qkv_safetensors_bytes(const qkv_safetensors *s)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < s->tensors.names.n; i++)
        bytes += s->tensors.entries[i].bytes;
    return bytes;
}

/* The tensor where it lies in the file, or a copy, see the header. */
static qkv_tensor *tensor_of(const qkv_safetensors *s, const entry *e,
                             qkv_error *err)
{
    if (e->type == QKV_N_SCALARS) {
        qkv_fail(err, QKV_EUNSUPPORTED, "dtype %s is not read", e->word);
        return NULL;
    }
    const qkv_scalar_info *type = &qkv_scalars[e->type];
    const part *p = &s->parts[e->part];
    qkv_tensor *t;
    if (type->same && e->offset % type->bytes == 0) {
        t = qkv_tensor_over(p->storage, e->offset, type->as, e->n_dims,
                            e->shape, NULL, err);
        if (t != NULL)
            t->read_only = true;
        return t;
    }
    t = qkv_tensor_new(type->as, e->n_dims, e->shape, NULL, err);
    if (t != NULL && !qkv_scalar_read(qkv_tensor_data(t), e->type,
                                      p->map->data + e->offset,
                                      qkv_tensor_count(t), false, err)) {
        qkv_tensor_release(t);
        t = NULL;
    }
    return t;
}

qkv_tensor *qkv_safetensors_tensor(const qkv_safetensors *s, const char *name,
                                   qkv_error *err)
{
    const int64_t i = qkv_names_find(&s->tensors.names, name);
    if (i < 0) {
        qkv_fail(err, QKV_ENOTFOUND, "%s has no tensor %s", s->path, name);
        return NULL;
    }
    qkv_tensor *t = tensor_of(s, &s->tensors.entries[i], err);
    if (t == NULL)
        qkv_fail_in(err, "%s: tensor %s", s->path, name);
    return t;
}

/* ---- writing ---- */

static bool put_quoted(qkv_text *out, const char *name, qkv_error *err)
{
    if (!qkv_text_put(out, "\"", 1, err))
        return false;
    for (; *name != '\0'; name++)           /* no controls: names.h */
        if (!qkv_text_printf(out, err, *name == '"' || *name == '\\'
                             ? "\\%c" : "%c", *name))
            return false;
    return qkv_text_put(out, "\"", 1, err);
}

static bool put_entry(qkv_text *out, size_t *offset, const char *name,
                      const qkv_tensor *t, qkv_error *err)
{
    size_t bytes;
    if (!qkv_tensor_bytes(&bytes, t->dtype, t->n_dims, t->shape, err)
        || !qkv_text_put(out, ",", 1, err) || !put_quoted(out, name, err)
        || !qkv_text_printf(out, err, ":{\"dtype\":\"%s\",\"shape\":[",
                            qkv_scalars[qkv_scalar_of(t->dtype)].word))
        return false;
    for (int d = 0; d < t->n_dims; d++)
        if (!qkv_text_printf(out, err, "%s%" PRId64, d > 0 ? "," : "",
                             t->shape[d]))
            return false;
    const size_t begin = *offset;
    *offset += bytes;
    return qkv_text_printf(out, err, "],\"data_offsets\":[%zu,%zu]}", begin,
                           *offset);
}

static bool put_data(qkv_writer *w, const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *row_major = qkv_tensor_is_contiguous(t) ? NULL
        : qkv_tensor_clone(t, err);
    if (row_major == NULL && !qkv_tensor_is_contiguous(t))
        return false;
    const qkv_tensor *from = row_major != NULL ? row_major : t;
    const size_t bytes = (size_t)qkv_tensor_count(from)
        * (size_t)qkv_dtypes[from->dtype].bytes;
    const bool good = bytes == 0
        || qkv_writer_put(w, qkv_tensor_data(from), bytes, err);
    qkv_tensor_release(row_major);
    return good;
}

static bool check_saved(int64_t n, const char *const *names,
                        qkv_tensor *const *tensors, qkv_error *err)
{
    qkv_names all = {0};
    bool good = qkv_names_begin(&all, n, err);
    for (int64_t i = 0; good && i < n; i++) {
        good = qkv_names_put(&all, (qkv_slice){names[i], strlen(names[i])},
                             "tensor", err);
        if (good && strcmp(names[i], "__metadata__") == 0)
            good = qkv_fail(err, QKV_EINVAL, "a tensor cannot be called "
                            "__metadata__ in a safetensors file");
        if (good && qkv_is_quantised(tensors[i]->dtype))
            good = qkv_fail(err, QKV_EUNSUPPORTED, "tensor %s is %s, "
                            "safetensors hold plain types", names[i],
                            qkv_dtypes[tensors[i]->dtype].name);
    }
    good = good && qkv_names_end(&all, "tensor", err);
    qkv_names_free(&all);
    if (!good && err->code == QKV_EFORMAT)
        err->code = QKV_EINVAL;             /* the caller's, not a file's */
    return good;
}

/* Wide elements first, so that each lies aligned without gaps. The metadata is
 * what transformers asks for before it reads a file. */
bool qkv_safetensors_save(const char *path, int64_t n,
                          const char *const *names,
                          qkv_tensor *const *tensors, qkv_error *err)
{
    static const char blanks[] = "       ";
    qkv_text header = {0};
    qkv_writer w = {0};
    size_t offset = 0;
    uint64_t bytes;
    if (!check_saved(n, names, tensors, err))
        return qkv_fail_in(err, "cannot write %s", path);
    bool good = qkv_text_printf(&header, err,
                                "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int width = 8; width > 0; width /= 2)
        for (int64_t i = 0; good && i < n; i++)
            if (qkv_dtypes[tensors[i]->dtype].bytes == width)
                good = put_entry(&header, &offset, names[i], tensors[i], err);
    good = good && qkv_text_put(&header, "}", 1, err)
        && qkv_text_put(&header, blanks, (8 - header.bytes % 8) % 8, err);
    bytes = header.bytes;
    good = good && qkv_writer_open(&w, path, err)
        && qkv_writer_put(&w, &bytes, sizeof bytes, err)
        && qkv_writer_put(&w, header.data, header.bytes, err);
    for (int width = 8; width > 0; width /= 2)
        for (int64_t i = 0; good && i < n; i++)
            if (qkv_dtypes[tensors[i]->dtype].bytes == width)
                good = put_data(&w, tensors[i], err);
    qkv_text_free(&header);
    if (good)
        return qkv_writer_commit(&w, err);
    qkv_writer_abandon(&w);
    return false;
}
