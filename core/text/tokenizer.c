/*
 * tokenizer.c - text to token ids and back: see tokenizer.h
 *
 * The path of a text is drawn in tokenizer_impl.h; each stage hands its
 * pieces to the next by a callback, so that nothing is copied but what must
 * change (bytes that are not UTF-8, text that is not NFC).
 */
#include "config.h"

#include "text/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

/* ---- lists of ids ---- */

void qkv_tokens_free(qkv_tokens *t)
{
    qkv_free(t->ids);
    *t = (qkv_tokens){0};
}

bool qkv_tokens_reserve(qkv_tokens *t, int64_t more, qkv_error *err)
{
    if (more <= t->room - t->count)
        return true;
    int64_t room;
    size_t bytes;
    if (!qkv_int_add(&room, t->count, more)
        || !qkv_int_add(&room, room, t->room / 2 + 16)
        || !qkv_size_mul(&bytes, (size_t)room, sizeof *t->ids))
        return qkv_fail(err, QKV_ENOMEM, "no memory for %lld tokens",
                        (long long)more);
    int32_t *ids = qkv_realloc(t->ids, bytes, err);
    if (ids == NULL)
        return false;
    t->ids = ids;
    t->room = room;
    return true;
}

bool qkv_tokens_put(qkv_tokens *t, int32_t id, qkv_error *err)
{
    if (!qkv_tokens_reserve(t, 1, err))
        return false;
    t->ids[t->count++] = id;
    return true;
}

/* ---- life ---- */

qkv_tokenizer *qkv_tokenizer_new(const qkv_algorithm *algorithm,
                                 qkv_error *err)
{
    qkv_tokenizer *t = qkv_alloc_zero(1, sizeof *t, err);
    if (t == NULL)
        return NULL;
    t->refs = 1;
    t->bos = t->eos = -1;
    t->algorithm = algorithm;
    t->single = (qkv_template){1, {{QKV_SLOT_A, 0}}};
    t->pair = (qkv_template){2, {{QKV_SLOT_A, 0}, {QKV_SLOT_B, 1}}};
    t->vocab = qkv_alloc_zero(1, sizeof *t->vocab, err);
    if (t->vocab == NULL
        || (t->words = qkv_pretokenizer_new(true, err)) == NULL) {
        qkv_tokenizer_release(t);
        return NULL;
    }
    return t;
}

qkv_tokenizer *qkv_tokenizer_retain(qkv_tokenizer *t)
{
    t->refs++;
    return t;
}

void qkv_tokenizer_release(qkv_tokenizer *t)
{
    if (t == NULL || --t->refs > 0)
        return;
    if (t->vocab != NULL)
        qkv_vocab_free(t->vocab);
    qkv_free(t->vocab);
    qkv_specials_free(&t->raw);
    qkv_specials_free(&t->normalized);
    qkv_pretokenizer_free(t->words);
    t->algorithm->free(t->state);
    qkv_free(t);
}

/* "<dir>/tokenizer.json" */
static qkv_tokenizer *open_directory(const char *path, qkv_error *err)
{
    qkv_text file = {0};
    qkv_tokenizer *t = NULL;
    if (qkv_text_printf(&file, err, "%s/tokenizer.json", path)) {
        if (qkv_is_file(file.data))
            t = qkv_tokenizer_from_json(file.data, err);
        else
            qkv_fail(err, QKV_ENOTFOUND, "%s has no tokenizer.json", path);
    }
    qkv_text_free(&file);
    return t;
}

/* Does the file begin with GGUF's four letters? */
static bool is_gguf(const char *path, qkv_error *err, bool *gguf)
{
    qkv_map *map = qkv_map_open(path, err);
    if (map == NULL)
        return false;
    *gguf = map->bytes >= 4 && memcmp(map->data, "GGUF", 4) == 0;
    qkv_map_release(map);
    return true;
}

qkv_tokenizer *qkv_tokenizer_open(const char *path, qkv_error *err)
{
    bool gguf;
    if (qkv_is_directory(path))
        return open_directory(path, err);
    if (!is_gguf(path, err, &gguf))
        return NULL;
    if (!gguf)
        return qkv_tokenizer_from_json(path, err);
    qkv_gguf *g = qkv_gguf_open(path, err);
    if (g == NULL)
        return NULL;
    qkv_tokenizer *t = qkv_tokenizer_from_gguf(g, err);
    qkv_gguf_close(g);
    return t;
}

