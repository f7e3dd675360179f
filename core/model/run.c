/*
 * run.c - executing recipes: see run.h
 *
 * A run holds one plan for each time its recipe was executed; each plan holds
 * its records. What was not recorded is computed by another execution, from
 * the deepest layer whose input is among the records. A fork takes what it
 * shares from its parent the same way.
 */
#include "config.h"

#include <string.h>

#include "base/alloc.h"
#include "model/forward.h"
#include "model/run_impl.h"

/* ---- what is there ---- */

bool qkv_run_add_plan(qkv_run *r, qkv_plan *p, qkv_error *err)
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

const qkv_plan *qkv_run_plan_of(const qkv_run *r, qkv_site site,
                                int64_t layer)
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

/* The stream that enters `layer`, all rows [row, d_model], if it was kept: as
 * it left the layer below, or as this one's input when no edit stands
 * between. */
static const float *stream_into(const qkv_run *r, int64_t layer)
{
    const int64_t seq = r->recipe.order[0], p0 = r->recipe.seqs[seq].p0;
    const qkv_site out = r->stack->config.layout == QKV_POST_NORM
        ? QKV_SITE_NORM_POST : QKV_SITE_RESID_POST;
    const qkv_plan *p = layer > 0 ? qkv_run_plan_of(r, out, layer - 1) : NULL;
    if (p != NULL)
        return qkv_record_at(&p->records[out], layer - 1, seq, p0);
    if (r->resid != NULL && r->reached == layer)
        return r->resid;
    p = layer < r->stack->config.n_layers
        && !is_edited(r, QKV_SITE_RESID_PRE, layer)
        ? qkv_run_plan_of(r, QKV_SITE_RESID_PRE, layer) : NULL;
    return p != NULL ? qkv_record_at(&p->records[QKV_SITE_RESID_PRE], layer,
                                     seq, p0) : NULL;
}

uint8_t *qkv_run_flags(const qkv_run *r, qkv_error *err)
{
    return qkv_alloc_zero((size_t)(r->stack->config.n_layers * QKV_N_SITES), 1,
                          err);
}

bool qkv_run_can_repeat(const qkv_run *r, const char *what, qkv_error *err)
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

/* ---- keys that others read ---- */

/* What attention reads of other positions: keys as they are scored. */
static qkv_site key_site(const qkv_stack *s)
{
    return s->config.rotary_dim > 0 ? QKV_SITE_ROT_K : QKV_SITE_K;
}

/* Add keys and values of all layers from l0 on to the flags. */
static void want_keys(uint8_t *flags, const qkv_run *r, int64_t l0)
{
    const qkv_site sites[] = {key_site(r->stack), QKV_SITE_V};
    for (int64_t layer = l0; layer < r->recipe.stop_at; layer++)
        for (int i = 0; i < 2; i++) {
            uint8_t *f = &flags[qkv_slot(sites[i], layer)];
            *f |= *f & QKV_RECORD ? 0 : QKV_RECORD | QKV_CHECKPOINT;
        }
}

static qkv_chain_rows rows_of(const qkv_record *rec, int64_t layer,
                              int64_t seq, int64_t pos)
{
    return (qkv_chain_rows){.storage = rec->storage,
                            .at = qkv_record_at(rec, layer, seq, pos),
                            .layer_stride = rec->layer_stride};
}

/* The link of a sequence over the records of a plan, which has its keys. */
static qkv_chain *link_of(const qkv_run *r, const qkv_plan *p, int64_t seq,
                          int64_t n, qkv_chain *past, qkv_error *err)
{
    const qkv_sequence *s = &r->recipe.seqs[seq];
    const qkv_config *c = &r->stack->config;
    const qkv_chain_rows k = rows_of(&p->records[key_site(r->stack)], s->l0,
                                     seq, s->p0);
    const qkv_chain_rows v = rows_of(&p->records[QKV_SITE_V], s->l0, seq,
                                     s->p0);
    return qkv_chain_new(past, s->p0, n, s->l0, c->n_kv_heads * c->d_head,
                         &k, &v, err);
}

