/*
 * npz.c - NumPy's .npz, a zip archive of .npy files: see npy.h
 *
 *     local header and data of each member
 *     central directory: an entry a member, which points at its local header
 *     [zip64 end record, and its locator, 20 bytes]
 *     end record, 22 bytes and a comment
 *
 * Source: PKWARE's APPNOTE 6.3.9, sections 4.3 to 4.5. The central directory
 * is what counts. Members are stored or deflated; encrypted ones and archives
 * in several parts are refused. No two members may share bytes, and no member
 * may claim to grow more than deflate can make it: so a small file cannot ask
 * for much memory. What we write is always in the zip64 form: one path.
 */
#include "config.h"

#include "format/npy.h"

#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "format/names.h"
#include "format/npy_impl.h"
#include "format/spans.h"

enum {
    LOCAL_HEADER = 30, CENTRAL_HEADER = 46, END = 22, LOCATOR = 20, END64 = 56,
    COMMENT_MOST = 65535,
    STORED = 0, DEFLATED = 8,
    DEFLATE_MOST = 1032                 /* bytes that one can become */
};
static const uint32_t LOCAL_SIGN = 0x04034b50, CENTRAL_SIGN = 0x02014b50,
    END_SIGN = 0x06054b50, LOCATOR_SIGN = 0x07064b50, END64_SIGN = 0x06064b50;

typedef struct member {
    unsigned method, flags;
    uint32_t crc;
    uint64_t packed, bytes, local;      /* local: offset of its header */
    qkv_slice name;
    size_t data;                        /* offset of its bytes */
} member;

/* ---- numbers in the file: little-endian at any byte ---- */

static uint64_t get(const unsigned char *at, int bytes)
{
    uint64_t x = 0;
    for (int i = bytes - 1; i >= 0; i--)
        x = x << 8 | at[i];
    return x;
}

static bool put(qkv_text *out, int bytes, uint64_t x, qkv_error *err)
{
    char b[8];
    for (int i = 0; i < bytes; i++)
        b[i] = (char)(x >> (8 * i) & 0xff);
    return qkv_text_put(out, b, (size_t)bytes, err);
}

/* ---- finding the members ---- */

typedef struct directory {
    uint64_t n, bytes, offset;
} directory;

/* The last end record whose comment reaches to the end of the file. */
static const unsigned char *find_end(const qkv_map *map)
{
    if (map->bytes < END)
        return NULL;
    const size_t most = map->bytes - END < COMMENT_MOST ? map->bytes - END
        : COMMENT_MOST;
    for (size_t comment = 0; comment <= most; comment++) {
        const unsigned char *at = map->data + map->bytes - END - comment;
        if (get(at, 4) == END_SIGN && get(at + 20, 2) == comment)
            return at;
    }
    return NULL;
}

static bool read_end(directory *d, const qkv_map *map, qkv_error *err)
{
    const unsigned char *end = find_end(map);
    if (end == NULL)
        return qkv_fail(err, QKV_EFORMAT, "not a .npz file: a zip archive's "
                        "end record is not there");
    if (get(end + 4, 2) != get(end + 6, 2))
        return qkv_fail(err, QKV_EUNSUPPORTED, "a zip archive in several "
                        "parts");
    *d = (directory){get(end + 10, 2), get(end + 12, 4), get(end + 16, 4)};
    const size_t at = (size_t)(end - map->data);
    if (at >= LOCATOR && get(end - LOCATOR, 4) == LOCATOR_SIGN) {
        const uint64_t where = get(end - LOCATOR + 8, 8);
        if (map->bytes < END64 || where > map->bytes - END64
            || get(map->data + where, 4) != END64_SIGN)
            return qkv_fail(err, QKV_EFORMAT, "its zip64 end record is not at "
                            "byte %" PRIu64, where);
        const unsigned char *end64 = map->data + where;
        *d = (directory){get(end64 + 32, 8), get(end64 + 40, 8),
                         get(end64 + 48, 8)};
    }
    if (d->offset > at || d->bytes > at - d->offset)
        return qkv_fail(err, QKV_EFORMAT, "a directory of %" PRIu64 " bytes at "
                        "byte %" PRIu64 " of a file of %zu", d->bytes,
                        d->offset, map->bytes);
    if (d->n > d->bytes / CENTRAL_HEADER)
        return qkv_fail(err, QKV_EFORMAT, "%" PRIu64 " members do not fit in a "
                        "directory of %" PRIu64 " bytes", d->n, d->bytes);
    return true;
}

