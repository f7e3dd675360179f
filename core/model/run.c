/*
 * run.c - recipes and what they gave: see run.h
 *
 * A run holds one plan for each time its recipe was executed; each plan holds
 * its records. Reading looks through them; what is missing is computed by
 * another execution, from the deepest layer whose input is among the records.
 */
#include "config.h"

#include "model/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "model/forward.h"
#include "model/plan.h"
#include "tensor/reduce.h"

struct qkv_run {
    int refs;
    qkv_recipe recipe;
    const qkv_stack *stack;
    int64_t n_plans;
    qkv_plan **plans;           /* [n_plans]; the first is the request's own */
    float *resid;               /* [rows, d_model] after `reached` layers */
    int64_t reached;
    float *last;                /* [n_seqs, d_vocab] */
    int64_t n_run;              /* positions of sequence 0 that were run */
    qkv_chain *chain;
};

void qkv_recipe_reset(qkv_recipe *r)
{
    for (int64_t i = 0; r->seqs != NULL && i < r->n_seqs; i++) {
        qkv_free(r->seqs[i].ids);
        qkv_free(r->seqs[i].types);
    }
    for (int64_t i = 0; r->start_resid != NULL && i < r->n_seqs; i++)
        qkv_tensor_release(r->start_resid[i]);
    for (int64_t i = 0; i < r->n_edits; i++)
        qkv_edit_reset(&r->edits[i]);
    for (int64_t i = 0; i < r->n_hooks; i++) {
        qkv_hook *h = &r->hooks[i];
        if (h->free_context != NULL)
            h->free_context(h->context);
        qkv_free(h->layer.index);
    }
    qkv_free(r->seqs);
    qkv_free(r->start_resid);
    qkv_free(r->edits);
    qkv_free(r->hooks);
    qkv_model_release(r->model);
    *r = (qkv_recipe){0};
}

/* ---- checking a recipe ---- */

static bool check_sequence(const qkv_recipe *r, int64_t i, qkv_error *err)
{
    const qkv_config *c = &r->model->stacks[0].config;
    const qkv_sequence *s = &r->seqs[i];
    if (s->n < 1)
        return qkv_fail(err, QKV_EINVAL, "sequence %lld is empty: at least one "
                        "token was expected", (long long)i);
    if (s->n + r->n_more > c->n_ctx)
        return qkv_fail(err, QKV_EINVAL, "sequence %lld has %lld tokens%s, the "
                        "model's context is %lld", (long long)i,
                        (long long)(s->n + r->n_more),
                        r->n_more > 0 ? " with those to generate" : "",
                        (long long)c->n_ctx);
    for (int64_t p = 0; p < s->n; p++) {
        if (s->ids[p] < 0 || s->ids[p] >= c->d_vocab)
            return qkv_fail(err, QKV_EINVAL, "token id %ld at position %lld: "
                            "ids run 0..%lld", (long)s->ids[p], (long long)p,
                            (long long)c->d_vocab - 1);
        if (s->types != NULL && s->types[p] != 0
            && (s->types[p] < 0 || s->types[p] >= c->n_types))
            return qkv_fail(err, QKV_EINVAL, "token type %ld at position %lld: "
                            "this model has %lld types", (long)s->types[p],
                            (long long)p, (long long)c->n_types);
    }
    if (r->start_layer == 0)
        return true;
    const qkv_tensor *x = r->start_resid != NULL ? r->start_resid[i] : NULL;
    if (x == NULL)
        return qkv_fail(err, QKV_EINVAL, "start at layer %lld needs resid, a "
                        "tensor [pos, d_model]", (long long)r->start_layer);
    if (x->n_dims != 2 || x->shape[0] != s->n || x->shape[1] != c->d_model) {
        char shape[128];
        qkv_tensor_describe(x, shape, sizeof shape);
        return qkv_fail(err, QKV_ESHAPE, "start: resid is %s, [pos %lld, "
                        "d_model %lld] was expected", shape, (long long)s->n,
                        (long long)c->d_model);
    }
    return true;
}

