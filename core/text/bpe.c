/*
 * bpe.c - byte-level byte-pair encoding: see bpe.h
 *
 * Merges lie in rank order, each a pair of ids and the id of the whole; a hash
 * of 32-bit slots (rank + 1 in 24 bits, 8 bits of the hash) finds a pair's
 * rank, and that a pair has none, mostly from one slot. A word of up to SHORT
 * bytes, as almost all are, is merged in two arrays on the stack: find the
 * lowest rank, merge, look its two neighbours up again. A longer one (a run of
 * blanks, a DNA sequence) is a linked list with a heap, n log n. Words of up
 * to WORD_BYTES are remembered, since texts repeat themselves: a direct-mapped
 * cache of one line of memory a word.
 */
#include "config.h"

#include "text/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "text/unicode.h"

enum {
    SHORT = 48,                 /* bytes of a word merged on the stack */
    WORD_BYTES = 32,            /* of a word in the cache */
    WORD_IDS = 7,
    CACHE_BITS = 13,            /* 8192 words, 512 KB */
    FEW_WORDS = 2000            /* before there is a cache */
};
#define NO_RANK UINT32_MAX

typedef struct merge {          /* left -1: of characters that are no bytes */
    int32_t left, right, whole;
} merge;

typedef struct word {           /* 64 bytes */
    uint64_t key[4];            /* its bytes, as word_key lays them */
    uint16_t bytes, count;      /* bytes 0: an empty line */
    int32_t ids[WORD_IDS];
} word;

struct qkv_bpe {
    qkv_text unread;            /* merges as bpe.h says, not looked up yet */
    int64_t n_merges;
    merge *merges;              /* [n_merges], by rank */
    uint32_t *slots;            /* [mask + 1] */
    size_t mask;
    word *cache;                /* NULL until texts get long */
    int n_words;                /* seen before that */
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
    qkv_text_free(&b->unread);
    qkv_free(b->merges);
    qkv_free(b->slots);
    qkv_free(b->cache);
    qkv_free(b);
}

bool qkv_bpe_put_merges(qkv_bpe *b, int64_t count, const void *block,
                        size_t bytes, qkv_error *err)
{
    if (count > QKV_MOST_IDS - b->n_merges)
        return qkv_fail(err, QKV_EFORMAT,
                        "%lld merges, at most %d are expected",
                        (long long)count, QKV_MOST_IDS);
    b->n_merges += count;
    return qkv_text_put(&b->unread, block, bytes, err);
}

bool qkv_bpe_put_merge(qkv_bpe *b, qkv_slice left, qkv_slice right,
                       qkv_error *err)
{
    const uint64_t bytes = (uint64_t)left.bytes + right.bytes + 1;
    char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (char)(bytes >> (8 * i) & 0xFF);
    return qkv_bpe_put_merges(b, 1, length, sizeof length, err)
        && qkv_text_put(&b->unread, left.data, left.bytes, err)
        && qkv_text_put(&b->unread, " ", 1, err)
        && qkv_text_put(&b->unread, right.data, right.bytes, err);
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
static inline uint32_t *slot_of(const qkv_bpe *b, int32_t left, int32_t right,
                                uint32_t *tag)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right)
        * UINT64_C(0x9E3779B97F4A7C15);
    h = (h ^ h >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    *tag = (uint32_t)(h & 0xFF000000u);
    for (size_t i = (size_t)(h >> 32) & b->mask; ; i = (i + 1) & b->mask) {
        const uint32_t slot = b->slots[i];
        if (slot == 0)
            return &b->slots[i];
        const merge *m = &b->merges[(slot & 0xFFFFFF) - 1];
        if ((slot & 0xFF000000u) == *tag && m->left == left
            && m->right == right)
            return &b->slots[i];
    }
}

/* The rank of two neighbours; NO_RANK: they stay two. */
static inline uint32_t rank_of(const qkv_bpe *b, int32_t left, int32_t right)
{
    uint32_t tag;
    return (*slot_of(b, left, right, &tag) & 0xFFFFFF) - 1;
}

/* "left right"; a left part may begin with a blank itself. NULL: one part. */
static const char *gap_of(qkv_slice m)
{
    return m.bytes < 2 ? NULL : memchr(m.data + 1, ' ', m.bytes - 1);
}