/* Sizes that did not fit in 32 bits stand in extra field 1, in this order. */
static bool read_zip64(member *m, const unsigned char *extra, size_t bytes)
{
    uint64_t *const fields[] = {&m->bytes, &m->packed, &m->local};
    while (bytes >= 4) {
        const uint64_t id = get(extra, 2), n = get(extra + 2, 2);
        if (n > bytes - 4)
            return false;
        if (id == 1) {
            uint64_t used = 0;
            for (int i = 0; i < 3; i++)
                if (*fields[i] == UINT32_MAX) {
                    if (n - used < 8)
                        return false;
                    *fields[i] = get(extra + 4 + used, 8);
                    used += 8;
                }
            return true;
        }
        extra += 4 + n;
        bytes -= 4 + (size_t)n;
    }
    return true;
}

/* One entry of the directory; *at moves behind it. */
static bool read_member(member *m, size_t *at, size_t end, const qkv_map *map,
                        qkv_error *err)
{
    const unsigned char *c = map->data + *at;
    if (end - *at < CENTRAL_HEADER || get(c, 4) != CENTRAL_SIGN)
        return qkv_fail(err, QKV_EFORMAT, "no member's entry at byte %zu",
                        *at);
    const size_t name = (size_t)get(c + 28, 2), extra = (size_t)get(c + 30, 2),
        comment = (size_t)get(c + 32, 2);
    if (name + extra + comment > end - *at - CENTRAL_HEADER)
        return qkv_fail(err, QKV_EFORMAT, "the entry at byte %zu is longer "
                        "than the directory", *at);
    *m = (member){
        .flags = (unsigned)get(c + 8, 2), .method = (unsigned)get(c + 10, 2),
        .crc = (uint32_t)get(c + 16, 4), .packed = get(c + 20, 4),
        .bytes = get(c + 24, 4), .local = get(c + 42, 4),
        .name = {(const char *)c + CENTRAL_HEADER, name}};
    if (!read_zip64(m, c + CENTRAL_HEADER + name, extra))
        return qkv_fail(err, QKV_EFORMAT, "the entry at byte %zu has an extra "
                        "field that ends too soon", *at);
    *at += CENTRAL_HEADER + name + extra + comment;
    return true;
}

/* Where its data is, and that it can be what it claims. */
static bool locate(member *m, const qkv_map *map, qkv_error *err)
{
    if (map->bytes < LOCAL_HEADER || m->local > map->bytes - LOCAL_HEADER
        || get(map->data + m->local, 4) != LOCAL_SIGN)
        return qkv_fail(err, QKV_EFORMAT, "no member begins at byte %" PRIu64,
                        m->local);
    const unsigned char *l = map->data + m->local;
    m->data = (size_t)m->local + LOCAL_HEADER + (size_t)get(l + 26, 2)
        + (size_t)get(l + 28, 2);
    if (m->data > map->bytes || m->packed > map->bytes - m->data)
        return qkv_fail(err, QKV_EFORMAT, "%" PRIu64 " bytes from byte %zu on, "
                        "the file has %zu", m->packed, m->data, map->bytes);
    if ((m->flags & 1) != 0)
        return qkv_fail(err, QKV_EUNSUPPORTED, "it is encrypted");
    if (m->method != STORED && m->method != DEFLATED)
        return qkv_fail(err, QKV_EUNSUPPORTED, "packed by method %u, stored "
                        "and deflated members are read", m->method);
    if (m->method == STORED ? m->bytes != m->packed
        : m->bytes / DEFLATE_MOST > m->packed)
        return qkv_fail(err, QKV_EFORMAT, "%" PRIu64 " bytes cannot come from "
                        "%" PRIu64, m->bytes, m->packed);
    return true;
}