/* ---- what readers use ---- */

bool qkv_tokenizer_split_gpt2(qkv_tokenizer *t, bool digits, qkv_error *err)
{
    const qkv_split digit = {
        .pattern = {QKV_DIGIT_PATTERN, strlen(QKV_DIGIT_PATTERN)}};
    const qkv_split gpt2 = {
        .pattern = {QKV_GPT2_PATTERN, strlen(QKV_GPT2_PATTERN)}};
    return (!digits || qkv_pretokenizer_add_split(t->words, &digit, err))
        && qkv_pretokenizer_add_split(t->words, &gpt2, err);
}

bool qkv_tokenizer_add(qkv_tokenizer *t, qkv_slice text, qkv_special what,
                       bool special, bool normalized, qkv_error *err)
{
    /* Words become it only if the vocabulary has it, too. */
    const bool known = what.id < t->vocab->size
        && (t->vocab->flags[what.id] & QKV_PIECE_THERE) != 0
        && (t->vocab->flags[what.id] & QKV_PIECE_HIDDEN) == 0;
    const unsigned flags = (unsigned)QKV_PIECE_ADDED
        | (special ? (unsigned)QKV_PIECE_SPECIAL : 0u)
        | (known ? 0u : (unsigned)QKV_PIECE_HIDDEN);
    if (!qkv_vocab_put(t->vocab, what.id, text, flags, err))
        return false;
    if (!normalized)
        return qkv_specials_add(&t->raw, text, what, err);
    if (!t->nfc || qkv_is_plain_nfc(text))
        return qkv_specials_add(&t->normalized, text, what, err);
    qkv_text nfc = {0};
    const bool done = qkv_nfc(&nfc, text, err)
        && qkv_specials_add(&t->normalized, (qkv_slice){nfc.data, nfc.bytes},
                            what, err);
    qkv_text_free(&nfc);
    return done;
}

bool qkv_template_put(qkv_template *t, int32_t id, int32_t type,
                      qkv_error *err)
{
    if (t->n == QKV_TEMPLATE_ITEMS)
        return qkv_fail(err, QKV_EUNSUPPORTED,
                        "a post-processor that adds over %d tokens",
                        QKV_TEMPLATE_ITEMS - 2);
    t->item[t->n++] = (qkv_template_item){id, type};
    return true;
}

/* ---- questions ---- */

const char *qkv_tokenizer_kind(const qkv_tokenizer *t)
{
    return t->algorithm->name;
}

int64_t qkv_tokenizer_size(const qkv_tokenizer *t)
{
    return t->vocab->size;
}

int32_t qkv_tokenizer_bos(const qkv_tokenizer *t)
{
    return t->bos;
}

int32_t qkv_tokenizer_eos(const qkv_tokenizer *t)
{
    return t->eos;
}

bool qkv_tokenizer_is_special(const qkv_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab->size
        && (t->vocab->flags[id] & QKV_PIECE_SPECIAL) != 0;
}

int32_t qkv_tokenizer_token(const qkv_tokenizer *t, qkv_slice text)
{
    qkv_error unused;           /* without a hash it is a walk, not a failure */
    int32_t id = qkv_specials_find(&t->raw, text);
    if (id < 0)
        id = qkv_specials_find(&t->normalized, text);
    if (id >= 0)
        return id;
    qkv_vocab_index(t->vocab, &unused);
    return qkv_vocab_find(t->vocab, text);
}

/* ---- text to ids ---- */

typedef struct encoding {       /* one call */
    const qkv_tokenizer *t;
    qkv_tokens *out;
    size_t since_check;         /* bytes since Ctrl-C was asked for */
} encoding;

enum { CHECK_BYTES = 1 << 17 }; /* some milliseconds of work */

static bool put_word(void *context, qkv_slice word, qkv_error *err)
{
    encoding *e = context;
    const qkv_tokenizer *t = e->t;
    e->since_check += word.bytes;
    if (e->since_check > CHECK_BYTES) {
        e->since_check = 0;
        if (!qkv_check(err))
            return false;
    }
    return t->algorithm->encode(e->out, t->state, t->vocab, word, err);
}

