/*
 * metric.c - one number that says what a run predicts: see metric.h
 */
#include "config.h"

#include "probes/metric.h"

#include <math.h>

#include "base/alloc.h"
#include "tensor/reduce.h"

enum { PIECE = 32 };            /* sequences whose logits are made at once */

static int64_t place(const qkv_metric *m, const int64_t *which, int64_t i)
{
    return m->n == 1 ? 0 : which != NULL ? which[i] : i;
}

bool qkv_metric_check(const qkv_metric *m, const qkv_run *r, qkv_error *err)
{
    const int64_t n = qkv_run_recipe(r)->n_seqs;
    const int64_t d_vocab = qkv_run_stack(r)->config.d_vocab;
    if (m->kind == QKV_CALL)
        return true;
    if (m->kind == QKV_KL) {
        const int64_t other = qkv_run_recipe(m->reference)->n_seqs;
        return other == 1 || other == n
            || qkv_fail(err, QKV_ESHAPE, "the metric's run has %lld sequences,"
                        " the run %lld", (long long)other, (long long)n);
    }
    if (m->kind != QKV_LOSS && m->n != 1 && m->n != n)
        return qkv_fail(err, QKV_ESHAPE, "the metric has %lld tokens, one for "
                        "each of %lld sequences was expected",
                        (long long)m->n, (long long)n);
    for (int64_t i = 0; m->kind != QKV_LOSS && i < m->n; i++)
        if (m->a[i] < 0 || m->a[i] >= d_vocab
            || (m->b != NULL && (m->b[i] < 0 || m->b[i] >= d_vocab)))
            return qkv_fail(err, QKV_EINVAL, "the metric's token %lld or %lld:"
                            " ids run 0..%lld", (long long)m->a[i],
                            (long long)(m->b != NULL ? m->b[i] : 0),
                            (long long)d_vocab - 1);
    return true;
}

/* ---- differences of logits: a few columns of the unembedding ---- */

/* The place of a token in a list; put at its end when it is new. */
static int64_t listed(int64_t *tokens, int64_t *n, int32_t token)
{
    for (int64_t i = 0; i < *n; i++)
        if (tokens[i] == token)
            return i;
    tokens[*n] = token;
    return (*n)++;
}

static bool logit_diff(double *value, const qkv_metric *m, qkv_run *r,
                       const int64_t *which, qkv_error *err)
{
    const int64_t n_seqs = qkv_run_recipe(r)->n_seqs;
    int64_t n = 0;
    int64_t *tokens = qkv_alloc((size_t)(2 * m->n + 2 * n_seqs)
                                * sizeof *tokens, err);
    if (tokens == NULL)
        return false;
    int64_t *at = tokens + 2 * m->n;        /* [seq, 2] into tokens */
    for (int64_t i = 0; i < n_seqs; i++) {
        const int64_t k = place(m, which, i);
        at[2 * i] = listed(tokens, &n, m->a[k]);
        at[2 * i + 1] = m->b != NULL ? listed(tokens, &n, m->b[k]) : -1;
    }
    float *logits = qkv_alloc((size_t)(n_seqs * n) * sizeof *logits, err);
    const bool done = logits != NULL
        && qkv_run_token_logits(logits, r, m->pos, tokens, n, err);
    for (int64_t i = 0; done && i < n_seqs; i++) {
        const float *row = logits + i * n;
        value[i] = (double)row[at[2 * i]]
            - (at[2 * i + 1] >= 0 ? (double)row[at[2 * i + 1]] : 0);
    }
    qkv_free(logits);
    qkv_free(tokens);
    return done;
}

/* ---- of the whole next-token distribution ---- */

/* sum p ln(p / q) of two rows of logits [n] */
static double kl(const float *p, const float *q, int64_t n)
{
    const double whole_p = qkv_log_sum_exp(p, n), whole_q =
        qkv_log_sum_exp(q, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double lp = (double)p[i] - whole_p;
        const double lq = (double)q[i] - whole_q;
        const double prob = exp(lp);
        if (prob > 0)
            sum += prob * (lp - lq);
    }
    return sum;
}

