/*
 * read.c - what a run answers: sites, logits, surprisal
 *
 * Reading looks through the records of a run's plans; what is missing is
 * computed by another execution. A fork has the rows that it computed; the
 * others, and the layers before it entered, are its parent's.
 */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "model/run_impl.h"
#include "tensor/reduce.h"

/* ---- sites ---- */

/* A view of a recorded slot, or (layer -1) of all layers stacked; of a fork,
 * of the positions that are its own. */
static qkv_tensor *view(const qkv_run *r, const qkv_plan *p, int64_t seq,
                        qkv_site site, int64_t layer, qkv_error *err)
{
    const qkv_record *rec = &p->records[site];
    const int64_t n = r->recipe.seqs[seq].n, p0 = r->recipe.seqs[seq].p0;
    const int64_t room = rec->seq_room[seq];
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
        stride[dims++] = (room - p0) * room;
        axes[dims] = "query", shape[dims] = n - p0, stride[dims++] = room;
        axes[dims] = "key", shape[dims] = n, stride[dims++] = 1;
        break;
    case QKV_SHAPE_POOLED:
    case QKV_SHAPE_PAIR:
        break;
    default:
        axes[dims] = "pos", shape[dims] = n - p0;
        stride[dims++] = rec->width;
    }
    for (int i = 0; i < inner; i++) {
        axes[dims] = axis[i], shape[dims] = size[i];
        stride[dims++] = i + 1 < inner ? size[i + 1] : 1;
    }
    const float *at = qkv_record_at(rec, layer < 0 ? p->start_layer : layer,
                                    seq, rec->seq_p0[seq]);
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
        return qkv_run_plan_of(r, site, layer);
    const int64_t from = r->recipe.start_layer, to = r->recipe.stop_at;
    const qkv_plan *p = qkv_run_plan_of(r, site, from);
    return p != NULL && p->records[site].n_layers == to - from ? p : NULL;
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

/* The site as the run's own rows have it: kept, or computed now. */
static qkv_tensor *own_site(qkv_run *r, int64_t seq, qkv_site site,
                            int64_t layer, qkv_error *err)
{
    const qkv_plan *there = kept_all(r, site, layer);
    if (there != NULL)
        return view(r, there, seq, site, layer, err);
    char name[QKV_SITE_ROOM];
    if (layer < 0 && qkv_sites[site].level == QKV_BLOCK)
        snprintf(name, sizeof name, "blocks.*.%s", qkv_sites[site].name);
    else
        qkv_site_name(name, site, layer);
    uint8_t *flags = NULL;
    if (!qkv_run_can_repeat(r, name, err)
        || (flags = qkv_run_flags(r, err)) == NULL)
        return NULL;
    const int64_t from = layer < 0 ? r->recipe.start_layer : layer;
    const int64_t to = layer < 0 ? r->recipe.stop_at : layer + 1;
    for (int64_t l = from; l < to; l++)
        flags[qkv_slot(site, l)] = QKV_RECORD;
    qkv_plan *p = qkv_run_again(r, flags, false, err);
    if (p == NULL)
        return NULL;
    qkv_tensor *t = view(r, p, seq, site, layer, err);
    if (t == NULL || !worth_keeping(p) || !qkv_run_add_plan(r, p, err))
        qkv_plan_free(p);       /* t holds the storage */
    return t;
}

/* ---- sites of forks ---- */

/* t[..., from:to of an axis, ...] = from, whose reference it takes. */
static bool put(const qkv_tensor *t, int axis, int64_t from, int64_t to,
                qkv_tensor *part, qkv_error *err)
{
    qkv_tensor *room = part != NULL
        ? qkv_tensor_slice(t, axis, from, to, err) : NULL;
    const bool done = room != NULL && qkv_tensor_copy(room, part, err);
    qkv_tensor_release(room);
    qkv_tensor_release(part);
    return done;
}

/* Scores of the whole sequence [head, query, key]: the parent's for the first
 * p0 queries, which see no key after themselves. */