/* ---- unpacking ---- */

/* out [m->bytes]; exactly as many bytes as were promised. */
static bool inflate_to(unsigned char *out, const member *m,
                       const unsigned char *from, qkv_error *err)
{
    enum { SOME = 1 << 20 };            /* bytes between two looks at Ctrl-C */
    z_stream z = {0};
    uint64_t in = m->packed, room = m->bytes;
    int state = Z_OK;
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return qkv_fail(err, QKV_ENOMEM, "no memory for zlib");
    z.next_in = (Bytef *)(uintptr_t)from;
    z.next_out = out;
    bool good = true;
    while (good && state == Z_OK) {
        if (z.avail_in == 0)
            in -= z.avail_in = (uInt)(in < SOME ? in : SOME);
        if (z.avail_out == 0)
            room -= z.avail_out = (uInt)(room < SOME ? room : SOME);
        state = inflate(&z, Z_NO_FLUSH);
        good = qkv_check(err);
    }
    room += z.avail_out;
    inflateEnd(&z);
    if (good && (state != Z_STREAM_END || room != 0))
        return qkv_fail(err, QKV_EFORMAT, state == Z_STREAM_END
                        ? "%" PRIu64 " bytes are missing" : "its deflated data "
                        "is damaged, %" PRIu64 " bytes before its end", room);
    return good;
}

static qkv_tensor *unpack(const member *m, const qkv_map *map, qkv_error *err)
{
    const unsigned char *data = map->data + m->data;
    unsigned char *own = NULL;
    qkv_tensor *t = NULL;
    if (m->method == DEFLATED) {
        own = qkv_alloc((size_t)m->bytes, err);
        if (own == NULL)
            return NULL;
        if (!inflate_to(own, m, data, err))
            goto out;
        data = own;
    }
    const uint32_t crc = (uint32_t)crc32_z(0, data, (size_t)m->bytes);
    if (crc != m->crc)
        qkv_fail(err, QKV_EFORMAT, "its checksum is %08" PRIx32 ", expected "
                 "%08" PRIx32, crc, m->crc);
    else
        t = qkv_npy_decode(data, (size_t)m->bytes, err);
out:
    qkv_free(own);
    return t;
}

/* ---- loading ---- */

typedef struct archive {
    qkv_map *map;
    int64_t n, room;            /* members that are .npy, of all */
    member *members;
    qkv_span *spans;
    qkv_names names;
} archive;

/* a/b.npy -> a/b; false: it is no .npy */
static bool is_npy(qkv_slice *name)
{
    if (name->bytes <= 4
        || memcmp(name->data + name->bytes - 4, ".npy", 4) != 0)
        return false;
    name->bytes -= 4;
    return true;
}

static bool read_directory(archive *a, qkv_error *err)
{
    directory d = {0};
    if (!read_end(&d, a->map, err))
        return false;
    a->room = (int64_t)d.n;
    a->members = qkv_alloc_zero((size_t)d.n, sizeof *a->members, err);
    a->spans = a->members == NULL ? NULL
        : qkv_alloc_zero((size_t)d.n, sizeof *a->spans, err);
    if (a->spans == NULL || !qkv_names_begin(&a->names, a->room, err))
        return false;
    size_t at = (size_t)d.offset;
    const size_t end = at + (size_t)d.bytes;
    for (uint64_t i = 0; i < d.n; i++) {
        member *m = &a->members[a->n];
        if (!read_member(m, &at, end, a->map, err))
            return false;
        if (!is_npy(&m->name))
            continue;
        const size_t name = a->names.pool.bytes;
        if (!qkv_names_put(&a->names, m->name, "member", err))
            return false;
        if (!locate(m, a->map, err))
            return qkv_fail_in(err, "member %.200s", a->names.pool.data + name);
        a->n++;
    }
    if (!qkv_names_end(&a->names, "member", err))
        return false;
    for (int64_t i = 0; i < a->n; i++)
        a->spans[i] = (qkv_span){a->members[i].data, a->members[i].data
                                 + (size_t)a->members[i].packed,
                                 a->names.at[i]};
    return qkv_spans_apart(a->spans, a->n, err);
}