/* The reference's logits, for KL: of sequence k, unless they are there. */
typedef struct reference {
    float *logits;
    int64_t seq;                /* -1: none yet */
} reference;

static bool look_up(reference *ref, const qkv_metric *m, int64_t k,
                    qkv_error *err)
{
    const int64_t seq = qkv_run_recipe(m->reference)->n_seqs == 1 ? 0 : k;
    if (ref->seq == seq)
        return true;
    ref->seq = seq;
    return qkv_run_logits_of(ref->logits, m->reference, seq, 1, m->pos, err);
}

static bool one(double *value, const qkv_metric *m, const float *logits,
                int64_t d_vocab, int64_t k, int64_t seq, reference *ref,
                qkv_error *err)
{
    if (m->kind == QKV_KL) {
        if (!look_up(ref, m, seq, err))
            return false;
        *value = kl(ref->logits, logits, d_vocab);
        return true;
    }
    *value = (double)logits[m->a[k]] - qkv_log_sum_exp(logits, d_vocab);
    if (m->kind == QKV_PROB)
        *value = exp(*value);
    return true;
}

static bool next_token(double *value, const qkv_metric *m, qkv_run *r,
                       const int64_t *which, qkv_error *err)
{
    const int64_t n_seqs = qkv_run_recipe(r)->n_seqs;
    const int64_t d_vocab = qkv_run_stack(r)->config.d_vocab;
    const int64_t most = n_seqs < PIECE ? n_seqs : PIECE;
    float *logits = qkv_alloc((size_t)((most + 1) * d_vocab) * sizeof *logits,
                              err);
    bool done = logits != NULL;
    reference ref = {.seq = -1};
    if (done)
        ref.logits = logits + most * d_vocab;
    for (int64_t i = 0; done && i < n_seqs; i += most) {
        const int64_t n = n_seqs - i < most ? n_seqs - i : most;
        done = qkv_run_logits_of(logits, r, i, n, m->pos, err);
        for (int64_t j = 0; done && j < n; j++)
            done = one(&value[i + j], m, logits + j * d_vocab, d_vocab,
                       place(m, which, i + j),
                       which != NULL ? which[i + j] : i + j, &ref, err);
    }
    qkv_free(logits);
    return done;
}

/* ---- of the text ---- */

static bool loss(double *value, qkv_run *r, int64_t seq, qkv_error *err)
{
    const int64_t n = qkv_run_recipe(r)->seqs[seq].n;
    if (n < 2)
        return qkv_fail(err, QKV_EINVAL, "the loss of one token: it has no "
                        "prediction");
    qkv_tensor *bits = qkv_run_surprisal(r, seq, err);
    if (bits == NULL)
        return false;
    const float *b = qkv_tensor_data(bits);
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        sum += (double)b[i];
    *value = sum / (double)(n - 1) * log(2.0);
    qkv_tensor_release(bits);
    return true;
}

bool qkv_metric_values(double *value, const qkv_metric *m, qkv_run *r,
                       const int64_t *which, qkv_error *err)
{
    const int64_t n = qkv_run_recipe(r)->n_seqs;
    bool done = true;
    switch (m->kind) {
    case QKV_LOGIT_DIFF:
        done = logit_diff(value, m, r, which, err);
        break;
    case QKV_LOGPROB:
    case QKV_PROB:
    case QKV_KL:
        done = next_token(value, m, r, which, err);
        break;
    case QKV_LOSS:
        for (int64_t i = 0; done && i < n; i++)
            done = loss(&value[i], r, i, err);
        break;
    case QKV_CALL:
        for (int64_t i = 0; done && i < n; i++)
            done = m->fn(&value[i], m->context, r, i, err);
        break;
    }
    for (int64_t i = 0; done && i < n; i++)
        if (isnan(value[i]))
            done = qkv_fail(err, QKV_EINVAL, "the metric is NaN");
    return done;
}