/* A plan that has keys and values of all layers from l0 on. */
static const qkv_plan *plan_of_keys(const qkv_run *r, int64_t l0)
{
    const qkv_site k = key_site(r->stack);
    for (int64_t i = r->n_plans; i-- > first_whole(r); ) {
        const qkv_plan *p = r->plans[i];
        bool all = p->records[k].storage != NULL
            && p->records[QKV_SITE_V].storage != NULL;
        for (int64_t l = l0; all && l < r->recipe.stop_at; l++)
            all = p->records[k].at[l] >= 0 && p->records[QKV_SITE_V].at[l] >= 0;
        if (all)
            return p;
    }
    return NULL;
}

/* The first layer that any sequence enters. */
static int64_t first_entry(const qkv_run *r)
{
    return r->recipe.seqs[r->recipe.order[0]].l0;
}

/* Compute the slots in flags (taken) and keep them. */
static const qkv_plan *keep(qkv_run *r, uint8_t *flags, const char *what,
                            qkv_error *err)
{
    if (!qkv_run_can_repeat(r, what, err)) {
        qkv_free(flags);
        return NULL;
    }
    qkv_plan *p = qkv_run_again(r, flags, false, err);
    if (p != NULL && qkv_run_add_plan(r, p, err))
        return p;
    qkv_plan_free(p);
    return NULL;
}

/* The keys of a sequence's first `upto` positions, lent; computed when they
 * were not kept. */
static qkv_chain *keys_of(qkv_run *r, int64_t seq, int64_t upto,
                          qkv_error *err)
{
    const qkv_sequence *s = &r->recipe.seqs[seq];
    if (s->l0 >= r->recipe.stop_at)     /* it has none of its own */
        return keys_of(r->recipe.parent, s->of, upto, err);
    if (r->chains == NULL)
        r->chains = qkv_alloc_zero((size_t)r->recipe.n_seqs,
                                   sizeof *r->chains, err);
    if (r->chains == NULL)
        return NULL;
    qkv_chain **c = &r->chains[seq];
    if (*c != NULL && (*c)->n >= upto)
        return *c;
    qkv_chain *past = NULL;
    if (s->p0 > 0 && (past = keys_of(r->recipe.parent, s->of, s->p0, err))
        == NULL)
        return NULL;
    const qkv_plan *p = plan_of_keys(r, s->l0);
    uint8_t *flags = p == NULL ? qkv_run_flags(r, err) : NULL;
    if (flags != NULL) {
        want_keys(flags, r, first_entry(r));
        p = keep(r, flags, "rot_k", err);
    }
    if (p == NULL)
        return NULL;
    qkv_chain_release(*c);
    return *c = link_of(r, p, seq, s->n, past, err);
}

/* ---- streams that others read ---- */

/* The slot that holds the stream into a layer, if it is not there yet. */
static void want_stream(uint8_t *flags, const qkv_run *r, int64_t layer)
{
    const qkv_site out = r->stack->config.layout == QKV_POST_NORM
        ? QKV_SITE_NORM_POST : QKV_SITE_RESID_POST;
    if (layer > r->recipe.start_layer && stream_into(r, layer) == NULL)
        flags[qkv_slot(out, layer - 1)] |= QKV_RECORD | QKV_CHECKPOINT;
}

/* out [to - from, d_model] = what enters `layer` > 0 at positions [from, to)
 * of a sequence, before that layer's edits. */
static bool copy_stream(float *out, qkv_run *r, int64_t seq, int64_t layer,
                        int64_t from, int64_t to, qkv_error *err)
{
    const qkv_sequence *s = &r->recipe.seqs[seq];
    const int64_t d = r->stack->config.d_model;
    const bool fork = r->recipe.parent != NULL;
    if (fork && layer <= s->l0)
        return copy_stream(out, r->recipe.parent, s->of, layer, from, to, err);
    if (fork && from < s->p0) {
        const int64_t end = to < s->p0 ? to : s->p0;
        if (!copy_stream(out, r->recipe.parent, s->of, layer, from, end, err))
            return false;
        out += (end - from) * d;
        from = end;
    }
    if (from >= to)
        return true;
    if (layer == r->recipe.start_layer) {
        const float *start = qkv_tensor_data(r->recipe.start_resid[seq]);
        memcpy(out, start + from * d, (size_t)((to - from) * d) * sizeof *out);
        return true;
    }
    if (stream_into(r, layer) == NULL) {
        uint8_t *flags = qkv_run_flags(r, err);
        if (flags == NULL)
            return false;
        want_stream(flags, r, layer);
        if (keep(r, flags, "resid_post", err) == NULL)
            return false;
    }
    memcpy(out, stream_into(r, layer) + (s->row0 + from - s->p0) * d,
           (size_t)((to - from) * d) * sizeof *out);
    return true;
}

