/*
 * tokenizer_impl.h - the inside of a tokenizer, for its readers
 *
 * text -> added tokens in it (special) -> NFC -> added tokens again, those
 * that ask for it -> words (pretokenize) -> an algorithm -> ids, and around
 * them what the post-processor's template adds.
 *
 * An algorithm is one row below and a file of its own; byte-level BPE is the
 * first. WordPiece, SentencePiece BPE and Unigram need no more than that and
 * their normalizers and pre-tokenizers.
 */
#ifndef QKV_TOKENIZER_IMPL_H
#define QKV_TOKENIZER_IMPL_H
#include "text/pretokenize.h"
#include "text/special.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

typedef struct qkv_algorithm {
    const char *name;
    /* The tables that a word needs, v's hash among them; called before every
     * text, so quick when they are there. */
    bool (*prepare)(void *state, qkv_vocab *v, qkv_error *err);
    /* Appends the ids of a word: of a piece that the pre-tokenizer left. */
    bool (*encode)(qkv_tokens *out, void *state, const qkv_vocab *v,
                   qkv_slice word, qkv_error *err);
    /* Appends the bytes of n ids, all in range. */
    bool (*decode)(qkv_text *out, const void *state, const qkv_vocab *v,
                   const int32_t *ids, int64_t n, qkv_error *err);
    void (*free)(void *state);                  /* NULL is allowed */
} qkv_algorithm;

/* What stands where around the texts. */
enum { QKV_SLOT_A = -1, QKV_SLOT_B = -2 };
typedef struct qkv_template_item {
    int32_t id;                 /* a token that is added, or QKV_SLOT_* */
    int32_t type;               /* of its tokens: 0, 1 (BERT's segments) */
} qkv_template_item;
enum { QKV_TEMPLATE_ITEMS = 32 };
typedef struct qkv_template {
    int n;
    qkv_template_item item[QKV_TEMPLATE_ITEMS];
} qkv_template;

struct qkv_tokenizer {
    int refs;
    int32_t bos, eos;           /* -1: none */
    qkv_vocab *vocab;           /* its hash is built when first wanted */
    qkv_specials raw;           /* sought in the text as it is */
    qkv_specials normalized;    /* sought after normalisation */
    bool nfc;
    qkv_pretokenizer *words;
    qkv_template single, pair;
    const qkv_algorithm *algorithm;
    void *state;
};

/* An empty byte-level tokenizer: text only, no merges, one reference. */
qkv_tokenizer *qkv_tokenizer_new(const qkv_algorithm *algorithm,
                                 qkv_error *err);
/* Adds GPT-2's split, each digit alone first if so. */
bool qkv_tokenizer_split_gpt2(qkv_tokenizer *t, bool digits, qkv_error *err);
/* An added token: its piece in the vocabulary, and sought in text. After the
 * vocabulary's own pieces. */
bool qkv_tokenizer_add(qkv_tokenizer *t, qkv_slice text, qkv_special what,
                       bool special, bool normalized, qkv_error *err);
bool qkv_template_put(qkv_template *t, int32_t id, int32_t type,
                      qkv_error *err);

#endif
