/*
 * test_model.c - the forward against the oracles, at every site
 *
 * The tiny models of tests/oracle were run by Hugging Face transformers in
 * float32; every activation it gave must come out here, from both formats,
 * two sequences at once and each alone, in one go and token by token.
 * Tolerance: 2e-5 * max(1, largest of the reference), as the oracles say;
 * float32 noise is 1e-6, a wrong kind of GELU shows at 2e-4.
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "format/safetensors.h"
#include "model/generate.h"
#include "model/run.h"

static const float TOLERANCE = 2e-5f;

static void path_of(char out[512], const char *model, const char *file)
{
    const char *srcdir = getenv("srcdir");
    snprintf(out, 512, "%s/tests/oracle/%s%s%s", srcdir != NULL ? srcdir : ".",
             model, file[0] != '\0' ? "/" : "", file);
}

/* ---- recipes from the oracle's inputs ---- */

typedef struct oracle {
    qkv_safetensors *file;
    qkv_tensor *ids, *mask, *types;     /* i64 [batch, pos]; types or NULL */
} oracle;

static oracle oracle_open(const char *model, const char *file)
{
    char path[512];
    qkv_error err;
    oracle o;
    path_of(path, model, file);
    o.file = qkv_safetensors_open(path, &err);
    if (o.file == NULL)
        fail_msg("%s", err.msg);
    o.ids = qkv_safetensors_tensor(o.file, "input_ids", &err);
    o.mask = qkv_safetensors_tensor(o.file, "attention_mask", &err);
    o.types = qkv_safetensors_tensor(o.file, "token_type_ids", &err);
    assert_non_null(o.ids);
    assert_non_null(o.mask);
    return o;
}

static void oracle_close(oracle *o)
{
    qkv_tensor_release(o->ids);
    qkv_tensor_release(o->mask);
    qkv_tensor_release(o->types);
    qkv_safetensors_close(o->file);
}

static int64_t length_of(const oracle *o, int64_t b)
{
    int64_t n = 0;
    for (int64_t p = 0; p < o->mask->shape[1]; p++)
        n += qkv_tensor_get(o->mask, (int64_t[]){b, p}) != 0;
    return n;
}

static int32_t *column(const qkv_tensor *t, int64_t b, int64_t n, int64_t more)
{
    qkv_error err;
    int32_t *out = qkv_alloc((size_t)(n + more) * sizeof *out, &err);
    for (int64_t p = 0; p < n; p++)
        out[p] = (int32_t)qkv_tensor_get(t, (int64_t[]){b, p});
    return out;
}

/* Sequences [first, first + n) of the oracle, the first `upto` tokens each. */
static qkv_recipe recipe_of(qkv_model *m, const oracle *o, int64_t first,
                            int64_t n, int64_t upto, int64_t more)
{
    qkv_error err;
    qkv_recipe r = {.model = qkv_model_retain(m), .n_seqs = n,
                    .stop_at = m->stacks[0].config.n_layers, .n_more = more};
    r.seqs = qkv_alloc_zero((size_t)n, sizeof *r.seqs, &err);
    for (int64_t i = 0; i < n; i++) {
        int64_t length = length_of(o, first + i);
        length = upto > 0 && upto < length ? upto : length;
        r.seqs[i] = (qkv_sequence){.n = length, .n_prompt = length,
            .ids = column(o->ids, first + i, length, more),
            .types = o->types != NULL
                ? column(o->types, first + i, length, more) : NULL};
    }
    return r;
}

static qkv_model *open_model(const char *model, const char *file)
{
    char path[512];
    qkv_error err;
    path_of(path, model, file);
    qkv_model *m = qkv_model_open(path, false, &err);
    if (m == NULL)
        fail_msg("%s", err.msg);
    return m;
}

static qkv_run *start(qkv_recipe *r, const char *names, qkv_logits_wanted l)
{
    qkv_error err;
    qkv_run *run = qkv_run_new(r, &names, names != NULL, l, &err);
    if (run == NULL)
        fail_msg("%s", err.msg);
    return run;
}

/* ---- comparing ---- */

/* Element of the reference [batch, ...] that is `index` of sequence b. */
static double wanted(const qkv_tensor *want, int64_t b, const int64_t *index)
{
    int64_t full[QKV_MAX_DIMS] = {b};
    for (int i = 1; i < want->n_dims; i++)
        full[i] = index[i - 1];
    return qkv_tensor_get(want, full);
}

