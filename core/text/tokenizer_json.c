/*
 * tokenizer_json.c - a tokenizer from Hugging Face's tokenizer.json
 *
 *     added_tokens    {id, content, flags}: special.h
 *     normalizer      null, NFC, Sequence of these
 *     pre_tokenizer   null, ByteLevel, Digits, Split, Sequence of these
 *     model           BPE {vocab: piece -> id, merges: ["a b"] or [["a", "b"]]}
 *     post_processor  null, ByteLevel, TemplateProcessing, RobertaProcessing,
 *                     BertProcessing, Sequence of these
 *     decoder         ByteLevel
 *
 * The model is most of the file and is read as it is met; the small sections
 * are noted and read after it, since what they mean depends on it. Whatever
 * is not in this list is EUNSUPPORTED by its name: a tokenizer that is almost
 * right gives wrong numbers in silence. Source: the serde attributes of
 * huggingface/tokenizers.
 */
#include "config.h"

#include <string.h>

#include "text/bpe.h"
#include "text/tokenizer_impl.h"

/* A section noted for later; bytes 0: absent. */
typedef qkv_slice section;

typedef struct reader {
    qkv_tokenizer *t;
    qkv_bpe *bpe;
    bool have_model, have_vocab, byte_level;
    qkv_text unknown;           /* model.unk_token */
    bool has_unknown, fuse;
    section added, normalizer, words, post, decoder;
    qkv_text raw;               /* scratch */
} reader;

enum { SHOWN = 80 };            /* bytes of a name that a message shows */

static int shown(qkv_slice s)
{
    return s.bytes < SHOWN ? (int)s.bytes : SHOWN;
}

/* ---- failing through the parser ---- */

/* A step with &j->err failed, or did not. */
static bool keep(qkv_json *j, bool done)
{
    if (!done)
        j->failed = true;
    return done;
}

static void unsupported(qkv_json *j, const char *what, qkv_slice name)
{
    if (!j->failed)
        keep(j, qkv_fail(&j->err, QKV_EUNSUPPORTED, "%s \"%.*s\"", what,
                         shown(name), name.data));
}

/* Where the next value stands; it is passed over. */
static section note(qkv_json *j)
{
    qkv_json_peek(j);
    const char *begin = qkv_json_position(j);
    qkv_json_skip(j);
    return (section){begin, (size_t)(qkv_json_position(j) - begin)};
}

/* The string under `key` of the object that s is, copied; "" if none. */
static bool string_in(qkv_text *out, section s, const char *key,
                      qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    out->bytes = 0;
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        if (!qkv_json_is(&k, key) || qkv_json_peek(&j) != QKV_JSON_STRING) {
            qkv_json_skip(&j);
            continue;
        }
        const qkv_slice v = qkv_json_string(&j);
        out->bytes = 0;
        keep(&j, j.failed || qkv_text_put(out, v.data, v.bytes, &j.err));
    }
    return qkv_json_end(&j, err);
}

/* What a section does, by its "type"; a Sequence does each of its members. */
typedef bool section_fn(reader *r, section s, qkv_slice type, qkv_error *err);

typedef struct sequence {
    const char *what;           /* "normalizer" */
    const char *members;        /* the key of a Sequence's list */
    section_fn *read;
} sequence;

static bool read_section(reader *r, section s, const sequence *q, int depth,
                         qkv_error *err);

static bool read_members(reader *r, section s, const sequence *q, int depth,
                         qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        if (!qkv_json_is(&k, q->members)) {
            qkv_json_skip(&j);
            continue;
        }
        for (qkv_json_array(&j); qkv_json_item(&j); ) {
            const section member = note(&j);
            if (!j.failed)
                keep(&j, read_section(r, member, q, depth + 1, &j.err));
        }
    }
    return qkv_json_end(&j, err);
}

