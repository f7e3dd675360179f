/*
 * exec.h - one execution of a plan: where values live, and how they get out
 *
 * The state that the parts of the forward share. Every named value passes
 * through one of the three qkv_fire_*, the one place where the outside gets
 * in: edits as listed, hooks, record. A value is written where the plan says:
 * into its record, or into scratch that layers share. Only forward.c and
 * exec.c include this.
 */
#ifndef QKV_EXEC_H
#define QKV_EXEC_H
#include "model/attention.h"
#include "model/forward.h"

/* Scratch buffers; sites whose lives do not overlap share one. */
typedef enum qkv_room {
    QKV_ROOM_A,                 /* what is added to the stream */
    QKV_ROOM_B,                 /* what a norm gave */
    QKV_ROOM_C,                 /* the stream in the middle of a block */
    QKV_ROOM_D,                 /* the stream between blocks */
    QKV_ROOM_E,                 /* the same, where somebody changes a copy */
    QKV_ROOM_SCALE, QKV_ROOM_Q, QKV_ROOM_Z, QKV_ROOM_K, QKV_ROOM_KEYS,
    QKV_ROOM_V, QKV_ROOM_RESULT, QKV_ROOM_PRE, QKV_ROOM_LINEAR,
    QKV_ROOM_ATTENTION, QKV_ROOM_ANGLES, QKV_ROOM_POOLED, QKV_ROOM_PAIR,
    QKV_ROOM_HEAD, QKV_ROOM_HEAD2, QKV_ROOM_LOGITS,
    QKV_N_ROOMS
} qkv_room;

typedef struct qkv_exec {
    const qkv_plan *plan;
    const qkv_batch *batch;
    const qkv_stack *stack;
    const qkv_config *c;
    qkv_outputs *out;
    const float *start;
    int64_t left;               /* wanted slots that did not fire yet */
    bool done;                  /* all that was wanted is there */
    int64_t rows, segments;     /* active at the present layer */
    float *room[QKV_N_ROOMS];
    float *scratch;             /* all rooms */
    qkv_attention *attentions;  /* [segments], of the present layer */
    qkv_tile *tiles;            /* [segments, most_tiles] */
    int most_tiles;
    int64_t attention_each;     /* floats of scratch a thread */
    qkv_error *err;
} qkv_exec;


/* Bytes of scratch that executing a plan for all its rows takes. */
size_t qkv_exec_bytes(const qkv_plan *p);
/* Scratch for the plan and batch that e names; err is e's. */
bool qkv_exec_init(qkv_exec *e);
void qkv_exec_reset(qkv_exec *e);

uint8_t qkv_exec_flags(const qkv_exec *e, qkv_site site, int64_t layer);
/* Does somebody record a HEAD or STEM site, or hook it? */
bool qkv_exec_is_wanted(const qkv_exec *e, qkv_site site);
/* Does somebody want the head's work on every row, not the last ones only? */
bool qkv_exec_wants_all_rows(const qkv_exec *e);
/* Is a [head, query, key] array of this layer asked for? */
bool qkv_exec_is_open(const qkv_exec *e, int64_t layer);

/* Where the operation writes the site: row 0 of the batch, [row, width]. */
float *qkv_exec_home(const qkv_exec *e, qkv_site site, int64_t layer);
/* The same of one segment's scores or pattern. */
qkv_scores qkv_exec_scores(const qkv_exec *e, qkv_site site, int64_t layer,
                           const qkv_segment *s);

/* Fire a site whose values are rows: x [row, width] of the active segments,
 * or (last) one row a segment, that of its last position. false: a failure,
 * or (e->done) nothing more is wanted. */
bool qkv_fire_rows(qkv_exec *e, qkv_site site, int64_t layer, float *x,
                   bool last);
/* Fire a site that has one vector a sequence: x [segment, width]. */
bool qkv_fire_pooled(qkv_exec *e, qkv_site site, float *x);
/* Fire one segment's scores or pattern; what may not be seen stays unseen.
 * When all segments have: qkv_exec_count_down. */
bool qkv_fire_scores(qkv_exec *e, qkv_site site, int64_t layer,
                     const qkv_segment *s, const qkv_attention *a,
                     qkv_scores x);
/* A slot with these flags has fired for all segments. false when it was the
 * last thing wanted: e->done tells this from a failure. */
bool qkv_exec_count_down(qkv_exec *e, uint8_t flags);

#endif
