/*
 * run_impl.h - what recipe.c, run.c and read.c share of a run
 */
#ifndef QKV_RUN_IMPL_H
#define QKV_RUN_IMPL_H
#include "model/plan.h"
#include "model/run.h"

struct qkv_run {
    int refs;
    qkv_recipe recipe;
    const qkv_stack *stack;
    int64_t n_plans;
    qkv_plan **plans;           /* [n_plans]; the first is the request's own */
    float *resid;               /* [rows, d_model] after `reached` layers */
    int64_t reached;
    float *last;                /* [place of a sequence, d_vocab] */
    int64_t n_run;              /* positions of sequence 0 that were run */
    qkv_chain **chains;         /* [n_seqs] of keys; NULL: not asked for yet */
};

/* ---- recipe.c ---- */
/* Check the recipe, copy what its author may still change, take over what a
 * parent has edited, and decide where each sequence enters. */
bool qkv_recipe_prepare(qkv_recipe *r, qkv_error *err);

/* Not of hooks, nor of weights that have changed since. */
bool qkv_run_can_fork(const qkv_run *r, qkv_error *err);

/* ---- run.c ---- */
uint8_t *qkv_run_flags(const qkv_run *r, qkv_error *err);
/* The plan whose records hold a slot, newest first; or NULL. */
const qkv_plan *qkv_run_plan_of(const qkv_run *r, qkv_site site,
                                int64_t layer);
/* Execute the recipe once more, for the slots in flags (taken) and, if asked,
 * the last stream. Returns the plan with its records, the caller's. */
qkv_plan *qkv_run_again(qkv_run *r, uint8_t *flags, bool resid,
                        qkv_error *err);
/* Give the run a plan with its records. Taken only when it went. */
bool qkv_run_add_plan(qkv_run *r, qkv_plan *p, qkv_error *err);
/* Can the recipe be executed again? `what` was asked for. */
bool qkv_run_can_repeat(const qkv_run *r, const char *what, qkv_error *err);

#endif