static bool read_section(reader *r, section s, const sequence *q, int depth,
                         qkv_error *err)
{
    if (s.bytes == 0 || s.data[0] == 'n')       /* absent or null */
        return true;
    qkv_text name = {0};
    bool done = string_in(&name, s, "type", err);
    const qkv_slice type = {name.data != NULL ? name.data : "", name.bytes};
    if (done && depth > 16)
        done = qkv_fail(err, QKV_EFORMAT, "a %s of Sequences over 16 deep",
                        q->what);
    else if (done && qkv_json_is(&type, "Sequence"))
        done = read_members(r, s, q, depth, err);
    else if (done && !q->read(r, s, type, err)) {
        done = false;
        if (err->code == QKV_OK)
            qkv_fail(err, QKV_EUNSUPPORTED, "a %s of the type \"%.*s\"",
                     q->what, shown(type), type.data);
    }
    qkv_text_free(&name);
    return done;
}

/* What a section_fn returns for a type that it does not know. */
static bool unknown_type(qkv_error *err)
{
    err->code = QKV_OK;
    return false;
}

/* ---- model ---- */

static void put_vocab(reader *r, qkv_json *j)
{
    qkv_slice key;
    for (qkv_json_object(j); qkv_json_key(j, &key); ) {
        /* Valid until the next string; the id is a number. */
        const int64_t id = qkv_json_integer(j);
        if (!j->failed)
            keep(j, qkv_vocab_put_byte_level(r->t->vocab, id, key, &j->err));
    }
    r->have_vocab = true;
}

/* "a b" in old files, ["a", "b"] in new ones. */
static void put_merge(reader *r, qkv_json *j)
{
    if (qkv_json_peek(j) == QKV_JSON_STRING) {
        const qkv_slice m = qkv_json_string(j);
        const char *gap = memchr(m.data, ' ', m.bytes);
        if (j->failed)
            return;
        if (gap == NULL || memchr(gap + 1, ' ', m.bytes
                                  - (size_t)(gap + 1 - m.data)) != NULL) {
            qkv_json_fail(j, "merge \"%.*s\": two parts with one blank "
                          "between them are expected", shown(m), m.data);
            return;
        }
        const size_t left = (size_t)(gap - m.data);
        keep(j, qkv_bpe_put_merge(r->bpe, (qkv_slice){m.data, left},
                                  (qkv_slice){gap + 1, m.bytes - left - 1},
                                  &j->err));
        return;
    }
    size_t left = 0;
    int parts = 0;
    r->raw.bytes = 0;
    for (qkv_json_array(j); qkv_json_item(j); parts++) {
        const qkv_slice part = qkv_json_string(j);
        if (!j->failed)
            keep(j, qkv_text_put(&r->raw, part.data, part.bytes, &j->err));
        left = parts == 0 ? r->raw.bytes : left;
    }
    if (j->failed)
        return;
    if (parts != 2)
        qkv_json_fail(j, "a merge of %d parts, 2 are expected", parts);
    else
        keep(j, qkv_bpe_put_merge(r->bpe, (qkv_slice){r->raw.data, left},
                                  (qkv_slice){r->raw.data + left,
                                              r->raw.bytes - left}, &j->err));
}

/* Facts of a BPE model that must have these values to be ours. */
static bool is_other_bpe(reader *r, qkv_json *j, const qkv_slice *key)
{
    static const qkv_slice fallback = {"byte_fallback", 13};
    static const char *const affixes[] = {
        "continuing_subword_prefix", "end_of_word_suffix"};
    (void)r;
    if (qkv_json_is(key, "byte_fallback")) {
        if (!qkv_json_null(j) && qkv_json_boolean(j))
            unsupported(j, "a tokenizer of the kind SentencePiece BPE, with",
                        fallback);
        return true;
    }
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++) {
        if (!qkv_json_is(key, affixes[i]))
            continue;
        if (!qkv_json_null(j) && qkv_json_string(j).bytes > 0)
            unsupported(j, "a BPE model with", (qkv_slice){
                affixes[i], strlen(affixes[i])});
        return true;
    }
    if (!qkv_json_is(key, "dropout"))
        return false;
    if (!qkv_json_null(j) && qkv_json_number(j) > 0)
        unsupported(j, "a BPE model with", (qkv_slice){"dropout", 7});
    return true;
}