/* See that streams into some layers are there (layers [n_layers + 1]), and
 * keys, by one execution. */
static bool lend(qkv_run *r, const uint8_t *layers, bool keys, qkv_error *err)
{
    const int64_t n_layers = r->stack->config.n_layers;
    bool any = false;
    uint8_t *flags = qkv_run_flags(r, err);
    if (flags == NULL)
        return false;
    for (int64_t layer = 0; layer <= n_layers; layer++)
        if (layers[layer])
            want_stream(flags, r, layer);
    if (keys && plan_of_keys(r, first_entry(r)) == NULL)
        want_keys(flags, r, first_entry(r));
    for (int64_t i = 0; i < n_layers * QKV_N_SITES; i++)
        any |= flags[i] != 0;
    if (any)
        return keep(r, flags, "a fork's start", err) != NULL;
    qkv_free(flags);
    return true;
}

bool qkv_run_lend(qkv_run *r, const uint8_t *layers, qkv_error *err)
{
    const int64_t n_layers = r->stack->config.n_layers;
    uint8_t *all = qkv_run_can_fork(r, err)
        ? qkv_alloc_zero((size_t)(n_layers + 1), 1, err) : NULL;
    if (all == NULL)
        return false;
    memcpy(all, layers, (size_t)n_layers);
    const bool done = lend(r, all, true, err);
    qkv_free(all);
    return done;
}

/* What the forks of a recipe need of its parent. */
static bool lend_to(const qkv_recipe *forks, qkv_error *err)
{
    const int64_t n_layers = forks->model->stacks[0].config.n_layers;
    uint8_t *layers = qkv_alloc_zero((size_t)(n_layers + 1), 1, err);
    bool keys = false;
    if (layers == NULL)
        return false;
    for (int64_t i = 0; i < forks->n_seqs; i++) {
        const qkv_sequence *s = &forks->seqs[i];
        layers[s->l0] = 1;
        keys |= s->p0 > 0 && s->l0 < forks->stop_at;
    }
    const bool done = lend(forks->parent, layers, keys, err);
    qkv_free(layers);
    return done;
}

/* ---- executing ---- */

/* Where a sequence joins an execution that starts at layer `start`. */
static int64_t entry(const qkv_sequence *s, int64_t start)
{
    return s->l0 > start ? s->l0 : start;
}

/* How many of a sequence's first n tokens take a position. */
static int64_t count_positions(const qkv_config *c, const qkv_sequence *s,
                               int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += s->ids[i] != c->uncounted;
    return count;
}

/* Rows of positions [p0, n) of every sequence, p0 its own unless `last` (then
 * n - 1). The arrays are one block, to be freed through *batch->segments. */
static bool make_batch(qkv_batch *b, qkv_run *r, int64_t start, bool last,
                       qkv_error *err)
{
    const qkv_recipe *rc = &r->recipe;
    const qkv_config *c = &r->stack->config;
    int64_t rows = 0;
    bool typed = false;
    for (int64_t i = 0; i < rc->n_seqs; i++) {
        rows += last ? 1 : rc->seqs[i].n - rc->seqs[i].p0;
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
        const int64_t seq = rc->order[i];
        const qkv_sequence *s = &rc->seqs[seq];
        const int64_t p0 = last ? s->n - 1 : s->p0, l0 = entry(s, start);
        segments[i] = (qkv_segment){.seq = seq, .p0 = p0, .n = s->n, .l0 = l0,
                                    .row0 = row};
        if (p0 > 0 && l0 < rc->stop_at) {
            segments[i].past = last ? r->chains[seq]
                : keys_of(rc->parent, s->of, p0, err);
            if (segments[i].past == NULL) {
                qkv_free(block);
                return false;
            }
        }
        int64_t at = c->position_offset + count_positions(c, s, p0);
        for (int64_t p = p0; p < s->n; p++, row++) {
            tokens[row] = s->ids[p];
            types[row] = s->types != NULL ? s->types[p] : 0;
            positions[row] = s->ids[p] == c->uncounted
                ? (int32_t)c->position_offset - 1 : (int32_t)at++;
        }
    }
    *b = (qkv_batch){.n_rows = rows, .n_segments = rc->n_seqs,
                     .segments = segments, .tokens = tokens,
                     .types = typed ? types : NULL, .positions = positions};
    return true;
}

