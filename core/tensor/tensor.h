/*
 * tensor.h - strided, named-axis views over refcounted storage
 *
 * A tensor is a small header that points into a storage: memory of our own,
 * a mapped file, or somebody's buffer. Slicing, transposing and taking a
 * diagonal make new headers over the same storage. Arithmetic is done in
 * float32 and gives new f32 tensors; other types are storage, read by
 * conversion. Quantised tensors (dtype.h) know rows, products and
 * qkv_tensor_float only; everything else refuses them, saying so.
 *
 * Axes have names where they mean something ("head", "query", "d_model"); an
 * axis without one has "". Names travel through every operation.
 *
 * Ownership: reference counts, touched by the interpreter's thread only.
 * A function that returns a qkv_tensor * gives the caller one reference; NULL
 * means failed, with the reason in err. Arguments are lent.
 *
 * Indices count from 0; negative ones from the end. Slices are half-open.
 */
#ifndef QKV_TENSOR_H
#define QKV_TENSOR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

enum { QKV_MAX_DIMS = 8, QKV_AXIS_ROOM = 16 };

typedef struct qkv_storage {
    int refs;
    void *data;
    size_t bytes;
    void (*free_data)(void *owner);     /* called once with owner; or NULL */
    void *owner;
} qkv_storage;

typedef struct qkv_tensor {
    int refs;
    qkv_dtype dtype;
    int n_dims;                         /* 0: one number */
    bool read_only;                     /* writing through it is an error */
    int64_t shape[QKV_MAX_DIMS];        /* 0 is allowed: no elements */
    /* In elements. A quantised tensor: its rows lie along one axis of stride
     * 1, whole blocks each, and every other stride is whole blocks. */
    int64_t stride[QKV_MAX_DIMS];
    char axis[QKV_MAX_DIMS][QKV_AXIS_ROOM];
    int64_t offset;                     /* of element 0, in bytes */
    qkv_storage *storage;
} qkv_tensor;

/* ---- storage ---- */
/* Memory of our own, not cleared. */
qkv_storage *qkv_storage_new(size_t bytes, qkv_error *err);
/* Somebody's memory; free_data(owner) when the last view is gone (or NULL:
 * it must outlive all views). On failure owner stays the caller's. */
qkv_storage *qkv_storage_wrap(void *data, size_t bytes,
                              void (*free_data)(void *owner), void *owner,
                              qkv_error *err);
qkv_storage *qkv_storage_retain(qkv_storage *s);
void qkv_storage_release(qkv_storage *s);           /* NULL is allowed */

/* ---- making and letting go ---- */
/* shape [n_dims], row-major; axes: n_dims names (NULL: none; an entry may be
 * NULL), each at most 15 bytes and no two alike. Not cleared. */
qkv_tensor *qkv_tensor_new(qkv_dtype dtype, int n_dims, const int64_t *shape,
                           const char *const *axes, qkv_error *err);
/* All elements 0; plain types only. */
qkv_tensor *qkv_tensor_zeros(qkv_dtype dtype, int n_dims, const int64_t *shape,
                             const char *const *axes, qkv_error *err);
/* A row-major view of storage from byte `offset` on; checked to lie inside. */
qkv_tensor *qkv_tensor_over(qkv_storage *s, size_t offset, qkv_dtype dtype,
                            int n_dims, const int64_t *shape,
                            const char *const *axes, qkv_error *err);
/* The same with strides of the caller's, in elements, not negative. */
qkv_tensor *qkv_tensor_strided(qkv_storage *s, size_t offset, qkv_dtype dtype,
                               int n_dims, const int64_t *shape,
                               const int64_t *stride, const char *const *axes,
                               qkv_error *err);
qkv_tensor *qkv_tensor_retain(qkv_tensor *t);
void qkv_tensor_release(qkv_tensor *t);             /* NULL is allowed */

/* Bytes a row-major tensor of that shape takes; false on overflow, negative
 * sizes, or a last axis that is not whole blocks. */
bool qkv_tensor_bytes(size_t *out, qkv_dtype dtype, int n_dims,
                      const int64_t *shape, qkv_error *err);

