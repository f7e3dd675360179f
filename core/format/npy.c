/*
 * npy.c - NumPy's .npy: see npy.h
 *
 *     0  "\x93NUMPY"
 *     6  u8 major, u8 minor
 *     8  u16 n (version 1) or u32 n (2, 3), little-endian
 *        header: n bytes, a Python dictionary as text, blanks, a newline:
 *          {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 *        data
 *
 * Source: numpy/lib/format.py. Only these three keys are allowed, in any
 * order, each once.
 */
#include "config.h"

#include "format/npy.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/npy_impl.h"
#include "format/scalar.h"

enum { ALIGNMENT = 64 };                /* of the data, as NumPy writes it */

typedef struct header {
    qkv_scalar type;
    bool swap, fortran;
    int n_dims;
    int64_t shape[QKV_MAX_DIMS];
} header;

/* ---- the dictionary ---- */

typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_blanks(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n'
                              || *c->at == '\t' || *c->at == '\r'))
        c->at++;
}

/* Passes the text if it comes next, after blanks. */
static bool accept(cursor *c, const char *text)
{
    const size_t n = strlen(text);
    skip_blanks(c);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, text, n) != 0)
        return false;
    c->at += n;
    return true;
}

static bool expect(cursor *c, const char *text, qkv_error *err)
{
    return accept(c, text)
        || qkv_fail(err, QKV_EFORMAT, "%s was expected in the header, %zu "
                    "bytes before its end", text, (size_t)(c->end - c->at));
}

/* '<f4': order, kind, bytes. */
static bool read_descr(header *h, cursor *c, qkv_error *err)
{
    if (accept(c, "["))
        return qkv_fail(err, QKV_EUNSUPPORTED, "records are not read, only "
                        "plain numbers");
    if (!expect(c, "'", err))
        return false;
    const char *text = c->at;
    const char *quote = memchr(text, '\'', (size_t)(c->end - text));
    const size_t n = quote == NULL ? 0 : (size_t)(quote - text);
    if (n < 2 || n > 8)
        return qkv_fail(err, QKV_EFORMAT, "descr has %zu bytes, expected '<f4' "
                        "or the like", n);
    c->at = quote + 1;
    for (int s = 0; s < QKV_N_SCALARS; s++) {
        const qkv_scalar_info *type = &qkv_scalars[s];
        if (n != 3 || strchr("<>|=", text[0]) == NULL || text[0] == '\0'
            || type->kind != text[1] || text[2] != (char)('0' + type->bytes))
            continue;
        h->type = (qkv_scalar)s;
        h->swap = text[0] == '>';
        return true;
    }
    for (size_t i = 0; i < n; i++)
        if (text[i] < ' ' || text[i] > '~')
            return qkv_fail(err, QKV_EFORMAT, "descr is not text");
    return qkv_fail(err, QKV_EUNSUPPORTED, "elements are '%.*s', only numbers "
                    "of b1, i1 to i8, u1 to u8, f2 to f8 are read", (int)n,
                    text);
}

static bool read_dim(int64_t *out, cursor *c, qkv_error *err)
{
    const char *from = c->at;
    *out = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (!qkv_int_mul(out, *out, 10)
            || !qkv_int_add(out, *out, *c->at - '0'))
            return qkv_fail(err, QKV_EFORMAT, "a dimension of over 63 bits");
        c->at++;
    }
    if (c->at == from)
        return qkv_fail(err, QKV_EFORMAT, "shape has something other than "
                        "numbers");
    accept(c, "L");                     /* as Python 2 wrote them */
    return true;
}

/* (), (3,), (3, 4) */
static bool read_shape(header *h, cursor *c, qkv_error *err)
{
    h->n_dims = 0;
    if (!expect(c, "(", err))
        return false;
    while (!accept(c, ")")) {
        if (h->n_dims == QKV_MAX_DIMS)
            return qkv_fail(err, QKV_EUNSUPPORTED, "more than %d dimensions",
                            QKV_MAX_DIMS);
        if (!read_dim(&h->shape[h->n_dims++], c, err))
            return false;
        if (!accept(c, ",")) {
            if (!expect(c, ")", err))
                return false;
            break;
        }
    }
    return true;
}