static void read_model(reader *r, qkv_json *j)
{
    qkv_slice key;
    r->have_model = true;
    for (qkv_json_object(j); qkv_json_key(j, &key); ) {
        if (is_other_bpe(r, j, &key))
            continue;
        if (qkv_json_is(&key, "type")) {
            const qkv_slice type = qkv_json_string(j);
            if (!j->failed && !qkv_json_is(&type, "BPE"))
                unsupported(j, "a tokenizer of the kind", type);
        } else if (qkv_json_is(&key, "vocab")) {
            if (qkv_json_peek(j) == QKV_JSON_ARRAY)
                unsupported(j, "a tokenizer of the kind",
                            (qkv_slice){"Unigram", 7});
            put_vocab(r, j);
        } else if (qkv_json_is(&key, "merges")) {
            for (qkv_json_array(j); qkv_json_item(j); )
                put_merge(r, j);
        } else if (qkv_json_is(&key, "unk_token")) {
            if (qkv_json_null(j))
                continue;
            const qkv_slice s = qkv_json_string(j);
            r->has_unknown = true;
            keep(j, j->failed || qkv_text_put(&r->unknown, s.data, s.bytes,
                                              &j->err));
        } else if (qkv_json_is(&key, "fuse_unk")) {
            r->fuse = qkv_json_boolean(j);
        } else if (qkv_json_is(&key, "ignore_merges")) {
            if (qkv_json_boolean(j))
                qkv_bpe_ignore_merges(r->bpe);
        } else {
            qkv_json_skip(j);
        }
    }
}

/* The id of a token by its text as the file writes it; -1 for none. */
static int32_t id_of(reader *r, qkv_slice text)
{
    const qkv_vocab *v = r->t->vocab;
    for (int64_t id = 0; id < v->size; id++) {
        const qkv_slice piece = qkv_vocab_piece(v, id);
        if ((v->flags[id] & QKV_PIECE_THERE) && piece.bytes == text.bytes
            && memcmp(piece.data, text.data, text.bytes) == 0)
            return (int32_t)id;
    }
    return -1;
}

static bool set_unknown(reader *r, qkv_error *err)
{
    if (!r->has_unknown)
        return true;
    const qkv_slice text = {r->unknown.data != NULL ? r->unknown.data : "",
                            r->unknown.bytes};
    const int32_t id = id_of(r, text);
    if (id < 0)
        return qkv_fail(err, QKV_EFORMAT, "the unknown token \"%.*s\" is not "
                        "in the vocabulary", shown(text), text.data);
    qkv_bpe_unknown(r->bpe, id, r->fuse);
    return true;
}

/* ---- added tokens ---- */

static void put_added(reader *r, qkv_json *j)
{
    qkv_slice key;
    qkv_special what = {.id = -1};
    int64_t id = -1;
    bool special = false, normalized = true;
    r->raw.bytes = 0;
    for (qkv_json_object(j); qkv_json_key(j, &key); ) {
        if (qkv_json_is(&key, "id")) {
            id = qkv_json_integer(j);
        } else if (qkv_json_is(&key, "content")) {
            const qkv_slice s = qkv_json_string(j);
            r->raw.bytes = 0;
            keep(j, j->failed
                 || qkv_text_put(&r->raw, s.data, s.bytes, &j->err));
        } else if (qkv_json_is(&key, "special")) {
            special = qkv_json_boolean(j);
        } else if (qkv_json_is(&key, "normalized")) {
            normalized = qkv_json_boolean(j);
        } else if (qkv_json_is(&key, "lstrip")) {
            what.lstrip = qkv_json_boolean(j);
        } else if (qkv_json_is(&key, "rstrip")) {
            what.rstrip = qkv_json_boolean(j);
        } else if (qkv_json_is(&key, "single_word")) {
            what.single_word = qkv_json_boolean(j);
        } else {
            qkv_json_skip(j);
        }
    }
    if (j->failed)
        return;
    if (id < 0 || id >= QKV_MOST_IDS) {
        qkv_json_fail(j, "added token id %lld: 0..%d are expected",
                      (long long)id, QKV_MOST_IDS - 1);
        return;
    }
    what.id = (int32_t)id;
    const qkv_slice text = {r->raw.data != NULL ? r->raw.data : "",
                            r->raw.bytes};
    keep(j, qkv_tokenizer_add(r->t, text, what, special, normalized,
                              &j->err));
}