static bool check_edits(const qkv_recipe *r, qkv_error *err)
{
    int64_t *prompt = qkv_alloc((size_t)(2 * r->n_seqs) * sizeof *prompt, err);
    if (prompt == NULL)
        return false;
    int64_t *rooms = prompt + r->n_seqs;
    for (int64_t i = 0; i < r->n_seqs; i++) {
        prompt[i] = r->seqs[i].n_prompt;
        rooms[i] = r->seqs[i].n + r->n_more;
    }
    bool good = true;
    for (int64_t i = 0; good && i < r->n_edits; i++)
        good = qkv_edit_check(&r->edits[i], &r->model->stacks[0], r->n_seqs,
                              prompt, rooms, err);
    qkv_free(prompt);
    return good;
}

static bool check_recipe(const qkv_recipe *r, qkv_error *err)
{
    const qkv_config *c = &r->model->stacks[0].config;
    if (r->n_seqs < 1)
        return qkv_fail(err, QKV_EINVAL, "nothing to run: at least one "
                        "sequence was expected");
    if (r->start_layer < 0 || r->start_layer > c->n_layers)
        return qkv_fail(err, QKV_EINVAL, "start at layer %lld of %lld",
                        (long long)r->start_layer, (long long)c->n_layers);
    if (r->stop_at < r->start_layer || r->stop_at > c->n_layers)
        return qkv_fail(err, QKV_EINVAL, "stop_at %lld: %lld to %lld was "
                        "expected", (long long)r->stop_at,
                        (long long)r->start_layer, (long long)c->n_layers);
    if (r->n_more > 0 && (r->n_seqs != 1 || !c->causal
                          || r->stop_at < c->n_layers))
        return qkv_fail(err, QKV_EINVAL, "only one sequence of a causal model "
                        "can be continued");
    for (int64_t i = 0; i < r->n_seqs; i++)
        if (!check_sequence(r, i, err))
            return false;
    return check_edits(r, err);
}

/* ---- executing ---- */

/* Rows of positions [p0, n) of every sequence. The arrays are one block, to be
 * freed through *batch->segments. */
static bool make_batch(qkv_batch *b, const qkv_run *r, int64_t p0, int64_t l0,
                       qkv_error *err)
{
    const qkv_recipe *rc = &r->recipe;
    int64_t rows = 0;
    bool typed = false;
    for (int64_t i = 0; i < rc->n_seqs; i++) {
        rows += rc->seqs[i].n - p0;
        typed |= rc->seqs[i].types != NULL;
    }
    const size_t segment_bytes = (size_t)rc->n_seqs * sizeof(qkv_segment);
    char *block = qkv_alloc(segment_bytes
                            + (size_t)(3 * rows) * sizeof(int32_t), err);
    if (block == NULL)
        return false;
    qkv_segment *segments = (qkv_segment *)(void *)block;
    int32_t *tokens = (int32_t *)(void *)(block + segment_bytes);
    int32_t *types = tokens + rows, *positions = types + rows;
    int64_t row = 0;
    for (int64_t i = 0; i < rc->n_seqs; i++) {
        const qkv_sequence *s = &rc->seqs[i];
        segments[i] = (qkv_segment){.seq = i, .p0 = p0, .n = s->n, .l0 = l0,
            .row0 = row, .past = p0 > 0 ? r->chain : NULL};
        for (int64_t p = p0; p < s->n; p++, row++) {
            tokens[row] = s->ids[p];
            types[row] = s->types != NULL ? s->types[p] : 0;
            positions[row] = (int32_t)p;
        }
    }
    *b = (qkv_batch){.n_rows = rows, .n_segments = rc->n_seqs,
                     .segments = segments, .tokens = tokens,
                     .types = typed ? types : NULL, .positions = positions};
    return true;
}

static bool add_plan(qkv_run *r, qkv_plan *p, qkv_error *err)
{
    qkv_plan **plans = qkv_realloc(r->plans, (size_t)(r->n_plans + 1)
                                   * sizeof *plans, err);
    if (plans == NULL)
        return false;
    r->plans = plans;
    r->plans[r->n_plans++] = p;
    return true;
}

/* Plans whose records are whole: the first is not while the last token was
 * only written down. */
static int64_t first_whole(const qkv_run *r)
{
    return r->n_run < r->recipe.seqs[0].n;
}

