/*
 * weight.h - a matrix of a model as it lies in the file, and products with it
 *
 * A weight is {stored matrix, transposed?, row map}: nothing is copied for
 * the sake of a name or an order. It stands for W [n, k], rows of outputs;
 * a product is out [rows, n] = x [rows, k] W' + bias.
 *
 *   plain        W row i is stored row first + i
 *   fused        the same with first > 0 (q, k, v or gate, up in one matrix)
 *   interleaved  groups of rows a fixed distance apart (GPT-NeoX: q, k, v of
 *                each head in turn): row i is first + i / group * pitch
 *                + i % group
 *   pairs        within each group, half-split order from the neighbour order
 *                of GGUF's llama files: j < group/2 is stored at 2 j, the rest
 *                at 2 (j - group/2) + 1
 *   transposed   stored [k, n'] (GPT-2's Conv1D): W row i is stored column
 *                map(i)
 *
 * Stored types are any of dtype.def but the integers; arithmetic is float32
 * on unpacked values, so results are those of the dequantised matrix. Few
 * rows unpack in registers, many rows unpack cache-sized panels.
 * For few x rows the result of each row does not depend on how many there
 * are; which driver serves is chosen by the number of rows alone.
 */
#ifndef QKV_WEIGHT_H
#define QKV_WEIGHT_H
#include "tensor/tensor.h"

typedef struct qkv_weight {
    qkv_tensor *stored;         /* [n', k], transposed: [k, n']; a reference.
                                 * NULL: there is no such matrix */
    int64_t n, k;               /* of W as the model means it */
    int64_t first, group, pitch;    /* row map; group = n: plain */
    bool transposed, pairs;
} qkv_weight;

/* All of a stored matrix (or [k, n'] if transposed), plain. Takes a new
 * reference. stored has two dimensions, contiguous rows, a float or quantised
 * type; a quantised one cannot be transposed. */
bool qkv_weight_init(qkv_weight *w, qkv_tensor *stored, bool transposed,
                     qkv_error *err);
/* Rows [first, first + n) of it; and the maps above: set the fields, then
 * this checks that every mapped row is inside. n is whole groups. A weight
 * that is not there is right. */
bool qkv_weight_check(const qkv_weight *w, const char *name, qkv_error *err);
void qkv_weight_reset(qkv_weight *w);       /* lets the reference go */
/* map(i): the stored row (transposed: column) that is row i of W. */
int64_t qkv_weight_map(const qkv_weight *w, int64_t i);

/* out [rows, n] = x [rows, k] W' + bias [n] (NULL: none); rows of out and x
 * are out_stride and x_stride floats apart. out overlaps nothing. Polls for
 * Ctrl-C between panels; scratch for panels is kept between calls, so these
 * are called from one thread only. */
bool qkv_product(float *out, int64_t out_stride, const float *x,
                 int64_t x_stride, int64_t rows, const qkv_weight *w,
                 const float *bias, qkv_error *err);

/* The same for n matrices (at most QKV_PRODUCTS_MOST) with the same k: what
 * they have of x in common is prepared once, and one loop does them all. */
enum { QKV_PRODUCTS_MOST = 3 };
typedef struct qkv_output {
    float *data;                /* [rows, w->n], */
    int64_t stride;             /* rows so many floats apart */
    const qkv_weight *w;
    const float *bias;          /* [w->n], or NULL */
} qkv_output;
bool qkv_products(const qkv_output *out, int n, const float *x,
                  int64_t x_stride, int64_t rows, qkv_error *err);

/* Only columns picked [n_picked] of the result (rows of W):
 * out [rows, n_picked]. For a handful of logits. */
bool qkv_product_rows(float *out, int64_t out_stride, const float *x,
                      int64_t x_stride, int64_t rows, const qkv_weight *w,
                      const int64_t *picked, int64_t n_picked,
                      const float *bias, qkv_error *err);

/* Give back the scratch that products keep. */
void qkv_product_trim(void);

/* Row i of W, 0 <= i < n, as float: out [k]. (Embedding look-up.) */
void qkv_weight_row(float *out, const qkv_weight *w, int64_t i);

/* All of W as a new f32 tensor [n, k]. */
qkv_tensor *qkv_weight_float(const qkv_weight *w, qkv_error *err);

#endif