static bool read_added(reader *r, qkv_error *err)
{
    qkv_json j;
    if (r->added.bytes == 0 || r->added.data[0] == 'n')
        return true;
    qkv_json_begin(&j, r->added.data, r->added.bytes);
    for (qkv_json_array(&j); qkv_json_item(&j); )
        put_added(r, &j);
    return qkv_json_end(&j, err);
}

/* ---- normalizer, decoder ---- */

static bool read_normalizer(reader *r, section s, qkv_slice type,
                            qkv_error *err)
{
    (void)s;
    if (!qkv_json_is(&type, "NFC"))
        return unknown_type(err);
    r->t->nfc = true;
    return true;
}

static bool read_decoder(reader *r, section s, qkv_slice type, qkv_error *err)
{
    (void)s;
    r->byte_level = qkv_json_is(&type, "ByteLevel");
    return r->byte_level || unknown_type(err);
}

/* ---- pre-tokenizer ---- */

static bool read_byte_level(reader *r, section s, qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    bool space = true, regex = true;    /* serde's defaults */
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        if (qkv_json_is(&k, "add_prefix_space"))
            space = qkv_json_boolean(&j);
        else if (qkv_json_is(&k, "use_regex"))
            regex = qkv_json_boolean(&j);
        else
            qkv_json_skip(&j);
    }
    return qkv_json_end(&j, err)
        && (!space || qkv_pretokenizer_add_space(r->t->words, err))
        && (!regex || qkv_tokenizer_split_gpt2(r->t, false, err));
}

static bool read_digits(reader *r, section s, qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    bool each = false;
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        if (qkv_json_is(&k, "individual_digits"))
            each = qkv_json_boolean(&j);
        else
            qkv_json_skip(&j);
    }
    const qkv_split split = {
        .pattern = {QKV_DIGIT_PATTERN, strlen(QKV_DIGIT_PATTERN)},
        .delimiter = each ? QKV_ISOLATED : QKV_CONTIGUOUS};
    return qkv_json_end(&j, err)
        && qkv_pretokenizer_add_split(r->t->words, &split, err);
}

