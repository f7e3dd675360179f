/*
 * sweep.c - the same question to many versions of a run: see sweep.h
 *
 * An item is a cell on one sequence. Items go in order of cells, as many at a
 * time as a budget of memory has rows for.
 */
#include "config.h"

#include "probes/sweep.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"

/* Rows computed at once: enough to pay for unpacking weights, few enough for
 * their activations to take little memory. */
static const int64_t most_rows = 1024;

static const qkv_recipe *recipe(const qkv_sweep *s)
{
    return qkv_run_recipe(s->run);
}

static bool is_scores(const qkv_sweep *s)
{
    return qkv_sites[s->site].shape == QKV_SHAPE_SCORES;
}

/* Which axis of the grid runs over `axis`, or -1. */
static int grid_axis(const qkv_sweep *s, qkv_edit_axis axis)
{
    for (int i = 0; i < s->n_axes; i++)
        if (s->axes[i] == axis)
            return i;
    return -1;
}

/* ---- sizes ---- */

static bool axis_size(int64_t *size, const qkv_sweep *s, qkv_edit_axis axis,
                      qkv_error *err)
{
    static const char *const words[] = {"seq", "layer", "pos", "head",
                                        "neuron", "key"};
    const qkv_stack *stack = qkv_run_stack(s->run);
    const qkv_recipe *r = recipe(s);
    int64_t inner[2];
    const char *unused[2];
    const int n = qkv_site_axes(inner, unused, s->site, stack);
    switch (axis) {
    case QKV_EDIT_LAYER:
        *size = stack->config.n_layers;
        return true;
    case QKV_EDIT_POS:
        *size = r->seqs[0].n;
        for (int64_t i = 1; i < r->n_seqs; i++)
            if (r->seqs[i].n != *size)
                return qkv_fail(err, QKV_ESHAPE, "a sweep over positions needs"
                                " sequences of one length: sequence 0 has "
                                "%lld, sequence %lld has %lld",
                                (long long)*size, (long long)i,
                                (long long)r->seqs[i].n);
        return true;
    case QKV_EDIT_HEAD:
        if (!is_scores(s) && n < 2)
            break;
        *size = is_scores(s) ? stack->config.n_heads : inner[0];
        return true;
    case QKV_EDIT_NEURON:
        if (is_scores(s))
            break;
        if (s->block < 1 || s->block > inner[n - 1])
            return qkv_fail(err, QKV_EINVAL, "blocks of %lld neurons: 1 to "
                            "%lld was expected", (long long)s->block,
                            (long long)inner[n - 1]);
        *size = (inner[n - 1] + s->block - 1) / s->block;
        return true;
    case QKV_EDIT_SEQ:
    case QKV_EDIT_KEY:
    case QKV_N_EDIT_AXES:
        break;
    }
    return qkv_fail(err, QKV_EINVAL, "%s has no axis '%s' to sweep over",
                    qkv_sites[s->site].name, words[axis]);
}

bool qkv_sweep_sizes(int64_t size[4], const qkv_sweep *s, qkv_error *err)
{
    const qkv_recipe *r = recipe(s);
    if (qkv_sites[s->site].level != QKV_BLOCK)
        return qkv_fail(err, QKV_EINVAL, "'%s' is not a site of the blocks, "
                        "which sweeps go over", qkv_sites[s->site].name);
    if (r->start_layer > 0
        || r->stop_at < qkv_run_stack(s->run)->config.n_layers)
        return qkv_fail(err, QKV_EINVAL, "a sweep needs a run of all layers, "
                        "this one goes from %lld up to %lld",
                        (long long)r->start_layer, (long long)r->stop_at);
    if (s->n_axes < 1 || s->n_axes > 4)
        return qkv_fail(err, QKV_EINVAL, "a sweep over %d axes: 1 to 4 was "
                        "expected", s->n_axes);
    for (int i = 0; i < s->n_axes; i++) {
        if (grid_axis(s, s->axes[i]) != i)
            return qkv_fail(err, QKV_EINVAL, "a sweep over the same axis "
                            "twice");
        if (!axis_size(&size[i], s, s->axes[i], err))
            return false;
    }
    return qkv_metric_check(s->metric, s->run, err);
}

int64_t qkv_sweep_same(const qkv_run *a, int64_t seq_a, const qkv_run *b,
                       int64_t seq_b)
{
    const qkv_recipe *ra = qkv_run_recipe(a), *rb = qkv_run_recipe(b);
    if (ra->model != rb->model || ra->revision != rb->revision
        || !qkv_run_stack(a)->config.causal || ra->start_layer > 0
        || rb->start_layer > 0 || ra->n_edits + rb->n_edits > 0
        || ra->n_hooks + rb->n_hooks > 0)
        return 0;
    const qkv_sequence *x = &ra->seqs[seq_a], *y = &rb->seqs[seq_b];
    const int64_t n = x->n < y->n ? x->n : y->n;
    int64_t same = 0;
    while (same < n && x->ids[same] == y->ids[same]
           && (x->types != NULL ? x->types[same] : 0)
           == (y->types != NULL ? y->types[same] : 0))
        same++;
    return same;
}