/* The plan whose records hold a slot, newest first; or NULL. */
static const qkv_plan *kept(const qkv_run *r, qkv_site site, int64_t layer)
{
    for (int64_t i = r->n_plans; i-- > first_whole(r); )
        if (r->plans[i]->records[site].storage != NULL
            && r->plans[i]->records[site].at[layer] >= 0)
            return r->plans[i];
    return NULL;
}

static bool is_edited(const qkv_run *r, qkv_site site, int64_t layer)
{
    for (int64_t i = 0; i < r->recipe.n_edits; i++)
        if (r->recipe.edits[i].site == site
            && qkv_edit_has_layer(&r->recipe.edits[i], layer,
                                  r->stack->config.n_layers))
            return true;
    return false;
}

/* The stream that enters `layer` [rows, d_model], if it was kept: as it left
 * the layer below, or as this one's input when no edit stands between. */
static const float *stream_into(const qkv_run *r, int64_t layer)
{
    const qkv_site out = r->stack->config.layout == QKV_POST_NORM
        ? QKV_SITE_NORM_POST : QKV_SITE_RESID_POST;
    const qkv_plan *p = layer > 0 ? kept(r, out, layer - 1) : NULL;
    if (p != NULL)
        return qkv_record_at(&p->records[out], layer - 1, 0, 0);
    if (r->resid != NULL && r->reached == layer)
        return r->resid;
    p = layer < r->stack->config.n_layers
        && !is_edited(r, QKV_SITE_RESID_PRE, layer)
        ? kept(r, QKV_SITE_RESID_PRE, layer) : NULL;
    return p != NULL ? qkv_record_at(&p->records[QKV_SITE_RESID_PRE], layer, 0,
                                     0) : NULL;
}

/* The first layer that flags ask for: STEM 0, HEAD n_layers; and the last
 * BLOCK one (-1: none). */
static void span_of(int64_t *first, int64_t *last, const qkv_run *r,
                    const uint8_t *flags)
{
    const int64_t n_layers = r->stack->config.n_layers;
    *first = n_layers;
    *last = -1;
    for (int64_t slot = 0; slot < n_layers * QKV_N_SITES; slot++) {
        if (flags[slot] == 0)
            continue;
        const int64_t layer = slot / QKV_N_SITES;
        switch (qkv_sites[slot % QKV_N_SITES].level) {
        case QKV_STEM:
            *first = 0;
            break;
        case QKV_BLOCK:
            *first = layer < *first ? layer : *first;
            *last = layer > *last ? layer : *last;
            break;
        case QKV_HEAD:
            break;
        }
    }
}

static uint8_t *new_flags(const qkv_run *r, qkv_error *err)
{
    return qkv_alloc_zero((size_t)(r->stack->config.n_layers * QKV_N_SITES), 1,
                          err);
}

/* From the recipe's start_resid tensors to rows. */
static float *start_rows(const qkv_run *r, const qkv_batch *b, qkv_error *err)
{
    const int64_t d = r->stack->config.d_model;
    float *x = qkv_alloc((size_t)(b->n_rows * d) * sizeof *x, err);
    for (int64_t i = 0; x != NULL && i < r->recipe.n_seqs; i++)
        memcpy(x + b->segments[i].row0 * d,
               qkv_tensor_data(r->recipe.start_resid[i]),
               (size_t)(r->recipe.seqs[i].n * d) * sizeof *x);
    return x;
}

/* Execute the recipe once more, for the slots in flags (taken) and, if asked,
 * the last stream. Returns the plan with its records, the caller's. */
