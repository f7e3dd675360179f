/*
 * recipe.c - what to run: checks, and where forks enter
 *
 * A fork enters at the first layer and position where one of its edits, hooks
 * or new tokens can be felt: in a causal model a change at a position is felt
 * there and later, in others everywhere. From there all its rows are run, also
 * where site.def's reach says that the first layer changes one row alone.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "model/run_impl.h"

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
    qkv_free(r->order);
    qkv_run_release(r->parent);
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
    if (r->start_layer == 0 || r->parent != NULL)
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
    for (int64_t i = r->n_inherited; good && i < r->n_edits; i++)
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

static bool check_hooks(const qkv_recipe *r, qkv_error *err)
{
    const int64_t n = r->model->stacks[0].config.n_layers;
    for (int64_t h = 0; h < r->n_hooks; h++) {
        const qkv_selector *sel = &r->hooks[h].layer;
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
    for (int64_t i = 0; r->start_resid != NULL && i < r->n_seqs; i++) {
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
    for (int64_t i = r->n_inherited; i < r->n_edits; i++) {
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

/* ---- forks ---- */

bool qkv_run_can_fork(const qkv_run *r, qkv_error *err)
{
    if (r->recipe.n_hooks > 0)
        return qkv_fail(err, QKV_EINVAL, "a run with hooks cannot be forked, "
                        "as it cannot be executed again: give the hooks to "
                        "the fork");
    return r->recipe.revision == r->recipe.model->revision
        || qkv_fail(err, QKV_EINVAL, "the model's weights have changed since "
                    "this run: a fork would mix old and new");
}

bool qkv_recipe_fork_of(qkv_recipe *r, qkv_run *parent, qkv_error *err)
{
    const qkv_recipe *p = &parent->recipe;
    if (!qkv_run_can_fork(parent, err))
        return false;
    *r = (qkv_recipe){.model = qkv_model_retain(p->model),
                      .start_layer = p->start_layer, .stop_at = p->stop_at,
                      .parent = qkv_run_retain(parent)};
    return true;
}

bool qkv_recipe_fork(qkv_recipe *r, int64_t i, int64_t of, int64_t from,
                     const int32_t *tokens, int64_t n, qkv_error *err)
{
    const qkv_sequence *p = &r->parent->recipe.seqs[of];
    qkv_sequence *s = &r->seqs[i];
    if (from < 0) {
        from = p->n;
        n = 0;
    }
    if (from > p->n)
        return qkv_fail(err, QKV_EINVAL, "fork from position %lld: the run "
                        "has %lld", (long long)from, (long long)p->n);
    *s = (qkv_sequence){.n = from + n, .n_prompt = p->n_prompt, .of = of,
                        .shared = from};
    if (from < p->n_prompt)
        s->n_prompt = s->n;
    const size_t room = (size_t)(s->n > 0 ? s->n : 1);
    s->ids = qkv_alloc(room * sizeof *s->ids, err);
    if (s->ids != NULL && p->types != NULL)
        s->types = qkv_alloc(room * sizeof *s->types, err);
    if (s->ids == NULL || (p->types != NULL && s->types == NULL))
        return false;
    memcpy(s->ids, p->ids, (size_t)from * sizeof *s->ids);
    if (n > 0)
        memcpy(s->ids + from, tokens, (size_t)n * sizeof *s->ids);
    for (int64_t t = 0; s->types != NULL && t < s->n; t++)
        s->types[t] = p->types[t < p->n ? t : p->n - 1];
    return true;
}

/* The edits of one of the parent's sequences, for its forks [n], to the end
 * of r->edits, which has room. */
static bool inherit_of(qkv_recipe *r, int64_t of, int64_t *forks, int64_t n,
                       qkv_error *err)
{
    const qkv_recipe *p = &r->parent->recipe;
    for (int64_t i = 0; i < p->n_edits; i++) {
        if (qkv_selector_find(&p->edits[i].select[QKV_EDIT_SEQ], of,
                              p->n_seqs) < 0)
            continue;
        if (!qkv_edit_inherit(&r->edits[r->n_edits], &p->edits[i], of,
                              p->n_seqs, p->seqs[of].n_prompt, forks, n, err))
            return false;
        r->n_edits++;
    }
    return true;
}

/* The parent's edits, then the recipe's own. */
static bool inherit(qkv_recipe *r, qkv_error *err)
{
    const int64_t n_seqs = r->parent->recipe.n_seqs, own = r->n_edits;
    const int64_t most = n_seqs * r->parent->recipe.n_edits;
    if (most == 0)
        return true;
    qkv_edit *mine = r->edits;
    int64_t *forks = qkv_alloc((size_t)r->n_seqs * sizeof *forks, err);
    r->edits = forks != NULL
        ? qkv_alloc((size_t)(most + own) * sizeof *r->edits, err) : NULL;
    if (r->edits == NULL) {
        qkv_free(forks);
        r->edits = mine;
        return false;
    }
    r->n_edits = 0;
    bool done = true;
    for (int64_t of = 0; done && of < n_seqs; of++) {
        int64_t n = 0;
        for (int64_t i = 0; i < r->n_seqs; i++)
            if (r->seqs[i].of == of)
                forks[n++] = i;
        done = n == 0 || inherit_of(r, of, forks, n, err);
    }
    r->n_inherited = r->n_edits;
    for (int64_t i = 0; i < own; i++)
        r->edits[r->n_edits++] = mine[i];
    qkv_free(mine);
    qkv_free(forks);
    return done;
}

