/*
 * tokenizer_gguf.c - a tokenizer from GGUF metadata
 *
 *     tokenizer.ggml.model            "gpt2": byte-level BPE; others are named
 *     tokenizer.ggml.pre              which splits: the table below
 *     tokenizer.ggml.tokens           pieces, in id order
 *     tokenizer.ggml.token_type       1 normal, 2 unknown, 3 control,
 *                                     4 user defined, 5 unused, 6 byte
 *     tokenizer.ggml.merges           "left right", in rank order
 *     tokenizer.ggml.{bos,eos}_token_id, add_{bos,eos}_token
 *
 * (ggml's docs/gguf.md). Splits, by the name that llama.cpp's converter gives
 * them, are those of the tokenizer.json that the name stands for. Text of
 * types 2 to 4 is as written; that of normal pieces is bytes as characters.
 * GGUF does not say which added tokens take the blanks beside them.
 */
#include "config.h"

#include <string.h>

#include "text/bpe.h"
#include "text/tokenizer_impl.h"

/* ---- splits by name ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CL100K(digits) \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char llama3[] = CL100K("\\p{N}{1,3}");
static const char qwen2[] = CL100K("\\p{N}");

typedef struct split_row {
    const char *name;
    const char *steps[4];
    bool ignore_merges, add_bos, nfc;
} split_row;

/* The row "default" is llama.cpp's for files that do not say. */
static const split_row splits[] = {
    {.name = "default", .steps = {
        "[\\p{P}\\$\\+<=>\\^~\\|]+",
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
        "|\\s+(?!\\S)", "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.name = "gpt-2", .steps = {QKV_GPT2_PATTERN}},
    {.name = "mpt", .steps = {QKV_GPT2_PATTERN}},
    {.name = "olmo", .steps = {QKV_GPT2_PATTERN}},
    {.name = "jais", .steps = {QKV_GPT2_PATTERN}},
    {.name = "smollm", .steps = {QKV_DIGIT_PATTERN, QKV_GPT2_PATTERN}},
    {.name = "starcoder", .steps = {QKV_DIGIT_PATTERN, QKV_GPT2_PATTERN}},
    {.name = "refact", .steps = {QKV_DIGIT_PATTERN, QKV_GPT2_PATTERN}},
    {.name = "command-r", .steps = {QKV_DIGIT_PATTERN, QKV_GPT2_PATTERN}},
    {.name = "codeshell", .steps = {QKV_DIGIT_PATTERN, QKV_GPT2_PATTERN}},
    {.name = "llama-bpe", .steps = {llama3}, .ignore_merges = true,
     .add_bos = true},
    {.name = "dbrx", .steps = {llama3}},
    {.name = "smaug-bpe", .steps = {llama3}},
    {.name = "qwen2", .steps = {qwen2}, .nfc = true},
    {.name = "deepseek-r1-qwen", .steps = {qwen2}, .nfc = true},
};

static const split_row *row_of(qkv_slice name, qkv_error *err)
{
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++)
        if (qkv_json_is(&name, splits[i].name))
            return &splits[i];
    qkv_fail(err, QKV_EUNSUPPORTED,
             "the tokenizer's split \"%.*s\" (tokenizer.ggml.pre)",
             (int)(name.bytes < 80 ? name.bytes : 80), name.data);
    return NULL;
}

/* A string, or `absent` when there is no such key. */
static bool string_or(qkv_slice *out, const qkv_gguf *g, const char *key,
                      const char *absent, qkv_error *err)
{
    *out = (qkv_slice){absent, strlen(absent)};
    return !qkv_gguf_has(g, key) || qkv_gguf_string(out, g, key, err);
}

static bool integer_or(int64_t *out, const qkv_gguf *g, const char *key,
                       int64_t absent, qkv_error *err)
{
    *out = absent;
    return !qkv_gguf_has(g, key) || qkv_gguf_integer(out, g, key, err);
}

static bool read_split(qkv_tokenizer *t, bool *add_bos, const qkv_gguf *g,
                       qkv_error *err)
{
    qkv_slice name;
    if (!string_or(&name, g, "tokenizer.ggml.pre", "default", err))
        return false;
    const split_row *row = row_of(name, err);
    if (row == NULL)
        return false;
    for (size_t i = 0; i < 4 && row->steps[i] != NULL; i++) {
        const qkv_split split = {
            .pattern = {row->steps[i], strlen(row->steps[i])}};
        if (!qkv_pretokenizer_add_split(t->words, &split, err))
            return false;
    }
    if (row->ignore_merges)
        qkv_bpe_ignore_merges(t->state);
    t->nfc = row->nfc;
    *add_bos = row->add_bos;
    return true;
}

/* ---- pieces ---- */

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4 };

static bool put_piece(qkv_tokenizer *t, int64_t id, qkv_slice piece, int type,
                      qkv_error *err)
{
    if (!qkv_vocab_put_byte_level(t->vocab, id, piece, err))
        return false;
    if (type < UNKNOWN || type > USER_DEFINED)
        return true;
    const qkv_special what = {.id = (int32_t)id};
    return qkv_tokenizer_add(t, piece, what, type != USER_DEFINED, false, err);
}

/* The bytes that a list of strings takes in the file: its text at most. */
static size_t list_bytes(qkv_gguf_array list)
{
    const unsigned char *begin = list.at;
    for (int64_t i = 0; i < list.count; i++)
        qkv_gguf_next_string(&list);
    return (size_t)(list.at - begin);
}

static bool strings_of(qkv_gguf_array *out, const qkv_gguf *g,
                       const char *key, qkv_error *err)
{
    if (!qkv_gguf_array_of(out, g, key, err))
        return false;
    if (out->type != QKV_GGUF_STRING)
        return qkv_fail(err, QKV_EFORMAT, "%s is not a list of strings", key);
    return true;
}