/* ---- one item ---- */

typedef struct grid {
    const qkv_sweep *s;
    int64_t size[4];
    int64_t cells, n_seqs;
} grid;

typedef struct item {
    int64_t seq;
    int64_t at[QKV_N_EDIT_AXES];    /* the cell's index on an axis, or -1 */
    int64_t from, to;               /* positions it changes */
} item;

/* false: the item changes nothing. */
static bool item_at(item *it, const grid *g, int64_t number)
{
    int64_t cell = number / g->n_seqs;
    const qkv_sweep *s = g->s;
    it->seq = number % g->n_seqs;
    for (int a = 0; a < QKV_N_EDIT_AXES; a++)
        it->at[a] = -1;
    for (int i = s->n_axes; i-- > 0; cell /= g->size[i])
        it->at[s->axes[i]] = cell % g->size[i];
    const int64_t same = s->same != NULL ? s->same[it->seq] : 0;
    const int64_t pos = it->at[QKV_EDIT_POS];
    it->from = pos >= 0 ? pos : same;
    it->to = pos >= 0 ? pos + 1 : recipe(s)->seqs[it->seq].n;
    return it->from >= same && it->from < it->to;
}

static int64_t rows_of(const grid *g, const item *it)
{
    const int64_t n = recipe(g->s)->seqs[it->seq].n;
    return qkv_run_stack(g->s->run)->config.causal ? n - it->from : n;
}

/* Indices [from, to); one: their axis goes away. */
static bool select_range(qkv_selector *sel, int64_t from, int64_t to, bool one,
                         qkv_error *err)
{
    int64_t *index = qkv_alloc((size_t)(to - from) * sizeof *index, err);
    if (index == NULL)
        return false;
    *sel = (qkv_selector){.one = one, .n = to - from, .index = index};
    for (int64_t i = from; i < to; i++)
        index[i - from] = i;
    return true;
}

/* Neurons of a block. */
static int64_t block_end(const grid *g, int64_t block)
{
    int64_t inner[2];
    const char *unused[2];
    const int n = qkv_site_axes(inner, unused, g->s->site,
                                qkv_run_stack(g->s->run));
    const int64_t end = (block + 1) * g->s->block;
    return end < inner[n - 1] ? end : inner[n - 1];
}

static bool select_item(qkv_edit *e, const grid *g, const item *it,
                        int64_t fork, qkv_error *err)
{
    const int64_t layer = it->at[QKV_EDIT_LAYER];
    const int64_t head = it->at[QKV_EDIT_HEAD];
    const int64_t block = it->at[QKV_EDIT_NEURON];
    for (int a = 0; a < QKV_N_EDIT_AXES; a++)
        e->select[a].all = true;
    return select_range(&e->select[QKV_EDIT_SEQ], fork, fork + 1, true, err)
        && (layer < 0 || select_range(&e->select[QKV_EDIT_LAYER], layer,
                                      layer + 1, true, err))
        && select_range(&e->select[QKV_EDIT_POS], it->from, it->to,
                        it->at[QKV_EDIT_POS] >= 0, err)
        && (head < 0 || select_range(&e->select[QKV_EDIT_HEAD], head,
                                     head + 1, true, err))
        && (block < 0 || select_range(&e->select[QKV_EDIT_NEURON],
                                      block * g->s->block,
                                      block_end(g, block), false, err));
}

/* ---- chunks ---- */

typedef struct chunk {
    int64_t n;
    int64_t *number;            /* [n] of the items */
    int64_t *which;             /* [n] sequences of the run */
    double *value;              /* [n] */
} chunk;

/* Fork i of the recipe: an item. */
static bool add_fork(qkv_recipe *r, const grid *g, int64_t i, int64_t number,
                     qkv_error *err)
{
    item it;
    item_at(&it, g, number);
    qkv_edit *e = &r->edits[r->n_edits++];
    *e = (qkv_edit){.site = g->s->site, .op = QKV_EDIT_SET};
    if (!qkv_recipe_fork(r, i, it.seq, -1, NULL, 0, err)
        || !select_item(e, g, &it, i, err))
        return false;
    if (g->s->value == NULL)
        return true;
    e->value = qkv_edit_part(qkv_tensor_retain(g->s->value[it.seq]), e, true,
                             err);
    return e->value != NULL;
}

static bool do_chunk(chunk *c, const grid *g, qkv_error *err)
{
    qkv_recipe r = {0};
    bool done = qkv_recipe_fork_of(&r, g->s->run, err);
    if (done) {
        r.seqs = qkv_alloc_zero((size_t)c->n, sizeof *r.seqs, err);
        r.edits = qkv_alloc_zero((size_t)c->n, sizeof *r.edits, err);
        r.n_seqs = r.seqs != NULL ? c->n : 0;
        done = r.seqs != NULL && r.edits != NULL;
    }
    for (int64_t i = 0; done && i < c->n; i++) {
        c->which[i] = c->number[i] % g->n_seqs;
        done = add_fork(&r, g, i, c->number[i], err);
    }
    if (!done) {
        qkv_recipe_reset(&r);
        return false;
    }
    qkv_run *run = qkv_run_new(&r, NULL, 0, qkv_run_head_is_touched(g->s->run)
                               ? QKV_LOGITS_LAST : QKV_LOGITS_NONE, err);
    done = run != NULL
        && qkv_metric_values(c->value, g->s->metric, run, c->which, err);
    qkv_run_release(run);
    return done;
}