/* The next merge of the unread; *at moves on. */
static qkv_slice next_merge(const char **at)
{
    uint64_t bytes = 0;
    for (int i = 7; i >= 0; i--)
        bytes = bytes << 8 | (unsigned char)(*at)[i];
    const qkv_slice m = {*at + 8, (size_t)bytes};
    *at += 8 + m.bytes;
    return m;
}

static bool bad_merge(int64_t rank, qkv_slice m, const char *why,
                      qkv_error *err)
{
    return qkv_fail(err, QKV_EFORMAT, "merge %lld \"%.*s\": %s",
                    (long long)rank, (int)(m.bytes < 80 ? m.bytes : 80),
                    m.data, why);
}

/* The id of a merge's whole: mostly the one after the last merge's. */
static int32_t find_whole(const qkv_vocab *v, qkv_slice whole, int32_t guess)
{
    if (guess < v->size && v->flags[guess] == QKV_PIECE_THERE) {
        const qkv_slice piece = qkv_vocab_piece(v, guess);
        if (piece.bytes == whole.bytes
            && memcmp(piece.data, whole.data, whole.bytes) == 0)
            return guess;
    }
    return qkv_vocab_find(v, whole);
}

/* Looks up what a merge names; raw has room for its bytes; *id is that of the
 * last whole. A merge of characters that stand for no byte is passed over: no
 * text has them. */
static bool read_merge(qkv_bpe *b, const qkv_vocab *v, int64_t rank,
                       qkv_slice m, char *raw, int32_t *id, qkv_error *err)
{
    const char *gap = gap_of(m);
    size_t n, more;
    b->merges[rank].left = -1;
    if (gap == NULL)
        return bad_merge(rank, m, "two parts with a blank between them are "
                         "expected", err);
    const size_t first = (size_t)(gap - m.data);
    if (!qkv_byte_level_read(raw, &n, (qkv_slice){m.data, first})
        || !qkv_byte_level_read(raw + n, &more, (qkv_slice){
               gap + 1, m.bytes - first - 1}))
        return true;
    const int32_t left = qkv_vocab_find(v, (qkv_slice){raw, n});
    const int32_t right = qkv_vocab_find(v, (qkv_slice){raw + n, more});
    *id = find_whole(v, (qkv_slice){raw, n + more}, *id + 1);
    if (left < 0 || right < 0 || *id < 0)
        return bad_merge(rank, m, left < 0 ? "the first part is no token"
                         : right < 0 ? "the second part is no token"
                         : "the whole is no token", err);
    uint32_t tag, *slot = slot_of(b, left, right, &tag);
    b->merges[rank] = (merge){left, right, *id};
    *slot = tag | (uint32_t)(rank + 1);     /* of doubles the last counts */
    return true;
}

static bool read_merges(qkv_bpe *b, const qkv_vocab *v, qkv_error *err)
{
    /* No merge is longer than all of them. */
    char *raw = qkv_alloc(b->unread.bytes, err);
    bool done = raw != NULL;
    const char *at = b->unread.data;
    int32_t id = 0;
    for (int64_t rank = 0; done && rank < b->n_merges; rank++)
        done = read_merge(b, v, rank, next_merge(&at), raw, &id, err)
            && ((rank & 0xFFFF) != 0xFFFF || qkv_check(err));
    qkv_free(raw);
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
    b->mask = room - 1;
    qkv_free(b->merges);        /* of a preparation that broke off */
    qkv_free(b->slots);
    b->slots = NULL;
    b->merges = qkv_alloc((size_t)b->n_merges * sizeof *b->merges, err);
    if (b->merges != NULL)
        b->slots = qkv_alloc_zero(room, sizeof *b->slots, err);
    if (b->slots == NULL || !read_merges(b, v, err))
        return false;
    qkv_text_free(&b->unread);
    b->ready = true;
    return true;
}

/* ---- merging ---- */

