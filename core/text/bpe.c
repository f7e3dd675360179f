/*
 * bpe.c - byte-level byte-pair encoding: see bpe.h
 *
 * Merges live in one hash from a pair of ids to {rank, id of the whole}. A
 * word of up to SHORT bytes, as almost all are, is merged in two arrays on the
 * stack: find the lowest rank, merge, look its two neighbours up again. A
 * longer one (a run of blanks, a DNA sequence) is a linked list with a heap,
 * n log n. Words of up to WORD_BYTES are remembered, since texts repeat
 * themselves: a direct-mapped cache of one line of memory a word.
 */
#include "config.h"

#include "text/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "text/unicode.h"

enum {
    SHORT = 48,                 /* bytes of a word merged on the stack */
    WORD_BYTES = 31,            /* of a word in the cache */
    WORD_IDS = 7,
    CACHE_BITS = 13             /* 8192 words, 512 KB */
};
#define NO_RANK UINT32_MAX

typedef struct merge {
    uint32_t left, right;       /* ids + 1; left 0: an empty slot */
    uint32_t rank;
    int32_t id;                 /* what the pair becomes */
} merge;

typedef struct word {           /* 64 bytes */
    unsigned char key[WORD_BYTES + 1];  /* its length, its bytes, zeros */
    int32_t count;
    int32_t ids[WORD_IDS];
} word;

/* A merge as it was read: bytes [start, start + left) and the `right` bytes
 * after them of the text below. */
typedef struct unread {
    uint32_t start, left, right;
} unread;

struct qkv_bpe {
    qkv_text text;
    unread *unread;             /* in rank order */
    int64_t n_merges, room;
    merge *table;               /* [mask + 1]; NULL: not prepared */
    size_t mask;
    word *cache;
    int32_t byte_id[256];       /* -1: no such token */
    int32_t unknown;            /* -1: none */
    bool fuse, ignore_merges, ready;
};

/* ---- making ---- */

qkv_bpe *qkv_bpe_new(qkv_error *err)
{
    qkv_bpe *b = qkv_alloc_zero(1, sizeof *b, err);
    if (b != NULL)
        b->unknown = -1;
    return b;
}

static void bpe_free(void *state)
{
    qkv_bpe *b = state;
    if (b == NULL)
        return;
    qkv_text_free(&b->text);
    qkv_free(b->unread);
    qkv_free(b->table);
    qkv_free(b->cache);
    qkv_free(b);
}

bool qkv_bpe_reserve(qkv_bpe *b, int64_t merges, qkv_error *err)
{
    if (merges <= b->room)
        return true;
    if (merges > QKV_MOST_IDS)
        return qkv_fail(err, QKV_EFORMAT,
                        "a list of %lld merges, at most %d are expected",
                        (long long)merges, QKV_MOST_IDS);
    unread *list = qkv_realloc(b->unread, (size_t)merges * sizeof *list, err);
    if (list == NULL)
        return false;
    b->unread = list;
    b->room = merges;
    return true;
}

bool qkv_bpe_put_merge(qkv_bpe *b, qkv_slice left, qkv_slice right,
                       qkv_error *err)
{
    if (b->n_merges == b->room
        && !qkv_bpe_reserve(b, b->room + b->room / 2 + 1024, err))
        return false;
    const size_t start = b->text.bytes;
    if (start > UINT32_MAX || left.bytes > UINT32_MAX - start
        || right.bytes > UINT32_MAX - start - left.bytes)
        return qkv_fail(err, QKV_EFORMAT, "the merges' text exceeds 4 GB");
    b->unread[b->n_merges] = (unread){(uint32_t)start, (uint32_t)left.bytes,
                                      (uint32_t)right.bytes};
    b->n_merges++;
    return qkv_text_put(&b->text, left.data, left.bytes, err)
        && qkv_text_put(&b->text, right.data, right.bytes, err);
}

void qkv_bpe_ignore_merges(qkv_bpe *b)
{
    b->ignore_merges = true;
}

void qkv_bpe_unknown(qkv_bpe *b, int32_t id, bool fuse)
{
    b->unknown = id;
    b->fuse = fuse;
}

/* ---- the table of merges ---- */

