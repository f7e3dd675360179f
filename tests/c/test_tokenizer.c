/*
 * test_tokenizer.c - text to ids and back, exactly as Hugging Face has it
 *
 * Rows of tests/oracle/tokenizers: what the tokenizers library makes of texts
 * (GPT-2 and SmolLM2: 251 texts each, and 40 that are not UTF-8; the forms
 * that a tokenizer.json may have: make_forms.py). SmolLM2's vocabulary is the
 * fetched GGUF's. Then laws, and files and bytes that nobody should send.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "files.h"
#include "format/json.h"
#include "text/tokenizer.h"

static const char *const forms[] = {
    "added", "bare", "bert", "contiguous", "digits", "digits_each", "left_out",
    "literal", "llama3", "next", "nfc", "o200k", "prefix", "previous",
    "removed", "removed_inverted", "roberta", "unknown", "unknown_fused",
};
enum { N_FORMS = sizeof forms / sizeof forms[0] };

static qkv_slice slice(const char *text)
{
    return (qkv_slice){text, strlen(text)};
}

static qkv_tokenizer *open_or_fail(const char *path)
{
    qkv_error err;
    qkv_tokenizer *t = qkv_tokenizer_open(path, &err);
    if (t == NULL)
        fail_msg("%s", err.msg);
    return t;
}

/* ---- rows of an oracle ---- */

typedef struct row {            /* a line; what it does not say is empty */
    qkv_text text, pair, decoded;
    bool has_pair, has_ids, has_decoded;
    qkv_tokens ids, special, types;
} row;

static void row_free(row *r)
{
    qkv_text_free(&r->text);
    qkv_text_free(&r->pair);
    qkv_text_free(&r->decoded);
    qkv_tokens_free(&r->ids);
    qkv_tokens_free(&r->special);
    qkv_tokens_free(&r->types);
}

static void read_text(qkv_text *out, qkv_json *j, bool hex)
{
    qkv_error err;
    const qkv_slice s = qkv_json_string(j);
    out->bytes = 0;
    for (size_t i = 0; hex && i < s.bytes; i += 2) {
        const char two[] = {s.data[i], s.data[i + 1], '\0'};
        const char byte = (char)strtol(two, NULL, 16);
        assert_true(qkv_text_put(out, &byte, 1, &err));
    }
    assert_true(hex || qkv_text_put(out, s.data, s.bytes, &err));
}

static void read_ids(qkv_tokens *out, qkv_json *j)
{
    qkv_error err;
    for (qkv_json_array(j); qkv_json_item(j); )
        assert_true(qkv_tokens_put(out, (int32_t)qkv_json_integer(j), &err));
}

static row read_row(qkv_slice line)
{
    row r = {0};
    qkv_json j;
    qkv_slice key;
    qkv_error err;
    bool hex = false;
    qkv_json_begin(&j, line.data, line.bytes);
    for (qkv_json_object(&j); qkv_json_key(&j, &key); )
        if (qkv_json_is(&key, "hex"))       /* comes before "text" */
            read_text(&r.text, &j, hex = true);
        else if (qkv_json_is(&key, "text") && !hex)
            read_text(&r.text, &j, false);
        else if (qkv_json_is(&key, "pair"))
            read_text(&r.pair, &j, !(r.has_pair = true));
        else if (qkv_json_is(&key, "decoded"))
            read_text(&r.decoded, &j, !(r.has_decoded = true));
        else if (qkv_json_is(&key, "ids"))
            read_ids(&r.ids, &j), r.has_ids = true;
        else if (qkv_json_is(&key, "ids_special"))
            read_ids(&r.special, &j);
        else if (qkv_json_is(&key, "types"))
            read_ids(&r.types, &j);
        else
            qkv_json_skip(&j);
    if (!qkv_json_end(&j, &err))
        fail_msg("%s", err.msg);
    return r;
}