static qkv_plan *again(qkv_run *r, uint8_t *flags, bool resid, qkv_error *err)
{
    const int64_t n_layers = r->stack->config.n_layers;
    int64_t first, last;
    span_of(&first, &last, r, flags);
    int64_t start = first < r->recipe.stop_at ? first : r->recipe.stop_at;
    const float *stream = NULL;
    while (start > r->recipe.start_layer
           && (stream = stream_into(r, start)) == NULL)
        start--;
    if (last > start && last < n_layers
        && !is_edited(r, QKV_SITE_RESID_PRE, last))
        flags[qkv_slot(QKV_SITE_RESID_PRE, last)] |=
            (flags[qkv_slot(QKV_SITE_RESID_PRE, last)] & QKV_RECORD) ? 0
            : QKV_RECORD | QKV_CHECKPOINT;
    qkv_plan *p = qkv_plan_new(&r->recipe, flags, QKV_LOGITS_NONE, start, false,
                               err);
    if (p == NULL)
        return NULL;
    const int64_t d = r->stack->config.d_model;
    qkv_batch b = {0};
    qkv_outputs out = {0};
    float *gathered = NULL;
    bool done = make_batch(&b, r, 0, start, err);
    if (done && start > 0 && stream == NULL)
        done = (stream = gathered = start_rows(r, &b, err)) != NULL;
    if (done && resid)
        done = (out.resid = qkv_alloc((size_t)(b.n_rows * d)
                                      * sizeof(float), err)) != NULL;
    done = done && qkv_forward(&out, p, &b, stream, err);
    if (done && resid) {
        qkv_free(r->resid);
        r->resid = out.resid;
        r->reached = out.reached;
    } else {
        qkv_free(out.resid);
    }
    qkv_free(gathered);
    qkv_free(b.segments);
    if (!done) {
        qkv_plan_free(p);
        return NULL;
    }
    return p;
}

/* Can the recipe be executed again? */
static bool can_repeat(const qkv_run *r, const char *what, qkv_error *err)
{
    if (r->recipe.n_hooks > 0)
        return qkv_fail(err, QKV_EINVAL, "'%s' was not kept, and a run with "
                        "hooks is not executed again: give names = {\"%s\"} "
                        "when you run it", what, what);
    if (r->recipe.revision != r->recipe.model->revision)
        return qkv_fail(err, QKV_EINVAL, "'%s' was not kept, and the model's "
                        "weights have changed since: run it again with names "
                        "= {\"%s\"}", what, what);
    return true;
}

/* ---- the first execution ---- */

static bool first_execution(qkv_run *r, uint8_t *flags,
                            qkv_logits_wanted logits, qkv_error *err)
{
    const qkv_config *c = &r->stack->config;
    qkv_recipe *rc = &r->recipe;
    const bool grows = rc->n_more > 0;
    qkv_plan *p = qkv_plan_new(rc, flags, logits, rc->start_layer, grows, err);
    if (p == NULL)
        return false;
    qkv_batch b = {0};
    if (!add_plan(r, p, err)) {
        qkv_plan_free(p);
        return false;
    }
    if (!make_batch(&b, r, 0, rc->start_layer, err))
        return false;
    qkv_outputs out = {0};
    float *start = NULL;
    bool done = true;
    if (grows) {
        r->chain = qkv_chain_new(NULL, 0, 0, c->n_layers,
                                 rc->seqs[0].n + rc->n_more,
                                 c->n_kv_heads * c->d_head, err);
        done = r->chain != NULL;
        out.chain = r->chain;
    }
    if (done && p->logits != QKV_LOGITS_NONE) {
        r->last = qkv_alloc((size_t)(rc->n_seqs * c->d_vocab)
                            * sizeof *r->last, err);
        done = r->last != NULL;
        out.last = r->last;
    }
    if (done && !grows && (p->logits != QKV_LOGITS_NONE
                           || rc->stop_at < c->n_layers
                           || p->n_wanted == 0)) {
        r->resid = qkv_alloc((size_t)(b.n_rows * c->d_model)
                             * sizeof *r->resid, err);
        done = r->resid != NULL;
        out.resid = r->resid;
    }
    if (done && rc->start_layer > 0)
        done = (start = start_rows(r, &b, err)) != NULL;
    done = done && qkv_forward(&out, p, &b, start, err);
    if (done && grows)
        r->chain->n = rc->seqs[0].n;
    r->reached = out.reached;
    r->n_run = rc->seqs[0].n;
    qkv_free(start);
    qkv_free(b.segments);
    return done;
}

/* All names into flags; each must match, and one of its slots must be run. */
static bool match_names(uint8_t *flags, const qkv_run *r,
                        const char *const *names, int64_t n, qkv_error *err)
{
    for (int64_t i = 0; i < n; i++)
        if (!qkv_site_match(flags, QKV_RECORD, r->stack, names[i], err))
            return false;
    return true;
}

