/*
 * exec.c - one execution of a plan: see exec.h
 */
#include "config.h"

#include "model/exec.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parallel.h"

static const uint8_t room_of[QKV_N_SITES] = {
    [QKV_SITE_EMBED] = QKV_ROOM_A, [QKV_SITE_POS_EMBED] = QKV_ROOM_B,
    [QKV_SITE_TYPE_EMBED] = QKV_ROOM_C, [QKV_SITE_FULL_EMBED] = QKV_ROOM_B,
    [QKV_SITE_RESID_PRE] = QKV_ROOM_E, [QKV_SITE_LN1_SCALE] = QKV_ROOM_SCALE,
    [QKV_SITE_LN1] = QKV_ROOM_B, [QKV_SITE_Q] = QKV_ROOM_Q,
    [QKV_SITE_K] = QKV_ROOM_K, [QKV_SITE_V] = QKV_ROOM_V,
    [QKV_SITE_ROT_Q] = QKV_ROOM_Z,
    [QKV_SITE_ROT_K] = QKV_ROOM_KEYS, [QKV_SITE_Z] = QKV_ROOM_Z,
    [QKV_SITE_RESULT] = QKV_ROOM_RESULT, [QKV_SITE_ATTN_OUT] = QKV_ROOM_A,
    [QKV_SITE_RESID_MID] = QKV_ROOM_C, [QKV_SITE_LN2_SCALE] = QKV_ROOM_SCALE,
    [QKV_SITE_LN2] = QKV_ROOM_B, [QKV_SITE_MLP_PRE] = QKV_ROOM_PRE,
    [QKV_SITE_MLP_LINEAR] = QKV_ROOM_LINEAR, [QKV_SITE_MLP_POST] = QKV_ROOM_PRE,
    [QKV_SITE_MLP_OUT] = QKV_ROOM_A, [QKV_SITE_RESID_POST] = QKV_ROOM_D,
    [QKV_SITE_NORM_POST] = QKV_ROOM_E,
    [QKV_SITE_LN_FINAL_SCALE] = QKV_ROOM_SCALE,
    [QKV_SITE_LN_FINAL] = QKV_ROOM_HEAD, [QKV_SITE_POOLER] = QKV_ROOM_POOLED,
    [QKV_SITE_NSP_LOGITS] = QKV_ROOM_PAIR, [QKV_SITE_MLM_NORM] = QKV_ROOM_HEAD,
    [QKV_SITE_LOGITS] = QKV_ROOM_LOGITS,
};

uint8_t qkv_exec_flags(const qkv_exec *e, qkv_site site, int64_t layer)
{
    return e->plan->flags[qkv_slot(site, layer)];
}

/* ---- where values live ---- */

float *qkv_exec_home(const qkv_exec *e, qkv_site site, int64_t layer)
{
    const qkv_segment *first = &e->batch->segments[0];
    if (qkv_exec_flags(e, site, layer) & QKV_RECORD)
        return qkv_record_at(&e->plan->records[site], layer, first->seq,
                             first->p0);
    return e->room[room_of[site]];
}

/* ---- the one place where the outside gets in ---- */

/* Call the hooks of a slot on one segment's values. */
static bool call_hooks(qkv_exec *e, qkv_site site, const qkv_slab *slab,
                       const char *const *axes)
{
    const qkv_recipe *r = e->plan->recipe;
    qkv_hook_at at = {.site = site, .seq = slab->seq, .pos0 = slab->pos0,
                      .layer = qkv_sites[site].level == QKV_BLOCK
                          ? slab->layer : -1};
    qkv_site_name(at.name, site, slab->layer);
    int64_t floats = 1;
    for (int i = 0; i < slab->n_dims; i++)
        floats += (slab->shape[i] - 1) * slab->stride[i];
    for (int64_t h = 0; h < r->n_hooks; h++) {
        const qkv_hook *hook = &r->hooks[h];
        if (hook->site != site
            || qkv_selector_find(&hook->layer, slab->layer, e->c->n_layers) < 0)
            continue;
        qkv_storage *s = qkv_storage_wrap(slab->data,
                                          (size_t)floats * sizeof(float),
                                          NULL, NULL, e->err);
        qkv_tensor *t = s == NULL ? NULL
            : qkv_tensor_strided(s, 0, QKV_F32, slab->n_dims, slab->shape,
                                 slab->stride, axes, e->err);
        qkv_storage_release(s);
        const bool went = t != NULL && hook->fn(hook->context, t, &at, e->err);
        qkv_tensor_release(t);
        if (!went)
            return false;
    }
    return true;
}