static void expect_ids(const char *file, int line, const qkv_tokens *got,
                       const qkv_tokens *want)
{
    for (int64_t i = 0; i < got->count && i < want->count; i++)
        if (got->ids[i] != want->ids[i])
            fail_msg("%s, line %d: token %d is %d, not %d", file, line, (int)i,
                     got->ids[i], want->ids[i]);
    if (got->count != want->count)
        fail_msg("%s, line %d: %d tokens, not %d", file, line,
                 (int)got->count, (int)want->count);
}

static void check_row(const qkv_tokenizer *t, const row *r, const char *file,
                      int line)
{
    qkv_error err;
    qkv_tokens got = {0}, types = {0};
    const qkv_slice text = {r->text.data, r->text.bytes};
    const qkv_slice pair = {r->pair.data, r->pair.bytes};
    qkv_text back = {0};
    if (r->has_ids) {
        assert_true(qkv_tokenizer_encode(&got, t, text, false, &err));
        expect_ids(file, line, &got, &r->ids);
    }
    got.count = 0;
    assert_true(r->has_pair
        ? qkv_tokenizer_encode_pair(&got, &types, t, text, pair, true, &err)
        : qkv_tokenizer_encode(&got, t, text, true, &err));
    expect_ids(file, line, &got, &r->special);
    expect_ids(file, line, &types, &r->types);
    assert_true(qkv_tokenizer_decode(&back, t, r->ids.ids, r->ids.count,
                                     &err));
    if (r->has_decoded
        && (back.bytes != r->decoded.bytes
            || (back.bytes > 0
                && memcmp(back.data, r->decoded.data, back.bytes) != 0)))
        fail_msg("%s, line %d: decodes to \"%.*s\"", file, line,
                 (int)back.bytes, back.data);
    qkv_tokens_free(&got);
    qkv_tokens_free(&types);
    qkv_text_free(&back);
}

/* Every line of tests/oracle/NAME. */
static void check_rows(const qkv_tokenizer *t, const char *name, int expected)
{
    size_t bytes;
    int line = 0;
    char *file = (char *)read_file(oracle(name), &bytes);
    for (char *at = file, *end; at < file + bytes; at = end + 1) {
        end = memchr(at, '\n', (size_t)(file + bytes - at));
        assert_non_null(end);
        row r = read_row((qkv_slice){at, (size_t)(end - at)});
        check_row(t, &r, name, ++line);
        row_free(&r);
    }
    assert_int_equal(line, expected);
    free(file);
}

static void test_gpt2(void **state)
{
    (void)state;
    qkv_tokenizer *t = open_or_fail(oracle("tokenizers/gpt2/tokenizer.json"));
    assert_string_equal(qkv_tokenizer_kind(t), "byte-level BPE");
    assert_int_equal(qkv_tokenizer_size(t), 50257);
    check_rows(t, "tokenizers/gpt2/texts.jsonl", 251);
    check_rows(t, "tokenizers/gpt2/texts-bytes.jsonl", 40);
    qkv_tokenizer_release(t);
}

static void test_smollm2(void **state)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char path[1024];
    (void)state;
    if (data != NULL && data[0] == '/')
        snprintf(path, sizeof path, "%s/qkv/models/smollm2.gguf", data);
    else
        snprintf(path, sizeof path, "%s/.local/share/qkv/models/smollm2.gguf",
                 home != NULL ? home : "");
    if (!qkv_is_file(path)) {
        printf("skip: %s, with SmolLM2's vocabulary, was not fetched\n", path);
        skip();
    }
    qkv_tokenizer *t = open_or_fail(path);
    assert_int_equal(qkv_tokenizer_size(t), 49152);
    check_rows(t, "tokenizers/smollm2/texts.jsonl", 251);
    check_rows(t, "tokenizers/smollm2/texts-bytes.jsonl", 40);
    qkv_tokenizer_release(t);
}