static qkv_tensor *join_scores(const qkv_tensor *parent, const qkv_tensor *own,
                               qkv_site site, int64_t p0, qkv_error *err)
{
    static const char *const axes[] = {"head", "query", "key"};
    const int64_t n = own->shape[2];
    const int64_t keys = n < parent->shape[2] ? n : parent->shape[2];
    qkv_tensor *t = qkv_tensor_new(QKV_F32, 3, (const int64_t[]){
                                       own->shape[0], n, n}, axes, err);
    qkv_tensor *early = t != NULL
        ? qkv_tensor_slice(parent, 1, 0, p0, err) : NULL;
    qkv_tensor *seen = early != NULL
        ? qkv_tensor_slice(early, 2, 0, keys, err) : NULL;
    qkv_tensor *room = seen != NULL ? qkv_tensor_slice(t, 1, 0, p0, err)
        : NULL;
    const bool done = room != NULL
        && qkv_tensor_fill(room, site == QKV_SITE_SCORES ? -HUGE_VAL : 0, err)
        && put(room, 2, 0, keys, qkv_tensor_retain(seen), err)
        && put(t, 1, p0, n, qkv_tensor_view(own, err), err);
    qkv_tensor_release(room);
    qkv_tensor_release(seen);
    qkv_tensor_release(early);
    if (done)
        return t;
    qkv_tensor_release(t);
    return NULL;
}

/* The first n positions of a site, whose reference it takes. */
static qkv_tensor *cut_to(qkv_tensor *t, qkv_site site, int64_t n,
                          qkv_error *err)
{
    const bool scores = qkv_sites[site].shape == QKV_SHAPE_SCORES;
    const int first = scores ? 1 : 0, last = scores ? 2 : 0;
    if (qkv_sites[site].shape == QKV_SHAPE_POOLED
        || qkv_sites[site].shape == QKV_SHAPE_PAIR)
        return t;
    for (int axis = first; t != NULL && axis <= last; axis++) {
        qkv_tensor *part = qkv_tensor_slice(t, axis, 0, n, err);
        qkv_tensor_release(t);
        t = part;
    }
    return t;
}

/* A site at one layer: the parent's before the fork enters; then the parent's
 * positions before p0, and its own. */
static qkv_tensor *fork_layer(qkv_run *r, int64_t seq, qkv_site site,
                              int64_t layer, qkv_error *err)
{
    const qkv_sequence *s = &r->recipe.seqs[seq];
    const qkv_site_level level = qkv_sites[site].level;
    qkv_run *parent = r->recipe.parent;
    if ((level == QKV_BLOCK && layer < s->l0)
        || (level == QKV_STEM && s->l0 > 0))
        return cut_to(qkv_run_site(parent, s->of, site, layer, err), site,
                      s->n, err);
    qkv_tensor *own = own_site(r, seq, site, layer, err);
    if (own == NULL || s->p0 == 0)
        return own;
    qkv_tensor *base = qkv_run_site(parent, s->of, site, layer, err);
    qkv_tensor *t = NULL;
    if (base != NULL && qkv_sites[site].shape == QKV_SHAPE_SCORES) {
        t = join_scores(base, own, site, s->p0, err);
    } else if (base != NULL) {
        qkv_tensor *early = qkv_tensor_slice(base, 0, 0, s->p0, err);
        qkv_tensor *parts[] = {early, own};
        t = early != NULL ? qkv_tensor_cat(parts, 2, 0, err) : NULL;
        qkv_tensor_release(early);
    }
    qkv_tensor_release(base);
    qkv_tensor_release(own);
    return t;
}

/* All layers of a BLOCK site, stacked; its own by one execution. */
static qkv_tensor *fork_layers(qkv_run *r, int64_t seq, qkv_site site,
                               qkv_error *err)
{
    const int64_t from = r->recipe.start_layer;
    const int64_t n = r->recipe.stop_at - from;
    uint8_t *mark = qkv_run_flags(r, err);
    qkv_tensor **parts = mark != NULL
        ? qkv_alloc_zero((size_t)n, sizeof *parts, err) : NULL;
    bool done = parts != NULL;
    for (int64_t l = r->recipe.seqs[seq].l0; done && l < from + n; l++)
        mark[qkv_slot(site, l)] = 1;
    done = done && qkv_run_keep(r, mark, err);
    for (int64_t l = 0; done && l < n; l++)
        done = (parts[l] = fork_layer(r, seq, site, from + l, err)) != NULL;
    qkv_tensor *t = done
        ? qkv_tensor_stack(parts, (int)n, 0, "layer", err) : NULL;
    for (int64_t l = 0; parts != NULL && l < n; l++)
        qkv_tensor_release(parts[l]);
    qkv_free(parts);
    qkv_free(mark);
    return t;
}