static bool read_dictionary(header *h, const char *text, size_t bytes,
                            qkv_error *err)
{
    enum { DESCR = 1, FORTRAN = 2, SHAPE = 4 };
    cursor c = {text, text + bytes};
    int seen = 0;
    if (!expect(&c, "{", err))
        return false;
    while (!accept(&c, "}")) {
        const int key = accept(&c, "'descr'") ? DESCR
            : accept(&c, "'fortran_order'") ? FORTRAN
            : accept(&c, "'shape'") ? SHAPE : 0;
        if (key == 0 || (seen & key) != 0)
            return qkv_fail(err, QKV_EFORMAT, "the header's keys are not "
                            "descr, fortran_order and shape");
        seen |= key;
        if (!expect(&c, ":", err)
            || (key == DESCR && !read_descr(h, &c, err))
            || (key == SHAPE && !read_shape(h, &c, err)))
            return false;
        if (key == FORTRAN && !(h->fortran = accept(&c, "True"))
            && !expect(&c, "False", err))
            return false;
        if (!accept(&c, ",")) {
            if (!expect(&c, "}", err))
                return false;
            break;
        }
    }
    skip_blanks(&c);
    if (seen != (DESCR | FORTRAN | SHAPE) || c.at != c.end)
        return qkv_fail(err, QKV_EFORMAT, "the header's keys are not descr, "
                        "fortran_order and shape");
    return true;
}

/* ---- reading ---- */

/* *data: where the elements begin. */
static bool read_header(header *h, size_t *data, const unsigned char *file,
                        size_t bytes, qkv_error *err)
{
    if (bytes < 10 || memcmp(file, "\x93NUMPY", 6) != 0)
        return qkv_fail(err, QKV_EFORMAT, "not a .npy file: it does not begin "
                        "with \\x93NUMPY");
    if (file[6] < 1 || file[6] > 3)
        return qkv_fail(err, QKV_EUNSUPPORTED, ".npy version %d, versions 1 "
                        "to 3 are read", file[6]);
    const size_t start = file[6] == 1 ? 10 : 12;
    size_t n = (size_t)file[8] | (size_t)file[9] << 8;
    if (start == 12 && bytes >= 12)
        n |= (size_t)file[10] << 16 | (size_t)file[11] << 24;
    if (bytes < start || n > bytes - start)
        return qkv_fail(err, QKV_EFORMAT, "a header of %zu bytes in a file of "
                        "%zu", n, bytes);
    *data = start + n;
    return read_dictionary(h, (const char *)file + start, n, err);
}

/* Elements of the shape, and that the file has them. */
static bool check_size(int64_t *count, const header *h, size_t room,
                       qkv_error *err)
{
    const size_t each = qkv_scalars[h->type].bytes;
    *count = 1;
    for (int d = 0; d < h->n_dims; d++)
        if (!qkv_int_mul(count, *count, h->shape[d]))
            return qkv_fail(err, QKV_EFORMAT, "its dimensions are too large");
    if ((uint64_t)*count > room / each)
        return qkv_fail(err, QKV_EFORMAT, "%" PRId64 " elements of %zu bytes, "
                        "the file has %zu bytes for them", *count, each, room);
    return true;
}

/* Read with its axes turned round, a Fortran array is row-major. */
static qkv_tensor *from_fortran(qkv_tensor *turned, qkv_error *err)
{
    int order[QKV_MAX_DIMS];
    for (int d = 0; d < turned->n_dims; d++)
        order[d] = turned->n_dims - 1 - d;
    qkv_tensor *view = qkv_tensor_permute(turned, order, err);
    qkv_tensor *t = view == NULL ? NULL : qkv_tensor_clone(view, err);
    qkv_tensor_release(view);
    qkv_tensor_release(turned);
    return t;
}

