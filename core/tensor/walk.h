/*
 * walk.h - visiting the elements of strided tensors together, block by block
 *
 * Up to four tensors are broadcast to one shape; axes that lie behind each
 * other in all of them are merged (contiguous tensors become one long row);
 * then the elements are visited in row-major order in runs of at most
 * QKV_RUN, spread over the thread pool. What a run computes may depend on
 * nothing but its own elements, so neither do the bits on the threads.
 *
 * Private to tensor/: plain types only (dtype.h).
 */
#ifndef QKV_WALK_H
#define QKV_WALK_H
#include "tensor/tensor.h"

enum { QKV_RUN = 512, QKV_MAX_OPERANDS = 4 };
/* Elements a thread takes at a time; fewer are not worth a second one. The
 * runs of a piece, elements [i * QKV_PIECE, (i + 1) * QKV_PIECE), are visited
 * in order on one thread. */
enum { QKV_PIECE = 1 << 16 };

/* n elements of one operand, `stride` bytes apart. */
typedef struct qkv_strip {
    char *data;
    int64_t stride;
    qkv_dtype dtype;
} qkv_strip;

typedef struct qkv_walk {
    int n_operands, n_dims;
    int64_t count;
    int64_t shape[QKV_MAX_DIMS];
    int64_t stride[QKV_MAX_OPERANDS][QKV_MAX_DIMS];     /* in bytes */
    char *data[QKV_MAX_OPERANDS];
    qkv_dtype dtype[QKV_MAX_OPERANDS];
} qkv_walk;

/* n elements, n <= QKV_RUN, the first being element `first` of the walk;
 * strips [n_operands]. Runs on any thread. */
typedef void qkv_visit(void *context, const qkv_strip *strips, int64_t n,
                       int64_t first);

void qkv_walk_init(qkv_walk *w, int n_dims, const int64_t *shape);
/* Add an operand that broadcasts to the walk's shape (the caller checked). */
void qkv_walk_add(qkv_walk *w, const qkv_tensor *t);
/* Visit everything; serial: in order, on this thread. false when Ctrl-C
 * stopped it. */
bool qkv_walk_run(qkv_walk *w, bool serial, qkv_visit *visit, void *context,
                  qkv_error *err);

/* The shape to which a and b broadcast from the right, with both's axis
 * names, as a header without storage; *out may be a. */
bool qkv_broadcast(qkv_tensor *out, const qkv_tensor *a, const qkv_tensor *b,
                   qkv_error *err);
/* A new tensor with the shape and axis names of `like`. */
qkv_tensor *qkv_tensor_like(const qkv_tensor *like, qkv_dtype dtype,
                            qkv_error *err);
bool qkv_check_axis(const qkv_tensor *t, int axis, qkv_error *err);
/* Refuse quantised tensors: `what` they were wanted for. */
bool qkv_check_plain(const qkv_tensor *t, const char *what, qkv_error *err);
/* The same, and tensors that may not be written. */
bool qkv_check_writable(const qkv_tensor *t, qkv_error *err);

/* Does from broadcast to t's shape (without changing it)? */
bool qkv_check_into(const qkv_tensor *t, const qkv_tensor *from,
                    qkv_error *err);

/* A strip's values as float: in place where they lie so, else in room [n]. */
const float *qkv_strip_floats(const qkv_strip *s, int64_t n, float *room);
void qkv_strip_doubles(double *out, const qkv_strip *s, int64_t n);
/* Store values, converted; integers: to nearest, ties to even. The index of
 * the first value that the type cannot hold (it and the rest are not stored),
 * or n. */
int64_t qkv_strip_store(const qkv_strip *s, const double *values, int64_t n);
void qkv_strip_store_floats(const qkv_strip *s, const float *values,
                            int64_t n);     /* to f32, f16, bf16 */

#endif