/* Largest error of got against row b of want, where both have values, as a
 * share of max(1, largest wanted); NaN when anything is NaN. */
static double error_of(const qkv_tensor *got, const qkv_tensor *want,
                       int64_t b)
{
    double worst = 0, largest = 1;
    int64_t index[QKV_MAX_DIMS] = {0};
    assert_int_equal(got->n_dims, want->n_dims - 1);
    const int64_t count = qkv_tensor_count(got);
    for (int64_t i = 0; i < count; i++) {
        const double w = wanted(want, b, index);
        const double g = qkv_tensor_get(got, index);
        if (w < -1e8) {                 /* masked: IGNORE there, -inf here */
            if (!(g < -1e8))
                return HUGE_VAL;
        } else {
            largest = fabs(w) > largest ? fabs(w) : largest;
            if (!(fabs(g - w) <= worst))
                worst = fabs(g - w);
        }
        for (int d = got->n_dims; d-- > 0; ) {
            if (++index[d] < got->shape[d])
                break;
            index[d] = 0;
        }
    }
    return worst / largest;
}

static bool is_activation(const char *name)
{
    return strstr(name, "hook_") != NULL || strstr(name, "logits") != NULL;
}

/* Every activation of the oracle that this run can show, for sequences
 * [first, first + n). Returns how many were compared. */
static int compare(qkv_run *run, const oracle *o, int64_t first, int64_t n)
{
    int seen = 0;
    qkv_error err;
    for (int64_t i = 0; i < qkv_safetensors_count(o->file); i++) {
        const char *name = qkv_safetensors_name(o->file, i);
        qkv_site site;
        int64_t layer;
        if (!is_activation(name))
            continue;
        qkv_tensor *want = qkv_safetensors_tensor(o->file, name, &err);
        assert_non_null(want);
        if (!qkv_site_find(&site, &layer, qkv_run_stack(run), name, &err))
            fail_msg("%s", err.msg);
        for (int64_t b = 0; b < n; b++) {
            qkv_tensor *got = qkv_run_site(run, b, site, layer, &err);
            if (got == NULL)
                fail_msg("%s", err.msg);
            const double e = error_of(got, want, first + b);
            if (!(e <= (double)TOLERANCE))
                fail_msg("%s: %s of sequence %d is off by %g",
                         qkv_run_recipe(run)->model->path, name,
                         (int)(first + b), e);
            qkv_tensor_release(got);
            seen++;
        }
        qkv_tensor_release(want);
    }
    assert_true(seen > 0);
    return seen;
}

/* ---- tests ---- */

static const struct {
    const char *model, *file, *acts;
} cases[] = {
    {"llama", "", "activations.safetensors"},
    {"gpt2", "", "activations.safetensors"},
    {"gpt2_hub", "", "activations.safetensors"},
    {"bert", "", "activations.safetensors"},
    {"bert_hub", "", "activations.safetensors"},
    {"mistral", "", "activations.safetensors"},
    {"qwen2", "", "activations.safetensors"},
    {"qwen3", "", "activations.safetensors"},
    {"phi3", "", "activations.safetensors"},
    {"gpt_neox", "", "activations.safetensors"},
    {"phi", "", "activations.safetensors"},
    {"opt", "", "activations.safetensors"},
    {"roberta", "", "activations.safetensors"},
    {"distilbert", "", "activations.safetensors"},
    {"settings/qwen2_window", "", "activations.safetensors"},
    {"settings/qwen3_layers", "", "activations.safetensors"},
    {"settings/qwen2_yarn", "", "activations.safetensors"},
    {"settings/mistral_dynamic", "", "activations.safetensors"},
    {"settings/phi3_long", "", "activations.safetensors"},
    {"settings/phi_qk", "", "activations.safetensors"},
    {"settings/gpt_neox_in_turn", "", "activations.safetensors"},
    {"settings/opt_post_norm", "", "activations.safetensors"},
    {"settings/roberta_pads", "", "activations.safetensors"},
    {"settings/distilbert_relu", "", "activations.safetensors"},
    {"settings/qwen3_gguf", "F32.gguf", "activations.safetensors"},
    {"settings/phi3_gguf", "F32.gguf", "activations.safetensors"},
    {"settings/phi_gguf", "F32.gguf", "activations.safetensors"},
    {"settings/gpt_neox_gguf", "F32.gguf", "activations.safetensors"},
    {"llama", "F16.gguf", "F16.gguf.safetensors"},
    {"llama", "Q8_0.gguf", "Q8_0.gguf.safetensors"},
    {"llama", "Q4_0.gguf", "Q4_0.gguf.safetensors"},
    {"llama", "Q4_1.gguf", "Q4_1.gguf.safetensors"},
    {"qwen2", "Q8_0.gguf", "Q8_0.gguf.safetensors"},
    {"gpt2", "F32.gguf", "F32.gguf.safetensors"},
    {"gpt2", "Q8_0.gguf", "Q8_0.gguf.safetensors"},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* All kept in one go; read one by one (each executes again); each alone. */
static void every_site(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        qkv_model *m = open_model(cases[i].model, cases[i].file);
        oracle o = oracle_open(cases[i].model, cases[i].acts);
        static const char *const names[] = {"*", NULL};
        for (int k = 0; k < 2; k++) {
            qkv_recipe r = recipe_of(m, &o, 0, 2, 0, 0);
            qkv_run *run = start(&r, names[k], QKV_LOGITS_LAST);
            compare(run, &o, 0, 2);
            qkv_run_release(run);
        }
        for (int64_t b = 0; b < 2; b++) {
            qkv_recipe r = recipe_of(m, &o, b, 1, 0, 0);
            qkv_run *run = start(&r, "*", QKV_LOGITS_ALL);
            compare(run, &o, b, 1);
            qkv_run_release(run);
        }
        oracle_close(&o);
        qkv_model_release(m);
    }
}

