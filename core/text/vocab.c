/*
 * vocab.c - id to bytes, bytes to id: see vocab.h
 *
 * The hash is open addressing with linear probing, at most half full. A slot is
 * a word: id + 1 in the low 24 bits, and above them 8 bits of the hash, so that
 * bytes are compared about once a look-up; 0 is empty.
 */
#include "config.h"

#include "text/vocab.h"

#include <string.h>

#include "base/alloc.h"
#include "text/unicode.h"

void qkv_vocab_free(qkv_vocab *v)
{
    qkv_free(v->place);
    qkv_free(v->flags);
    qkv_free(v->slots);
    qkv_free(v->text);
    *v = (qkv_vocab){0};
}

/* Room for more bytes of pieces, at least doubled. */
static bool text_room(qkv_vocab *v, size_t more, qkv_error *err)
{
    if (more <= v->text_room - v->used)
        return true;
    if (more > UINT32_MAX - v->used)
        return qkv_fail(err, QKV_EFORMAT,
                        "a vocabulary with over 4 GB of text");
    size_t room = v->used + more;
    room = room > 2 * v->text_room ? room : 2 * v->text_room;
    char *text = qkv_realloc(v->text, room, err);
    if (text == NULL)
        return false;
    v->text = text;
    v->text_room = room;
    return true;
}

static bool id_room(qkv_vocab *v, int64_t count, qkv_error *err)
{
    if (count <= v->room)
        return true;
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

bool qkv_vocab_reserve(qkv_vocab *v, int64_t count, size_t bytes,
                       qkv_error *err)
{
    if (count > QKV_MOST_IDS)
        return qkv_fail(err, QKV_EFORMAT,
                        "a vocabulary of %lld tokens, at most %d are expected",
                        (long long)count, QKV_MOST_IDS);
    return id_room(v, count, err) && text_room(v, bytes, err);
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
        if (!id_room(v, room, err))
            return false;
    }
    const size_t more = (size_t)(id + 1 - v->size);
    memset(v->place + v->size, 0, more * sizeof *v->place);
    memset(v->flags + v->size, 0, more);
    v->size = id + 1;
    return true;
}

/* The `bytes` that were written at v->text + v->used become id's piece. */
static void place(qkv_vocab *v, int64_t id, size_t bytes, unsigned flags)
{
    v->place[id] = (qkv_place){(uint32_t)v->used, (uint32_t)bytes};
    v->flags[id] = (unsigned char)(flags | QKV_PIECE_THERE);
    v->used += bytes;
}

bool qkv_vocab_put(qkv_vocab *v, int64_t id, qkv_slice piece, unsigned flags,
                   qkv_error *err)
{
    if (!reach(v, id, err) || !text_room(v, piece.bytes, err))
        return false;
    if ((v->flags[id] & ~flags & QKV_PIECE_ADDED) != 0)
        return true;
    if (piece.bytes > 0)
        memcpy(v->text + v->used, piece.data, piece.bytes);
    place(v, id, piece.bytes, flags);
    return true;
}

bool qkv_vocab_put_byte_level(qkv_vocab *v, int64_t id, qkv_slice piece,
                              qkv_error *err)
{
    size_t n;
    if (!reach(v, id, err) || !text_room(v, piece.bytes, err))
        return false;
    if ((v->flags[id] & QKV_PIECE_ADDED) != 0)
        return true;
    if (!qkv_byte_level_read(v->text + v->used, &n, piece))
        return qkv_vocab_put(v, id, piece, QKV_PIECE_HIDDEN, err);
    place(v, id, n, 0);
    return true;
}

qkv_slice qkv_vocab_piece(const qkv_vocab *v, int64_t id)
{
    const qkv_place at = v->place[id];
    return (qkv_slice){v->text != NULL ? v->text + at.start : "", at.bytes};
}

/* Multiply and fold (the idea of wyhash and of Rust's FxHash). Few bytes are
 * read by two loads that overlap. Good enough for words; a hostile vocabulary
 * can make a table slow, not wrong. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    const uint64_t x = (a ^ b) * UINT64_C(0x9E3779B97F4A7C15);
    return x ^ x >> 32;
}

static inline uint64_t load(const char *p, size_t bytes)
{
    uint64_t w = 0;
    memcpy(&w, p, bytes);
    return w;
}

uint64_t qkv_hash_bytes(const char *data, size_t bytes)
{
    uint64_t h = bytes;
    if (bytes >= 8) {
        for (size_t i = 0; i + 8 < bytes; i += 8)
            h = fold(h, load(data + i, 8));
        h = fold(h, load(data + bytes - 8, 8));
    } else if (bytes >= 4) {
        h = fold(h, load(data, 4) | load(data + bytes - 4, 4) << 32);
    } else if (bytes > 0) {
        const uint64_t few = (unsigned char)data[0]
            | (uint64_t)(unsigned char)data[bytes / 2] << 8
            | (uint64_t)(unsigned char)data[bytes - 1] << 16;
        h = fold(h, few);
    }
    return h * UINT64_C(0xD6E8FEB86659FD93);
}

static bool is_same(const qkv_vocab *v, int32_t id, qkv_slice piece)
{
    const qkv_slice have = qkv_vocab_piece(v, id);
    return have.bytes == piece.bytes
        && memcmp(have.data, piece.data, piece.bytes) == 0;
}

/* The slot that holds these bytes, else the empty one where they belong; *tag
 * is the hash's part of it. */
static uint32_t *slot_of(const qkv_vocab *v, qkv_slice piece, uint32_t *tag)
{
    const uint64_t h = qkv_hash_bytes(piece.data, piece.bytes);
    *tag = (uint32_t)(h & 0xFF000000u);
    for (size_t i = (size_t)(h >> 32) & v->mask; ; i = (i + 1) & v->mask) {
        const uint32_t slot = v->slots[i];
        if (slot == 0 || ((slot & 0xFF000000u) == *tag
                          && is_same(v, (int32_t)(slot & 0xFFFFFF) - 1,
                                     piece)))
            return &v->slots[i];
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
    v->slots = qkv_alloc_zero(room, sizeof *v->slots, err);
    if (v->slots == NULL)
        return false;
    v->mask = room - 1;
    for (int64_t id = 0; id < v->size; id++) {
        if (!is_found(v, id))
            continue;
        uint32_t tag;
        uint32_t *slot = slot_of(v, qkv_vocab_piece(v, id), &tag);
        *slot = tag | (uint32_t)(id + 1);
    }
    return true;
}

int32_t qkv_vocab_find(const qkv_vocab *v, qkv_slice piece)
{
    uint32_t tag;
    if (v->slots != NULL)
        return (int32_t)(*slot_of(v, piece, &tag) & 0xFFFFFF) - 1;
    for (int64_t id = v->size - 1; id >= 0; id--)
        if (is_found(v, id) && is_same(v, (int32_t)id, piece))
            return (int32_t)id;
    return -1;
}
