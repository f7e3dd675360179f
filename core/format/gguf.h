/*
 * gguf.h - GGUF files, versions 2 and 3
 *
 * Mapped; the header is checked whole (counts, lengths, types, alignment,
 * every tensor inside the file and none over another) before anything is
 * used. Tensors come as the file stores them: shapes outermost first, so that
 * a matrix [out, in] that the file lists as (in, out) is [out, in] here.
 */
#ifndef QKV_GGUF_H
#define QKV_GGUF_H
#include "base/file.h"
#include "format/json.h"        /* qkv_slice */
#include "tensor/tensor.h"

typedef struct qkv_gguf qkv_gguf;

typedef enum qkv_gguf_type {    /* of metadata values; the file's numbers */
    QKV_GGUF_U8, QKV_GGUF_I8, QKV_GGUF_U16, QKV_GGUF_I16, QKV_GGUF_U32,
    QKV_GGUF_I32, QKV_GGUF_F32, QKV_GGUF_BOOL, QKV_GGUF_STRING,
    QKV_GGUF_ARRAY, QKV_GGUF_U64, QKV_GGUF_I64, QKV_GGUF_F64
} qkv_gguf_type;

qkv_gguf *qkv_gguf_open(const char *path, qkv_error *err);
void qkv_gguf_close(qkv_gguf *g);               /* NULL is allowed */
const char *qkv_gguf_path(const qkv_gguf *g);

/* ---- metadata ---- */
bool qkv_gguf_has(const qkv_gguf *g, const char *key);
/* A number of any numeric type (bool: 0 or 1). false when the key is absent
 * (err->code ENOTFOUND) or of another type (EFORMAT). */
bool qkv_gguf_integer(int64_t *out, const qkv_gguf *g, const char *key,
                      qkv_error *err);
bool qkv_gguf_number(double *out, const qkv_gguf *g, const char *key,
                     qkv_error *err);
bool qkv_gguf_string(qkv_slice *out, const qkv_gguf *g, const char *key,
                     qkv_error *err);

/* Arrays: walked in order, since strings have no index. Element type and count
 * were checked at open. */
typedef struct qkv_gguf_array {
    qkv_gguf_type type;
    int64_t count;
    const unsigned char *at;
} qkv_gguf_array;
bool qkv_gguf_array_of(qkv_gguf_array *out, const qkv_gguf *g, const char *key,
                       qkv_error *err);
/* The next element, count times; no checks are left to fail. */
qkv_slice qkv_gguf_next_string(qkv_gguf_array *a);
double qkv_gguf_next_number(qkv_gguf_array *a);

/* Keys in the file's order. */
int64_t qkv_gguf_n_keys(const qkv_gguf *g);
const char *qkv_gguf_key(const qkv_gguf *g, int64_t i, qkv_gguf_type *type);

/* ---- tensors, in the file's order ---- */
int64_t qkv_gguf_n_tensors(const qkv_gguf *g);
const char *qkv_gguf_tensor_name(const qkv_gguf *g, int64_t i);
/* Where tensor i is in the file, for the estimate and for forgetting pages. */
void qkv_gguf_tensor_place(const qkv_gguf *g, int64_t i, size_t *offset,
                           size_t *bytes);
/* A read-only view of the mapped file (it keeps the map alive); NULL with
 * ENOTFOUND when there is no such tensor, EUNSUPPORTED for a type that is not
 * in dtype.def, naming it. */
qkv_tensor *qkv_gguf_tensor(const qkv_gguf *g, const char *name,
                            qkv_error *err);

#endif