static bool read_pieces(qkv_tokenizer *t, const qkv_gguf *g, qkv_error *err)
{
    static const char types_key[] = "tokenizer.ggml.token_type";
    qkv_gguf_array tokens, types = {0};
    if (!strings_of(&tokens, g, "tokenizer.ggml.tokens", err)
        || !qkv_vocab_reserve(t->vocab, tokens.count,
                              list_bytes(tokens), err))
        return false;
    const bool typed = qkv_gguf_has(g, types_key);
    if (typed && !qkv_gguf_array_of(&types, g, types_key, err))
        return false;
    if (tokens.count == 0 || (typed && types.count != tokens.count))
        return qkv_fail(err, QKV_EFORMAT,
                        "%lld tokens and %lld token types in the file",
                        (long long)tokens.count, (long long)types.count);
    if (typed && (types.type == QKV_GGUF_STRING
                  || types.type == QKV_GGUF_ARRAY))
        return qkv_fail(err, QKV_EFORMAT, "%s is not a list of numbers",
                        types_key);
    for (int64_t id = 0; id < tokens.count; id++) {
        const double type = typed ? qkv_gguf_next_number(&types)
                                  : (double)NORMAL;
        if (!put_piece(t, id, qkv_gguf_next_string(&tokens),
                       type >= 0 && type <= 6 ? (int)type : NORMAL, err))
            return false;
    }
    return true;
}

static bool read_merges(qkv_tokenizer *t, const qkv_gguf *g, qkv_error *err)
{
    qkv_gguf_array merges;
    if (!strings_of(&merges, g, "tokenizer.ggml.merges", err))
        return false;
    return qkv_bpe_put_merges(t->state, merges.count, merges.at,
                              list_bytes(merges), err);
}

/* ---- what is put around a text ---- */

/* The id under key, -1 if there is none. Its token is special, whatever its
 * type says. */
static bool read_id(int32_t *out, qkv_tokenizer *t, const qkv_gguf *g,
                    const char *key, qkv_error *err)
{
    int64_t id;
    if (!integer_or(&id, g, key, -1, err))
        return false;
    /* Files say "none" as 4294967295, too. */
    *out = id == -1 || id == UINT32_MAX ? -1 : (int32_t)id;
    if (*out == -1)
        return true;
    if (id < 0 || id >= t->vocab->size)
        return qkv_fail(err, QKV_EFORMAT, "%s is %lld: ids run 0..%lld", key,
                        (long long)id, (long long)t->vocab->size - 1);
    t->vocab->flags[id] =
        (unsigned char)(t->vocab->flags[id] | QKV_PIECE_SPECIAL);
    return true;
}

static bool read_template(qkv_tokenizer *t, const qkv_gguf *g, bool add_bos,
                          qkv_error *err)
{
    int64_t bos, eos;
    if (!read_id(&t->bos, t, g, "tokenizer.ggml.bos_token_id", err)
        || !read_id(&t->eos, t, g, "tokenizer.ggml.eos_token_id", err)
        || !integer_or(&bos, g, "tokenizer.ggml.add_bos_token", add_bos, err)
        || !integer_or(&eos, g, "tokenizer.ggml.add_eos_token", false, err))
        return false;
    t->single.n = t->pair.n = 0;
    for (int k = 0; k < 2; k++) {
        const int32_t slot = k == 0 ? QKV_SLOT_A : QKV_SLOT_B;
        if (bos && t->bos >= 0 && !qkv_template_put(&t->pair, t->bos, k, err))
            return false;
        if (!qkv_template_put(&t->pair, slot, k, err))
            return false;
        if (eos && t->eos >= 0 && !qkv_template_put(&t->pair, t->eos, k, err))
            return false;
        if (k == 0)
            t->single = t->pair;
    }
    return true;
}

/* ---- the whole ---- */

static bool check_kind(const qkv_gguf *g, qkv_error *err)
{
    static const char *const kinds[][2] = {
        {"llama", "SentencePiece BPE"}, {"bert", "WordPiece"},
        {"t5", "Unigram"}, {"rwkv", "RWKV's longest match"},
        {"none", "no tokenizer at all"},
    };
    qkv_slice model;
    if (!qkv_gguf_string(&model, g, "tokenizer.ggml.model", err))
        return false;
    if (qkv_json_is(&model, "gpt2"))
        return true;
    const char *kind = "a kind unknown here";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (qkv_json_is(&model, kinds[i][0]))
            kind = kinds[i][1];
    return qkv_fail(err, QKV_EUNSUPPORTED, "a tokenizer of the kind \"%.*s\" "
                    "(%s): byte-level BPE (\"gpt2\") is read",
                    (int)(model.bytes < 80 ? model.bytes : 80), model.data,
                    kind);
}

qkv_tokenizer *qkv_tokenizer_from_gguf(const qkv_gguf *g, qkv_error *err)
{
    bool add_bos;
    if (!check_kind(g, err))
        return NULL;
    qkv_tokenizer *t = qkv_tokenizer_new(&qkv_bpe_algorithm, err);
    if (t == NULL)
        return NULL;
    if ((t->state = qkv_bpe_new(err)) != NULL && read_split(t, &add_bos, g, err)
        && read_pieces(t, g, err) && read_merges(t, g, err)
        && read_template(t, g, add_bos, err)) {
        qkv_specials_ready(&t->raw);
        qkv_specials_ready(&t->normalized);
        return t;
    }
    qkv_tokenizer_release(t);
    return NULL;
}