/* The first touch of a slot on a sequence; or where it would stand. */
static int64_t first_touch(const qkv_plan *p, int64_t slot, int64_t seq)
{
    int64_t from = p->touch_at[slot], to = p->touch_at[slot + 1];
    while (from < to) {
        const int64_t middle = from + (to - from) / 2;
        if (p->touches[middle].seq < seq)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* Edits, then hooks, on one segment's values of a slot. */
static bool touch(qkv_exec *e, qkv_site site, const qkv_slab *slab,
                  const char *const *axes)
{
    const qkv_plan *p = e->plan;
    const int64_t slot = qkv_slot(site, slab->layer);
    const int64_t end = p->touch_at[slot + 1];
    for (int64_t i = first_touch(p, slot, slab->seq);
         i < end && p->touches[i].seq == slab->seq; i++) {
        const qkv_touch *t = &p->touches[i];
        /* a sequence that stands twice in an edit's list counts once, last */
        if (i + 1 < end && t[1].seq == t->seq && t[1].edit == t->edit)
            continue;
        qkv_edit_apply(t->edit, e->stack, t->place, slab);
    }
    return !(qkv_exec_flags(e, site, slab->layer) & QKV_HOOKED)
        || call_hooks(e, site, slab, axes);
}

bool qkv_exec_count_down(qkv_exec *e, uint8_t flags)
{
    if (!(flags & (QKV_RECORD | QKV_HOOKED)) || --e->left > 0
        || e->plan->logits != QKV_LOGITS_NONE || e->out->resid != NULL)
        return true;
    e->done = true;
    return false;
}

bool qkv_fire_rows(qkv_exec *e, qkv_site site, int64_t layer, float *x,
                      bool last)
{
    const uint8_t flags = qkv_exec_flags(e, site, layer);
    if (flags == 0)
        return true;
    int64_t size[2];
    const char *axes[3] = {"pos"};
    const int n = qkv_site_axes(size, axes + 1, site, e->stack);
    const int64_t width = qkv_site_width(site, e->stack);
    const qkv_record *rec = &e->plan->records[site];
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        const int64_t pos0 = last ? s->n - 1 : s->p0;
        const int64_t rows = s->n - pos0;
        qkv_slab slab = {
            .data = x + (last ? i : s->row0) * width, .n_dims = n + 1,
            .shape = {rows, size[0], n == 2 ? size[1] : 0},
            .stride = {width, n == 2 ? size[1] : 1, 1},
            .seq = s->seq, .layer = layer, .pos0 = pos0,
            .n_prompt = e->plan->recipe->seqs[s->seq].n_prompt,
        };
        if ((flags & (QKV_EDITED | QKV_HOOKED)) && !touch(e, site, &slab, axes))
            return false;
        if (!(flags & QKV_RECORD))
            continue;
        float *kept = qkv_record_at(rec, layer, s->seq, pos0);
        if (kept != slab.data)
            memcpy(kept, slab.data, (size_t)(rows * width) * sizeof *kept);
    }
    return qkv_exec_count_down(e, flags);
}

bool qkv_fire_pooled(qkv_exec *e, qkv_site site, float *x)
{
    const uint8_t flags = qkv_exec_flags(e, site, 0);
    if (flags == 0)
        return true;
    const int64_t width = qkv_site_width(site, e->stack);
    const char *const axes[] = {site == QKV_SITE_POOLER ? "d_model" : ""};
    for (int64_t i = 0; i < e->segments; i++) {
        const qkv_segment *s = &e->batch->segments[i];
        const qkv_slab slab = {.data = x + i * width, .n_dims = 1,
                               .shape = {width}, .stride = {1}, .seq = s->seq};
        if ((flags & (QKV_EDITED | QKV_HOOKED)) && !touch(e, site, &slab, axes))
            return false;
        if (flags & QKV_RECORD)
            memcpy(qkv_record_at(&e->plan->records[site], 0, s->seq, 0),
                   slab.data, (size_t)width * sizeof(float));
    }
    return qkv_exec_count_down(e, flags);
}

qkv_scores qkv_exec_scores(const qkv_exec *e, qkv_site site, int64_t layer,
                           const qkv_segment *s)
{
    if (qkv_exec_flags(e, site, layer) & QKV_RECORD) {
        const qkv_record *rec = &e->plan->records[site];
        const int64_t n = rec->seq_room[s->seq];
        return (qkv_scores){
            .data = qkv_record_at(rec, layer, s->seq, s->p0),
            .head_stride = (n - rec->seq_p0[s->seq]) * n, .query_stride = n};
    }
    return (qkv_scores){.data = e->room[QKV_ROOM_ATTENTION],
                        .head_stride = (s->n - s->p0) * s->n,
                        .query_stride = s->n};
}

bool qkv_fire_scores(qkv_exec *e, qkv_site site, int64_t layer,
                     const qkv_segment *s, const qkv_attention *a,
                     qkv_scores x)
{
    static const char *const axes[] = {"head", "query", "key"};
    if (!(qkv_exec_flags(e, site, layer) & (QKV_EDITED | QKV_HOOKED)))
        return true;
    const qkv_slab slab = {
        .data = x.data, .n_dims = 3,
        .shape = {a->n_heads, a->n_queries, a->n_keys},
        .stride = {x.head_stride, x.query_stride, 1},
        .seq = s->seq, .layer = layer, .pos0 = s->p0,
        .n_prompt = e->plan->recipe->seqs[s->seq].n_prompt,
    };
    if (!touch(e, site, &slab, axes))
        return false;
    qkv_attention_mask(x, a, site == QKV_SITE_SCORES ? -INFINITY : 0);
    return true;
}

static bool is_open(const qkv_plan *p, int64_t layer)
{
    return (p->flags[qkv_slot(QKV_SITE_SCORES, layer)]
            | p->flags[qkv_slot(QKV_SITE_PATTERN, layer)]) != 0;
}

bool qkv_exec_is_open(const qkv_exec *e, int64_t layer)
{
    return is_open(e->plan, layer);
}

static bool is_wanted(const qkv_plan *p, qkv_site site)
{
    return (p->flags[qkv_slot(site, 0)] & (QKV_RECORD | QKV_HOOKED)) != 0;
}

bool qkv_exec_is_wanted(const qkv_exec *e, qkv_site site)
{
    return is_wanted(e->plan, site);
}

static bool wants_all_rows(const qkv_plan *p)
{
    return is_wanted(p, QKV_SITE_LOGITS) || is_wanted(p, QKV_SITE_MLM_NORM)
        || is_wanted(p, QKV_SITE_LN_FINAL)
        || is_wanted(p, QKV_SITE_LN_FINAL_SCALE);
}

bool qkv_exec_wants_all_rows(const qkv_exec *e)
{
    return wants_all_rows(e->plan);
}

/* ---- scratch ---- */

/* Is the site touched at any layer? */
static bool is_used(const qkv_plan *p, qkv_site site)
{
    const int64_t layers = qkv_sites[site].level == QKV_BLOCK
        ? p->stack->config.n_layers : 1;
    for (int64_t layer = 0; layer < layers; layer++)
        if (p->flags[qkv_slot(site, layer)] != 0)
            return true;
    return false;
}

/* How much an execution works on. */
typedef struct extent {
    bool open;                  /* is a [head, query, key] array asked for? */
    int64_t rows, segments;
    int64_t each, array;        /* floats of attention's scratch: the fused
                                 * form's a thread, the open form's array */
} extent;

static extent nothing(const qkv_plan *p)
{
    extent x = {0};
    for (int64_t layer = p->start_layer; layer < p->stop_at; layer++)
        x.open |= is_open(p, layer);
    return x;
}

/* Count positions [p0, n) of a sequence in. */
static void extend(extent *x, const qkv_plan *p, int64_t p0, int64_t n)
{
    const qkv_config *c = &p->stack->config;
    const qkv_attention a = {
        .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads,
        .d_head = c->d_head, .n_queries = n - p0, .n_keys = n};
    const int64_t each = qkv_attention_scratch(&a);
    const int64_t array = c->n_heads * a.n_queries * a.n_keys;
    x->rows += n - p0;
    x->segments++;
    x->each = each > x->each ? each : x->each;
    x->array = x->open && array > x->array ? array : x->array;
}

/* Floats of each room, whole cache lines; returns their sum. */
static int64_t room_floats(int64_t floats[QKV_N_ROOMS], const qkv_plan *p,
                           const extent *x)
{
    const qkv_config *c = &p->stack->config;
    const int64_t rows = x->rows, d = c->d_model;
    const int64_t kv = c->n_kv_heads * c->d_head;
    const int64_t heads = c->n_heads * c->d_head;
    const int64_t fused = x->each * qkv_threads();
    const bool resid_pre = is_used(p, QKV_SITE_RESID_PRE)
        || is_used(p, QKV_SITE_NORM_POST);
    const int64_t wish[QKV_N_ROOMS] = {
        [QKV_ROOM_A] = rows * d, [QKV_ROOM_B] = rows * d,
        [QKV_ROOM_C] = rows * d, [QKV_ROOM_D] = rows * d,
        [QKV_ROOM_E] = resid_pre ? rows * d : 0, [QKV_ROOM_SCALE] = rows,
        [QKV_ROOM_Q] = rows * heads, [QKV_ROOM_Z] = rows * heads,
        [QKV_ROOM_K] = rows * kv,
        [QKV_ROOM_KEYS] = c->rotary_dim > 0 ? rows * kv : 0,
        [QKV_ROOM_V] = rows * kv,
        [QKV_ROOM_RESULT] = is_used(p, QKV_SITE_RESULT)
            ? rows * c->n_heads * d : 0,
        [QKV_ROOM_PRE] = rows * c->d_mlp,
        [QKV_ROOM_LINEAR] = c->gated ? rows * c->d_mlp : 0,
        [QKV_ROOM_ATTENTION] = fused > x->array ? fused : x->array,
        [QKV_ROOM_ANGLES] = rows * c->rotary_dim,
        [QKV_ROOM_POOLED] = x->segments * d,
        [QKV_ROOM_PAIR] = x->segments * 2,
        [QKV_ROOM_HEAD] = wants_all_rows(p) ? rows * d : 0,
        [QKV_ROOM_HEAD2] = x->segments * d,
        /* hooked but not recorded */
        [QKV_ROOM_LOGITS] = is_wanted(p, QKV_SITE_LOGITS)
            && !(p->flags[qkv_slot(QKV_SITE_LOGITS, 0)] & QKV_RECORD)
            ? rows * c->d_vocab : 0,
    };
    int64_t total = 0;
    for (int i = 0; i < QKV_N_ROOMS; i++) {
        floats[i] = (wish[i] + 15) & ~(int64_t)15;
        total += floats[i];
    }
    return total;
}

size_t qkv_exec_bytes(const qkv_plan *p)
{
    const qkv_recipe *r = p->recipe;
    extent x = nothing(p);
    int64_t floats[QKV_N_ROOMS];
    for (int64_t i = 0; i < r->n_seqs; i++)
        extend(&x, p, r->seqs[i].p0, r->seqs[i].n);
    return (size_t)room_floats(floats, p, &x) * sizeof(float);
}

bool qkv_exec_init(qkv_exec *e)
{
    const qkv_batch *b = e->batch;
    const size_t segments = (size_t)b->n_segments;
    extent x = nothing(e->plan);
    int64_t floats[QKV_N_ROOMS];
    e->most_tiles = 1;
    for (int64_t i = 0; i < b->n_segments; i++) {
        const qkv_segment *s = &b->segments[i];
        const int tiles = qkv_chain_depth(s->past) + 1;
        extend(&x, e->plan, s->p0, s->n);
        e->most_tiles = tiles > e->most_tiles ? tiles : e->most_tiles;
    }
    e->attention_each = x.each;
    const int64_t total = room_floats(floats, e->plan, &x);
    e->scratch = qkv_alloc((size_t)total * sizeof(float), e->err);
    if (e->scratch == NULL)
        return false;
    float *at = e->scratch;
    for (int i = 0; i < QKV_N_ROOMS; i++) {
        e->room[i] = at;
        at += floats[i];
    }
    e->tiles = qkv_alloc(segments * (size_t)e->most_tiles * sizeof *e->tiles,
                         e->err);
    e->attentions = e->tiles != NULL
        ? qkv_alloc(segments * sizeof *e->attentions, e->err) : NULL;
    return e->attentions != NULL;
}

void qkv_exec_reset(qkv_exec *e)
{
    qkv_free(e->attentions);
    qkv_free(e->tiles);
    qkv_free(e->scratch);
}