static qkv_delimiter delimiter_of(qkv_json *j, qkv_slice name)
{
    static const char *const names[] = {
        [QKV_ISOLATED] = "Isolated",
        [QKV_REMOVED] = "Removed",
        [QKV_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [QKV_MERGED_WITH_NEXT] = "MergedWithNext",
        [QKV_CONTIGUOUS] = "Contiguous",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (qkv_json_is(&name, names[i]))
            return (qkv_delimiter)i;
    unsupported(j, "a split with the behavior", name);
    return QKV_ISOLATED;
}

/* "pattern": {"Regex": "..."} or {"String": "..."}; the text is copied. */
static void read_pattern(reader *r, qkv_json *j, qkv_split *split)
{
    qkv_slice k;
    for (qkv_json_object(j); qkv_json_key(j, &k); ) {
        split->literal = qkv_json_is(&k, "String");
        if (!split->literal && !qkv_json_is(&k, "Regex"))
            unsupported(j, "a pattern of the kind", k);
        const qkv_slice s = qkv_json_string(j);
        r->raw.bytes = 0;
        keep(j, j->failed || qkv_text_put(&r->raw, s.data, s.bytes, &j->err));
    }
}

static bool read_split(reader *r, section s, qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    qkv_split split = {.delimiter = QKV_ISOLATED};
    r->raw.bytes = 0;
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        if (qkv_json_is(&k, "pattern"))
            read_pattern(r, &j, &split);
        else if (qkv_json_is(&k, "behavior"))
            split.delimiter = delimiter_of(&j, qkv_json_string(&j));
        else if (qkv_json_is(&k, "invert"))
            split.invert = qkv_json_boolean(&j);
        else
            qkv_json_skip(&j);
    }
    if (!qkv_json_end(&j, err))
        return false;
    if (r->raw.bytes == 0)
        return qkv_fail(err, QKV_EFORMAT, "a split without a pattern");
    split.pattern = (qkv_slice){r->raw.data, r->raw.bytes};
    return qkv_pretokenizer_add_split(r->t->words, &split, err);
}

static bool read_words(reader *r, section s, qkv_slice type, qkv_error *err)
{
    if (qkv_json_is(&type, "ByteLevel"))
        return read_byte_level(r, s, err);
    if (qkv_json_is(&type, "Digits"))
        return read_digits(r, s, err);
    if (qkv_json_is(&type, "Split"))
        return read_split(r, s, err);
    return unknown_type(err);
}

/* ---- post-processor ---- */

/* The ids that `name` stands for in "special_tokens" are added. */
static void put_named(reader *r, qkv_json *j, section named, qkv_slice name,
                      int32_t type, qkv_template *out)
{
    qkv_json d;
    qkv_slice k;
    bool found = false;
    qkv_json_begin(&d, named.data, named.bytes);
    for (qkv_json_object(&d); qkv_json_key(&d, &k); ) {
        const bool is_it = k.bytes == name.bytes
            && memcmp(k.data, name.data, name.bytes) == 0;
        if (!is_it) {
            qkv_json_skip(&d);
            continue;
        }
        found = true;
        for (qkv_json_object(&d); qkv_json_key(&d, &k); ) {
            if (!qkv_json_is(&k, "ids")) {
                qkv_json_skip(&d);
                continue;
            }
            for (qkv_json_array(&d); qkv_json_item(&d); ) {
                const int64_t id = qkv_json_integer(&d);
                if (id < 0 || id >= r->t->vocab->size)
                    qkv_json_fail(&d, "id %lld: ids run 0..%lld",
                                  (long long)id,
                                  (long long)r->t->vocab->size - 1);
                else
                    keep(&d, d.failed || qkv_template_put(
                        out, (int32_t)id, type, &d.err));
            }
        }
    }
    keep(j, qkv_json_end(&d, &j->err));
    if (!found)
        qkv_json_fail(j, "the post-processor adds \"%.*s\", which is not "
                      "among its special tokens", shown(name), name.data);
}

/* {"SpecialToken": {"id": "<s>", "type_id": 0}} or
 * {"Sequence": {"id": "A", "type_id": 0}} */
static void read_item(reader *r, qkv_json *j, section named,
                      qkv_template *out)
{
    qkv_slice k;
    for (qkv_json_object(j); qkv_json_key(j, &k); ) {
        const bool is_text = qkv_json_is(&k, "Sequence");
        int64_t type = 0;
        r->raw.bytes = 0;
        if (!is_text && !qkv_json_is(&k, "SpecialToken"))
            unsupported(j, "a template with", k);
        for (qkv_json_object(j); qkv_json_key(j, &k); ) {
            if (qkv_json_is(&k, "id")) {
                const qkv_slice s = qkv_json_string(j);
                keep(j, j->failed || qkv_text_put(&r->raw, s.data, s.bytes,
                                                  &j->err));
            } else if (qkv_json_is(&k, "type_id")) {
                type = qkv_json_integer(j);
            } else {
                qkv_json_skip(j);
            }
        }
        if (j->failed)
            return;
        if (type < 0 || type > 255) {
            qkv_json_fail(j, "type_id %lld: 0..255 are expected",
                          (long long)type);
            return;
        }
        const qkv_slice name = {r->raw.data != NULL ? r->raw.data : "",
                                r->raw.bytes};
        const int32_t slot = qkv_json_is(&name, "B") ? QKV_SLOT_B : QKV_SLOT_A;
        if (is_text)
            keep(j, qkv_template_put(out, slot, (int32_t)type, &j->err));
        else
            put_named(r, j, named, name, (int32_t)type, out);
    }
}

static bool read_list(reader *r, section list, section named,
                      qkv_template *out, qkv_error *err)
{
    qkv_json j;
    if (list.bytes == 0)
        return true;
    out->n = 0;
    qkv_json_begin(&j, list.data, list.bytes);
    for (qkv_json_array(&j); qkv_json_item(&j); )
        read_item(r, &j, named, out);
    return qkv_json_end(&j, err);
}

static bool read_template(reader *r, section s, qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    section single = {0}, pair = {0}, named = {"{}", 2};
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        section *at = qkv_json_is(&k, "single") ? &single
            : qkv_json_is(&k, "pair") ? &pair
            : qkv_json_is(&k, "special_tokens") ? &named : NULL;
        if (at != NULL)
            *at = note(&j);
        else
            qkv_json_skip(&j);
    }
    return qkv_json_end(&j, err)
        && read_list(r, single, named, &r->t->single, err)
        && read_list(r, pair, named, &r->t->pair, err);
}