static void test_forms(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMS; i++) {
        char name[80];
        snprintf(name, sizeof name, "tokenizers/forms/%s.json", forms[i]);
        qkv_tokenizer *t = open_or_fail(oracle(name));
        strcat(name, "l");
        check_rows(t, name, 42);
        qkv_tokenizer_release(t);
    }
}

/* The tiny models' own, from a folder and from GGUF. */
static void test_models(void **state)
{
    static const char *const models[][2] = {
        {"gpt2", "gpt2/tokenizer.jsonl"},
        {"gpt2/F32.gguf", "gpt2/tokenizer.jsonl"},
        {"gpt2_hub", "gpt2_hub/tokenizer.jsonl"},
    };
    (void)state;
    for (int i = 0; i < 3; i++) {
        qkv_tokenizer *t = open_or_fail(oracle(models[i][0]));
        check_rows(t, models[i][1], 4);
        qkv_tokenizer_release(t);
    }
}

/* ---- laws ---- */

/* Every id's piece is found again, and is what it decodes to. */
static void test_pieces(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tokenizer *t = open_or_fail(oracle("tokenizers/gpt2/tokenizer.json"));
    qkv_text piece = {0};
    for (int32_t id = 0; id < qkv_tokenizer_size(t); id++) {
        piece.bytes = 0;
        assert_true(qkv_tokenizer_decode(&piece, t, &id, 1, &err));
        assert_int_equal(qkv_tokenizer_token(t, (qkv_slice){piece.data,
                                                            piece.bytes}), id);
        assert_int_equal(qkv_tokenizer_is_special(t, id), id == 50256);
    }
    assert_int_equal(qkv_tokenizer_token(t, slice(" Mary")), 5335);
    assert_int_equal(qkv_tokenizer_token(t, slice(" zxqjk")), -1);
    assert_int_equal(qkv_tokenizer_token(t, slice("")), -1);
    assert_false(qkv_tokenizer_is_special(t, -1));
    assert_false(qkv_tokenizer_is_special(t, INT32_MAX));
    qkv_text_free(&piece);
    qkv_tokenizer_release(t);
}

/* Long texts, and long words, come back as they were, soon. */
static void test_long_texts(void **state)
{
    enum { BYTES = 1 << 18 };
    static const char *const of[] = {"a", " ", "ab", "\xe4\xb8\xad", "=-",
                                     "\n ", "1", "the ", "e\xcc\x81"};
    char *text = test_malloc(BYTES + 8);
    qkv_error err;
    (void)state;
    qkv_tokenizer *t = open_or_fail(oracle("tokenizers/gpt2/tokenizer.json"));
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        qkv_tokens ids = {0};
        qkv_text back = {0};
        const size_t part = strlen(of[i]), bytes = BYTES / part * part;
        for (size_t at = 0; at < bytes; at += part)
            memcpy(text + at, of[i], part);
        assert_true(qkv_tokenizer_encode(&ids, t, (qkv_slice){text, bytes},
                                         false, &err));
        assert_true(qkv_tokenizer_decode(&back, t, ids.ids, ids.count, &err));
        assert_int_equal(back.bytes, bytes);
        assert_memory_equal(back.data, text, bytes);
        qkv_tokens_free(&ids);
        qkv_text_free(&back);
    }
    qkv_interrupt();
    qkv_tokens ids = {0};
    assert_false(qkv_tokenizer_encode(&ids, t, (qkv_slice){text, BYTES}, false,
                                      &err));
    qkv_interrupt_clear();
    assert_string_equal(err.msg, "interrupted");
    assert_int_equal(ids.count, 0);
    qkv_tokens_free(&ids);
    qkv_tokenizer_release(t);
    test_free(text);
}

