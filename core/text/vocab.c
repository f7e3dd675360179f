/*
 * vocab.c - id to bytes, bytes to id: see vocab.h
 *
 * The hash is open addressing with linear probing, at most half full; a slot
 * keeps 32 bits of the hash, so that bytes are compared about once a look-up.
 */
#include "config.h"

#include "text/vocab.h"

#include <string.h>

#include "base/alloc.h"

void qkv_vocab_free(qkv_vocab *v)
{
    qkv_free(v->place);
    qkv_free(v->flags);
    qkv_free(v->slots);
    qkv_text_free(&v->bytes);
    *v = (qkv_vocab){0};
}

bool qkv_vocab_reserve(qkv_vocab *v, int64_t count, qkv_error *err)
{
    if (count <= v->room)
        return true;
    if (count > QKV_MOST_IDS)
        return qkv_fail(err, QKV_EFORMAT,
                        "a vocabulary of %lld tokens, at most %d are expected",
                        (long long)count, QKV_MOST_IDS);
    const size_t n = (size_t)count;
    qkv_place *place = qkv_realloc(v->place, n * sizeof *place, err);
    if (place == NULL)
        return false;
    v->place = place;
    unsigned char *flags = qkv_realloc(v->flags, n, err);
    if (flags == NULL)
        return false;
    v->flags = flags;
    v->room = count;
    return true;
}

/* Ids up to `id` exist from here on, new ones without a piece. */
static bool reach(qkv_vocab *v, int64_t id, qkv_error *err)
{
    if (id < 0 || id >= QKV_MOST_IDS)
        return qkv_fail(err, QKV_EFORMAT,
                        "token id %lld: ids run from 0 to at most %d",
                        (long long)id, QKV_MOST_IDS - 1);
    if (id < v->size)
        return true;
    if (id >= v->room) {
        int64_t room = v->room + v->room / 2;
        room = room > id ? room : id + 1024;
        room = room < QKV_MOST_IDS ? room : QKV_MOST_IDS;
        if (!qkv_vocab_reserve(v, room, err))
            return false;
    }
    const size_t more = (size_t)(id + 1 - v->size);
    memset(v->place + v->size, 0, more * sizeof *v->place);
    memset(v->flags + v->size, 0, more);
    v->size = id + 1;
    return true;
}

bool qkv_vocab_put(qkv_vocab *v, int64_t id, qkv_slice piece, unsigned flags,
                   qkv_error *err)
{
    if (!reach(v, id, err))
        return false;
    const bool added = (v->flags[id] & QKV_PIECE_ADDED) != 0;
    if (added && (flags & QKV_PIECE_ADDED) == 0) {
        v->flags[id] = (unsigned char)(v->flags[id] | flags);
        return true;
    }
    if (piece.bytes > UINT32_MAX - v->bytes.bytes)
        return qkv_fail(err, QKV_EFORMAT,
                        "the vocabulary's text exceeds 4 GB at token %lld",
                        (long long)id);
    const uint32_t start = (uint32_t)v->bytes.bytes;
    if (!qkv_text_put(&v->bytes, piece.data, piece.bytes, err))
        return false;
    v->place[id] = (qkv_place){start, (uint32_t)piece.bytes};
    v->flags[id] = (unsigned char)(flags | QKV_PIECE_THERE);
    return true;
}

qkv_slice qkv_vocab_piece(const qkv_vocab *v, int64_t id)
{
    const qkv_place at = v->place[id];
    const char *data = v->bytes.data != NULL ? v->bytes.data + at.start : "";
    return (qkv_slice){data, at.bytes};
}

/* Multiply and fold (the idea of wyhash and of Rust's FxHash): 8 bytes a step,
 * the last step overlaps. Good enough for words; a hostile vocabulary can make
 * a table slow, not wrong. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    const uint64_t x = (a ^ b) * UINT64_C(0x9E3779B97F4A7C15);
    return x ^ x >> 29;
}

uint64_t qkv_hash_bytes(const char *data, size_t bytes)
{
    uint64_t h = bytes, w = 0;
    if (bytes < 8) {
        for (size_t i = 0; i < bytes; i++)
            w = w << 8 | (unsigned char)data[i];
        h = fold(h, w);
    } else {
        for (size_t i = 0; i + 8 < bytes; i += 8) {
            memcpy(&w, data + i, 8);
            h = fold(h, w) * 31;
        }
        memcpy(&w, data + bytes - 8, 8);
        h = fold(h, w);
    }
    return h * UINT64_C(0xD6E8FEB86659FD93);
}

static bool is_same(const qkv_vocab *v, int32_t id, qkv_slice piece)
{
    const qkv_slice have = qkv_vocab_piece(v, id);
    return have.bytes == piece.bytes
        && memcmp(have.data, piece.data, piece.bytes) == 0;
}

/* The slot that holds these bytes, else the empty one where they belong. */
static qkv_slot *slot_of(const qkv_vocab *v, qkv_slice piece, uint32_t *tag)
{
    const uint64_t h = qkv_hash_bytes(piece.data, piece.bytes);
    *tag = (uint32_t)h;
    for (size_t i = (size_t)(h >> 32) & v->mask; ; i = (i + 1) & v->mask) {
        qkv_slot *s = &v->slots[i];
        if (s->id < 0 || (s->tag == *tag && is_same(v, s->id, piece)))
            return s;
    }
}

static bool is_found(const qkv_vocab *v, int64_t id)
{
    const unsigned wanted = QKV_PIECE_THERE | QKV_PIECE_HIDDEN;
    return (v->flags[id] & wanted) == QKV_PIECE_THERE;
}

bool qkv_vocab_index(qkv_vocab *v, qkv_error *err)
{
    if (v->slots != NULL)
        return true;
    size_t room = 16;
    while (room < 2 * (size_t)v->size)
        room *= 2;
    v->slots = qkv_alloc(room * sizeof *v->slots, err);
    if (v->slots == NULL)
        return false;
    memset(v->slots, 0xFF, room * sizeof *v->slots);    /* every id -1 */
    v->mask = room - 1;
    for (int64_t id = 0; id < v->size; id++) {
        if (!is_found(v, id))
            continue;
        uint32_t tag;
        qkv_slot *s = slot_of(v, qkv_vocab_piece(v, id), &tag);
        *s = (qkv_slot){tag, (int32_t)id};
    }
    return true;
}

int32_t qkv_vocab_find(const qkv_vocab *v, qkv_slice piece)
{
    uint32_t tag;
    if (v->slots != NULL)
        return slot_of(v, piece, &tag)->id;
    for (int64_t id = v->size - 1; id >= 0; id--)
        if (is_found(v, id) && is_same(v, (int32_t)id, piece))
            return (int32_t)id;
    return -1;
}