static void release_all(int64_t n, char **names, qkv_tensor **tensors)
{
    for (int64_t i = 0; i < n; i++) {
        if (names != NULL)
            qkv_free(names[i]);
        if (tensors != NULL)
            qkv_tensor_release(tensors[i]);
    }
    qkv_free(names);
    qkv_free(tensors);
}

static bool unpack_all(const archive *a, char ***names, qkv_tensor ***tensors,
                       qkv_error *err)
{
    char **words = qkv_alloc_zero((size_t)a->n, sizeof *words, err);
    qkv_tensor **ts = words == NULL ? NULL
        : qkv_alloc_zero((size_t)a->n, sizeof *ts, err);
    bool good = ts != NULL;
    for (int64_t i = 0; good && i < a->n; i++) {
        words[i] = qkv_strdup(a->names.at[i], err);
        if (words[i] == NULL) {
            good = false;
            break;
        }
        ts[i] = unpack(&a->members[i], a->map, err);
        good = ts[i] != NULL || qkv_fail_in(err, "member %.200s", words[i]);
    }
    if (!good) {
        release_all(a->n, words, ts);
        return false;
    }
    *names = words;
    *tensors = ts;
    return true;
}

bool qkv_npz_load(const char *path, int64_t *n, char ***names,
                  qkv_tensor ***tensors, qkv_error *err)
{
    archive a = {.map = qkv_map_open(path, err)};
    if (a.map == NULL)
        return false;
    const bool good = (read_directory(&a, err)
                       && unpack_all(&a, names, tensors, err))
        || qkv_fail_in(err, "%s", path);
    *n = good ? a.n : 0;
    qkv_free(a.members);
    qkv_free(a.spans);
    qkv_names_free(&a.names);
    qkv_map_release(a.map);
    return good;
}

/* ---- saving ---- */

enum { VERSION = 45, UTF8_NAMES = 0x800, FIRST_OF_1980 = 0x21 };

/* What local header and directory entry have in common: from "version needed"
 * to the name's length. */
static bool put_common(qkv_text *out, const char *name, uint32_t crc,
                       qkv_error *err)
{
    return put(out, 2, VERSION, err) && put(out, 2, UTF8_NAMES, err)
        && put(out, 2, STORED, err) && put(out, 2, 0, err)
        && put(out, 2, FIRST_OF_1980, err) && put(out, 4, crc, err)
        && put(out, 4, UINT32_MAX, err) && put(out, 4, UINT32_MAX, err)
        && put(out, 2, strlen(name) + 4, err);
}

static bool put_name(qkv_text *out, const char *name, qkv_error *err)
{
    return qkv_text_put(out, name, strlen(name), err)
        && qkv_text_put(out, ".npy", 4, err);
}

static bool put_local(qkv_text *out, const char *name, uint32_t crc,
                      uint64_t bytes, qkv_error *err)
{
    return put(out, 4, LOCAL_SIGN, err) && put_common(out, name, crc, err)
        && put(out, 2, 4 + 16, err) && put_name(out, name, err)
        && put(out, 2, 1, err) && put(out, 2, 16, err)
        && put(out, 8, bytes, err) && put(out, 8, bytes, err);
}

static bool put_central(qkv_text *out, const char *name, uint32_t crc,
                        uint64_t bytes, uint64_t local, qkv_error *err)
{
    return put(out, 4, CENTRAL_SIGN, err) && put(out, 2, VERSION, err)
        && put_common(out, name, crc, err)
        && put(out, 2, 4 + 24, err)             /* extra field */
        && put(out, 2, 0, err)                  /* comment */
        && put(out, 2, 0, err)                  /* part */
        && put(out, 2, 0, err) && put(out, 4, 0, err)   /* attributes */
        && put(out, 4, UINT32_MAX, err) && put_name(out, name, err)
        && put(out, 2, 1, err) && put(out, 2, 24, err)
        && put(out, 8, bytes, err) && put(out, 8, bytes, err)
        && put(out, 8, local, err);
}

