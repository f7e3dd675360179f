/*
 * heads.h - what attention heads do
 *
 * Every score is read off the pattern p(q, k) of a head, over queries 1 to
 * n - 1: query 0 of a causal model can only see itself. Three measure places
 * that depend on positions alone, two compare tokens t, two have no place:
 *
 *   previous   p(q, q - 1)
 *   first      p(q, 0)
 *   self       p(q, q)
 *   duplicate  p(q, k), k < q and t(k) = t(q)
 *   following  p(q, k), k <= q and t(k - 1) = t(q): what came after an
 *              earlier occurrence of the query's token
 *   entropy    -sum_k p log2 p, bits
 *   distance   sum_k p |q - k|, tokens
 *
 * duplicate and following are the masks of TransformerLens's head_detector.py
 * (get_duplicate_token_head_detection_pattern, get_induction_...). On [BOS] A A
 * with A random and without repeats, following per query is the stripe
 * p(q, q - (|A| - 1)) over the second A, TransformerLens's induction score; on
 * [BOS] A A A A with |A| = 25, following per entry is the prefix-matching score
 * of Olsson et al. 2022 (In-context learning and induction heads, appendix).
 *
 * A layer's patterns are scored as the forward passes by and are not kept.
 */
#ifndef QKV_HEADS_H
#define QKV_HEADS_H
#include "base/random.h"
#include "model/run.h"

typedef enum qkv_head_place {
    QKV_HEAD_ENTROPY, QKV_HEAD_DISTANCE, QKV_HEAD_PREVIOUS, QKV_HEAD_FIRST,
    QKV_HEAD_SELF, QKV_HEAD_DUPLICATE, QKV_HEAD_FOLLOWING, QKV_N_HEAD_PLACES
} qkv_head_place;

/* Of a sum s of attention, over n tokens, of which some queries have such keys
 * and form `entries` pairs with them. */
typedef enum qkv_head_share {
    QKV_HEAD_PER_QUERY,         /* s / queries: 1 at most */
    QKV_HEAD_PER_ENTRY,         /* s / entries: 1 / (keys of a query) at most */
    QKV_HEAD_MUL,               /* s / n: head_detector.py's "mul" */
    QKV_HEAD_ABS                /* (2 s - entries) / n: its "abs", which is
                                 * 1 - sum |p - mask| / n; p's rows sum to 1 */
} qkv_head_share;

typedef struct qkv_heads {      /* start from {0}; qkv_heads_free */
    int64_t n_seqs, n_layers, n_heads;
    float *sums;                /* [seq, layer, head, place] */
    int64_t *queries, *entries; /* [seq, place] */
    int64_t *lengths;           /* [seq] */
} qkv_heads;

/* Run seqs [n_seqs] (lent; two tokens or more each), in batches of bounded
 * size, and sum every head's attention. */
bool qkv_heads_measure(qkv_heads *h, qkv_model *m, const qkv_sequence *seqs,
                       int64_t n_seqs, qkv_error *err);
void qkv_heads_free(qkv_heads *h);

/* Mean and standard deviation (n - 1) of a score over sequences [from, to),
 * two new f32 tensors [layer, head]; *n: how many have such keys at all. The
 * mean of none, and the spread of one, is NaN. */
bool qkv_heads_score(qkv_tensor **mean, qkv_tensor **sd, int64_t *n,
                     const qkv_heads *h, int64_t from, int64_t to,
                     qkv_head_place place, qkv_head_share share,
                     qkv_error *err);

/* Fill seqs [n] (each {0}; ids are then the caller's): bos, unless -1, and
 * then `length` random tokens `times` times over. The tokens of a sequence are
 * all different; none is special, and none of the first and last two in a
 * hundred ids, where BPE and WordPiece have the commonest and the rarest. */
bool qkv_heads_repeat(qkv_sequence *seqs, int64_t n, qkv_model *m, int32_t bos,
                      int64_t length, int times, qkv_random *random,
                      qkv_error *err);

#endif
