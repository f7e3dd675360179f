/* test_heads.c - scores of heads, against TransformerLens's and NumPy's
 *
 * tests/oracle/heads/make.py made the numbers, from the tiny models in
 * transformers. */
#include "config.h"

#include "probes/heads.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "files.h"
#include "format/npy.h"

/* Two float32 forwards of one model differ by less; scores are sums of a few
 * probabilities, distances reach 10. */
static const double tolerance = 2e-5;

/* ---- the oracle of one model ---- */

typedef struct oracle_file {
    int64_t n;
    char **names;
    qkv_tensor **tensors;
} oracle_file;

static oracle_file oracle_open(const char *model)
{
    char name[64];
    qkv_error err;
    oracle_file o;
    snprintf(name, sizeof name, "heads/%s.npz", model);
    if (!qkv_npz_load(oracle(name), &o.n, &o.names, &o.tensors, &err))
        fail_msg("%s", err.msg);
    return o;
}

static void oracle_close(oracle_file *o)
{
    for (int64_t i = 0; i < o->n; i++) {
        qkv_free(o->names[i]);
        qkv_tensor_release(o->tensors[i]);
    }
    qkv_free(o->names);
    qkv_free(o->tensors);
}

static const qkv_tensor *member(const oracle_file *o, const char *name)
{
    for (int64_t i = 0; i < o->n; i++)
        if (strcmp(o->names[i], name) == 0)
            return o->tensors[i];
    fail_msg("the oracle has no %s", name);
    return NULL;
}

static qkv_model *open_model(const char *path)
{
    qkv_error err;
    qkv_model *m = qkv_model_open(path, false, &err);
    if (m == NULL)
        fail_msg("%s", err.msg);
    return m;
}

/* The model that ships: a tokenizer with special tokens, 384 tokens. */
static qkv_model *open_tiny(void)
{
    char path[1024];
    const char *srcdir = getenv("srcdir");
    snprintf(path, sizeof path, "%s/data/tiny.gguf",
             srcdir != NULL ? srcdir : ".");
    return open_model(path);
}

static void sequences_of(qkv_sequence *seqs, const oracle_file *o, int n)
{
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "ids%d", i);
        const qkv_tensor *ids = member(o, name);
        seqs[i] = (qkv_sequence){.n = ids->shape[0],
                                 .ids = qkv_tensor_data(ids)};
    }
}

/* ---- tests ---- */

static const struct {
    const char *name;
    qkv_head_place place;
    qkv_head_share share;
} columns[] = {
    {"entropy", QKV_HEAD_ENTROPY, QKV_HEAD_PER_QUERY},
    {"distance", QKV_HEAD_DISTANCE, QKV_HEAD_PER_QUERY},
    {"previous", QKV_HEAD_PREVIOUS, QKV_HEAD_PER_QUERY},
    {"first", QKV_HEAD_FIRST, QKV_HEAD_PER_QUERY},
    {"self", QKV_HEAD_SELF, QKV_HEAD_PER_QUERY},
    {"duplicate", QKV_HEAD_DUPLICATE, QKV_HEAD_PER_QUERY},
    {"following", QKV_HEAD_FOLLOWING, QKV_HEAD_PER_QUERY},
    {"duplicate_entry", QKV_HEAD_DUPLICATE, QKV_HEAD_PER_ENTRY},
    {"following_entry", QKV_HEAD_FOLLOWING, QKV_HEAD_PER_ENTRY},
    {"previous_mul", QKV_HEAD_PREVIOUS, QKV_HEAD_MUL},
    {"duplicate_mul", QKV_HEAD_DUPLICATE, QKV_HEAD_MUL},
    {"following_mul", QKV_HEAD_FOLLOWING, QKV_HEAD_MUL},
    {"previous_abs", QKV_HEAD_PREVIOUS, QKV_HEAD_ABS},
    {"duplicate_abs", QKV_HEAD_DUPLICATE, QKV_HEAD_ABS},
    {"following_abs", QKV_HEAD_FOLLOWING, QKV_HEAD_ABS},
};
enum { N_COLUMNS = sizeof columns / sizeof columns[0], N_SEQS = 3 };