static bool put_normalized(void *context, qkv_slice text, int32_t id,
                           qkv_error *err)
{
    encoding *e = context;
    if (id >= 0)
        return qkv_tokens_put(e->out, id, err);
    return qkv_pretokenize(e->t->words, text, put_word, e, err);
}

static bool put_raw(void *context, qkv_slice text, int32_t id, qkv_error *err)
{
    encoding *e = context;
    const qkv_tokenizer *t = e->t;
    if (id >= 0)
        return qkv_tokens_put(e->out, id, err);
    if (!t->nfc || qkv_is_plain_nfc(text))
        return qkv_specials_split(&t->normalized, text, put_normalized, e,
                                  err);
    qkv_text nfc = {0};
    const bool done = qkv_nfc(&nfc, text, err)
        && qkv_specials_split(&t->normalized,
                              (qkv_slice){nfc.data, nfc.bytes},
                              put_normalized, e, err);
    qkv_text_free(&nfc);
    return done;
}

/* Appends the ids of text, with nothing around them. */
static bool encode_text(qkv_tokens *out, const qkv_tokenizer *t,
                        qkv_slice text, qkv_error *err)
{
    encoding e = {t, out, 0};
    if (qkv_utf8_valid(text.data, text.bytes) == text.bytes)
        return qkv_specials_split(&t->raw, text, put_raw, &e, err);
    qkv_text repaired = {0};
    const bool done = qkv_utf8_repair(&repaired, text, err)
        && qkv_specials_split(&t->raw,
                              (qkv_slice){repaired.data, repaired.bytes},
                              put_raw, &e, err);
    qkv_text_free(&repaired);
    return done;
}

static bool fill_template(qkv_tokens *out, qkv_tokens *types,
                          const qkv_tokenizer *t, const qkv_template *plan,
                          const qkv_slice text[2], qkv_error *err)
{
    for (int i = 0; i < plan->n; i++) {
        const qkv_template_item *item = &plan->item[i];
        const int64_t before = out->count;
        const bool done = item->id >= 0 ? qkv_tokens_put(out, item->id, err)
            : encode_text(out, t, text[item->id == QKV_SLOT_B], err);
        if (!done)
            return false;
        for (int64_t k = before; types != NULL && k < out->count; k++)
            if (!qkv_tokens_put(types, item->type, err))
                return false;
    }
    return true;
}

static bool encode(qkv_tokens *out, qkv_tokens *types,
                   const qkv_tokenizer *t, const qkv_template *plan,
                   const qkv_slice text[2], qkv_error *err)
{
    const int64_t n_out = out->count, n_types = types ? types->count : 0;
    if (t->algorithm->prepare(t->state, t->vocab, err)
        && fill_template(out, types, t, plan, text, err))
        return true;
    out->count = n_out;
    if (types != NULL)
        types->count = n_types;
    return false;
}

bool qkv_tokenizer_encode(qkv_tokens *out, const qkv_tokenizer *t,
                          qkv_slice text, bool special, qkv_error *err)
{
    static const qkv_template bare = {1, {{QKV_SLOT_A, 0}}};
    const qkv_slice texts[2] = {text, {"", 0}};
    return encode(out, NULL, t, special ? &t->single : &bare, texts, err);
}

bool qkv_tokenizer_encode_pair(qkv_tokens *out, qkv_tokens *types,
                               const qkv_tokenizer *t, qkv_slice text,
                               qkv_slice pair, bool special, qkv_error *err)
{
    static const qkv_template bare = {2, {{QKV_SLOT_A, 0}, {QKV_SLOT_B, 1}}};
    const qkv_slice texts[2] = {text, pair};
    return encode(out, types, t, special ? &t->pair : &bare, texts, err);
}

/* ---- ids to text ---- */

bool qkv_tokenizer_decode(qkv_text *out, const qkv_tokenizer *t,
                          const int32_t *ids, int64_t n, qkv_error *err)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->vocab->size)
            return qkv_fail(err, QKV_EINVAL,
                            "token id %d at %lld: ids run 0..%lld", ids[i],
                            (long long)i, (long long)t->vocab->size - 1);
    return t->algorithm->decode(out, t->state, t->vocab, ids, n, err);
}
