/*
 * edit.c - edits on a selection of a site: see edit.h
 */
#include "config.h"

#include "model/edit.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

int64_t qkv_selector_find(const qkv_selector *sel, int64_t at, int64_t size)
{
    if (sel->all)
        return at;
    for (int64_t i = sel->n; i-- > 0; )
        if (sel->index[i] == at || sel->index[i] + size == at)
            return i;
    return -1;
}

int64_t qkv_selector_first(const qkv_selector *sel, int64_t size)
{
    if (sel->all)
        return 0;
    int64_t first = INT64_MAX;
    for (int64_t i = 0; i < sel->n; i++) {
        const int64_t at = sel->index[i] + (sel->index[i] < 0 ? size : 0);
        first = at < first ? at : first;
    }
    return first;
}

void qkv_edit_reset(qkv_edit *e)
{
    for (int i = 0; i < QKV_N_EDIT_AXES; i++)
        qkv_free(e->select[i].index);
    qkv_tensor_release(e->value);
    *e = (qkv_edit){0};
}

/* ---- axes ---- */

static const char *const axis_words[] = {"seq", "layer", "pos", "head",
                                         "neuron", "key"};

/* Which selector goes with each axis of a site's slab; returns their number. */
static int slab_axes(qkv_edit_axis axes[3], qkv_site site)
{
    int n = 0;
    switch (qkv_sites[site].shape) {
    case QKV_SHAPE_SCORES:
        axes[n++] = QKV_EDIT_HEAD;
        axes[n++] = QKV_EDIT_POS;
        axes[n++] = QKV_EDIT_KEY;
        break;
    case QKV_SHAPE_HEADS:
    case QKV_SHAPE_KV_HEADS:
    case QKV_SHAPE_RESULT:
        axes[n++] = QKV_EDIT_POS;
        axes[n++] = QKV_EDIT_HEAD;
        axes[n++] = QKV_EDIT_NEURON;
        break;
    case QKV_SHAPE_MODEL:
    case QKV_SHAPE_MLP:
    case QKV_SHAPE_SCALE:
    case QKV_SHAPE_VOCAB:
        axes[n++] = QKV_EDIT_POS;
        axes[n++] = QKV_EDIT_NEURON;
        break;
    case QKV_SHAPE_POOLED:
    case QKV_SHAPE_PAIR:
        axes[n++] = QKV_EDIT_NEURON;
        break;
    }
    return n;
}

/* All axes of the selection, outermost first. */
static int selection_axes(qkv_edit_axis axes[5], qkv_site site)
{
    int n = 0;
    axes[n++] = QKV_EDIT_SEQ;
    if (qkv_sites[site].level == QKV_BLOCK)
        axes[n++] = QKV_EDIT_LAYER;
    return n + slab_axes(axes + n, site);
}

/* Sizes of the axes that do not depend on a sequence; 0 for POS and KEY. */
static int64_t axis_size(qkv_edit_axis axis, qkv_site site, const qkv_stack *s,
                         int64_t n_seqs)
{
    int64_t size[2];
    const char *unused[2];
    const int n = qkv_site_axes(size, unused, site, s);
    switch (axis) {
    case QKV_EDIT_SEQ:
        return n_seqs;
    case QKV_EDIT_LAYER:
        return s->config.n_layers;
    case QKV_EDIT_HEAD:
        return n == 2 ? size[0] : s->config.n_heads;
    case QKV_EDIT_NEURON:
        return size[n - 1];
    case QKV_EDIT_POS:
    case QKV_EDIT_KEY:
    case QKV_N_EDIT_AXES:
        break;
    }
    return 0;
}

/* ---- checking ---- */

static bool check_range(const qkv_selector *sel, const char *word,
                        int64_t size, int64_t room, qkv_error *err)
{
    for (int64_t i = 0; !sel->all && i < sel->n; i++)
        if (sel->index[i] < -size || sel->index[i] >= room)
            return qkv_fail(err, QKV_EINVAL, "edit: %s %lld of %lld: they run "
                            "0..%lld, or from the end -1..-%lld", word,
                            (long long)sel->index[i], (long long)room,
                            (long long)room - 1, (long long)size);
    return true;
}

/* The value's axes against the selection's, from the right. */
static bool check_value(const qkv_edit *e, const qkv_stack *s, int64_t n_seqs,
                        int64_t prompt, qkv_error *err)
{
    qkv_edit_axis axes[5];
    int v = e->value->n_dims;
    for (int i = selection_axes(axes, e->site); i-- > 0 && v > 0; ) {
        const qkv_selector *sel = &e->select[axes[i]];
        if (!sel->all && sel->one)
            continue;
        int64_t want = sel->n;
        if (sel->all)
            want = axes[i] == QKV_EDIT_POS || axes[i] == QKV_EDIT_KEY
                ? prompt : axis_size(axes[i], e->site, s, n_seqs);
        const int64_t size = e->value->shape[--v];
        if (size != 1 && size != want)
            return qkv_fail(err, QKV_ESHAPE, "edit of %s: the value has %lld "
                            "along %s, the selection %lld",
                            qkv_sites[e->site].name, (long long)size,
                            axis_words[axes[i]], (long long)want);
    }
    while (v-- > 0)
        if (e->value->shape[v] != 1)
            return qkv_fail(err, QKV_ESHAPE, "edit of %s: the value has more "
                            "axes than the selection",
                            qkv_sites[e->site].name);
    return true;
}

