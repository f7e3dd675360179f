/*
 * lens.h - the logit lens: what each layer's residual would predict
 *
 * logits_l = unembed(ln_final(resid_post_l)), nostalgebraist 2020 ("interpreting
 * GPT: the logit lens"). The last layer's are the model's own logits.
 */
#ifndef QKV_LENS_H
#define QKV_LENS_H
#include "model/run.h"

/* The k likeliest tokens of every layer and position: ids and p, [layer, pos,
 * k], best first; f32 probabilities. Two new tensors; false and neither on
 * failure. Logits are made in pieces of rows, never all at once. */
bool qkv_lens(qkv_tensor **ids, qkv_tensor **p, qkv_run *run, int64_t seq,
              int64_t k, qkv_error *err);

#endif