/* The streams that a batch enters with, [row, d_model]; those of segments that
 * enter at layer 0 stay as they fall. */
static float *entry_rows(qkv_run *r, const qkv_batch *b, qkv_error *err)
{
    const int64_t d = r->stack->config.d_model;
    float *x = qkv_alloc((size_t)(b->n_rows * d) * sizeof *x, err);
    bool done = x != NULL;
    for (int64_t i = 0; done && i < b->n_segments; i++) {
        const qkv_segment *s = &b->segments[i];
        if (s->l0 > 0)
            done = copy_stream(x + s->row0 * d, r, s->seq, s->l0, s->p0, s->n,
                               err);
    }
    if (done)
        return x;
    qkv_free(x);
    return NULL;
}

/* Execute a plan for all rows. */
static bool execute(qkv_run *r, qkv_outputs *out, const qkv_plan *p,
                    qkv_error *err)
{
    qkv_batch b;
    float *start = NULL;
    if (!make_batch(&b, r, p->start_layer, false, err))
        return false;
    bool done = b.segments[b.n_segments - 1].l0 == 0
        || (start = entry_rows(r, &b, err)) != NULL;
    done = done && qkv_forward(out, p, &b, start, err);
    qkv_free(start);
    qkv_free(b.segments);
    return done;
}