/* The slot of a pair, or the empty one where it belongs. */
static merge *slot_of(const qkv_bpe *b, uint32_t left, uint32_t right)
{
    const uint64_t h = ((uint64_t)left << 32 | right)
        * UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = (size_t)(h >> 32 ^ h >> 15) & b->mask; ;
         i = (i + 1) & b->mask) {
        merge *m = &b->table[i];
        if (m->left == 0 || (m->left == left && m->right == right))
            return m;
    }
}

/* What two neighbours become, and its rank; NO_RANK: they stay two. */
static uint32_t rank_of(const qkv_bpe *b, int32_t left, int32_t right,
                        int32_t *id)
{
    const merge *m = slot_of(b, (uint32_t)left + 1, (uint32_t)right + 1);
    *id = m->id;
    return m->left == 0 ? NO_RANK : m->rank;
}

static bool no_such(const qkv_bpe *b, int64_t rank, const char *part,
                    qkv_error *err)
{
    const unread *u = &b->unread[rank];
    const char *text = b->text.data + u->start;
    const int left = u->left < 60 ? (int)u->left : 60;
    const int right = u->right < 60 ? (int)u->right : 60;
    return qkv_fail(err, QKV_EFORMAT, "merge %lld \"%.*s %.*s\": %s is no "
                    "token of the vocabulary", (long long)rank, left, text,
                    right, text + u->left, part);
}

/* Looks up what merge `rank` names. A merge of characters that stand for no
 * byte can never be met in a text and is passed over. */
static bool read_merge(qkv_bpe *b, const qkv_vocab *v, int64_t rank,
                       qkv_text *raw, qkv_error *err)
{
    const unread *u = &b->unread[rank];
    const char *text = b->text.data + u->start;
    bool readable;
    raw->bytes = 0;
    if (!qkv_byte_level_read(raw, &readable, (qkv_slice){text, u->left}, err))
        return false;
    const size_t left_bytes = raw->bytes;
    if (!readable)
        return true;
    if (!qkv_byte_level_read(raw, &readable,
                             (qkv_slice){text + u->left, u->right}, err))
        return false;
    if (!readable)
        return true;
    const qkv_slice whole = {raw->data, raw->bytes};
    const int32_t id = qkv_vocab_find(v, whole);
    const int32_t left =
        qkv_vocab_find(v, (qkv_slice){raw->data, left_bytes});
    const int32_t right =
        qkv_vocab_find(v, (qkv_slice){raw->data + left_bytes,
                                      raw->bytes - left_bytes});
    if (left < 0 || right < 0 || id < 0)
        return no_such(b, rank, left < 0 ? "the first part"
                       : right < 0 ? "the second part" : "the whole", err);
    merge *m = slot_of(b, (uint32_t)left + 1, (uint32_t)right + 1);
    *m = (merge){(uint32_t)left + 1, (uint32_t)right + 1, (uint32_t)rank, id};
    return true;
}

static bool read_merges(qkv_bpe *b, const qkv_vocab *v, qkv_error *err)
{
    qkv_text raw = {0};
    bool done = true;
    for (int64_t rank = 0; done && rank < b->n_merges; rank++)
        done = read_merge(b, v, rank, &raw, err)
            && ((rank & 0xFFFF) != 0xFFFF || qkv_check(err));
    qkv_text_free(&raw);
    return done;
}

static bool bpe_prepare(void *state, qkv_vocab *v, qkv_error *err)
{
    qkv_bpe *b = state;
    if (b->ready)
        return true;
    if (!qkv_vocab_index(v, err))
        return false;
    for (int c = 0; c < 256; c++) {
        const char byte = (char)c;
        b->byte_id[c] = qkv_vocab_find(v, (qkv_slice){&byte, 1});
    }
    size_t room = 16;
    while (room < 2 * (size_t)b->n_merges)
        room *= 2;
    qkv_free(b->table);         /* of a preparation that broke off */
    qkv_free(b->cache);
    b->cache = qkv_alloc_zero((size_t)1 << CACHE_BITS, sizeof *b->cache, err);
    b->table = b->cache == NULL ? NULL
        : qkv_alloc_zero(room, sizeof *b->table, err);
    b->mask = room - 1;
    if (b->table == NULL || !read_merges(b, v, err))
        return false;
    qkv_free(b->unread);
    qkv_text_free(&b->text);
    b->unread = NULL;
    b->ready = true;
    return true;
}

