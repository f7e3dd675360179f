/*
 * generate.c - picking the next token: see generate.h
 */
#include "config.h"

#include "model/generate.h"

#include <math.h>

#include "base/alloc.h"

bool qkv_sampler_init(qkv_sampler *s, int64_t d_vocab, double temperature,
                      int64_t top_k, double top_p, uint64_t seed,
                      qkv_error *err)
{
    *s = (qkv_sampler){.temperature = temperature, .top_k = top_k,
                       .top_p = top_p, .n = d_vocab};
    if (!(temperature >= 0) || isinf(temperature))
        return qkv_fail(err, QKV_EINVAL, "temperature %g: 0 (greedy) or more "
                        "was expected", temperature);
    if (top_k < 0)
        return qkv_fail(err, QKV_EINVAL, "top_k %lld: 0 (all) or more was "
                        "expected", (long long)top_k);
    if (!(top_p > 0 && top_p <= 1))
        return qkv_fail(err, QKV_EINVAL, "top_p %g: more than 0 and at most 1 "
                        "was expected", top_p);
    qkv_random_seed(&s->random, seed);
    if (temperature == 0)
        return true;
    s->p = qkv_alloc((size_t)d_vocab * sizeof *s->p, err);
    s->order = s->p != NULL
        ? qkv_alloc((size_t)d_vocab * sizeof *s->order, err) : NULL;
    if (s->order != NULL)
        return true;
    qkv_sampler_reset(s);
    return false;
}

void qkv_sampler_reset(qkv_sampler *s)
{
    qkv_free(s->p);
    qkv_free(s->order);
    s->p = NULL;
    s->order = NULL;
}

/* ---- a heap of tokens by probability, likeliest on top ---- */

static bool before(const float *p, int32_t a, int32_t b)
{
    return p[a] != p[b] ? p[a] > p[b] : a < b;
}

static void sift_down(int32_t *heap, int64_t n, int64_t i, const float *p)
{
    for (;;) {
        int64_t best = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < n && before(p, heap[child], heap[best]))
                best = child;
        if (best == i)
            return;
        const int32_t token = heap[i];
        heap[i] = heap[best];
        heap[best] = token;
        i = best;
    }
}

/* The likeliest token, taken off the heap. */
static int32_t pop(int32_t *heap, int64_t *n, const float *p)
{
    const int32_t top = heap[0];
    heap[0] = heap[--*n];
    sift_down(heap, *n, 0, p);
    return top;
}

static bool greedy(int32_t *token, const float *logits, int64_t n,
                   double *most, qkv_error *err)
{
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i]))
            return qkv_fail(err, QKV_EINVAL, "logit %lld is NaN: the model or "
                            "an edit broke the run", (long long)i);
        if (logits[i] > logits[best])
            best = i;
    }
    *token = (int32_t)best;
    *most = (double)logits[best];
    return true;
}

/* p = exp((logit - most) / temperature), not yet divided by the sum, which is
 * returned; order = all tokens. */
static double weigh(qkv_sampler *s, const float *logits, double most)
{
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++) {
        s->p[i] = (float)exp(((double)logits[i] - most) / s->temperature);
        s->order[i] = (int32_t)i;
        sum += (double)s->p[i];
    }
    return sum;
}

/* The likeliest tokens, until there are `most` of them or their p reach
 * `enough`: order[n - 1], order[n - 2] ... Their sum goes to *mass. */
static int64_t likeliest(double *mass, qkv_sampler *s, int64_t most,
                         double enough)
{
    int64_t heap = s->n, kept = 0;
    *mass = 0;              /* order is a permutation, whatever came before */
    for (int64_t i = s->n / 2; i-- > 0; )
        sift_down(s->order, s->n, i, s->p);
    while (kept < most && *mass < enough) {
        const int32_t token = pop(s->order, &heap, s->p);
        s->order[heap] = token;
        *mass += (double)s->p[token];
        kept++;
    }
    return kept;
}

bool qkv_sampler_pick(int32_t *token, qkv_sampler *s, const float *logits,
                      qkv_error *err)
{
    double most = 0;
    if (!greedy(token, logits, s->n, &most, err))
        return false;
    if (s->temperature == 0)
        return true;
    double mass = weigh(s, logits, most);
    int64_t kept = s->n;
    if (s->top_k > 0 && s->top_k < s->n)
        kept = likeliest(&mass, s, s->top_k, HUGE_VAL);
    if (s->top_p < 1)
        kept = likeliest(&mass, s, kept, s->top_p * mass);
    double left = qkv_random_uniform(&s->random) * mass;
    for (int64_t i = 0; i < kept && left >= 0; i++) {
        *token = s->order[s->n - 1 - i];
        left -= (double)s->p[*token];
    }
    return true;
}