/* Three tokens at once, the others one by one through the chain. */
static void token_by_token(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        qkv_model *m = open_model(cases[i].model, cases[i].file);
        if (!m->stacks[0].config.causal) {
            qkv_model_release(m);
            continue;
        }
        oracle o = oracle_open(cases[i].model, cases[i].acts);
        const int64_t n = length_of(&o, 0);
        qkv_recipe r = recipe_of(m, &o, 0, 1, 3, n - 3);
        qkv_run *run = start(&r, "*", QKV_LOGITS_LAST);
        qkv_error err;
        for (int64_t p = 3; p < n; p++) {
            const int32_t id = (int32_t)qkv_tensor_get(o.ids,
                                                       (int64_t[]){0, p});
            if (!qkv_run_append(run, id, true, &err))
                fail_msg("%s", err.msg);
        }
        assert_false(qkv_run_append(run, 0, true, &err));
        compare(run, &o, 0, 1);
        qkv_run_release(run);
        oracle_close(&o);
        qkv_model_release(m);
    }
}

/* Enter at layer 1 with the oracle's own residual. */
static void start_later(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        qkv_error err;
        if (cases[i].file[0] != '\0')
            continue;
        qkv_model *m = open_model(cases[i].model, cases[i].file);
        oracle o = oracle_open(cases[i].model, cases[i].acts);
        qkv_recipe r = recipe_of(m, &o, 0, 1, 0, 0);
        r.start_layer = 1;
        r.start_resid = qkv_alloc_zero(1, sizeof *r.start_resid, &err);
        qkv_tensor *all = qkv_safetensors_tensor(o.file,
                                                 "blocks.1.hook_resid_pre",
                                                 &err);
        r.start_resid[0] = qkv_tensor_select(all, 0, 0, &err);
        qkv_run *run = start(&r, NULL, QKV_LOGITS_ALL);
        qkv_tensor *want = qkv_safetensors_tensor(o.file, "logits", &err);
        qkv_tensor *got = qkv_run_site(run, 0, QKV_SITE_LOGITS, 0, &err);
        assert_non_null(got);
        const double e = error_of(got, want, 0);
        assert_true(e <= (double)TOLERANCE);
        /* what lies before is not there, and says so */
        assert_null(qkv_run_site(run, 0, QKV_SITE_Q, 0, &err));
        assert_non_null(strstr(err.msg, "layer 0 was not run"));
        qkv_tensor_release(got);
        qkv_tensor_release(want);
        qkv_tensor_release(all);
        qkv_run_release(run);
        oracle_close(&o);
        qkv_model_release(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_site),
        cmocka_unit_test(token_by_token),
        cmocka_unit_test(start_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