/* ---- where sequences enter ---- */

/* A change at position `pos` from layer `layer` on. */
static void enter_at(const qkv_recipe *r, qkv_sequence *s, int64_t layer,
                     int64_t pos)
{
    if (layer < r->start_layer)
        layer = r->start_layer;
    if (!r->model->stacks[0].config.causal)
        pos = 0;
    s->l0 = layer < s->l0 ? layer : s->l0;
    s->p0 = pos < s->p0 ? pos : s->p0;
}

static int64_t first_layer(const qkv_recipe *r, qkv_site site,
                           const qkv_selector *layers)
{
    const int64_t n = r->model->stacks[0].config.n_layers;
    switch (qkv_sites[site].level) {
    case QKV_STEM:
        return 0;
    case QKV_BLOCK:
        return qkv_selector_first(layers, n);
    case QKV_HEAD:
        return n;
    }
    return 0;
}

/* An edit on one sequence. A key is seen by its own query and later ones. */
static void enter_edit(const qkv_recipe *r, qkv_sequence *s, const qkv_edit *e)
{
    const int64_t layer = first_layer(r, e->site,
                                      &e->select[QKV_EDIT_LAYER]);
    int64_t pos = qkv_selector_first(&e->select[QKV_EDIT_POS], s->n_prompt);
    if (qkv_sites[e->site].shape == QKV_SHAPE_SCORES) {
        const int64_t key = qkv_selector_first(&e->select[QKV_EDIT_KEY],
                                               s->n_prompt);
        pos = key > pos ? key : pos;
    }
    if (layer != INT64_MAX && pos < s->n)
        enter_at(r, s, layer, pos);
}

/* A fork in which nothing changes still has its last row; where every row sees
 * all others, and the pooler the first, it has all. */
static void enter_forks(qkv_recipe *r)
{
    const bool causal = r->model->stacks[0].config.causal;
    for (int64_t i = 0; i < r->n_seqs; i++) {
        qkv_sequence *s = &r->seqs[i];
        s->l0 = r->stop_at;
        s->p0 = causal ? s->n - 1 : 0;
        if (s->shared < s->n)
            enter_at(r, s, 0, s->shared);
        if (s->n != r->parent->recipe.seqs[s->of].n && !causal)
            enter_at(r, s, 0, 0);
        for (int64_t h = 0; h < r->n_hooks; h++)
            enter_at(r, s, first_layer(r, r->hooks[h].site,
                                       &r->hooks[h].layer), 0);
    }
    for (int64_t e = r->n_inherited; e < r->n_edits; e++) {
        const qkv_selector *seqs = &r->edits[e].select[QKV_EDIT_SEQ];
        const int64_t n = seqs->all ? r->n_seqs : seqs->n;
        for (int64_t k = 0; k < n; k++) {
            const int64_t i = seqs->all ? k : seqs->index[k];
            enter_edit(r, &r->seqs[i + (i < 0 ? r->n_seqs : 0)],
                       &r->edits[e]);
        }
    }
}

/* Sequences by l0, as they come within one. */
static bool put_in_order(qkv_recipe *r, qkv_error *err)
{
    const int64_t layers = r->stop_at + 1;
    int64_t row = 0;
    r->order = qkv_alloc((size_t)r->n_seqs * sizeof *r->order, err);
    int64_t *at = qkv_alloc_zero((size_t)(layers + 1), sizeof *at, err);
    if (r->order == NULL || at == NULL) {
        qkv_free(at);
        return false;
    }
    for (int64_t i = 0; i < r->n_seqs; i++)
        at[r->seqs[i].l0 + 1]++;
    for (int64_t l = 0; l < layers; l++)
        at[l + 1] += at[l];
    for (int64_t i = 0; i < r->n_seqs; i++) {
        r->seqs[i].place = at[r->seqs[i].l0]++;
        r->order[r->seqs[i].place] = i;
    }
    for (int64_t i = 0; i < r->n_seqs; i++) {
        qkv_sequence *s = &r->seqs[r->order[i]];
        s->row0 = row;
        row += s->n - s->p0;
    }
    qkv_free(at);
    return true;
}

bool qkv_recipe_prepare(qkv_recipe *r, qkv_error *err)
{
    if ((r->parent != NULL && !inherit(r, err)) || !check_recipe(r, err)
        || !check_hooks(r, err) || !tidy_start(r, err) || !tidy_edits(r, err))
        return false;
    for (int64_t i = 0; i < r->n_seqs; i++) {
        r->seqs[i].p0 = 0;
        r->seqs[i].l0 = r->start_layer;
    }
    if (r->parent != NULL)
        enter_forks(r);
    for (int64_t i = 0; i < r->n_seqs; i++)     /* HEAD sites of a cut run */
        if (r->seqs[i].l0 > r->stop_at)
            r->seqs[i].l0 = r->stop_at;
    return put_in_order(r, err);
}