static bool check_hooks(const qkv_run *r, qkv_error *err)
{
    const int64_t n = r->stack->config.n_layers;
    for (int64_t h = 0; h < r->recipe.n_hooks; h++) {
        const qkv_selector *sel = &r->recipe.hooks[h].layer;
        for (int64_t i = 0; !sel->all && i < sel->n; i++)
            if (sel->index[i] < -n || sel->index[i] >= n)
                return qkv_fail(err, QKV_EINVAL, "hook: layer %lld of %lld: "
                                "layers run 0..%lld",
                                (long long)sel->index[i], (long long)n,
                                (long long)n - 1);
    }
    return true;
}

/* float, contiguous: what the rows are copied from. */
static bool tidy_start(qkv_recipe *r, qkv_error *err)
{
    for (int64_t i = 0; r->start_layer > 0 && i < r->n_seqs; i++) {
        qkv_tensor *x = qkv_tensor_float(r->start_resid[i], err);
        if (x == NULL)
            return false;
        qkv_tensor_release(r->start_resid[i]);
        r->start_resid[i] = x;
    }
    return true;
}

/* Edit values as contiguous float copies: the recipe does not change when its
 * author's tensor does. */
static bool tidy_edits(qkv_recipe *r, qkv_error *err)
{
    for (int64_t i = 0; i < r->n_edits; i++) {
        qkv_tensor *given = r->edits[i].value;
        if (given == NULL)
            continue;
        qkv_tensor *f = qkv_tensor_to(given, QKV_F32, err);
        if (f == NULL)
            return false;
        r->edits[i].value = f;
        qkv_tensor_release(given);
    }
    return true;
}

qkv_run *qkv_run_new(qkv_recipe *recipe, const char *const *names,
                     int64_t n_names, qkv_logits_wanted logits, qkv_error *err)
{
    qkv_run *r = qkv_alloc_zero(1, sizeof *r, err);
    if (r == NULL) {
        qkv_recipe_reset(recipe);
        return NULL;
    }
    r->refs = 1;
    r->recipe = *recipe;
    *recipe = (qkv_recipe){0};
    r->stack = &r->recipe.model->stacks[0];
    r->recipe.revision = r->recipe.model->revision;
    uint8_t *flags = NULL;
    const bool good = check_recipe(&r->recipe, err) && check_hooks(r, err)
        && tidy_start(&r->recipe, err) && tidy_edits(&r->recipe, err)
        && (flags = new_flags(r, err)) != NULL;
    if (!good || !match_names(flags, r, names, n_names, err)) {
        qkv_free(flags);
        qkv_run_release(r);
        return NULL;
    }
    if (!first_execution(r, flags, logits, err)) {
        qkv_run_release(r);
        return NULL;
    }
    return r;
}

qkv_run *qkv_run_retain(qkv_run *r)
{
    r->refs++;
    return r;
}

void qkv_run_release(qkv_run *r)
{
    if (r == NULL || --r->refs > 0)
        return;
    for (int64_t i = 0; i < r->n_plans; i++)
        qkv_plan_free(r->plans[i]);
    qkv_free(r->plans);
    qkv_free(r->resid);
    qkv_free(r->last);
    qkv_chain_release(r->chain);
    qkv_recipe_reset(&r->recipe);
    qkv_free(r);
}

const qkv_recipe *qkv_run_recipe(const qkv_run *r)
{
    return &r->recipe;
}

const qkv_stack *qkv_run_stack(const qkv_run *r)
{
    return r->stack;
}

/* ---- reading ---- */

