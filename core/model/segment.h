/*
 * segment.h - what a forward works on: rows, segments, chains of keys
 *
 * A batch is rows; a row is one position of one sequence. Rows that belong
 * together are a segment: one sequence, positions [p0, n), entering at layer
 * l0 at resid_pre. Its rows are contiguous. Segments are ordered by l0, so
 * that the active rows of a layer are a prefix of the batch. A prompt is
 * p0 = 0, l0 = 0; decoding one token is p0 = n - 1; a fork starts where its
 * edits can first be felt. Nothing is padded.
 *
 * Keys and values of positions before p0 come from a chain: links of
 * positions [p0, n) from layer l0 on, each with its parent. Position p at
 * layer l is in the newest link that has p >= its p0 and l >= its l0.
 */
#ifndef QKV_SEGMENT_H
#define QKV_SEGMENT_H
#include <stdbool.h>
#include <stdint.h>

#include "tensor/tensor.h"

/* One of a link's two arrays: rows [pos, kv_head * d_head] of layer l0, the
 * next layer `layer_stride` floats on. A view of what a run recorded. */
typedef struct qkv_chain_rows {
    qkv_storage *storage;       /* a reference */
    const float *at;            /* layer l0, position p0 */
    int64_t layer_stride;
} qkv_chain_rows;

/* Keys (after rotary) and values of positions [p0, n), at all layers from l0
 * on: the sites rot_k (or k) and v of a run, nothing of their own. Reference-
 * counted; positions that are written are never changed while another link
 * or run can see them. */
typedef struct qkv_chain {
    int refs;
    struct qkv_chain *parent;   /* NULL: positions start here */
    int64_t p0, n;
    int64_t l0;
    int64_t width;              /* kv_head * d_head */
    qkv_chain_rows k, v;
} qkv_chain;

/* A link over k and v, whose storages it retains, and the parent (NULL at p0
 * = 0), which must reach up to p0. */
qkv_chain *qkv_chain_new(qkv_chain *parent, int64_t p0, int64_t n, int64_t l0,
                         int64_t width, const qkv_chain_rows *k,
                         const qkv_chain_rows *v, qkv_error *err);
qkv_chain *qkv_chain_retain(qkv_chain *c);
void qkv_chain_release(qkv_chain *c);           /* NULL is allowed */

/* A run of positions whose keys and values lie in memory at even steps:
 * [count, kv_head, d_head], `stride` floats from one position to the next. */
typedef struct qkv_tile {
    const float *k, *v;
    int64_t k_stride, v_stride, count;
} qkv_tile;

/* The tiles of positions [0, upto) at a layer, oldest first, into out [room];
 * returns how many there are (room is enough when it is the chain's depth),
 * or -1 when positions are missing. */
int qkv_chain_tiles(qkv_tile *out, int room, const qkv_chain *c, int64_t layer,
                    int64_t upto);
int qkv_chain_depth(const qkv_chain *c);

typedef struct qkv_segment {
    int64_t seq;                /* of the run */
    int64_t p0, n;              /* its positions; rows row0 .. row0 + n - p0 */
    int64_t l0;
    int64_t row0;
    qkv_chain *past;            /* positions [0, p0); NULL when p0 = 0 */
} qkv_segment;

typedef struct qkv_batch {
    int64_t n_rows, n_segments;
    qkv_segment *segments;
    /* [n_rows] each. The position index is not the slot (OPT and RoBERTa
     * count otherwise). types may be NULL: all 0. */
    const int32_t *tokens, *types, *positions;
} qkv_batch;

#endif
