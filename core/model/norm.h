/*
 * norm.h - LayerNorm and RMSNorm, activations, and the masked head
 *
 * LayerNorm: Ba et al., arXiv:1607.06450; RMSNorm: Zhang and Sennrich,
 * arXiv:1910.07467. In two steps, since the scale between them is a site:
 *     scale = sqrt(var + eps), or sqrt(mean square + eps)
 *     normalized = (x - mean) / scale * gain + bias   (RMS: mean = 0)
 * Statistics accumulate in double.
 */
#ifndef QKV_NORM_H
#define QKV_NORM_H
#include "model/model.h"

/* scale [rows] of x [rows, d_model] */
void qkv_norm_scale(float *scale, const float *x, int64_t rows,
                    const qkv_config *c);
/* out [rows, d_model]; out may be x. */
void qkv_norm_apply(float *out, const float *x, const float *scale,
                    int64_t rows, const qkv_norm *n, const qkv_config *c);

/* out [rows, n] = norm(x [rows, n]) in one step: of q or k, a row a head. out
 * may be x. */
void qkv_norm_heads(float *out, const float *x, int64_t rows, int64_t n,
                    const qkv_norm *norm, const qkv_config *c);

/* out [n] = f(x [n]); out may be x. */
void qkv_activate(float *out, const float *x, qkv_activation f, int64_t n);

/* out [rows, d_model] = norm(f(W x + b)): BERT's head before the unembedding.
 * out may be x. */
bool qkv_masked_head(float *out, const float *x, int64_t rows,
                     const qkv_stack *s, qkv_error *err);

#endif
