/*
 * sweep.h - the same question to many versions of a run
 *
 * A sweep changes a site of a run at each cell of a grid (layers, positions,
 * heads, blocks of neurons), and measures what each change does to a metric.
 * The value put there comes from another run (activation patching: Vig et al.
 * 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262) or is zero, a
 * mean, a resample (ablation). All cells are forks of the run, computed in
 * chunks: each enters at its own layer with only the rows that can change.
 */
#ifndef QKV_SWEEP_H
#define QKV_SWEEP_H
#include "probes/metric.h"

typedef struct qkv_sweep {
    qkv_run *run;
    qkv_site site;              /* of the blocks */
    int n_axes;                 /* 1 to 4, no two alike: */
    qkv_edit_axis axes[4];      /* LAYER, POS (of scores: the query), HEAD,
                                 * NEURON */
    int64_t block;              /* neurons of a cell */
    /* What is put there, for each sequence of the run: f32 in the site's shape
     * with the layers in front, [layer, pos, ...]; NULL: zeros. */
    qkv_tensor *const *value;
    /* Positions of each sequence that hold these values already, counted from
     * its start; NULL: none. They are left out. */
    const int64_t *same;
    const qkv_metric *metric;
} qkv_sweep;

/* Check, and give the size of each axis. */
bool qkv_sweep_sizes(int64_t size[4], const qkv_sweep *s, qkv_error *err);
/* The metric of every cell: a new tensor f32 [seq, axes...], and in *done how
 * many of seq x cells there are: all, unless Ctrl-C was pressed; the others
 * are NaN. before [n_seqs]: the metric of the run as it is. */
qkv_tensor *qkv_sweep_run(int64_t *done, const qkv_sweep *s,
                          const double *before, qkv_error *err);

/* How many of the first positions of two sequences hold the same tokens, and
 * so the same activations: causal runs without edits; else 0. */
int64_t qkv_sweep_same(const qkv_run *a, int64_t seq_a, const qkv_run *b,
                       int64_t seq_b);

#endif
