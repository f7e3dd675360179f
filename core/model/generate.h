/*
 * generate.h - one token after another
 *
 * Greedy, or sampled from softmax(logits / temperature) cut to the top_k
 * likeliest and to the smallest set whose probability reaches top_p
 * (Holtzman et al., arXiv:1904.09751), in that order.
 */
#ifndef QKV_GENERATE_H
#define QKV_GENERATE_H
#include "base/random.h"
#include "model/run.h"

typedef struct qkv_sampler {
    double temperature;         /* 0: greedy */
    int64_t top_k;              /* 0: all */
    double top_p;               /* 1: all */
    qkv_random random;
    /* scratch [d_vocab]; owned */
    float *p;
    int32_t *order;
    int64_t n;
} qkv_sampler;

bool qkv_sampler_init(qkv_sampler *s, int64_t d_vocab, double temperature,
                      int64_t top_k, double top_p, uint64_t seed,
                      qkv_error *err);
void qkv_sampler_reset(qkv_sampler *s);
/* Greedy: the first of the largest. NaN among the logits is an error. */
bool qkv_sampler_pick(int32_t *token, qkv_sampler *s, const float *logits,
                      qkv_error *err);

#endif
