/*
 * lens.c - the logit lens: see lens.h
 */
#include "config.h"

#include "probes/lens.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "tensor/reduce.h"

enum { PIECE = 64 };            /* rows unembedded at once */

/* The k largest of x [n], best first; a small sorted list is kept. */
static void pick(int32_t *ids, float *best, int64_t k, const float *x,
                 int64_t n)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (kept == k && !(x[i] > best[k - 1]))
            continue;
        int64_t at = kept < k ? kept++ : k - 1;
        for (; at > 0 && x[i] > best[at - 1]; at--) {
            best[at] = best[at - 1];
            ids[at] = ids[at - 1];
        }
        best[at] = x[i];
        ids[at] = (int32_t)i;
    }
}

/* ids, p [rows, k] of resid [rows, d_model]; logits: room for PIECE rows. */
static bool look(int32_t *ids, float *p, int64_t k, const qkv_model *m,
                 const float *resid, int64_t rows, float *logits,
                 qkv_error *err)
{
    const qkv_config *c = &m->stacks[0].config;
    for (int64_t row = 0; row < rows; row += PIECE) {
        const int64_t n = rows - row < PIECE ? rows - row : PIECE;
        if (!qkv_check(err)
            || !qkv_model_unembed(logits, m, resid + row * c->d_model, n, err))
            return false;
        for (int64_t i = 0; i < n; i++) {
            const float *x = logits + i * c->d_vocab;
            float *best = p + (row + i) * k;
            const double whole = qkv_log_sum_exp(x, c->d_vocab);
            pick(ids + (row + i) * k, best, k, x, c->d_vocab);
            for (int64_t j = 0; j < k; j++)
                best[j] = (float)exp((double)best[j] - whole);
        }
    }
    return true;
}

bool qkv_lens(qkv_tensor **ids, qkv_tensor **p, qkv_run *run, int64_t seq,
              int64_t k, qkv_error *err)
{
    static const char *const axes[] = {"layer", "pos", "k"};
    const qkv_config *c = &qkv_run_stack(run)->config;
    const qkv_model *m = qkv_run_recipe(run)->model;
    if (!qkv_site_is_there(QKV_SITE_LOGITS, qkv_run_stack(run)))
        return qkv_fail(err, QKV_EUNSUPPORTED, "the lens needs an unembedding, "
                        "%s has none", m->name);
    if (k < 1 || k > c->d_vocab)
        return qkv_fail(err, QKV_EINVAL, "lens of the %lld likeliest: 1 to "
                        "%lld was expected", (long long)k,
                        (long long)c->d_vocab);
    /* what leaves each block: post-norm models normalise it once more */
    const qkv_site site = c->layout == QKV_POST_NORM ? QKV_SITE_NORM_POST
        : QKV_SITE_RESID_POST;
    qkv_tensor *view = qkv_run_site(run, seq, site, -1, err);
    qkv_tensor *resid = view != NULL ? qkv_tensor_float(view, err) : NULL;
    qkv_tensor_release(view);
    if (resid == NULL)
        return false;
    const int64_t n = resid->shape[1], shape[] = {resid->shape[0], n, k};
    float *logits = qkv_alloc((size_t)((n < PIECE ? n : PIECE) * c->d_vocab)
                              * sizeof *logits, err);
    *ids = logits != NULL ? qkv_tensor_new(QKV_I32, 3, shape, axes, err) : NULL;
    *p = *ids != NULL ? qkv_tensor_new(QKV_F32, 3, shape, axes, err) : NULL;
    bool done = *p != NULL;
    for (int64_t l = 0; done && l < shape[0]; l++) {
        done = look((int32_t *)qkv_tensor_data(*ids) + l * n * k,
                    (float *)qkv_tensor_data(*p) + l * n * k, k, m,
                    (const float *)qkv_tensor_data(resid) + l * n * c->d_model,
                    n, logits, err);
        qkv_progress("lens", (double)(l + 1) / (double)shape[0]);
    }
    qkv_free(logits);
    qkv_tensor_release(resid);
    if (!done) {
        qkv_tensor_release(*ids);
        qkv_tensor_release(*p);
    }
    return done;
}
