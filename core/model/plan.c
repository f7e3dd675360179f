/*
 * plan.c - what is recorded, edited, hooked, and where it lives: see plan.h
 */
#include "config.h"

#include "model/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "model/exec.h"

/* ---- flags ---- */

static int64_t layers_of(const qkv_plan *p, qkv_site site)
{
    return qkv_sites[site].level == QKV_BLOCK ? p->stack->config.n_layers : 1;
}

/* Does the forward pass by this slot? */
static bool is_run(const qkv_plan *p, qkv_site site, int64_t layer)
{
    switch (qkv_sites[site].level) {
    case QKV_STEM:
        return p->start_layer == 0;
    case QKV_BLOCK:
        return layer >= p->start_layer && layer < p->stop_at;
    case QKV_HEAD:
        return p->stop_at == p->stack->config.n_layers;
    }
    return false;
}

static void set_flags(qkv_plan *p)
{
    const qkv_recipe *r = p->recipe;
    const int64_t n_layers = p->stack->config.n_layers;
    for (int i = 0; i < QKV_N_SITES; i++) {
        const qkv_site site = (qkv_site)i;
        for (int64_t layer = 0; layer < layers_of(p, site); layer++) {
            uint8_t *flags = &p->flags[qkv_slot(site, layer)];
            for (int64_t e = 0; e < r->n_edits; e++)
                if (r->edits[e].site == site
                    && qkv_edit_has_layer(&r->edits[e], layer, n_layers))
                    *flags |= QKV_EDITED;
            for (int64_t h = 0; h < r->n_hooks; h++)
                if (r->hooks[h].site == site
                    && qkv_selector_find(&r->hooks[h].layer, layer, n_layers)
                    >= 0)
                    *flags |= QKV_HOOKED;
            if (!is_run(p, site, layer))
                *flags = 0;
            if (*flags & (QKV_RECORD | QKV_HOOKED))
                p->n_wanted++;
        }
    }
}

/* ---- edits by slot ---- */

