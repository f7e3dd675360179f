/*
 * attention.h - one contract: queries, a chain of keys, who sees whom
 *
 * scores = scale q.k over the keys a query may see, pattern = softmax of
 * them, z = pattern v. Decoding, prompts, windows, forks and cross-attention
 * differ only in the tiles of keys and in the rule. Two forms that agree up to
 * rounding: fused goes block of queries by block of queries and holds the
 * scores of some keys at a time, so that its memory does not grow with their
 * number; open does the three steps one after another on a [head, query, key]
 * array that others may read and change in between.
 *
 * Vaswani et al., arXiv:1706.03762, eq. 1; grouped keys: Ainslie et al.,
 * arXiv:2305.13245 (query head h reads key head h / (n_heads / n_kv_heads)).
 */
#ifndef QKV_ATTENTION_H
#define QKV_ATTENTION_H
#include "model/segment.h"

typedef struct qkv_attention {
    int64_t n_heads, n_kv_heads, d_head;
    float scale;
    bool causal;
    int64_t window;             /* 0: no limit */
    int64_t p0;                 /* position of query row 0 */
    int64_t n_queries, n_keys;  /* keys are positions 0 .. n_keys - 1 */
    const float *q;             /* [query, head, d_head] */
    int64_t q_stride;           /* floats from one query to the next */
    const qkv_tile *tiles;      /* of all keys, in order */
    int n_tiles;
    float *z;                   /* [query, head, d_head]: the result */
    int64_t z_stride;
} qkv_attention;

/* An array of scores or patterns: element (head, query, key) is at
 * data[head * head_stride + query * query_stride + key]. */
typedef struct qkv_scores {
    float *data;
    int64_t head_stride, query_stride;
} qkv_scores;

/* The keys that query row i may see: positions [*from, *to). */
void qkv_attention_sees(int64_t *from, int64_t *to, const qkv_attention *a,
                        int64_t i);

/* Floats of scratch that the fused form wants for each thread; follows from
 * the sizes alone. */
int64_t qkv_attention_scratch(const qkv_attention *a);
/* z of n attentions; scratch has `each` floats a thread, enough for any of
 * them. Large ones are cut into pieces; small ones are handed out whole. */
bool qkv_attention_fused(const qkv_attention *a, int64_t n, float *scratch,
                         int64_t each, qkv_error *err);

/* The open form, step by step. Scores that may not be seen are -inf. */
bool qkv_attention_scores(qkv_scores s, const qkv_attention *a,
                          qkv_error *err);
/* pattern = softmax(scores); p and s may be the same array. */
bool qkv_attention_pattern(qkv_scores p, qkv_scores s, const qkv_attention *a,
                           qkv_error *err);
bool qkv_attention_mix(qkv_scores p, const qkv_attention *a, qkv_error *err);
/* Put `value` where a query may not see (after edits). */
void qkv_attention_mask(qkv_scores s, const qkv_attention *a, float value);

#endif