/* {"sep": ["</s>", 2], "cls": ["<s>", 0]}: cls A sep, and for two texts
 * (RoBERTa) cls A sep sep B sep or (BERT) cls A sep B sep with types. */
static bool read_cls_sep(reader *r, section s, bool roberta, qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    int64_t id[2] = {-1, -1};
    qkv_json_begin(&j, s.data, s.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        const bool is_cls = qkv_json_is(&k, "cls");
        if (!is_cls && !qkv_json_is(&k, "sep")) {
            qkv_json_skip(&j);
            continue;
        }
        for (qkv_json_array(&j); qkv_json_item(&j); )
            if (qkv_json_peek(&j) == QKV_JSON_NUMBER)
                id[is_cls ? 0 : 1] = qkv_json_integer(&j);
            else
                qkv_json_skip(&j);
    }
    if (!qkv_json_end(&j, err))
        return false;
    for (int i = 0; i < 2; i++)
        if (id[i] < 0 || id[i] >= r->t->vocab->size)
            return qkv_fail(err, QKV_EFORMAT, "the post-processor's %s is "
                            "%lld: ids run 0..%lld", i == 0 ? "cls" : "sep",
                            (long long)id[i],
                            (long long)r->t->vocab->size - 1);
    const int32_t cls = (int32_t)id[0], sep = (int32_t)id[1];
    r->t->single = (qkv_template){3, {{cls, 0}, {QKV_SLOT_A, 0}, {sep, 0}}};
    r->t->pair = roberta
        ? (qkv_template){6, {{cls, 0}, {QKV_SLOT_A, 0}, {sep, 0}, {sep, 0},
                             {QKV_SLOT_B, 0}, {sep, 0}}}
        : (qkv_template){5, {{cls, 0}, {QKV_SLOT_A, 0}, {sep, 0},
                             {QKV_SLOT_B, 1}, {sep, 1}}};
    return true;
}

static bool read_post(reader *r, section s, qkv_slice type, qkv_error *err)
{
    if (qkv_json_is(&type, "ByteLevel"))        /* offsets only */
        return true;
    if (qkv_json_is(&type, "TemplateProcessing"))
        return read_template(r, s, err);
    if (qkv_json_is(&type, "RobertaProcessing"))
        return read_cls_sep(r, s, true, err);
    if (qkv_json_is(&type, "BertProcessing"))
        return read_cls_sep(r, s, false, err);
    return unknown_type(err);
}

/* ---- BOS and EOS ---- */

/* A token before the text is BOS, one after it EOS. */
static void ends_of_template(qkv_tokenizer *t)
{
    bool after = false;
    for (int i = 0; i < t->single.n; i++) {
        const int32_t id = t->single.item[i].id;
        if (id < 0)
            after = true;
        else if (after)
            t->eos = id;
        else if (t->bos < 0)
            t->bos = id;
    }
}

/* "bos_token": "<s>" or {"content": "<s>", ...} */
static void read_end(reader *r, qkv_json *j, int32_t *id)
{
    qkv_error err;
    qkv_text text = {0};
    const qkv_json_kind kind = qkv_json_peek(j);
    if (kind == QKV_JSON_STRING) {
        const qkv_slice s = qkv_json_string(j);
        keep(j, j->failed || qkv_text_put(&text, s.data, s.bytes, &j->err));
    } else {
        const section s = note(j);
        if (kind == QKV_JSON_OBJECT && !j->failed)
            string_in(&text, s, "content", &err);
    }
    if (*id < 0 && text.bytes > 0)
        *id = id_of(r, (qkv_slice){text.data, text.bytes});
    qkv_text_free(&text);
}