static int by_sequence(const void *a, const void *b)
{
    const qkv_touch *x = a, *y = b;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    if (x->edit != y->edit)
        return x->edit < y->edit ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Add to count[slot] the touches of each slot; where touches has room for
 * them, count says where to write. */
static void walk_touches(qkv_plan *p, int64_t *count)
{
    const qkv_recipe *r = p->recipe;
    for (int64_t i = 0; i < r->n_edits; i++) {
        const qkv_edit *e = &r->edits[i];
        const qkv_selector *seqs = &e->select[QKV_EDIT_SEQ];
        const int64_t n = seqs->all ? r->n_seqs : seqs->n;
        for (int64_t layer = 0; layer < layers_of(p, e->site); layer++) {
            const int64_t slot = qkv_slot(e->site, layer);
            if (!(p->flags[slot] & QKV_EDITED)
                || !qkv_edit_has_layer(e, layer, p->stack->config.n_layers))
                continue;
            for (int64_t k = 0; p->touches != NULL && k < n; k++) {
                const int64_t seq = seqs->all ? k : seqs->index[k];
                p->touches[count[slot] + k] = (qkv_touch){
                    .seq = seq + (seq < 0 ? r->n_seqs : 0), .place = k,
                    .edit = e};
            }
            count[slot] += n;
        }
    }
}

/* touches and touch_at. Counted first, then filled in, then ordered. */
static bool list_touches(qkv_plan *p, qkv_error *err)
{
    const int64_t slots = p->stack->config.n_layers * QKV_N_SITES;
    p->touch_at = qkv_alloc_zero((size_t)(slots + 1), sizeof *p->touch_at,
                                 err);
    if (p->touch_at == NULL || p->recipe->n_edits == 0)
        return p->touch_at != NULL;
    walk_touches(p, p->touch_at + 1);
    for (int64_t i = 0; i < slots; i++)
        p->touch_at[i + 1] += p->touch_at[i];
    const size_t bytes = (size_t)p->touch_at[slots] * sizeof *p->touches;
    int64_t *at = qkv_alloc((size_t)slots * sizeof *at, err);
    p->touches = at != NULL ? qkv_alloc(bytes > 0 ? bytes : 1, err) : NULL;
    if (p->touches != NULL) {
        memcpy(at, p->touch_at, (size_t)slots * sizeof *at);
        walk_touches(p, at);
        for (int64_t i = 0; i < slots; i++)
            qsort(p->touches + p->touch_at[i],
                  (size_t)(p->touch_at[i + 1] - p->touch_at[i]),
                  sizeof *p->touches, by_sequence);
    }
    qkv_free(at);
    return p->touches != NULL;
}

/* ---- records ---- */

static bool add(int64_t *sum, int64_t a, int64_t b, qkv_error *err)
{
    int64_t product;
    if (qkv_int_mul(&product, a, b) && qkv_int_add(sum, *sum, product)
        && *sum < INT64_MAX / 64)
        return true;
    return qkv_fail(err, QKV_ENOMEM, "the request is larger than any memory");
}

/* Layout of one site's record; no memory yet. */
static bool lay_out(qkv_plan *p, qkv_site site, qkv_error *err)
{
    const qkv_recipe *r = p->recipe;
    const bool scores = qkv_sites[site].shape == QKV_SHAPE_SCORES;
    const bool pooled = qkv_sites[site].shape == QKV_SHAPE_POOLED
        || qkv_sites[site].shape == QKV_SHAPE_PAIR;
    qkv_record *rec = &p->records[site];
    const int64_t layers = layers_of(p, site);
    rec->at = qkv_alloc((size_t)layers * sizeof *rec->at, err);
    rec->seq_offset = qkv_alloc((size_t)r->n_seqs * sizeof *rec->seq_offset,
                                err);
    rec->seq_p0 = qkv_alloc((size_t)r->n_seqs * sizeof *rec->seq_p0, err);
    rec->seq_room = qkv_alloc((size_t)r->n_seqs * sizeof *rec->seq_room, err);
    if (rec->at == NULL || rec->seq_offset == NULL || rec->seq_p0 == NULL
        || rec->seq_room == NULL)
        return false;
    for (int64_t layer = 0; layer < layers; layer++)
        rec->at[layer] = p->flags[qkv_slot(site, layer)] & QKV_RECORD
            ? (int32_t)rec->n_layers++ : -1;
    rec->width = qkv_site_width(site, p->stack);
    for (int64_t i = 0; i < r->n_seqs; i++) {
        const int64_t seq = r->order[i], p0 = r->seqs[seq].p0;
        const int64_t room = r->seqs[seq].n + r->n_more;
        rec->seq_offset[seq] = rec->layer_stride;
        rec->seq_p0[seq] = pooled ? 0 : p0;
        rec->seq_room[seq] = room;
        int64_t floats = pooled ? rec->width : 0;
        if (scores) {
            if (!add(&floats, p->stack->config.n_heads, room - p0, err)
                || !add(&rec->layer_stride, floats, room, err))
                return false;
            continue;
        }
        if (!pooled && !add(&floats, room - p0, rec->width, err))
            return false;
        if (!add(&rec->layer_stride, floats, 1, err))
            return false;
    }
    int64_t floats = 0;
    if (!add(&floats, rec->layer_stride, rec->n_layers, err))
        return false;
    p->record_bytes += (size_t)floats * sizeof(float);
    return true;
}

/* What an unseen cell holds, also where rows are still to come. */
static void clear_scores(const qkv_record *rec, qkv_site site)
{
    float *x = rec->storage->data;
    const float unseen = site == QKV_SITE_SCORES ? -INFINITY : 0;
    for (int64_t i = 0; i < rec->layer_stride * rec->n_layers; i++)
        x[i] = unseen;
}

static bool allocate(qkv_plan *p, qkv_error *err)
{
    for (int i = 0; i < QKV_N_SITES; i++) {
        qkv_record *rec = &p->records[i];
        if (rec->n_layers == 0)
            continue;
        rec->storage = qkv_storage_new((size_t)(rec->layer_stride
                                                * rec->n_layers)
                                       * sizeof(float), err);
        if (rec->storage == NULL)
            return false;
        if (qkv_sites[i].shape == QKV_SHAPE_SCORES)
            clear_scores(rec, (qkv_site)i);
    }
    return true;
}

float *qkv_record_at(const qkv_record *r, int64_t layer, int64_t seq,
                     int64_t pos)
{
    float *x = (float *)r->storage->data
        + r->at[layer] * r->layer_stride + r->seq_offset[seq];
    return x + (pos - r->seq_p0[seq])
        * (r->width > 0 ? r->width : r->seq_room[seq]);
}

/* ---- memory ---- */

/* What an execution takes besides the records: its scratch, and the logits of
 * each sequence's last row. */
static void count_scratch(qkv_plan *p)
{
    p->scratch_bytes = qkv_exec_bytes(p);
    if (p->logits == QKV_LOGITS_LAST)
        p->scratch_bytes += (size_t)(p->recipe->n_seqs
                                     * p->stack->config.d_vocab)
            * sizeof(float);
}

static bool fits(const qkv_plan *p, qkv_error *err)
{
    const size_t need = p->record_bytes + p->scratch_bytes;
    const size_t there = qkv_memory_available();
    if (need <= there)
        return true;
    return qkv_fail(err, QKV_ENOMEM, "the request takes %.2f GB (%.2f GB to "
                    "keep what names= asks for), %.2f GB are free: ask for "
                    "fewer names or a shorter text", (double)need / 1e9,
                    (double)p->record_bytes / 1e9, (double)there / 1e9);
}

qkv_plan *qkv_plan_new(const qkv_recipe *recipe, uint8_t *flags,
                       qkv_logits_wanted logits, int64_t start_layer,
                       qkv_error *err)
{
    qkv_plan *p = qkv_alloc_zero(1, sizeof *p, err);
    if (p == NULL) {
        qkv_free(flags);
        return NULL;
    }
    p->recipe = recipe;
    p->stack = &recipe->model->stacks[0];
    p->flags = flags;
    p->logits = logits;
    p->start_layer = start_layer;
    p->stop_at = recipe->stop_at;
    if (p->stop_at < p->stack->config.n_layers
        || !qkv_site_is_there(QKV_SITE_LOGITS, p->stack))
        p->logits = QKV_LOGITS_NONE;
    if (p->logits == QKV_LOGITS_ALL)
        flags[QKV_SITE_LOGITS] |= QKV_RECORD;
    set_flags(p);
    bool done = list_touches(p, err);
    for (int i = 0; done && i < QKV_N_SITES; i++) {
        bool any = false;
        for (int64_t layer = 0; layer < layers_of(p, (qkv_site)i); layer++)
            any |= (p->flags[qkv_slot((qkv_site)i, layer)] & QKV_RECORD) != 0;
        done = !any || lay_out(p, (qkv_site)i, err);
    }
    if (done)
        count_scratch(p);
    if (!done || !fits(p, err) || !allocate(p, err)) {
        qkv_plan_free(p);
        return NULL;
    }
    return p;
}

void qkv_plan_free(qkv_plan *p)
{
    if (p == NULL)
        return;
    for (int i = 0; i < QKV_N_SITES; i++) {
        qkv_storage_release(p->records[i].storage);
        qkv_free(p->records[i].at);
        qkv_free(p->records[i].seq_offset);
        qkv_free(p->records[i].seq_p0);
        qkv_free(p->records[i].seq_room);
    }
    qkv_free(p->touches);
    qkv_free(p->touch_at);
    qkv_free(p->flags);
    qkv_free(p);
}