/* A view of a recorded slot, or (layer -1) of all layers stacked. */
static qkv_tensor *view(const qkv_run *r, const qkv_plan *p, int64_t seq,
                        qkv_site site, int64_t layer, qkv_error *err)
{
    const qkv_record *rec = &p->records[site];
    const int64_t n = r->recipe.seqs[seq].n, room = rec->seq_room[seq];
    int64_t size[2], shape[4], stride[4];
    const char *axis[2], *axes[4];
    int dims = 0;
    if (layer < 0) {
        axes[dims] = "layer";
        shape[dims] = rec->n_layers;
        stride[dims++] = rec->layer_stride;
    }
    const int inner = qkv_site_axes(size, axis, site, r->stack);
    switch (qkv_sites[site].shape) {
    case QKV_SHAPE_SCORES:
        axes[dims] = "head", shape[dims] = r->stack->config.n_heads;
        stride[dims++] = room * room;
        axes[dims] = "query", shape[dims] = n, stride[dims++] = room;
        axes[dims] = "key", shape[dims] = n, stride[dims++] = 1;
        break;
    case QKV_SHAPE_POOLED:
    case QKV_SHAPE_PAIR:
        break;
    default:
        axes[dims] = "pos", shape[dims] = n, stride[dims++] = rec->width;
    }
    for (int i = 0; i < inner; i++) {
        axes[dims] = axis[i], shape[dims] = size[i];
        stride[dims++] = i + 1 < inner ? size[i + 1] : 1;
    }
    const float *at = qkv_record_at(rec, layer < 0 ? p->start_layer : layer,
                                    seq, 0);
    const size_t offset = (size_t)((const char *)at
                                   - (const char *)rec->storage->data);
    qkv_tensor *t = qkv_tensor_strided(rec->storage, offset, QKV_F32, dims,
                                       shape, stride, axes, err);
    if (t != NULL)
        t->read_only = true;
    return t;
}

/* A plan that has the slot, or all layers that the recipe runs (layer -1). */
static const qkv_plan *kept_all(const qkv_run *r, qkv_site site, int64_t layer)
{
    if (layer >= 0)
        return kept(r, site, layer);
    const int64_t from = r->recipe.start_layer, to = r->recipe.stop_at;
    for (int64_t i = r->n_plans; i-- > first_whole(r); ) {
        const qkv_record *rec = &r->plans[i]->records[site];
        if (rec->storage != NULL && rec->n_layers == to - from)
            return r->plans[i];
    }
    return NULL;
}

/* Is a slot one that the recipe passes by? */
static bool is_run(const qkv_run *r, qkv_site site, int64_t layer,
                   qkv_error *err)
{
    const qkv_config *c = &r->stack->config;
    const qkv_recipe *rc = &r->recipe;
    if (qkv_sites[site].level == QKV_BLOCK) {
        if (layer >= c->n_layers || layer < -1)
            return qkv_fail(err, QKV_EINVAL, "layer %lld of %lld: layers run "
                            "0..%lld", (long long)layer,
                            (long long)c->n_layers,
                            (long long)c->n_layers - 1);
        if (layer < 0 ? rc->stop_at > rc->start_layer
            : layer >= rc->start_layer && layer < rc->stop_at)
            return true;
        return qkv_fail(err, QKV_EINVAL, "layer %lld was not run: this run "
                        "goes from layer %lld up to, without, layer %lld",
                        (long long)layer, (long long)rc->start_layer,
                        (long long)rc->stop_at);
    }
    if (qkv_sites[site].level == QKV_STEM && rc->start_layer > 0)
        return qkv_fail(err, QKV_EINVAL, "'%s' was not run: this run starts at "
                        "layer %lld", qkv_sites[site].name,
                        (long long)rc->start_layer);
    if (qkv_sites[site].level == QKV_HEAD && rc->stop_at < c->n_layers)
        return qkv_fail(err, QKV_EINVAL, "'%s' was not run: this run stops at "
                        "layer %lld", qkv_sites[site].name,
                        (long long)rc->stop_at);
    return true;
}

/* Keep what was computed for a reading if it is small against what is free. */
static bool worth_keeping(const qkv_plan *p)
{
    return p->record_bytes < qkv_memory_available() / 4;
}