/* tokenizer_config.json beside `path`, if it is there. */
static bool read_config(reader *r, const char *path, qkv_error *err)
{
    qkv_text name = {0};
    const char *slash = strrchr(path, '/');
    const size_t folder = slash != NULL ? (size_t)(slash + 1 - path) : 0;
    bool done = qkv_text_put(&name, path, folder, err)
        && qkv_text_printf(&name, err, "tokenizer_config.json");
    if (done && qkv_is_file(name.data)) {
        qkv_map *map = qkv_map_open(name.data, err);
        done = map != NULL;
        if (done) {
            qkv_json j;
            qkv_slice k;
            qkv_json_begin(&j, map->data, map->bytes);
            for (qkv_json_object(&j); qkv_json_key(&j, &k); )
                if (qkv_json_is(&k, "bos_token"))
                    read_end(r, &j, &r->t->bos);
                else if (qkv_json_is(&k, "eos_token"))
                    read_end(r, &j, &r->t->eos);
                else
                    qkv_json_skip(&j);
            done = qkv_json_end(&j, err) || qkv_fail_in(err, "%s", name.data);
            qkv_map_release(map);
        }
    }
    qkv_text_free(&name);
    return done;
}

/* ---- the whole ---- */

static bool read_top(reader *r, const qkv_map *map, qkv_error *err)
{
    qkv_json j;
    qkv_slice k;
    qkv_json_begin(&j, map->data, map->bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &k); ) {
        section *at = qkv_json_is(&k, "added_tokens") ? &r->added
            : qkv_json_is(&k, "normalizer") ? &r->normalizer
            : qkv_json_is(&k, "pre_tokenizer") ? &r->words
            : qkv_json_is(&k, "post_processor") ? &r->post
            : qkv_json_is(&k, "decoder") ? &r->decoder : NULL;
        if (qkv_json_is(&k, "model"))
            read_model(r, &j);
        else if (at != NULL)
            *at = note(&j);
        else
            qkv_json_skip(&j);
    }
    if (!qkv_json_end(&j, err))
        return false;
    if (!r->have_model || !r->have_vocab || r->t->vocab->size == 0)
        return qkv_fail(err, QKV_EFORMAT, "no %s in it, which a "
                        "tokenizer.json has",
                        !r->have_model ? "\"model\"" : "vocabulary");
    return true;
}

static bool read_sections(reader *r, qkv_error *err)
{
    static const sequence normalizer =
        {"normalizer", "normalizers", read_normalizer};
    static const sequence words =
        {"pre_tokenizer", "pretokenizers", read_words};
    static const sequence post =
        {"post_processor", "processors", read_post};
    static const sequence decoder = {"decoder", "decoders", read_decoder};
    if (!read_section(r, r->normalizer, &normalizer, 0, err)
        || !read_section(r, r->decoder, &decoder, 0, err)
        || !read_section(r, r->words, &words, 0, err)
        || !read_added(r, err)
        || !read_section(r, r->post, &post, 0, err)
        || !set_unknown(r, err))
        return false;
    if (!r->byte_level)
        return qkv_fail(err, QKV_EUNSUPPORTED, "a BPE tokenizer without the "
                        "decoder \"ByteLevel\": byte-level BPE is read");
    ends_of_template(r->t);
    return true;
}

qkv_tokenizer *qkv_tokenizer_from_json(const char *path, qkv_error *err)
{
    qkv_map *map = qkv_map_open(path, err);
    if (map == NULL)
        return NULL;
    reader r = {.t = qkv_tokenizer_new(&qkv_bpe_algorithm, err)};
    bool done = r.t != NULL && (r.bpe = qkv_bpe_new(err)) != NULL;
    if (done) {
        r.t->state = r.bpe;
        done = (read_top(&r, map, err) && read_sections(&r, err))
            || qkv_fail_in(err, "%s", path);
    }
    done = done && read_config(&r, path, err);
    if (done) {
        qkv_specials_ready(&r.t->raw);
        qkv_specials_ready(&r.t->normalized);
    } else {
        qkv_tokenizer_release(r.t);
        r.t = NULL;
    }
    qkv_text_free(&r.unknown);
    qkv_text_free(&r.raw);
    qkv_map_release(map);
    return r.t;
}
