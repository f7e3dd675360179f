/*
 * special.h - added tokens, recognised where they stand in a text
 *
 * <|endoftext|> in a text is one token, whatever the algorithm would make of
 * its letters. At each place the longest added token wins, from left to
 * right; its flags say whether it takes the blanks beside it and whether it
 * must be a word. As in added_vocabulary.rs of Hugging Face's tokenizers,
 * where an Aho-Corasick machine does it; a sorted list, narrowed byte by
 * byte, finds the same.
 */
#ifndef QKV_SPECIAL_H
#define QKV_SPECIAL_H
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "format/json.h"        /* qkv_slice */

typedef struct qkv_special {
    const char *data;           /* its text, set by _ready */
    size_t start, bytes;
    int64_t order;              /* of two with the same text the first counts */
    int32_t id;
    bool lstrip, rstrip;        /* takes the blanks before, after */
    bool single_word;           /* only where no word character is beside it */
} qkv_special;

typedef struct qkv_specials {   /* start from {0}; qkv_specials_free */
    qkv_special *list;
    int64_t count, room;
    qkv_text text;
    int64_t first[257];         /* list[first[c]..first[c + 1]) begin with c */
} qkv_specials;

void qkv_specials_free(qkv_specials *s);
/* Text is copied; the other fields but id and flags are ignored. An empty text
 * is never found and is left out. */
bool qkv_specials_add(qkv_specials *s, qkv_slice text, qkv_special what,
                      qkv_error *err);
void qkv_specials_ready(qkv_specials *s);       /* after the last add */

/* The id of exactly this text, -1 for none. */
int32_t qkv_specials_find(const qkv_specials *s, qkv_slice text);

/* part(context, text, id) for each part of text in order: an added token's
 * id, or -1 for text between them (never empty). text must be UTF-8. */
typedef bool qkv_part_fn(void *context, qkv_slice text, int32_t id,
                         qkv_error *err);
bool qkv_specials_split(const qkv_specials *s, qkv_slice text,
                        qkv_part_fn *part, void *context, qkv_error *err);

#endif