qkv_tensor *qkv_npy_decode(const unsigned char *file, size_t bytes,
                           qkv_error *err)
{
    header h = {0};
    size_t data = 0;
    int64_t count, shape[QKV_MAX_DIMS] = {0};
    if (!read_header(&h, &data, file, bytes, err)
        || !check_size(&count, &h, bytes - data, err))
        return NULL;
    const bool turn = h.fortran && h.n_dims > 1;
    for (int d = 0; d < h.n_dims; d++)
        shape[d] = h.shape[turn ? h.n_dims - 1 - d : d];
    qkv_tensor *t = qkv_tensor_new(qkv_scalars[h.type].as, h.n_dims, shape,
                                   NULL, err);
    if (t == NULL)
        return NULL;
    if (!qkv_scalar_read(qkv_tensor_data(t), h.type, file + data, count,
                         h.swap, err)) {
        qkv_tensor_release(t);
        return NULL;
    }
    return turn ? from_fortran(t, err) : t;
}

qkv_tensor *qkv_npy_load(const char *path, qkv_error *err)
{
    qkv_map *map = qkv_map_open(path, err);
    if (map == NULL)
        return NULL;
    qkv_tensor *t = qkv_npy_decode(map->data, map->bytes, err);
    if (t == NULL)
        qkv_fail_in(err, "%s", path);
    qkv_map_release(map);
    return t;
}

/* ---- writing ---- */

static bool put_header(qkv_text *out, const qkv_tensor *t, qkv_error *err)
{
    static const char blanks[ALIGNMENT + 1] =
        "                                                                ";
    enum { FIXED = 10 };
    const qkv_scalar_info *type = &qkv_scalars[qkv_scalar_of(t->dtype)];
    qkv_text text = {0};
    bool good = qkv_text_printf(&text, err, "{'descr': '%c%c%zu', "
                                "'fortran_order': False, 'shape': (",
                                type->bytes == 1 ? '|' : '<', type->kind,
                                type->bytes);
    for (int d = 0; good && d < t->n_dims; d++)
        good = qkv_text_printf(&text, err, "%s%" PRId64 "%s", d > 0 ? " " : "",
                               t->shape[d],
                               d < t->n_dims - 1 || d == 0 ? "," : "");
    good = good && qkv_text_put(&text, "), }", 4, err)
        && qkv_text_put(&text, blanks, ALIGNMENT - 1
                        - (FIXED + text.bytes) % ALIGNMENT, err)
        && qkv_text_put(&text, "\n", 1, err);
    const char fixed[FIXED] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0,
                               (char)(text.bytes & 0xff),
                               (char)(text.bytes >> 8)};
    good = good && qkv_text_put(out, fixed, FIXED, err)
        && qkv_text_put(out, text.data, text.bytes, err);
    qkv_text_free(&text);
    return good;
}

qkv_tensor *qkv_npy_encode(qkv_text *head, const qkv_tensor *t,
                           qkv_error *err)
{
    if (qkv_is_quantised(t->dtype)) {
        qkv_fail(err, QKV_EUNSUPPORTED, "%s is not a type of NumPy's; convert "
                 "to f32 first", qkv_dtypes[t->dtype].name);
        return NULL;
    }
    qkv_tensor *plain = t->dtype == QKV_BF16 ? qkv_tensor_to(t, QKV_F32, err)
        : qkv_tensor_is_contiguous(t) ? qkv_tensor_view(t, err)
        : qkv_tensor_clone(t, err);
    if (plain != NULL && !put_header(head, plain, err)) {
        qkv_tensor_release(plain);
        return NULL;
    }
    return plain;
}

size_t qkv_npy_bytes(const qkv_tensor *t)
{
    return (size_t)qkv_tensor_count(t) * (size_t)qkv_dtypes[t->dtype].bytes;
}

bool qkv_npy_save(const char *path, const qkv_tensor *t, qkv_error *err)
{
    qkv_text head = {0};
    qkv_writer w = {0};
    qkv_tensor *plain = qkv_npy_encode(&head, t, err);
    if (plain == NULL) {
        qkv_text_free(&head);
        return qkv_fail_in(err, "cannot write %s", path);
    }
    bool good = qkv_writer_open(&w, path, err)
        && qkv_writer_put(&w, head.data, head.bytes, err)
        && qkv_writer_put(&w, qkv_tensor_data(plain), qkv_npy_bytes(plain),
                          err);
    if (good)
        good = qkv_writer_commit(&w, err);
    else
        qkv_writer_abandon(&w);
    qkv_text_free(&head);
    qkv_tensor_release(plain);
    return good;
}
