/*
 * bpe.h - byte-level byte-pair encoding: a word to its tokens
 *
 * A word starts as its bytes, each a token; of the neighbours that the merges
 * name, the pair with the lowest rank (the leftmost of equals) becomes one
 * token, until none is named (Sennrich et al., arXiv:1508.07909; over bytes
 * as in GPT-2). As in Hugging Face's tokenizers, a byte without a token is
 * the unknown token if there is one, and else is left out.
 */
#ifndef QKV_BPE_H
#define QKV_BPE_H
#include "text/tokenizer_impl.h"

typedef struct qkv_bpe qkv_bpe;

qkv_bpe *qkv_bpe_new(qkv_error *err);
/* Merges in rank order, their parts as files write them (bytes as characters:
 * unicode.h). Copied; what they name is looked up when a text first comes.
 * A block is a GGUF list of strings: for each merge its length, a
 * little-endian uint64_t, and "left right". */
bool qkv_bpe_put_merges(qkv_bpe *b, int64_t count, const void *block,
                        size_t bytes, qkv_error *err);
bool qkv_bpe_put_merge(qkv_bpe *b, qkv_slice left, qkv_slice right,
                       qkv_error *err);
/* A word that is a piece is that token, whatever the merges say. */
void qkv_bpe_ignore_merges(qkv_bpe *b);
/* For bytes without a token; fuse: neighbours become one. */
void qkv_bpe_unknown(qkv_bpe *b, int32_t id, bool fuse);

extern const qkv_algorithm qkv_bpe_algorithm;   /* its state is a qkv_bpe */

#endif
