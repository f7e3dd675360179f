/*
 * forward.h - the one forward: a plan, a batch, from tokens to logits
 */
#ifndef QKV_FORWARD_H
#define QKV_FORWARD_H
#include "model/plan.h"

/* Where the results go that are not sites' records. */
typedef struct qkv_outputs {
    /* The stream after the last layer that was run, [n_rows, d_model], or
     * NULL; *reached gets that layer count. */
    float *resid;
    int64_t reached;
    /* Logits of each segment's last row, [segment, d_vocab], for
     * QKV_LOGITS_LAST; NULL: not wanted. All rows' are the LOGITS record. */
    float *last;
} qkv_outputs;

/* Run the batch from plan->start_layer to the last thing that is wanted.
 * start [n_rows, d_model]: the stream that enters each segment's l0, NULL
 * when all enter at layer 0. Fires every site once per segment, on this
 * thread. */
bool qkv_forward(qkv_outputs *out, const qkv_plan *plan,
                 const qkv_batch *batch, const float *start, qkv_error *err);

#endif