/* Room for the last stream of all rows. */
static float *new_stream(const qkv_run *r, qkv_error *err)
{
    const qkv_recipe *rc = &r->recipe;
    const qkv_sequence *last = &rc->seqs[rc->order[rc->n_seqs - 1]];
    const int64_t rows = last->row0 + last->n - last->p0;
    return qkv_alloc((size_t)(rows * r->stack->config.d_model)
                     * sizeof(float), err);
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

/* For later: the stream into the last layer that is run. */
static void checkpoint(uint8_t *flags, const qkv_run *r, int64_t layer)
{
    uint8_t *f = &flags[qkv_slot(QKV_SITE_RESID_PRE, layer)];
    if (!is_edited(r, QKV_SITE_RESID_PRE, layer) && !(*f & QKV_RECORD))
        *f |= QKV_RECORD | QKV_CHECKPOINT;
}

qkv_plan *qkv_run_again(qkv_run *r, uint8_t *flags, bool resid,
                        qkv_error *err)
{
    int64_t first, last;
    span_of(&first, &last, r, flags);
    int64_t start = first < r->recipe.stop_at ? first : r->recipe.stop_at;
    while (start > first_entry(r) && stream_into(r, start) == NULL)
        start--;
    if (start < first_entry(r))
        start = first_entry(r);
    if (last > start && last < r->stack->config.n_layers)
        checkpoint(flags, r, last);
    qkv_plan *p = qkv_plan_new(&r->recipe, flags, QKV_LOGITS_NONE, start, err);
    qkv_outputs out = {0};
    if (p == NULL || (resid && (out.resid = new_stream(r, err)) == NULL)
        || !execute(r, &out, p, err)) {
        qkv_free(out.resid);
        qkv_plan_free(p);
        return NULL;
    }
    if (resid) {
        qkv_free(r->resid);
        r->resid = out.resid;
        r->reached = out.reached;
    }
    return p;
}

bool qkv_run_keep(qkv_run *r, const uint8_t *mark, qkv_error *err)
{
    const int64_t slots = r->stack->config.n_layers * QKV_N_SITES;
    uint8_t *flags = qkv_run_flags(r, err);
    bool any = false;
    for (int64_t i = 0; flags != NULL && i < slots; i++)
        if (mark[i] != 0 && qkv_run_plan_of(r, (qkv_site)(i % QKV_N_SITES),
                                            i / QKV_N_SITES) == NULL) {
            flags[i] = QKV_RECORD | QKV_CHECKPOINT;
            any = true;
        }
    if (any)
        return keep(r, flags, "what is asked for", err) != NULL;
    qkv_free(flags);
    return flags != NULL;
}

/* ---- the first execution ---- */

static bool first_execution(qkv_run *r, uint8_t *flags,
                            qkv_logits_wanted logits, qkv_error *err)
{
    const qkv_config *c = &r->stack->config;
    qkv_recipe *rc = &r->recipe;
    const bool grows = rc->n_more > 0;
    if (grows)
        want_keys(flags, r, 0);
    qkv_plan *p = qkv_plan_new(rc, flags, logits, first_entry(r), err);
    if (p == NULL)
        return false;
    if (!qkv_run_add_plan(r, p, err)) {
        qkv_plan_free(p);
        return false;
    }
    qkv_outputs out = {0};
    if (p->logits != QKV_LOGITS_NONE) {
        out.last = r->last = qkv_alloc((size_t)(rc->n_seqs * c->d_vocab)
                                       * sizeof *r->last, err);
        if (r->last == NULL)
            return false;
    }
    if (!grows && (p->logits != QKV_LOGITS_NONE || rc->stop_at < c->n_layers
                   || p->n_wanted == 0)) {
        out.resid = r->resid = new_stream(r, err);
        if (r->resid == NULL)
            return false;
    }
    r->n_run = rc->seqs[0].n;
    if (!execute(r, &out, p, err))
        return false;
    r->reached = out.reached;
    return !grows || keys_of(r, 0, r->n_run, err) != NULL;
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
    uint8_t *flags = qkv_run_flags(r, err);
    if (flags == NULL || !qkv_recipe_prepare(&r->recipe, err)
        || !match_names(flags, r, names, n_names, err)
        || (r->recipe.parent != NULL && !lend_to(&r->recipe, err))) {
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
    for (int64_t i = 0; r->chains != NULL && i < r->recipe.n_seqs; i++)
        qkv_chain_release(r->chains[i]);
    for (int64_t i = 0; i < r->n_plans; i++)
        qkv_plan_free(r->plans[i]);
    qkv_free(r->chains);
    qkv_free(r->plans);
    qkv_free(r->resid);
    qkv_free(r->last);
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

size_t qkv_run_bytes(const qkv_run *r,
                     void (*each)(void *context, const qkv_storage *s),
                     void *context)
{
    const qkv_config *c = &r->stack->config;
    const qkv_recipe *rc = &r->recipe;
    const qkv_sequence *last = &rc->seqs[rc->order[rc->n_seqs - 1]];
    int64_t floats = 0;
    for (int64_t i = 0; i < r->n_plans; i++)
        for (int site = 0; site < QKV_N_SITES; site++)
            if (r->plans[i]->records[site].storage != NULL)
                each(context, r->plans[i]->records[site].storage);
    if (r->resid != NULL)
        floats += (last->row0 + last->n - last->p0) * c->d_model;
    if (r->last != NULL)
        floats += rc->n_seqs * c->d_vocab;
    return (size_t)floats * sizeof(float);
}

/* ---- going on ---- */

bool qkv_run_append(qkv_run *r, int32_t token, bool run_it, qkv_error *err)
{
    qkv_sequence *s = &r->recipe.seqs[0];
    const qkv_config *c = &r->stack->config;
    if (r->recipe.n_more < 1 || r->n_run != s->n)
        return qkv_fail(err, QKV_EINVAL, "this run has no room for another "
                        "token");
    if (token < 0 || token >= c->d_vocab)
        return qkv_fail(err, QKV_EINVAL, "token id %ld: ids run 0..%lld",
                        (long)token, (long long)c->d_vocab - 1);
    s->ids[s->n++] = token;
    if (s->types != NULL)
        s->types[s->n - 1] = s->types[s->n - 2];
    if (!run_it)
        return true;
    qkv_batch b;
    qkv_outputs out = {.last = r->last};
    if (!make_batch(&b, r, 0, true, err)) {
        s->n--;
        return false;
    }
    const bool done = qkv_forward(&out, r->plans[0], &b, NULL, err);
    qkv_free(b.segments);
    if (!done) {
        s->n--;
        return false;
    }
    r->chains[0]->n = r->n_run = s->n;
    r->recipe.n_more--;
    return true;
}

const float *qkv_run_last(const qkv_run *r)
{
    return r->last;
}
