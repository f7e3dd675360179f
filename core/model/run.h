/*
 * run.h - a run is a recipe plus what it kept
 *
 * The recipe is flat and immutable: model and its weights' revision, tokens,
 * edits, hooks, start and stop. Reading a site that was not recorded executes
 * the recipe again with one more name, only as deep as needed and from the
 * nearest layer whose input was kept. A recipe with hooks, or of weights that
 * have changed since, is never executed again: the error says which names to
 * give.
 *
 * A fork is a run with a parent. Each of its sequences is one of the parent's
 * with other edits, or other tokens from some position on, and shares with it
 * what cannot differ: it enters at the first layer and position where a
 * change can be felt, takes the stream that enters there from the parent, and
 * attends to the parent's keys. Many forks are one batch.
 */
#ifndef QKV_RUN_H
#define QKV_RUN_H
#include "model/edit.h"
#include "model/segment.h"

/* A hook is called on the interpreter's thread with a view of one sequence's
 * values (valid during the call only), to read or to change in place. false
 * stops the run with err. It may start another run. */
typedef struct qkv_hook_at {
    char name[QKV_SITE_ROOM];
    qkv_site site;
    int64_t layer;              /* -1 for STEM and HEAD sites */
    int64_t seq, pos0;
} qkv_hook_at;
typedef bool qkv_hook_fn(void *context, qkv_tensor *values,
                         const qkv_hook_at *at, qkv_error *err);

typedef struct qkv_hook {
    qkv_site site;
    qkv_selector layer;
    qkv_hook_fn *fn;
    void *context;
    void (*free_context)(void *context);
} qkv_hook;

typedef enum qkv_logits_wanted {
    QKV_LOGITS_LAST, QKV_LOGITS_ALL, QKV_LOGITS_NONE
} qkv_logits_wanted;

typedef struct qkv_run qkv_run;

typedef struct qkv_sequence {
    int64_t n;                  /* tokens now */
    int64_t n_prompt;           /* of them given, not generated */
    int32_t *ids, *types;       /* room for n + n_more; types may be NULL */
    int64_t of;                 /* a fork: the parent's sequence with which */
    int64_t shared;             /* it shares so many tokens */
    /* Set by qkv_run_new: positions [p0, n) enter at layer l0; they are rows
     * row0 .. of all rows of the run, the place'th sequence among them. */
    int64_t p0, l0, row0, place;
} qkv_sequence;

/* What to run. The caller fills it and hands it over: qkv_run_new takes all
 * of it, failed or not. Start from {0}. */
typedef struct qkv_recipe {
    qkv_model *model;           /* a reference */
    uint64_t revision;
    int64_t n_seqs;
    qkv_sequence *seqs;
    int64_t n_edits, n_hooks;
    qkv_edit *edits;
    qkv_hook *hooks;
    int64_t start_layer;        /* 0: from tokens */
    qkv_tensor **start_resid;   /* [n_seqs] of [pos, d_model]; NULL at 0 */
    int64_t stop_at;            /* layers below it are run; n_layers: all */
    int64_t n_more;             /* room for so many generated tokens */
    qkv_run *parent;            /* a reference; NULL: no fork */
    /* Set by qkv_run_new: the edits that come from the parent stand first;
     * sequences in the order in which they enter. */
    int64_t n_inherited;
    int64_t *order;             /* [n_seqs] */
} qkv_recipe;
void qkv_recipe_reset(qkv_recipe *r);

/* A recipe for forks of a run: its model and parent (a new reference), where
 * it starts and stops; the caller adds sequences (qkv_recipe_fork), edits,
 * hooks, names. A parent with hooks cannot be forked. */
bool qkv_recipe_fork_of(qkv_recipe *r, qkv_run *parent, qkv_error *err);
/* Sequence i: the parent's sequence `of`, with tokens [n] from position
 * `from` on; from < 0: with its own. */
bool qkv_recipe_fork(qkv_recipe *r, int64_t i, int64_t of, int64_t from,
                     const int32_t *tokens, int64_t n, qkv_error *err);

/* Check, plan and execute. names [n_names]: what to keep. The whole request
 * is refused, with the figure, when it cannot fit. */
qkv_run *qkv_run_new(qkv_recipe *recipe, const char *const *names,
                     int64_t n_names, qkv_logits_wanted logits,
                     qkv_error *err);
qkv_run *qkv_run_retain(qkv_run *r);
void qkv_run_release(qkv_run *r);               /* NULL is allowed */

const qkv_recipe *qkv_run_recipe(const qkv_run *r);
const qkv_stack *qkv_run_stack(const qkv_run *r);

/* Bytes that the run keeps outside its records; each(context, storage) is
 * called for those. */
size_t qkv_run_bytes(const qkv_run *r,
                     void (*each)(void *context, const qkv_storage *s),
                     void *context);

/* ---- reading; seq counts from 0 ---- */
/* The value of a site at a layer (-1: all layers of a BLOCK site, stacked
 * [layer, ...]), in its shape (site.def): a read-only view of what was kept,
 * else computed now and kept when it is small against the free memory. */
qkv_tensor *qkv_run_site(qkv_run *r, int64_t seq, qkv_site site,
                         int64_t layer, qkv_error *err);
/* Was it kept? Every slot: mark [n_layers * QKV_N_SITES] = 1. */
void qkv_run_kept(const qkv_run *r, uint8_t *mark);
/* See that slots are kept: mark [n_layers * QKV_N_SITES], those not 0. What
 * is missing is computed at once; r:names() does not tell. */
bool qkv_run_keep(qkv_run *r, const uint8_t *mark, qkv_error *err);
/* See that all is kept that forks which enter at the layers not 0 in `layers`
 * [n_layers] need. Each fork sees to it; before many, this is cheaper. */
bool qkv_run_lend(qkv_run *r, const uint8_t *layers, qkv_error *err);
/* Logits [vocab] of one position (0 <= pos < n), f32; read-only. */
qkv_tensor *qkv_run_logits(qkv_run *r, int64_t seq, int64_t pos,
                           qkv_error *err);
/* The same of n sequences from `first` on, each at position pos (negative:
 * from its end), at once: out [n, vocab]. */
bool qkv_run_logits_of(float *out, qkv_run *r, int64_t first, int64_t n,
                       int64_t pos, qkv_error *err);
/* Logits of some tokens, at position pos of every sequence: out [n_seqs,
 * n_tokens]. Only these columns are computed. */
bool qkv_run_token_logits(float *out, qkv_run *r, int64_t pos,
                          const int64_t *tokens, int64_t n_tokens,
                          qkv_error *err);
/* Does an edit or a hook stand between the last stream and the logits? */
bool qkv_run_head_is_touched(const qkv_run *r);
/* -log2 p(token at pos | those before), bits: f32 [pos]; [0] is NaN. */
qkv_tensor *qkv_run_surprisal(qkv_run *r, int64_t seq, qkv_error *err);

/* ---- going on ---- */
/* Append one token to the one sequence of a run made with n_more > 0, and run
 * its row. Not `run_it`: the token is only written down, as the last one. */
bool qkv_run_append(qkv_run *r, int32_t token, bool run_it, qkv_error *err);
/* Logits of the last position that was run, [d_vocab]; lent. NULL: none. */
const float *qkv_run_last(const qkv_run *r);

#endif