/* Ids are appended; a cut character decodes to its bytes. */
static void test_append_and_cut(void **state)
{
    qkv_error err;
    qkv_tokens ids = {0};
    qkv_text out = {0};
    (void)state;
    qkv_tokenizer *t = open_or_fail(oracle("tokenizers/gpt2/tokenizer.json"));
    assert_true(qkv_tokens_put(&ids, 7, &err));
    assert_true(qkv_tokenizer_encode(&ids, t, (qkv_slice){"a\0\xf0\x9f\x8d\x93",
                                                          6}, false, &err));
    assert_true(ids.count > 3 && ids.ids[0] == 7);
    assert_true(qkv_text_put(&out, "<", 1, &err));
    assert_true(qkv_tokenizer_decode(&out, t, ids.ids + 1, ids.count - 2,
                                     &err));
    assert_true(out.bytes >= 4 && out.bytes < 7);
    assert_memory_equal(out.data, "<a\0\xf0\x9f\x8d", out.bytes);
    const size_t before = out.bytes;
    const int32_t bad[] = {1, -1}, large[] = {1, 2, 50257};
    assert_false(qkv_tokenizer_decode(&out, t, bad, 2, &err));
    assert_string_equal(err.msg, "token id -1 at 1: ids run 0..50256");
    assert_false(qkv_tokenizer_decode(&out, t, large, 3, &err));
    assert_string_equal(err.msg, "token id 50257 at 2: ids run 0..50256");
    assert_int_equal(out.bytes, before);
    qkv_tokens_free(&ids);
    qkv_text_free(&out);
    qkv_tokenizer_release(t);
}

/* ---- files ---- */

/* A tokenizer.json of three pieces, with so much more after its model. */
#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}"
#define BPE(vocab, merges, more)                                            \
    "{\"model\": {\"type\": \"BPE\", " vocab ", \"merges\": [" merges        \
    "]}, \"decoder\": {\"type\": \"ByteLevel\"}" more "}"

#define IN "test.json: "
/* The parts of a merge are sought when the first text comes, without its
 * file. */
static const struct {
    const char *text, *message; /* NULL: "ab" is token 2 */
} files[] = {
    {BPE(VOCAB, "\"a b\"", ""), NULL},
    {BPE(VOCAB, "[\"a\", \"b\"]", ", \"version\": null"), NULL},
    {"", IN "byte 0: an object was expected, found the end of the text"},
    {"[]", IN "byte 0: an object was expected, found an array"},
    {"{}", IN "no \"model\" in it, which a tokenizer.json has"},
    {"{\"model\": {\"type\": \"BPE\"}}",
     IN "no vocabulary in it, which a tokenizer.json has"},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}",
     IN "a tokenizer of the kind \"Unigram\""},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": []}}",
     IN "a BPE tokenizer without the decoder \"ByteLevel\": byte-level BPE is "
     "read"},
    {BPE(VOCAB, "", ", \"normalizer\": {\"type\": \"Zap\"}"),
     IN "a normalizer of the type \"Zap\""},
    {BPE(VOCAB, "", ", \"pre_tokenizer\": {\"type\": \"Zap\"}"),
     IN "a pre_tokenizer of the type \"Zap\""},
    {BPE("\"vocab\": {\"a\": -1}", "", ""),
     IN "token id -1: ids run from 0 to at most 16777214"},
    {BPE("\"vocab\": {\"a\": 4000000000}", "", ""),
     IN "token id 4000000000: ids run from 0 to at most 16777214"},
    {BPE(VOCAB, "\"a c\"", ""),
     "merge 0 \"a c\": the second part is no token"},
    {BPE(VOCAB, "\"ab\"", ""), IN "byte 77: merge \"ab\": two parts with "
     "one blank between them are expected"},
};

/* Opens path and encodes "ab": its one id, or -1. */
static int32_t id_of_ab(const char *path, qkv_error *err)
{
    qkv_tokens ids = {0};
    int32_t id = -1;
    qkv_tokenizer *t = qkv_tokenizer_open(path, err);
    if (t != NULL && qkv_tokenizer_encode(&ids, t, slice("ab"), true, err)
        && ids.count == 1)
        id = ids.ids[0];
    qkv_tokens_free(&ids);
    qkv_tokenizer_release(t);
    return id;
}

