/*
 * edit.h - edits are data: x = x * scale + value on a selection of a site
 *
 * An edit names slots (a site, at layers), a selection on the axes of the
 * site (sequence, position, head, neuron; for scores and pattern sequence,
 * head, query, key), and what to do there. It can be batched, planned and
 * repeated, which a hook cannot.
 */
#ifndef QKV_EDIT_H
#define QKV_EDIT_H
#include "model/site.h"

/* Indices on one axis. Negative ones count from the end; positions from the
 * prompt's end, also while more tokens are generated. */
typedef struct qkv_selector {
    bool all;
    bool one;                   /* a single number: the axis goes away */
    int64_t n;
    int64_t *index;             /* [n], owned by the edit */
} qkv_selector;

typedef enum qkv_edit_axis {
    QKV_EDIT_SEQ, QKV_EDIT_LAYER, QKV_EDIT_POS, QKV_EDIT_HEAD,
    QKV_EDIT_NEURON, QKV_EDIT_KEY, QKV_N_EDIT_AXES  /* POS is query, too */
} qkv_edit_axis;

typedef enum qkv_edit_op {
    QKV_EDIT_SET,               /* x = value */
    QKV_EDIT_ADD,               /* x = x + value */
    QKV_EDIT_SCALE              /* x = x * value */
} qkv_edit_op;

typedef struct qkv_edit {
    qkv_site site;
    qkv_selector select[QKV_N_EDIT_AXES];
    qkv_edit_op op;
    double number;              /* the value, when there is no tensor */
    /* f32, broadcast from the right against the selection's shape:
     * [seq, layer, pos, head, neuron] or [seq, layer, head, query, key]
     * without the axes selected by a single number or not of this site.
     * A reference, or NULL. */
    qkv_tensor *value;
} qkv_edit;

/* The place of index `at` in a selector's list, or -1; negative entries count
 * from `size`. The last one wins when it stands there twice. */
int64_t qkv_selector_find(const qkv_selector *sel, int64_t at, int64_t size);
/* The least index it selects; INT64_MAX: none. */
int64_t qkv_selector_first(const qkv_selector *sel, int64_t size);

void qkv_edit_reset(qkv_edit *e);

/* Check it against the model and the sequences: the site is there, axes are
 * its own, indices are in range, the value's shape fits the selection's.
 * prompt, room [n_seqs]: positions of each prompt, and with those that may be
 * generated. */
bool qkv_edit_check(const qkv_edit *e, const qkv_stack *s, int64_t n_seqs,
                    const int64_t *prompt, const int64_t *room,
                    qkv_error *err);
bool qkv_edit_has_layer(const qkv_edit *e, int64_t layer, int64_t n_layers);

/* Where one segment's values of a site are: row-major but for the strides. */
typedef struct qkv_slab {
    float *data;
    int n_dims;                 /* of site.def's shape */
    int64_t shape[3], stride[3];
    int64_t seq, layer;
    int64_t pos0;               /* position of row (query) 0 */
    int64_t n_prompt;           /* what negative positions count from */
} qkv_slab;

/* Apply to the part of the selection that lies in this slab. The edit was
 * checked; seq_place: where the slab's sequence stands in its list. */
void qkv_edit_apply(const qkv_edit *e, const qkv_stack *s, int64_t seq_place,
                    const qkv_slab *slab);

/* The part of a site's values (in its shape, or with all layers in front) that
 * an edit selects. Takes t's reference; NULL goes through. */
qkv_tensor *qkv_edit_part(qkv_tensor *t, const qkv_edit *e, bool layers,
                          qkv_error *err);

/* What an edit of sequence `seq` (one of n_seqs, n_prompt positions given)
 * becomes in its forks [n_forks]: the same on each of them, at the places
 * where it was made, so negative positions are counted out. */
bool qkv_edit_inherit(qkv_edit *out, const qkv_edit *e, int64_t seq,
                      int64_t n_seqs, int64_t n_prompt, int64_t *forks,
                      int64_t n_forks, qkv_error *err);

#endif
