/*
 * test_sweep.c - a sweep that is interrupted gives what is done
 *
 * What a sweep computes is compared with single runs in
 * tests/lua/test_sweep.lua.
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
#include "base/interrupt.h"
#include "probes/sweep.h"
#include "tensor/weight.h"

enum { TOKENS = 100, BEFORE = 50 };     /* Ctrl-C comes in the third chunk */

/* The calls so far; Ctrl-C comes with the BEFORE'th. */
static bool count_calls(double *value, void *context, qkv_run *r, int64_t seq,
                        qkv_error *err)
{
    int *calls = context;
    (void)r;
    (void)seq;
    if (++*calls == BEFORE)
        qkv_interrupt();
    *value = *calls;
    return qkv_check(err);
}

static qkv_run *run_tokens(qkv_model *m, qkv_error *err)
{
    qkv_recipe r = {.model = qkv_model_retain(m), .n_seqs = 1,
                    .stop_at = m->stacks[0].config.n_layers};
    r.seqs = qkv_alloc_zero(1, sizeof *r.seqs, err);
    r.seqs[0].ids = qkv_alloc(TOKENS * sizeof(int32_t), err);
    r.seqs[0].n = r.seqs[0].n_prompt = TOKENS;
    for (int i = 0; i < TOKENS; i++)
        r.seqs[0].ids[i] = (i * 7) % 50;
    return qkv_run_new(&r, NULL, 0, QKV_LOGITS_NONE, err);
}

static void test_interrupted(void **state)
{
    (void)state;
    char path[4096];
    const char *srcdir = getenv("srcdir");
    snprintf(path, sizeof path, "%s/data/tiny.gguf",
             srcdir != NULL ? srcdir : ".");
    qkv_error err;
    qkv_model *m = qkv_model_open(path, false, &err);
    assert_non_null(m);
    qkv_run *r = run_tokens(m, &err);
    assert_non_null(r);
    int calls = 0;
    const qkv_metric metric = {.kind = QKV_CALL, .fn = count_calls,
                               .context = &calls};
    const qkv_sweep s = {.run = r, .site = QKV_SITE_RESID_PRE, .n_axes = 2,
                         .axes = {QKV_EDIT_LAYER, QKV_EDIT_POS}, .block = 1,
                         .metric = &metric};
    const double before = 0;
    int64_t done;
    qkv_tensor *t = qkv_sweep_run(&done, &s, &before, &err);
    assert_non_null(t);
    assert_true(qkv_interrupted());
    qkv_interrupt_clear();
    const int64_t cells = qkv_tensor_count(t);
    assert_int_equal(cells, m->stacks[0].config.n_layers * TOKENS);
    assert_in_range(done, 1, BEFORE - 1);
    const float *value = qkv_tensor_data(t);
    for (int64_t i = 0; i < cells; i++)
        if (i < done)
            assert_true(value[i] >= 1 && value[i] < BEFORE);
        else
            assert_true(isnan(value[i]));
    qkv_tensor_release(t);

    calls = BEFORE;             /* no Ctrl-C any more: all of it */
    t = qkv_sweep_run(&done, &s, &before, &err);
    assert_non_null(t);
    assert_int_equal(done, cells);
    qkv_tensor_release(t);

    calls = BEFORE - 1;         /* at once: nothing is done, an error */
    t = qkv_sweep_run(&done, &s, &before, &err);
    assert_null(t);
    assert_int_equal(err.code, QKV_EINTERRUPTED);
    qkv_interrupt_clear();
    qkv_run_release(r);
    qkv_model_release(m);
    qkv_product_trim();
    assert_int_equal(qkv_alloc_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