qkv_tensor *qkv_run_site(qkv_run *r, int64_t seq, qkv_site site, int64_t layer,
                         qkv_error *err)
{
    if (!is_run(r, site, layer, err))
        return NULL;
    if (r->recipe.parent == NULL)
        return own_site(r, seq, site, layer, err);
    qkv_tensor *t = layer < 0 && qkv_sites[site].level == QKV_BLOCK
        ? fork_layers(r, seq, site, err)
        : fork_layer(r, seq, site, layer < 0 ? 0 : layer, err);
    if (t != NULL)
        t->read_only = true;
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

/* ---- logits ---- */

bool qkv_run_head_is_touched(const qkv_run *r)
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
    if (!is_run(r, QKV_SITE_LOGITS, 0, err)
        || !qkv_run_can_repeat(r, "logits", err)
        || (flags = qkv_run_flags(r, err)) == NULL)
        return false;
    qkv_plan *p = qkv_run_again(r, flags, true, err);
    qkv_plan_free(p);
    return p != NULL;
}

/* Row `pos` >= p0 of a sequence in the last stream. */
static const float *resid_row(const qkv_run *r, int64_t seq, int64_t pos)
{
    const qkv_sequence *s = &r->recipe.seqs[seq];
    return r->resid + (s->row0 + pos - s->p0) * r->stack->config.d_model;
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
    const qkv_sequence *s = &r->recipe.seqs[seq];
    const bool is_last = pos == s->n - 1 && r->last != NULL
        && (seq > 0 || r->n_run == s->n);
    if (!has_logits(r, err))
        return NULL;
    if (pos < s->p0)
        return qkv_run_logits(r->recipe.parent, s->of, pos, err);
    if (!is_last && (qkv_run_head_is_touched(r)
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
        memcpy(out, r->last + s->place * c->d_vocab,
               (size_t)c->d_vocab * sizeof *out);
    else if (!qkv_model_unembed(out, r->recipe.model,
                                resid_row(r, seq, pos), 1, err)) {
        qkv_tensor_release(t);
        return NULL;
    }
    t->read_only = true;
    return t;
}

/* x [n, d_model] = rows of the last stream: position pos of each of n
 * sequences from `first` on (negative: from its end). */
static bool stream_rows(float *x, qkv_run *r, int64_t first, int64_t n,
                        int64_t pos, qkv_error *err)
{
    const int64_t d = r->stack->config.d_model;
    for (int64_t i = 0; i < n; i++) {
        const qkv_sequence *s = &r->recipe.seqs[first + i];
        int64_t at = pos;
        if (!qkv_index(&at, s->n, "position", err))
            return false;
        if (at < s->p0) {
            if (!stream_rows(x + i * d, r->recipe.parent, s->of, 1, at, err))
                return false;
            continue;
        }
        if (!need_resid(r, err))
            return false;
        memcpy(x + i * d, resid_row(r, first + i, at),
               (size_t)d * sizeof *x);
    }
    return true;
}

/* One sequence's logits at pos, as the run itself has them. */
static bool touched_logits(float *out, qkv_run *r, int64_t seq, int64_t pos,
                           qkv_error *err)
{
    if (!qkv_index(&pos, r->recipe.seqs[seq].n, "position", err))
        return false;
    qkv_tensor *t = qkv_run_logits(r, seq, pos, err);
    if (t == NULL)
        return false;
    qkv_tensor *f = qkv_tensor_float(t, err);
    if (f != NULL)
        memcpy(out, qkv_tensor_data(f), (size_t)r->stack->config.d_vocab
               * sizeof *out);
    qkv_tensor_release(f);
    qkv_tensor_release(t);
    return f != NULL;
}

bool qkv_run_logits_of(float *out, qkv_run *r, int64_t first, int64_t n,
                       int64_t pos, qkv_error *err)
{
    const qkv_config *c = &r->stack->config;
    if (!has_logits(r, err))
        return false;
    bool done = true;
    if (qkv_run_head_is_touched(r)) {
        for (int64_t i = 0; done && i < n; i++)
            done = touched_logits(out + i * c->d_vocab, r, first + i, pos,
                                  err);
        return done;
    }
    float *x = qkv_alloc((size_t)(n * c->d_model) * sizeof *x, err);
    done = x != NULL && stream_rows(x, r, first, n, pos, err)
        && qkv_model_unembed(out, r->recipe.model, x, n, err);
    qkv_free(x);
    return done;
}

/* Row by row, where all logits must be made. */
static bool pick_logits(float *out, qkv_run *r, int64_t pos,
                        const int64_t *tokens, int64_t n_tokens,
                        qkv_error *err)
{
    float *row = qkv_alloc((size_t)r->stack->config.d_vocab * sizeof *row,
                           err);
    bool done = row != NULL;
    for (int64_t i = 0; done && i < r->recipe.n_seqs; i++) {
        done = touched_logits(row, r, i, pos, err);
        for (int64_t t = 0; done && t < n_tokens; t++)
            out[i * n_tokens + t] = row[tokens[t]];
    }
    qkv_free(row);
    return done;
}

bool qkv_run_token_logits(float *out, qkv_run *r, int64_t pos,
                          const int64_t *tokens, int64_t n_tokens,
                          qkv_error *err)
{
    const int64_t n = r->recipe.n_seqs;
    if (!has_logits(r, err))
        return false;
    if (qkv_run_head_is_touched(r))
        return pick_logits(out, r, pos, tokens, n_tokens, err);
    float *x = qkv_alloc((size_t)(n * r->stack->config.d_model) * sizeof *x,
                         err);
    const bool done = x != NULL && stream_rows(x, r, 0, n, pos, err)
        && qkv_model_unembed_tokens(out, r->recipe.model, x, n, tokens,
                                    n_tokens, err);
    qkv_free(x);
    return done;
}

/* -log2 softmax(logits)[token], in bits. */
static double bits_of(const float *logits, int64_t n, int32_t token)
{
    return (qkv_log_sum_exp(logits, n) - (double)logits[token]) / log(2.0);
}

/* bits[row + 1] of ids[row + 1] for the rows [from, to); logits are made of
 * pieces that stay small. */
static bool surprisal(float *bits, qkv_run *r, int64_t seq, int64_t from,
                      int64_t to, const int32_t *ids, qkv_error *err)
{
    enum { PIECE = 32 };
    const qkv_sequence *s = &r->recipe.seqs[seq];
    const int64_t n_vocab = r->stack->config.d_vocab;
    if (from < s->p0) {
        const int64_t end = to < s->p0 ? to : s->p0;
        if (!surprisal(bits, r->recipe.parent, s->of, from, end, ids, err))
            return false;
        from = end;
    }
    if (from >= to)
        return true;
    float *logits = need_resid(r, err)
        ? qkv_alloc((size_t)(PIECE * n_vocab) * sizeof *logits, err) : NULL;
    bool done = logits != NULL;
    for (int64_t row = from; done && row < to; row += PIECE) {
        const int64_t rows = to - row < PIECE ? to - row : PIECE;
        done = qkv_check(err)
            && qkv_model_unembed(logits, r->recipe.model,
                                 resid_row(r, seq, row), rows, err);
        for (int64_t i = 0; done && i < rows; i++)
            bits[row + i + 1] = (float)bits_of(logits + i * n_vocab, n_vocab,
                                               ids[row + i + 1]);
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
    if (qkv_run_head_is_touched(r)) {
        qkv_tensor *all = qkv_run_site(r, seq, QKV_SITE_LOGITS, 0, err);
        const int64_t n = r->stack->config.d_vocab;
        done = all != NULL;
        for (int64_t p = 1; done && p < s->n; p++)
            bits[p] = (float)bits_of((const float *)qkv_tensor_data(all)
                                     + (p - 1) * n, n, s->ids[p]);
        qkv_tensor_release(all);
    } else {
        done = surprisal(bits, r, seq, 0, s->n - 1, s->ids, err);
    }
    if (done)
        return t;
    qkv_tensor_release(t);
    return NULL;
}