static void test_files(void **state)
{
    const size_t live = qkv_alloc_live();
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        qkv_error err = {0};
        write_file("test.json", files[i].text, strlen(files[i].text));
        assert_int_equal(id_of_ab("test.json", &err),
                         files[i].message != NULL ? -1 : 2);
        assert_string_equal(err.msg, files[i].message != NULL
                            ? files[i].message : "");
        assert_int_equal(qkv_alloc_live(), live);
    }
    remove("test.json");
}

static void test_absent(void **state)
{
    qkv_error err;
    (void)state;
    assert_null(qkv_tokenizer_open("nowhere.json", &err));
    assert_string_equal(err.msg, "nowhere.json: No such file or directory");
    assert_null(qkv_tokenizer_open(".", &err));
    assert_string_equal(err.msg, ". has no tokenizer.json");
    assert_null(qkv_tokenizer_open(oracle("llama/F16.gguf"), &err));
    assert_string_equal(err.msg, "a tokenizer of the kind \"llama\" "
                        "(SentencePiece BPE): byte-level BPE (\"gpt2\") is "
                        "read");
}

/* Of a whole file every prefix is refused, and with some byte changed it opens
 * or says why. */
static void test_damage(void **state)
{
    const size_t live = qkv_alloc_live();
    size_t bytes;
    uint32_t seed = 20240607;
    unsigned char *data = read_file(oracle("tokenizers/forms/added.json"),
                                    &bytes);
    (void)state;
    for (size_t n = 0; n < bytes; n += n < 64 || n + 64 > bytes ? 1 : 13) {
        qkv_error err = {0};
        write_file("test.json", data, n);
        assert_null(qkv_tokenizer_open("test.json", &err));
        assert_true(err.msg[0] != '\0');
    }
    for (int i = 0; i < 1000; i++) {
        qkv_error err = {0};
        seed = seed * 1664525 + 1013904223;     /* Numerical Recipes */
        const size_t at = (seed >> 8) % bytes;
        const unsigned char was = data[at];
        data[at] = (unsigned char)(seed >> 3);
        write_file("test.json", data, bytes);
        assert_true(id_of_ab("test.json", &err) >= 0 || err.code == QKV_OK
                    || err.msg[0] != '\0');
        assert_int_equal(qkv_alloc_live(), live);
        data[at] = was;
    }
    remove("test.json");
    free(data);
}

/* Every allocation fails once: an error, nothing held, out as it was. */
static void test_memory(void **state)
{
    static const char text[] = "it\xff's <l> 12 caf\xc3\xa9 na\xc3\xaf ve";
    const size_t live = qkv_alloc_live();
    bool done = false;
    (void)state;
    for (long n = 0; !done; n++) {
        qkv_error err = {0};
        qkv_tokens ids = {0};
        qkv_text back = {0};
        qkv_alloc_fail_after(n);
        qkv_tokenizer *t = qkv_tokenizer_open(
            oracle("tokenizers/forms/added.json"), &err);
        if (t != NULL
            && qkv_tokenizer_encode(&ids, t, slice(text), true, &err))
            done = qkv_tokenizer_decode(&back, t, ids.ids, ids.count, &err);
        else
            assert_int_equal(ids.count, 0);
        qkv_alloc_fail_after(-1);
        if (err.code != (done ? QKV_OK : QKV_ENOMEM))
            fail_msg("allocation %ld: %s", n, err.msg);
        assert_true(n < 10000 && (n > 10 || !done));
        qkv_tokens_free(&ids);
        qkv_text_free(&back);
        qkv_tokenizer_release(t);
        assert_int_equal(qkv_alloc_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_append_and_cut),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
