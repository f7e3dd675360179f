/*
 * plan.h - before any work: what is recorded, edited, hooked, and where each
 * value lives
 *
 * Made from a recipe and the names to keep. Every slot (site at a layer) has
 * flags; a slot without any costs the forward one comparison. A recorded site
 * is one storage [layer, row, width] that the operation writes straight into
 * (scores and pattern: [layer, head, query, key] for each sequence); others
 * live in scratch that all layers share. The plan knows what all this takes,
 * and refuses what cannot fit.
 */
#ifndef QKV_PLAN_H
#define QKV_PLAN_H
#include "model/run.h"

enum {
    QKV_RECORD = 1,
    QKV_EDITED = 2,
    QKV_HOOKED = 4,
    QKV_CHECKPOINT = 8          /* with RECORD: nobody asked for it by name */
};

/* What is kept of one site: data of its recorded layers, in rising order. */
typedef struct qkv_record {
    qkv_storage *storage;       /* NULL: nothing of this site */
    int32_t *at;                /* [n_layers]: which of them, or -1 */
    int64_t n_layers;           /* recorded ones */
    int64_t width;              /* floats a row; SCORES: 0 */
    int64_t layer_stride;       /* floats */
    int64_t *seq_offset;        /* [n_seqs] floats into a layer, of row p0 */
    int64_t *seq_p0;            /* [n_seqs] the first position it holds */
    int64_t *seq_room;          /* [n_seqs] positions up to which it goes */
} qkv_record;

/* An edit on a sequence, at its place in the edit's list of sequences. */
typedef struct qkv_touch {
    int64_t seq, place;
    const qkv_edit *edit;
} qkv_touch;

typedef struct qkv_plan {
    const qkv_recipe *recipe;
    const qkv_stack *stack;
    uint8_t *flags;             /* [n_layers * QKV_N_SITES] */
    int64_t n_wanted;           /* slots recorded or hooked */
    qkv_logits_wanted logits;
    int64_t start_layer, stop_at;
    qkv_touch *touches;         /* of a slot: [touch_at[slot], touch_at[slot
                                 * + 1]), by sequence, then as listed */
    int64_t *touch_at;          /* [n_layers * QKV_N_SITES + 1] */
    qkv_record records[QKV_N_SITES];
    size_t record_bytes, scratch_bytes;
} qkv_plan;

/* flags: the slots to record, RECORD set, [n_layers * QKV_N_SITES] (taken,
 * failed or not). Rows have room for the recipe's n_more. */
qkv_plan *qkv_plan_new(const qkv_recipe *recipe, uint8_t *flags,
                       qkv_logits_wanted logits, int64_t start_layer,
                       qkv_error *err);
void qkv_plan_free(qkv_plan *p);                /* NULL is allowed */

/* Where a recorded slot's value of one sequence is: row (or query) `pos`. */
float *qkv_record_at(const qkv_record *r, int64_t layer, int64_t seq,
                     int64_t pos);

#endif