/* ids [n] are merged in place; the new count. n <= SHORT. */
static int merge_short(const qkv_bpe *b, int32_t *ids, int n)
{
    uint32_t rank[SHORT];       /* of ids[i] with ids[i + 1] */
    for (int i = 0; i + 1 < n; i++)
        rank[i] = rank_of(b, ids[i], ids[i + 1]);
    while (n > 1) {
        int best = 0;
        for (int i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_RANK)
            break;
        ids[best] = b->merges[rank[best]].whole;
        n--;
        for (int i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            rank[i - 1] = rank[i];
        }
        if (best > 0)
            rank[best - 1] = rank_of(b, ids[best - 1], ids[best]);
        if (best + 1 < n)
            rank[best] = rank_of(b, ids[best], ids[best + 1]);
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
    int32_t id;
    int32_t previous, next;     /* -1: none */
    uint32_t rank;              /* NO_RANK: no merge, or merged away */
} symbol;

static void rank_symbol(const qkv_bpe *b, symbol *s, int32_t i,
                        uint64_t *heap, size_t *n_heap)
{
    if (i < 0)
        return;
    s[i].rank = s[i].next < 0 ? NO_RANK
        : rank_of(b, s[i].id, s[s[i].next].id);
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
        s[i].id = b->merges[s[i].rank].whole;
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
            s[i] = (symbol){ids[i], i - 1, i + 1 < *n ? i + 1 : -1, NO_RANK};
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

static inline uint64_t load(const char *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* key = the word's bytes, in loads that overlap: with its length they tell it
 * from all others. 0 < bytes <= WORD_BYTES. */
static inline void word_key(uint64_t key[4], qkv_slice w)
{
    const char *p = w.data, *end = w.data + w.bytes;
    key[0] = key[1] = key[2] = key[3] = 0;
    if (w.bytes >= 8) {
        key[0] = load(p);
        key[1] = load(end - 8);
        if (w.bytes > 16) {
            key[2] = load(p + 8);
            key[3] = load(end - 16);
        }
    } else if (w.bytes >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, end - 4, 4);
        key[0] = first | (uint64_t)last << 32;
    } else {
        key[0] = (unsigned char)p[0]
            | (uint64_t)(unsigned char)p[w.bytes / 2] << 8
            | (uint64_t)(unsigned char)end[-1] << 16;
    }
}

static inline word *line_of(const qkv_bpe *b, const uint64_t key[4],
                            size_t bytes)
{
    const uint64_t k = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t h = (key[0] ^ bytes << 56) * k;
    h = (h ^ h >> 32 ^ key[1] ^ key[2] * 31 ^ key[3] * 961) * k;
    h ^= h >> 32;
    return &b->cache[h * k >> (64 - CACHE_BITS)];
}

static bool encode_cached(qkv_tokens *out, qkv_bpe *b, qkv_slice w,
                          qkv_error *err)
{
    uint64_t key[4];
    word_key(key, w);
    word *line = line_of(b, key, w.bytes);
    if (!qkv_tokens_reserve(out, WORD_BYTES, err))
        return false;
    int32_t *ids = out->ids + out->count;
    if (line->bytes == w.bytes && line->key[0] == key[0]
        && line->key[1] == key[1] && line->key[2] == key[2]
        && line->key[3] == key[3]) {
        memcpy(ids, line->ids, sizeof line->ids);   /* of which count count */
        out->count += line->count;
        return true;
    }
    if (!encode_word(out, b, w, err))
        return false;
    const int64_t n = out->ids + out->count - ids;
    if (n <= WORD_IDS) {
        memcpy(line->key, key, sizeof key);
        memcpy(line->ids, ids, (size_t)n * sizeof *ids);
        line->bytes = (uint16_t)w.bytes;
        line->count = (uint16_t)n;
    }
    return true;
}

/* The cache comes with the FEW_WORDS-th word: a prompt does not need it. */
static bool have_cache(qkv_bpe *b)
{
    qkv_error unused;           /* without it words are merged again */
    if (b->cache == NULL && b->n_words < FEW_WORDS
        && ++b->n_words == FEW_WORDS)
        b->cache = qkv_alloc_zero((size_t)1 << CACHE_BITS, sizeof *b->cache,
                                  &unused);
    return b->cache != NULL;
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
    return w.bytes <= WORD_BYTES && have_cache(b)
        ? encode_cached(out, b, w, err) : encode_word(out, b, w, err);
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