/* ---- merging ---- */

/* ids [n] are merged in place; the new count. n <= SHORT. */
static int merge_short(const qkv_bpe *b, int32_t *ids, int n)
{
    uint32_t rank[SHORT];       /* of ids[i] with ids[i + 1] */
    int32_t whole[SHORT];       /* what they become */
    for (int i = 0; i + 1 < n; i++)
        rank[i] = rank_of(b, ids[i], ids[i + 1], &whole[i]);
    while (n > 1) {
        int best = 0;
        for (int i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_RANK)
            break;
        ids[best] = whole[best];
        n--;
        const size_t after = (size_t)(n - best - 1);
        memmove(ids + best + 1, ids + best + 2, after * sizeof *ids);
        memmove(rank + best, rank + best + 1, after * sizeof *rank);
        memmove(whole + best, whole + best + 1, after * sizeof *whole);
        if (best > 0)
            rank[best - 1] = rank_of(b, ids[best - 1], ids[best],
                                     &whole[best - 1]);
        if (best + 1 < n)
            rank[best] = rank_of(b, ids[best], ids[best + 1], &whole[best]);
    }
    return n;
}

/* The heap: rank << 32 | position, the least on top. */
static void push(uint64_t *heap, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > x; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

static uint64_t pop(uint64_t *heap, size_t *n)
{
    const uint64_t top = heap[0], x = heap[--*n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *n)
            break;
        child += child + 1 < *n && heap[child + 1] < heap[child];
        if (heap[child] >= x)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = x;
    return top;
}

typedef struct symbol {         /* of a long word */
    int32_t id, whole;          /* whole: what it and the next become */
    int32_t previous, next;     /* -1: none */
    uint32_t rank;              /* NO_RANK: no merge, or merged away */
} symbol;

static void rank_symbol(const qkv_bpe *b, symbol *s, int32_t i,
                        uint64_t *heap, size_t *n_heap)
{
    if (i < 0)
        return;
    s[i].rank = s[i].next < 0 ? NO_RANK
        : rank_of(b, s[i].id, s[s[i].next].id, &s[i].whole);
    if (s[i].rank != NO_RANK)
        push(heap, n_heap, (uint64_t)s[i].rank << 32 | (uint32_t)i);
}

/* The symbols of s [n] are merged; those that are left hang together from
 * s[0]. heap has room for 3 n. */
static bool merge_linked(const qkv_bpe *b, symbol *s, int32_t n,
                         uint64_t *heap, qkv_error *err)
{
    size_t n_heap = 0;
    for (int32_t i = 0; i < n; i++)
        rank_symbol(b, s, i, heap, &n_heap);
    for (unsigned turn = 1; n_heap > 0; turn++) {
        const uint64_t top = pop(heap, &n_heap);
        const int32_t i = (int32_t)(top & UINT32_MAX);
        if (s[i].rank != (uint32_t)(top >> 32))
            continue;           /* it has changed since */
        const int32_t gone = s[i].next;
        s[i].id = s[i].whole;
        s[i].next = s[gone].next;
        s[gone].rank = NO_RANK;
        if (s[i].next >= 0)
            s[s[i].next].previous = i;
        rank_symbol(b, s, i, heap, &n_heap);
        rank_symbol(b, s, s[i].previous, heap, &n_heap);
        if ((turn & 0xFFFF) == 0 && !qkv_check(err))
            return false;
    }
    return true;
}

/* As merge_short, for any n; ids [*n]. */
static bool merge_long(const qkv_bpe *b, int32_t *ids, int64_t *n,
                       qkv_error *err)
{
    const size_t count = (size_t)*n;
    symbol *s = qkv_alloc(count * sizeof *s, err);
    uint64_t *heap = s == NULL ? NULL
        : qkv_alloc(3 * count * sizeof *heap, err);
    bool done = heap != NULL;
    if (done) {
        for (int32_t i = 0; i < *n; i++)
            s[i] = (symbol){ids[i], -1, i - 1, i + 1 < *n ? i + 1 : -1,
                            NO_RANK};
        done = merge_linked(b, s, (int32_t)*n, heap, err);
    }
    if (done) {
        *n = 0;
        for (int32_t i = 0; i >= 0; i = s[i].next)
            ids[(*n)++] = s[i].id;
    }
    qkv_free(heap);
    qkv_free(s);
    return done;
}

/* ---- words ---- */

/* ids [bytes] = a token for each byte of the word; their count. */
static int64_t bytes_to_ids(int32_t *ids, const qkv_bpe *b, qkv_slice w)
{
    int64_t n = 0;
    bool was_unknown = false;
    for (size_t i = 0; i < w.bytes; i++) {
        const int32_t id = b->byte_id[(unsigned char)w.data[i]];
        const bool known = id >= 0;
        if (known)
            ids[n++] = id;
        else if (b->unknown >= 0 && !(b->fuse && was_unknown))
            ids[n++] = b->unknown;
        was_unknown = !known;
    }
    return n;
}

/* Appends the ids of a word, merged where they will stand. */
static bool encode_word(qkv_tokens *out, const qkv_bpe *b, qkv_slice w,
                        qkv_error *err)
{
    if (w.bytes > INT32_MAX / 2)
        return qkv_fail(err, QKV_EUNSUPPORTED, "a word of %zu bytes: at most "
                        "%d are merged", w.bytes, INT32_MAX / 2);
    if (!qkv_tokens_reserve(out, (int64_t)w.bytes, err))
        return false;
    int32_t *ids = out->ids + out->count;
    int64_t n = bytes_to_ids(ids, b, w);
    if (n <= SHORT)
        n = merge_short(b, ids, (int)n);
    else if (!merge_long(b, ids, &n, err))
        return false;
    out->count += n;
    return true;
}

static bool encode_cached(qkv_tokens *out, qkv_bpe *b, qkv_slice w,
                          qkv_error *err)
{
    unsigned char key[WORD_BYTES + 1] = {0};
    uint64_t part[sizeof key / 8];
    key[0] = (unsigned char)w.bytes;
    memcpy(key + 1, w.data, w.bytes);
    memcpy(part, key, sizeof key);
    uint64_t h = part[0] * UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = 1; i < sizeof part / sizeof *part; i++)
        h = (h ^ h >> 32 ^ part[i]) * UINT64_C(0x9E3779B97F4A7C15);
    word *slot = &b->cache[h >> (64 - CACHE_BITS)];
    if (memcmp(slot->key, key, sizeof key) == 0) {
        if (!qkv_tokens_reserve(out, slot->count, err))
            return false;
        for (int32_t i = 0; i < slot->count; i++)
            out->ids[out->count++] = slot->ids[i];
        return true;
    }
    const int64_t before = out->count;
    if (!encode_word(out, b, w, err))
        return false;
    const int64_t n = out->count - before;
    if (n <= WORD_IDS) {
        memcpy(slot->key, key, sizeof key);
        slot->count = (int32_t)n;
        memcpy(slot->ids, out->ids + before, (size_t)n * sizeof *slot->ids);
    }
    return true;
}

static bool bpe_encode(qkv_tokens *out, void *state, const qkv_vocab *v,
                       qkv_slice w, qkv_error *err)
{
    qkv_bpe *b = state;
    if (b->ignore_merges) {
        const int32_t id = qkv_vocab_find(v, w);
        if (id >= 0)
            return qkv_tokens_put(out, id, err);
    }
    return w.bytes <= WORD_BYTES ? encode_cached(out, b, w, err)
        : encode_word(out, b, w, err);
}

static bool bpe_decode(qkv_text *out, const void *state, const qkv_vocab *v,
                       const int32_t *ids, int64_t n, qkv_error *err)
{
    (void)state;
    for (int64_t i = 0; i < n; i++) {
        const qkv_slice piece = qkv_vocab_piece(v, ids[i]);
        if (!qkv_text_put(out, piece.data, piece.bytes, err))
            return false;
    }
    return true;
}

const qkv_algorithm qkv_bpe_algorithm = {
    .name = "byte-level BPE",
    .prepare = bpe_prepare,
    .encode = bpe_encode,
    .decode = bpe_decode,
    .free = bpe_free,
};