qkv_tensor *qkv_run_site(qkv_run *r, int64_t seq, qkv_site site, int64_t layer,
                         qkv_error *err)
{
    if (!is_run(r, site, layer, err))
        return NULL;
    const qkv_plan *there = kept_all(r, site, layer);
    if (there != NULL)
        return view(r, there, seq, site, layer, err);
    char name[QKV_SITE_ROOM];
    if (layer < 0 && qkv_sites[site].level == QKV_BLOCK)
        snprintf(name, sizeof name, "blocks.*.%s", qkv_sites[site].name);
    else
        qkv_site_name(name, site, layer);
    uint8_t *flags = NULL;
    if (!can_repeat(r, name, err) || (flags = new_flags(r, err)) == NULL)
        return NULL;
    const int64_t from = layer < 0 ? r->recipe.start_layer : layer;
    const int64_t to = layer < 0 ? r->recipe.stop_at : layer + 1;
    for (int64_t l = from; l < to; l++)
        flags[qkv_slot(site, l)] = QKV_RECORD;
    qkv_plan *p = again(r, flags, false, err);
    if (p == NULL)
        return NULL;
    qkv_tensor *t = view(r, p, seq, site, layer, err);
    if (t == NULL || !worth_keeping(p) || !add_plan(r, p, err))
        qkv_plan_free(p);       /* t holds the storage */
    return t;
}

void qkv_run_kept(const qkv_run *r, uint8_t *mark)
{
    const int64_t slots = r->stack->config.n_layers * QKV_N_SITES;
    for (int64_t i = 0; i < r->n_plans; i++)
        for (int64_t slot = 0; slot < slots; slot++)
            if ((r->plans[i]->flags[slot] & (QKV_RECORD | QKV_CHECKPOINT))
                == QKV_RECORD)
                mark[slot] = 1;
}

/* Does an edit or a hook stand between the last stream and the logits? */
static bool head_is_touched(const qkv_run *r)
{
    for (int64_t i = 0; i < r->recipe.n_edits; i++)
        if (qkv_sites[r->recipe.edits[i].site].level == QKV_HEAD)
            return true;
    for (int64_t i = 0; i < r->recipe.n_hooks; i++)
        if (qkv_sites[r->recipe.hooks[i].site].level == QKV_HEAD)
            return true;
    return false;
}

/* See that the last stream is there. */
static bool need_resid(qkv_run *r, qkv_error *err)
{
    if (r->resid != NULL && r->reached == r->stack->config.n_layers)
        return true;
    uint8_t *flags = NULL;
    if (!is_run(r, QKV_SITE_LOGITS, 0, err) || !can_repeat(r, "logits", err)
        || (flags = new_flags(r, err)) == NULL)
        return false;
    qkv_plan *p = again(r, flags, true, err);
    qkv_plan_free(p);
    return p != NULL;
}

/* Row `pos` of a sequence in the last stream. */
static const float *resid_row(const qkv_run *r, int64_t seq, int64_t pos)
{
    for (int64_t i = 0; i < seq; i++)
        pos += r->recipe.seqs[i].n;
    return r->resid + pos * r->stack->config.d_model;
}

static bool has_logits(const qkv_run *r, qkv_error *err)
{
    return qkv_site_is_there(QKV_SITE_LOGITS, r->stack)
        || qkv_fail(err, QKV_EUNSUPPORTED, "%s has no language-model head: it "
                    "gives hidden states, no logits", r->recipe.model->name);
}

qkv_tensor *qkv_run_logits(qkv_run *r, int64_t seq, int64_t pos, qkv_error *err)
{
    const qkv_config *c = &r->stack->config;
    const bool is_last = pos == r->recipe.seqs[seq].n - 1 && r->last != NULL
        && (seq > 0 || r->n_run == r->recipe.seqs[0].n);
    if (!has_logits(r, err))
        return NULL;
    if (!is_last && (head_is_touched(r)
                     || kept_all(r, QKV_SITE_LOGITS, 0) != NULL)) {
        qkv_tensor *all = qkv_run_site(r, seq, QKV_SITE_LOGITS, 0, err);
        qkv_tensor *row = all != NULL
            ? qkv_tensor_select(all, 0, pos, err) : NULL;
        qkv_tensor_release(all);
        return row;
    }
    if (!is_last && !need_resid(r, err))
        return NULL;
    static const char *const axes[] = {"vocab"};
    qkv_tensor *t = qkv_tensor_new(QKV_F32, 1, &c->d_vocab, axes, err);
    if (t == NULL)
        return NULL;
    float *out = qkv_tensor_data(t);
    if (is_last)
        memcpy(out, r->last + seq * c->d_vocab,
               (size_t)c->d_vocab * sizeof *out);
    else if (!qkv_model_unembed(out, r->recipe.model,
                                resid_row(r, seq, pos), 1, err)) {
        qkv_tensor_release(t);
        return NULL;
    }
    t->read_only = true;
    return t;
}