/* The k'th sequence of a selector that was checked. */
static int64_t seq_at(const qkv_selector *seqs, int64_t k, int64_t n_seqs)
{
    if (seqs->all)
        return k;
    return seqs->index[k] + (seqs->index[k] < 0 ? n_seqs : 0);
}

bool qkv_edit_check(const qkv_edit *e, const qkv_stack *s, int64_t n_seqs,
                    const int64_t *prompt, const int64_t *room, qkv_error *err)
{
    qkv_edit_axis axes[5];
    const int n = selection_axes(axes, e->site);
    const qkv_selector *seqs = &e->select[QKV_EDIT_SEQ];
    const int64_t n_own = seqs->all ? n_seqs : seqs->n;
    for (int a = 0; a < QKV_N_EDIT_AXES; a++) {     /* SEQ is the first */
        const qkv_selector *sel = &e->select[a];
        const qkv_edit_axis axis = (qkv_edit_axis)a;
        bool own = false;
        for (int i = 0; i < n; i++)
            own |= axes[i] == axis;
        if (!own && !sel->all)
            return qkv_fail(err, QKV_EINVAL, "edit: %s has no axis '%s'",
                            qkv_sites[e->site].name, axis_words[a]);
        if (!own)
            continue;
        if (axis != QKV_EDIT_POS && axis != QKV_EDIT_KEY) {
            const int64_t size = axis_size(axis, e->site, s, n_seqs);
            if (!check_range(sel, axis_words[a], size, size, err))
                return false;
            continue;
        }
        for (int64_t k = 0; k < n_own; k++) {
            const int64_t i = seq_at(seqs, k, n_seqs);
            if (!check_range(sel, axis_words[a], prompt[i], room[i], err))
                return false;
        }
    }
    return e->value == NULL || n_own == 0
        || check_value(e, s, n_seqs, prompt[seq_at(seqs, 0, n_seqs)], err);
}

bool qkv_edit_has_layer(const qkv_edit *e, int64_t layer, int64_t n_layers)
{
    return qkv_sites[e->site].level != QKV_BLOCK
        || qkv_selector_find(&e->select[QKV_EDIT_LAYER], layer, n_layers) >= 0;
}

/* ---- applying ---- */

/* Steps in the value for each axis of the selection; 0 where it broadcasts. */
typedef struct steps {
    int64_t of[QKV_N_EDIT_AXES], size[QKV_N_EDIT_AXES];
} steps;

static steps value_steps(const qkv_edit *e)
{
    steps st = {{0}, {0}};
    qkv_edit_axis axes[5];
    int v = e->value != NULL ? e->value->n_dims : 0;
    for (int i = selection_axes(axes, e->site); i-- > 0 && v > 0; ) {
        const qkv_selector *sel = &e->select[axes[i]];
        if (!sel->all && sel->one)
            continue;
        v--;
        st.size[axes[i]] = e->value->shape[v];
        st.of[axes[i]] = e->value->shape[v] == 1 ? 0 : e->value->stride[v];
    }
    return st;
}

static void change(float *x, qkv_edit_op op, float value)
{
    switch (op) {
    case QKV_EDIT_SET:
        *x = value;
        break;
    case QKV_EDIT_ADD:
        *x += value;
        break;
    case QKV_EDIT_SCALE:
        *x *= value;
        break;
    }
}

typedef struct walk {
    const qkv_edit *e;
    const qkv_slab *slab;
    const float *value;
    steps st;
    qkv_edit_axis axes[3];
} walk;

/* Axis `dim` of the slab, from element x and offset `at` in the value. */
static void walk_axis(const walk *w, int dim, float *x, int64_t at)
{
    if (dim == w->slab->n_dims) {
        change(x, w->e->op, w->value != NULL ? w->value[at]
               : (float)w->e->number);
        return;
    }
    const qkv_edit_axis axis = w->axes[dim];
    const qkv_selector *sel = &w->e->select[axis];
    const bool is_pos = axis == QKV_EDIT_POS || axis == QKV_EDIT_KEY;
    const int64_t first = axis == QKV_EDIT_POS ? w->slab->pos0 : 0;
    const int64_t size = is_pos ? w->slab->n_prompt : w->slab->shape[dim];
    for (int64_t i = 0; i < w->slab->shape[dim]; i++) {
        const int64_t j = qkv_selector_find(sel, first + i, size);
        /* a value for every position ends where the prompt does */
        if (j < 0 || (w->st.of[axis] != 0 && j >= w->st.size[axis]))
            continue;
        walk_axis(w, dim + 1, x + i * w->slab->stride[dim],
                  at + j * w->st.of[axis]);
    }
}

