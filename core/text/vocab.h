/*
 * vocab.h - the pieces of a vocabulary: id to bytes, bytes to id
 *
 * All pieces lie one after another in one block; an id is an offset and a
 * length into it, so that fifty thousand tokens are three allocations. The
 * hash from bytes to id is built when it is first wanted: who only decodes
 * never pays for it.
 */
#ifndef QKV_VOCAB_H
#define QKV_VOCAB_H
#include <stdint.h>

#include "base/error.h"
#include "format/json.h"        /* qkv_slice */

enum {
    QKV_PIECE_THERE = 1,        /* the id has a piece */
    QKV_PIECE_ADDED = 2,        /* recognised in text before all else */
    QKV_PIECE_SPECIAL = 4,      /* not text: <s>, <|endoftext|> ... */
    QKV_PIECE_HIDDEN = 8        /* no algorithm can make it from text */
};

/* Larger ids are taken for damage, not for a vocabulary; an id and 8 bits of
 * its hash fit in a word. */
enum { QKV_MOST_IDS = (1 << 24) - 1 };

typedef struct qkv_place {
    uint32_t start, bytes;
} qkv_place;

typedef struct qkv_vocab {      /* start from {0}; qkv_vocab_free */
    int64_t size, room;         /* ids run 0..size-1 */
    qkv_place *place;           /* [size] */
    unsigned char *flags;       /* [size] */
    char *text;                 /* pieces, one after another */
    size_t used, text_room;
    uint32_t *slots;            /* [mask + 1], a power of two; NULL: not yet */
    size_t mask;
} qkv_vocab;

void qkv_vocab_free(qkv_vocab *v);
/* Room for ids up to count - 1 and for so many bytes of pieces, at once. */
bool qkv_vocab_reserve(qkv_vocab *v, int64_t count, size_t bytes,
                       qkv_error *err);
/* Gives id its piece (copied). An id that has one already gets the new one,
 * but an added token keeps its own. An id below 0
 * or too large is EFORMAT. */
bool qkv_vocab_put(qkv_vocab *v, int64_t id, qkv_slice piece, unsigned flags,
                   qkv_error *err);
/* The same for a piece of byte-level BPE, which stands for other bytes than it
 * is written with; one that stands for none is kept as written, and hidden. */
bool qkv_vocab_put_byte_level(qkv_vocab *v, int64_t id, qkv_slice piece,
                              qkv_error *err);
/* Lent until the next put; empty for an id without a piece. 0 <= id < size. */
qkv_slice qkv_vocab_piece(const qkv_vocab *v, int64_t id);

/* Builds the hash; no puts after it. Of ids with the same bytes the last is
 * found (a repeated key of a JSON object: the last counts). */
bool qkv_vocab_index(qkv_vocab *v, qkv_error *err);
/* The id of these bytes, -1 for none. Hidden pieces are not found. Without
 * the hash, all pieces are compared. */
int32_t qkv_vocab_find(const qkv_vocab *v, qkv_slice piece);

/* A hash of a few bytes, for tables of our own making. */
uint64_t qkv_hash_bytes(const char *data, size_t bytes);

#endif