/* "at layer 3, pos 4" */
static void name_item(char *out, size_t room, const grid *g, int64_t number)
{
    static const char *const words[] = {"", "layer", "pos", "head", "block"};
    item it;
    size_t used = 0;
    item_at(&it, g, number);
    out[0] = '\0';
    for (int i = 0; i < g->s->n_axes && used < room; i++) {
        const qkv_edit_axis a = g->s->axes[i];
        const int n = snprintf(out + used, room - used, "%s%s %lld",
                               i > 0 ? ", " : "", words[a],
                               (long long)it.at[a]);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* See that the run has what forks at the swept layers need, at once. */
static bool prepare(const grid *g, qkv_error *err)
{
    const int64_t n = qkv_run_stack(g->s->run)->config.n_layers;
    uint8_t *layers = qkv_alloc((size_t)n, err);
    if (layers == NULL)
        return false;
    memset(layers, grid_axis(g->s, QKV_EDIT_LAYER) >= 0, (size_t)n);
    layers[0] = 1;
    const bool done = qkv_run_lend(g->s->run, layers, err);
    qkv_free(layers);
    return done;
}

/* value [seq, cells] = the items from *next on that a chunk has room for. */
static bool next_chunk(float *value, int64_t *next, chunk *c, const grid *g,
                       qkv_error *err)
{
    const int64_t total = g->cells * g->n_seqs;
    int64_t rows = 0;
    c->n = 0;
    for (; *next < total && rows < most_rows; ++*next) {
        item it;
        if (!item_at(&it, g, *next))
            continue;
        c->number[c->n++] = *next;
        rows += rows_of(g, &it);
    }
    if (c->n == 0)
        return true;
    if (!do_chunk(c, g, err)) {
        char place[96];
        name_item(place, sizeof place, g, c->number[0]);
        return qkv_fail_in(err, "a sweep's cells from %s on", place);
    }
    for (int64_t i = 0; i < c->n; i++)
        value[c->number[i] % g->n_seqs * g->cells
              + c->number[i] / g->n_seqs] = (float)c->value[i];
    return true;
}

static qkv_tensor *new_values(const grid *g, qkv_error *err)
{
    static const char *const words[] = {"", "layer", "pos", "head", "neuron"};
    int64_t shape[5] = {g->n_seqs};
    const char *axes[5] = {"seq"};
    for (int i = 0; i < g->s->n_axes; i++) {
        shape[i + 1] = g->size[i];
        axes[i + 1] = g->s->axes[i] == QKV_EDIT_POS && is_scores(g->s)
            ? "query" : words[g->s->axes[i]];
    }
    return qkv_tensor_new(QKV_F32, g->s->n_axes + 1, shape, axes, err);
}

qkv_tensor *qkv_sweep_run(int64_t *done, const qkv_sweep *s,
                          const double *before, qkv_error *err)
{
    grid g = {.s = s, .cells = 1, .n_seqs = recipe(s)->n_seqs};
    *done = 0;
    if (!qkv_sweep_sizes(g.size, s, err) || !prepare(&g, err))
        return NULL;
    for (int i = 0; i < s->n_axes; i++)
        g.cells *= g.size[i];
    const int64_t total = g.cells * g.n_seqs;
    qkv_tensor *t = new_values(&g, err);
    chunk c = {0};
    if (t != NULL) {
        c.number = qkv_alloc((size_t)most_rows * sizeof *c.number, err);
        c.which = qkv_alloc((size_t)most_rows * sizeof *c.which, err);
        c.value = qkv_alloc((size_t)most_rows * sizeof *c.value, err);
    }
    bool good = c.number != NULL && c.which != NULL && c.value != NULL;
    float *value = good ? qkv_tensor_data(t) : NULL;
    for (int64_t i = 0; good && i < total; i++) {   /* what changes nothing */
        item it;
        value[i % g.n_seqs * g.cells + i / g.n_seqs] =
            item_at(&it, &g, i) ? NAN : (float)before[i % g.n_seqs];
    }
    while (good && *done < total) {
        int64_t next = *done;
        const double part = (double)*done / (double)total;
        qkv_progress_within("sweep", part, part);
        good = next_chunk(value, &next, &c, &g, err);
        *done = good ? next : *done;
    }
    qkv_progress_within(NULL, 0, 0);
    if (!good && *done > 0 && err->code == QKV_EINTERRUPTED)
        good = true;                    /* what is done is worth having */
    qkv_free(c.number);
    qkv_free(c.which);
    qkv_free(c.value);
    if (good)
        return t;
    qkv_tensor_release(t);
    return NULL;
}