void qkv_edit_apply(const qkv_edit *e, const qkv_stack *s, int64_t seq_place,
                    const qkv_slab *slab)
{
    const int64_t layer = qkv_sites[e->site].level != QKV_BLOCK ? 0
        : qkv_selector_find(&e->select[QKV_EDIT_LAYER], slab->layer,
                            s->config.n_layers);
    if (layer < 0)
        return;
    walk w = {.e = e, .slab = slab, .st = value_steps(e),
              .value = e->value != NULL ? qkv_tensor_data(e->value) : NULL};
    slab_axes(w.axes, e->site);
    walk_axis(&w, 0, slab->data, seq_place * w.st.of[QKV_EDIT_SEQ]
              + layer * w.st.of[QKV_EDIT_LAYER]);
}

/* ---- values from elsewhere ---- */

/* One axis of t cut down to the selector; takes t's reference. */
static qkv_tensor *cut(qkv_tensor *t, const qkv_selector *sel, int axis,
                       qkv_error *err)
{
    if (t == NULL || sel->all)
        return t;
    qkv_tensor *u = sel->one
        ? qkv_tensor_select(t, axis, sel->index[0], err)
        : qkv_tensor_take(t, axis, sel->index, sel->n, err);
    qkv_tensor_release(t);
    return u;
}

qkv_tensor *qkv_edit_part(qkv_tensor *t, const qkv_edit *e, bool layers,
                          qkv_error *err)
{
    qkv_edit_axis axes[3];
    const qkv_selector *layer = &e->select[QKV_EDIT_LAYER];
    int before = 0;             /* axes in front of the site's own */
    if (layers) {
        t = cut(t, layer, 0, err);
        before = layer->all || !layer->one;
    }
    for (int i = slab_axes(axes, e->site); i-- > 0; )
        t = cut(t, &e->select[axes[i]], before + i, err);
    return t;
}

/* ---- inheriting ---- */

/* A copy; indices from the end become those from the start of `size`, unless
 * that is 0. */
static bool copy_selector(qkv_selector *out, const qkv_selector *sel,
                          int64_t size, qkv_error *err)
{
    *out = *sel;
    if (sel->all)
        return true;
    out->index = qkv_alloc((size_t)sel->n * sizeof *out->index, err);
    if (out->index == NULL) {
        *out = (qkv_selector){.all = true};
        return false;
    }
    for (int64_t i = 0; i < sel->n; i++)
        out->index[i] = sel->index[i] + (sel->index[i] < 0 ? size : 0);
    return true;
}

/* The value of one sequence, whose place is `at`: without the axis seq. */
static qkv_tensor *value_of_seq(const qkv_edit *e, int64_t at, qkv_error *err)
{
    qkv_edit_axis axes[5];
    int whole = 0;
    for (int i = selection_axes(axes, e->site); i-- > 0; )
        whole += e->select[axes[i]].all || !e->select[axes[i]].one;
    const qkv_selector *seq = &e->select[QKV_EDIT_SEQ];
    if ((!seq->all && seq->one) || e->value->n_dims < whole)
        return qkv_tensor_retain(e->value);
    const int extra = e->value->n_dims - whole;     /* axes of size 1 */
    return qkv_tensor_select(e->value, extra,
                             e->value->shape[extra] == 1 ? 0 : at, err);
}

bool qkv_edit_inherit(qkv_edit *out, const qkv_edit *e, int64_t seq,
                      int64_t n_seqs, int64_t n_prompt, int64_t *forks,
                      int64_t n_forks, qkv_error *err)
{
    *out = (qkv_edit){.site = e->site, .op = e->op, .number = e->number};
    const qkv_selector own = {.n = n_forks, .index = forks};
    bool done = true;
    for (int a = 0; done && a < QKV_N_EDIT_AXES; a++) {
        const bool pos = a == QKV_EDIT_POS || a == QKV_EDIT_KEY;
        done = copy_selector(&out->select[a], a == QKV_EDIT_SEQ ? &own
                             : &e->select[a], pos ? n_prompt : 0, err);
    }
    const int64_t at = qkv_selector_find(&e->select[QKV_EDIT_SEQ], seq,
                                         n_seqs);
    if (done && e->value != NULL)
        done = (out->value = value_of_seq(e, at, err)) != NULL;
    if (!done)
        qkv_edit_reset(out);
    return done;
}