/* ---- asking ---- */
int64_t qkv_tensor_count(const qkv_tensor *t);      /* elements */
bool qkv_tensor_is_contiguous(const qkv_tensor *t); /* row-major, no gaps */
/* First element of a contiguous or strided tensor, unchecked. */
static inline void *qkv_tensor_data(const qkv_tensor *t)
{
    return (char *)t->storage->data + t->offset;
}
/* The number of an axis by name, or by number ("-1" is the last): -1 and an
 * error that lists the axes there are. */
int qkv_tensor_axis(const qkv_tensor *t, const char *name, qkv_error *err);
/* Name axis i; checked as in qkv_tensor_new. */
bool qkv_tensor_name(qkv_tensor *t, int i, const char *name, qkv_error *err);
/* "f32 [head 9, query 15, key 15]" into out; always ends in NUL. */
void qkv_tensor_describe(const qkv_tensor *t, char *out, size_t room);
/* index in [-size, size) -> [0, size); "what" names it in the message. */
bool qkv_index(int64_t *index, int64_t size, const char *what, qkv_error *err);

/* ---- views: the same storage, no copies ---- */
qkv_tensor *qkv_tensor_view(const qkv_tensor *t, qkv_error *err);   /* as it is */
/* t[..., index, ...]: the axis goes away. */
qkv_tensor *qkv_tensor_select(const qkv_tensor *t, int axis, int64_t index,
                              qkv_error *err);
/* [from, to) of an axis; ends beyond the axis are cut, as in NumPy. */
qkv_tensor *qkv_tensor_slice(const qkv_tensor *t, int axis, int64_t from,
                             int64_t to, qkv_error *err);
qkv_tensor *qkv_tensor_transpose(const qkv_tensor *t, int a, int b,
                                 qkv_error *err);
/* order [n_dims]: axis i of the result is axis order[i] of t. */
qkv_tensor *qkv_tensor_permute(const qkv_tensor *t, const int *order,
                               qkv_error *err);
/* The diagonal of the last two axes: key = query + offset. */
qkv_tensor *qkv_tensor_diagonal(const qkv_tensor *t, int64_t offset,
                                qkv_error *err);
/* A view when t is contiguous, else a copy; one size may be -1. Axis names
 * are dropped unless given. */
qkv_tensor *qkv_tensor_reshape(const qkv_tensor *t, int n_dims,
                               const int64_t *shape, const char *const *axes,
                               qkv_error *err);

/* ---- copies ---- */
qkv_tensor *qkv_tensor_clone(const qkv_tensor *t, qkv_error *err);  /* row-major, writable */
/* Row-major copy in another plain type (quantised ones convert to f32, f16 or
 * bf16 only; to a quantised type: EUNSUPPORTED). To integers: nearest, ties to
 * even; out of range or NaN is an error. */
qkv_tensor *qkv_tensor_to(const qkv_tensor *t, qkv_dtype dtype, qkv_error *err);
/* t as contiguous f32: a new reference to t itself when it is that already. */
qkv_tensor *qkv_tensor_float(const qkv_tensor *t, qkv_error *err);
/* indices [n] of an axis, copied; rows of a quantised tensor come as f32. */
qkv_tensor *qkv_tensor_take(const qkv_tensor *t, int axis,
                            const int64_t *indices, int64_t n, qkv_error *err);
qkv_tensor *qkv_tensor_cat(qkv_tensor *const *parts, int n, int axis,
                           qkv_error *err);
/* A new axis of size n, named `name` (or NULL), put at `axis`. */
qkv_tensor *qkv_tensor_stack(qkv_tensor *const *parts, int n, int axis,
                             const char *name, qkv_error *err);

/* ---- writing ---- */
/* t[...] = value, converted to t's type (plain types). */
bool qkv_tensor_fill(qkv_tensor *t, double value, qkv_error *err);
/* t[...] = from, broadcast from the right, converted; the two may overlap. */
bool qkv_tensor_copy(qkv_tensor *t, const qkv_tensor *from, qkv_error *err);

/* One element as a number, by a full index [n_dims] that is in range; plain
 * types. set refuses a read-only tensor and what the type cannot hold. */
double qkv_tensor_get(const qkv_tensor *t, const int64_t *index);
bool qkv_tensor_set(qkv_tensor *t, const int64_t *index, double value,
                    qkv_error *err);

#endif