/* One sequence alone is its own mean. */
static void compare(const qkv_heads *h, const oracle_file *o, int column,
                    int64_t seq)
{
    const qkv_tensor *want = member(o, columns[column].name);
    qkv_tensor *mean, *sd;
    qkv_error err;
    int64_t n;
    assert_true(qkv_heads_score(&mean, &sd, &n, h, seq, seq + 1,
                                columns[column].place, columns[column].share,
                                &err));
    for (int64_t l = 0; l < h->n_layers; l++) {
        for (int64_t head = 0; head < h->n_heads; head++) {
            const double w = qkv_tensor_get(want, (int64_t[]){seq, l, head});
            const double g = qkv_tensor_get(mean, (int64_t[]){l, head});
            if (isnan(w) ? !isnan(g) || n != 0
                : !(fabs(w - g) <= tolerance) || n != 1)
                fail_msg("%s of L%dH%d, sequence %d: %g expected, got %g",
                         columns[column].name, (int)l, (int)head, (int)seq, w,
                         g);
        }
    }
    assert_true(isnan(qkv_tensor_get(sd, (int64_t[]){0, 0})));
    qkv_tensor_release(mean);
    qkv_tensor_release(sd);
}

static void scores_are_the_references(void **state)
{
    (void)state;
    static const char *const models[] = {"llama", "gpt2", "bert"};
    for (int i = 0; i < 3; i++) {
        oracle_file o = oracle_open(models[i]);
        qkv_model *m = open_model(oracle(models[i]));
        qkv_sequence seqs[N_SEQS];
        qkv_heads h;
        qkv_error err;
        sequences_of(seqs, &o, N_SEQS);
        if (!qkv_heads_measure(&h, m, seqs, N_SEQS, &err))
            fail_msg("%s", err.msg);
        for (int64_t seq = 0; seq < N_SEQS; seq++)
            for (int column = 0; column < N_COLUMNS; column++)
                compare(&h, &o, column, seq);
        qkv_heads_free(&h);
        qkv_model_release(m);
        oracle_close(&o);
    }
}

/* Mean and spread over the sequences that have repeats: two of three. */
static void spread_over_sequences(void **state)
{
    (void)state;
    oracle_file o = oracle_open("llama");
    qkv_model *m = open_model(oracle("llama"));
    qkv_sequence seqs[N_SEQS];
    qkv_heads h;
    qkv_error err;
    qkv_tensor *mean, *sd;
    int64_t n;
    sequences_of(seqs, &o, N_SEQS);
    assert_true(qkv_heads_measure(&h, m, seqs, N_SEQS, &err));
    assert_true(qkv_heads_score(&mean, &sd, &n, &h, 0, N_SEQS,
                                QKV_HEAD_DUPLICATE, QKV_HEAD_PER_QUERY, &err));
    assert_int_equal(n, 2);
    const qkv_tensor *want = member(&o, "duplicate");
    for (int64_t head = 0; head < h.n_heads; head++) {
        const double a = qkv_tensor_get(want, (int64_t[]){0, 1, head});
        const double b = qkv_tensor_get(want, (int64_t[]){1, 1, head});
        assert_true(fabs(qkv_tensor_get(mean, (int64_t[]){1, head})
                         - (a + b) / 2) <= tolerance);
        assert_true(fabs(qkv_tensor_get(sd, (int64_t[]){1, head})
                         - fabs(a - b) / sqrt(2)) <= tolerance);
    }
    qkv_tensor_release(mean);
    qkv_tensor_release(sd);
    qkv_heads_free(&h);
    qkv_model_release(m);
    oracle_close(&o);
}

static void free_sequences(qkv_sequence *seqs, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        qkv_free(seqs[i].ids);
}

static void random_tokens(void **state)
{
    (void)state;
    enum { LENGTH = 100, TIMES = 3, N = 4 };
    qkv_model *m = open_tiny();
    qkv_error err;
    const qkv_tokenizer *t = qkv_model_tokenizer(m, &err);
    const int64_t size = m->stacks[0].config.d_vocab;
    qkv_sequence seqs[N], again[N];
    qkv_random random;
    memset(seqs, 0, sizeof seqs);
    memset(again, 0, sizeof again);
    qkv_random_seed(&random, 3);
    assert_true(qkv_heads_repeat(seqs, N, m, 2, LENGTH, TIMES, &random, &err));
    qkv_random_seed(&random, 3);
    assert_true(qkv_heads_repeat(again, N, m, -1, LENGTH, TIMES, &random,
                                 &err));
    for (int s = 0; s < N; s++) {
        const int32_t *a = seqs[s].ids + 1;
        assert_int_equal(seqs[s].n, 1 + LENGTH * TIMES);
        assert_int_equal(again[s].n, LENGTH * TIMES);
        assert_int_equal(seqs[s].ids[0], 2);
        assert_memory_equal(a, again[s].ids, sizeof *a * LENGTH * TIMES);
        for (int i = 0; i < LENGTH; i++) {
            assert_false(qkv_tokenizer_is_special(t, a[i]));
            assert_in_range(a[i], size / 50, size - size / 50 - 1);
            assert_int_equal(a[i], a[i + LENGTH]);
            assert_int_equal(a[i], a[i + 2 * LENGTH]);
            for (int j = 0; j < i; j++)
                assert_int_not_equal(a[i], a[j]);
        }
        assert_true(s == 0 || memcmp(a, seqs[0].ids + 1, sizeof *a * LENGTH));
    }
    free_sequences(seqs, N);
    free_sequences(again, N);
    memset(seqs, 0, sizeof seqs);
    assert_false(qkv_heads_repeat(seqs, 1, m, -1, size, 2, &random, &err));
    assert_non_null(strstr(err.msg, "to draw from"));
    qkv_model_release(m);
}

