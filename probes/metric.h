/*
 * metric.h - one number that says what a run predicts
 *
 * What sweeps and attributions measure: the logit of one token minus that of
 * another (the logit difference of Wang et al. 2022, arXiv:2211.00593), a log
 * probability, the loss, the distance to another run's prediction; or any
 * function of the caller's.
 */
#ifndef QKV_METRIC_H
#define QKV_METRIC_H
#include "model/run.h"

typedef enum qkv_metric_kind {
    QKV_LOGIT_DIFF,             /* logit a - logit b; no b: logit a */
    QKV_LOGPROB,                /* ln p(a), nats */
    QKV_PROB,
    QKV_LOSS,                   /* mean of -ln p(token) over the text, nats */
    QKV_KL,                     /* sum p ln(p / q), nats: p the reference's
                                 * next token, q the run's */
    QKV_CALL                    /* fn */
} qkv_metric_kind;

typedef struct qkv_metric {
    qkv_metric_kind kind;
    int64_t n;                  /* 1: the tokens for every sequence; else one
                                 * for each */
    const int32_t *a, *b;       /* [n]; b NULL where it is not used */
    int64_t pos;                /* where the next token is looked at; negative:
                                 * from the end */
    qkv_run *reference;         /* KL */
    bool (*fn)(double *value, void *context, qkv_run *r, int64_t seq,
               qkv_error *err);
    void *context;
} qkv_metric;

/* Does it go with a run of n_seqs sequences? */
bool qkv_metric_check(const qkv_metric *m, const qkv_run *r, qkv_error *err);
/* value [n_seqs]: sequence i counts as the which[i]'th of the metric's lists
 * (NULL: as the i'th). A value that is NaN is an error. */
bool qkv_metric_values(double *value, const qkv_metric *m, qkv_run *r,
                       const int64_t *which, qkv_error *err);

#endif