static bool put_end(qkv_text *out, uint64_t n, uint64_t bytes, uint64_t offset,
                    qkv_error *err)
{
    return put(out, 4, END64_SIGN, err) && put(out, 8, END64 - 12, err)
        && put(out, 2, VERSION, err) && put(out, 2, VERSION, err)
        && put(out, 4, 0, err) && put(out, 4, 0, err)
        && put(out, 8, n, err) && put(out, 8, n, err)
        && put(out, 8, bytes, err) && put(out, 8, offset, err)
        && put(out, 4, LOCATOR_SIGN, err) && put(out, 4, 0, err)
        && put(out, 8, offset + bytes, err) && put(out, 4, 1, err)
        && put(out, 4, END_SIGN, err) && put(out, 4, 0, err)
        && put(out, 2, n < UINT16_MAX ? n : UINT16_MAX, err)
        && put(out, 2, n < UINT16_MAX ? n : UINT16_MAX, err)
        && put(out, 4, UINT32_MAX, err) && put(out, 4, UINT32_MAX, err)
        && put(out, 2, 0, err);
}

/* One member to the file and its entry to the directory. */
static bool write_member(qkv_writer *w, uint64_t *offset, qkv_text *central,
                         const char *name, const qkv_tensor *t,
                         qkv_error *err)
{
    qkv_text npy = {0}, local = {0};
    qkv_tensor *plain = qkv_npy_encode(&npy, t, err);
    bool good = plain != NULL;
    if (good) {
        const size_t n = qkv_npy_bytes(plain);
        const uint64_t bytes = npy.bytes + n;
        uLong crc = crc32_z(0, (const Bytef *)npy.data, npy.bytes);
        if (n > 0)
            crc = crc32_z(crc, qkv_tensor_data(plain), n);
        good = put_local(&local, name, (uint32_t)crc, bytes, err)
            && put_central(central, name, (uint32_t)crc, bytes, *offset, err)
            && qkv_writer_put(w, local.data, local.bytes, err)
            && qkv_writer_put(w, npy.data, npy.bytes, err)
            && qkv_writer_put(w, qkv_tensor_data(plain), n, err);
        *offset += local.bytes + bytes;
    }
    qkv_text_free(&npy);
    qkv_text_free(&local);
    qkv_tensor_release(plain);
    return good || qkv_fail_in(err, "tensor %s", name);
}

static bool check_names(int64_t n, const char *const *names, qkv_error *err)
{
    qkv_names all = {0};
    bool good = qkv_names_begin(&all, n, err);
    for (int64_t i = 0; good && i < n; i++)
        good = qkv_names_put(&all, (qkv_slice){names[i], strlen(names[i])},
                             "tensor", err);
    good = good && qkv_names_end(&all, "tensor", err);
    qkv_names_free(&all);
    if (!good && err->code == QKV_EFORMAT)
        err->code = QKV_EINVAL;         /* the caller's, not a file's */
    return good;
}

bool qkv_npz_save(const char *path, int64_t n, const char *const *names,
                  qkv_tensor *const *tensors, qkv_error *err)
{
    qkv_text central = {0};
    qkv_writer w = {0};
    uint64_t offset = 0;
    if (!check_names(n, names, err))
        return qkv_fail_in(err, "cannot write %s", path);
    bool good = qkv_writer_open(&w, path, err);
    for (int64_t i = 0; good && i < n; i++)
        good = write_member(&w, &offset, &central, names[i], tensors[i], err)
            && qkv_check(err);
    good = good && put_end(&central, (uint64_t)n, central.bytes, offset, err)
        && qkv_writer_put(&w, central.data, central.bytes, err);
    qkv_text_free(&central);
    if (good)
        return qkv_writer_commit(&w, err);
    qkv_writer_abandon(&w);
    return false;
}
