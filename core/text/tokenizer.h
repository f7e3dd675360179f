/*
 * tokenizer.h - text to token ids and back
 *
 * One interface; behind it an algorithm (now byte-level BPE, Sennrich et al.
 * arXiv:1508.07909 over bytes as in GPT-2; later WordPiece, SentencePiece BPE
 * and Unigram), a pre-tokenizer, special tokens and a post-processor, read
 * from GGUF metadata or from a tokenizer.json. Text is bytes with a length:
 * it may hold NUL. Each maximal piece that is not UTF-8 is read as one U+FFFD
 * (Python's and Rust's rule). Special tokens written in the text are
 * recognised, as Hugging Face's tokenizers does.
 *
 * What a tokenizer says never changes once it is open; but the first text
 * builds its tables (a merge that names no token is found then), and a cache
 * of words is kept: one thread at a time.
 */
#ifndef QKV_TOKENIZER_H
#define QKV_TOKENIZER_H
#include "base/error.h"
#include "base/text.h"
#include "format/gguf.h"

typedef struct qkv_tokenizer qkv_tokenizer;

typedef struct qkv_tokens {     /* start from {0}; qkv_tokens_free */
    int32_t *ids;
    int64_t count, room;
} qkv_tokens;
void qkv_tokens_free(qkv_tokens *t);
bool qkv_tokens_reserve(qkv_tokens *t, int64_t more, qkv_error *err);
bool qkv_tokens_put(qkv_tokens *t, int32_t id, qkv_error *err);

/* Reference-counted. A kind that is not built yet is EUNSUPPORTED, named.
 * Nothing of g is needed afterwards. */
qkv_tokenizer *qkv_tokenizer_from_gguf(const qkv_gguf *g, qkv_error *err);
qkv_tokenizer *qkv_tokenizer_from_json(const char *path, qkv_error *err);
/* A .gguf, a tokenizer.json, or a directory that holds one. */
qkv_tokenizer *qkv_tokenizer_open(const char *path, qkv_error *err);
qkv_tokenizer *qkv_tokenizer_retain(qkv_tokenizer *t);
void qkv_tokenizer_release(qkv_tokenizer *t);       /* NULL is allowed */

/* What turns words into ids: "byte-level BPE". */
const char *qkv_tokenizer_kind(const qkv_tokenizer *t);
int64_t qkv_tokenizer_size(const qkv_tokenizer *t); /* ids run 0..size-1 */
/* -1 when the tokenizer has none. From the GGUF's keys; from tokenizer.json's
 * own post-processor, else from tokenizer_config.json beside it. */
int32_t qkv_tokenizer_bos(const qkv_tokenizer *t);
int32_t qkv_tokenizer_eos(const qkv_tokenizer *t);
/* Stands for no text (<s>, <|im_end|>); false for an id out of range. */
bool qkv_tokenizer_is_special(const qkv_tokenizer *t, int32_t id);

/* Appends to out; on failure out is as it was. special: with what the model's
 * post-processor adds (BOS, EOS). */
bool qkv_tokenizer_encode(qkv_tokens *out, const qkv_tokenizer *t,
                          qkv_slice text, bool special, qkv_error *err);
/* Two texts as one input, with what the post-processor puts around them when
 * special; types, unless NULL, gets a number for each id: which text it is of
 * as the model counts them (BERT's token types). */
bool qkv_tokenizer_encode_pair(qkv_tokens *out, qkv_tokens *types,
                               const qkv_tokenizer *t, qkv_slice text,
                               qkv_slice pair, bool special, qkv_error *err);
/* The bytes that ids stand for, appended; special tokens as they are written.
 * An id out of range is an error; one without a piece adds nothing. Byte-level
 * decoding gives back the very bytes of the text, cut characters included
 * (valid UTF-8 is the caller's affair); other kinds decode as their decoder
 * says. */
bool qkv_tokenizer_decode(qkv_text *out, const qkv_tokenizer *t,
                          const int32_t *ids, int64_t n, qkv_error *err);
/* The id whose piece is exactly these bytes ("the token for ' Mary'"), or -1:
 * the one token that text encodes to. */
int32_t qkv_tokenizer_token(const qkv_tokenizer *t, qkv_slice text);

#endif