/* More tokens than one batch takes give what each sequence gives alone. */
static void batches(void **state)
{
    (void)state;
    enum { N = 30 };
    qkv_model *m = open_tiny();
    qkv_error err;
    qkv_random random;
    qkv_sequence seqs[N];
    qkv_heads all, one;
    memset(seqs, 0, sizeof seqs);
    qkv_random_seed(&random, 1);
    assert_true(qkv_heads_repeat(seqs, N, m, -1, 50, 2, &random, &err));
    assert_true(qkv_heads_measure(&all, m, seqs, N, &err));
    const int64_t each = all.n_layers * all.n_heads * QKV_N_HEAD_PLACES;
    for (int s = 0; s < N; s += N - 1) {
        assert_true(qkv_heads_measure(&one, m, &seqs[s], 1, &err));
        for (int64_t i = 0; i < each; i++)
            assert_true(fabsf(all.sums[s * each + i] - one.sums[i])
                        <= 1e-4f * (1.0f + fabsf(one.sums[i])));
        qkv_heads_free(&one);
    }
    qkv_heads_free(&all);
    free_sequences(seqs, N);
    qkv_model_release(m);
}

static void bad_input(void **state)
{
    (void)state;
    qkv_model *m = open_tiny();
    qkv_error err;
    qkv_heads h;
    int32_t ids[] = {5, 6, 5, 6}, wrong[] = {5, 1 << 20};
    qkv_sequence seqs[] = {{.n = 4, .ids = ids}, {.n = 1, .ids = ids}};
    assert_false(qkv_heads_measure(&h, m, seqs, 2, &err));
    assert_non_null(strstr(err.msg, "sequence 1 has 1 tokens"));
    seqs[0] = (qkv_sequence){.n = 2, .ids = wrong};
    assert_false(qkv_heads_measure(&h, m, seqs, 1, &err));
    assert_non_null(strstr(err.msg, "ids run 0"));
    seqs[0] = (qkv_sequence){.n = 4, .ids = ids};
    qkv_interrupt();
    assert_false(qkv_heads_measure(&h, m, seqs, 1, &err));
    assert_int_equal(err.code, QKV_EINTERRUPTED);
    qkv_interrupt_clear();
    qkv_model_release(m);
}

/* Whichever allocation fails, nothing is lost. */
static void memory_runs_out(void **state)
{
    (void)state;
    qkv_model *m = open_tiny();
    qkv_error err;
    qkv_random random;
    bool done = false;
    assert_non_null(qkv_model_tokenizer(m, &err));
    const size_t before = qkv_alloc_live();
    for (long n = 0; !done; n++) {
        qkv_sequence seqs[2] = {{0}, {0}};
        qkv_heads h = {0};
        qkv_tensor *mean, *sd;
        int64_t seen;
        qkv_random_seed(&random, 1);
        qkv_alloc_fail_after(n);
        done = qkv_heads_repeat(seqs, 2, m, -1, 4, 2, &random, &err)
            && qkv_heads_measure(&h, m, seqs, 2, &err)
            && qkv_heads_score(&mean, &sd, &seen, &h, 0, 2,
                               QKV_HEAD_FOLLOWING, QKV_HEAD_PER_QUERY, &err);
        qkv_alloc_fail_after(-1);
        if (done) {
            qkv_tensor_release(mean);
            qkv_tensor_release(sd);
        } else {
            assert_int_equal(err.code, QKV_ENOMEM);
        }
        qkv_heads_free(&h);
        free_sequences(seqs, 2);
        assert_int_equal(qkv_alloc_live(), before);
        assert_true(n < 10000);
    }
    qkv_model_release(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_references),
        cmocka_unit_test(spread_over_sequences),
        cmocka_unit_test(random_tokens),
        cmocka_unit_test(batches),
        cmocka_unit_test(bad_input),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