/* -log2 softmax(logits)[token], in bits. */
static double bits_of(const float *logits, int64_t n, int32_t token)
{
    return (qkv_log_sum_exp(logits, n) - (double)logits[token]) / log(2.0);
}

/* bits [pos]; rows of logits of positions p - 1 in pieces that stay small. */
static bool surprisal(float *bits, qkv_run *r, int64_t seq, qkv_error *err)
{
    enum { PIECE = 32 };
    const qkv_sequence *s = &r->recipe.seqs[seq];
    const int64_t n_vocab = r->stack->config.d_vocab;
    float *logits = qkv_alloc((size_t)(PIECE * n_vocab) * sizeof *logits, err);
    bool done = logits != NULL;
    for (int64_t p = 1; done && p < s->n; p += PIECE) {
        const int64_t rows = s->n - p < PIECE ? s->n - p : PIECE;
        done = qkv_check(err)
            && qkv_model_unembed(logits, r->recipe.model,
                                 resid_row(r, seq, p - 1), rows, err);
        for (int64_t i = 0; done && i < rows; i++)
            bits[p + i] = (float)bits_of(logits + i * n_vocab, n_vocab,
                                         s->ids[p + i]);
    }
    qkv_free(logits);
    return done;
}

qkv_tensor *qkv_run_surprisal(qkv_run *r, int64_t seq, qkv_error *err)
{
    static const char *const axes[] = {"pos"};
    const qkv_sequence *s = &r->recipe.seqs[seq];
    if (!has_logits(r, err))
        return NULL;
    if (!r->stack->config.causal) {
        qkv_fail(err, QKV_EUNSUPPORTED, "surprisal needs a causal model: every "
                 "position of %s sees the whole text", r->recipe.model->name);
        return NULL;
    }
    qkv_tensor *t = qkv_tensor_new(QKV_F32, 1, &s->n, axes, err);
    if (t == NULL)
        return NULL;
    float *bits = qkv_tensor_data(t);
    bits[0] = NAN;
    bool done = true;
    if (head_is_touched(r)) {
        qkv_tensor *all = qkv_run_site(r, seq, QKV_SITE_LOGITS, 0, err);
        const int64_t n = r->stack->config.d_vocab;
        done = all != NULL;
        for (int64_t p = 1; done && p < s->n; p++)
            bits[p] = (float)bits_of((const float *)qkv_tensor_data(all)
                                     + (p - 1) * n, n, s->ids[p]);
        qkv_tensor_release(all);
    } else {
        done = need_resid(r, err) && surprisal(bits, r, seq, err);
    }
    if (done)
        return t;
    qkv_tensor_release(t);
    return NULL;
}

/* ---- going on ---- */

bool qkv_run_append(qkv_run *r, int32_t token, bool execute, qkv_error *err)
{
    qkv_sequence *s = &r->recipe.seqs[0];
    const qkv_config *c = &r->stack->config;
    if (r->chain == NULL || s->n >= r->chain->capacity
        || r->n_run != s->n)
        return qkv_fail(err, QKV_EINVAL, "this run has no room for another "
                        "token");
    if (token < 0 || token >= c->d_vocab)
        return qkv_fail(err, QKV_EINVAL, "token id %ld: ids run 0..%lld",
                        (long)token, (long long)c->d_vocab - 1);
    s->ids[s->n++] = token;
    if (s->types != NULL)
        s->types[s->n - 1] = s->types[s->n - 2];
    if (!execute)
        return true;
    qkv_batch b;
    qkv_outputs out = {.last = r->last, .chain = r->chain};
    if (!make_batch(&b, r, s->n - 1, 0, err)) {
        s->n--;
        return false;
    }
    const bool done = qkv_forward(&out, r->plans[0], &b, NULL, err);
    qkv_free(b.segments);
    if (!done) {
        s->n--;
        return false;
    }
    r->chain->n = r->n_run = s->n;
    r->recipe.n_more--;
    return true;
}

const float *qkv_run_last(const qkv_run *r)
{
    return r->last;
}
