/*
 * test_attention.c - both forms of attention against sums in double
 *
 * A table of shapes: one query and many, groups of heads, windows, no mask,
 * keys in one tile and in many, past the kernels' blocks and tiles of keys;
 * for every table of kernels that this machine runs.
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/parallel.h"
#include "base/random.h"
#include "model/attention.h"
#include "tensor/kernel.h"

enum { MOST_TILES = 6 };
static qkv_random rng;

static float *normal(int64_t n, double size)
{
    qkv_error err;
    float *x = qkv_alloc((size_t)(n + 1) * sizeof *x, &err);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(size * qkv_random_normal(&rng));
    return x;
}

typedef struct shape {
    const char *what;
    int64_t heads, kv_heads, d, p0, queries, keys, window;
    bool causal;
    int tiles;                  /* of about the same length */
    double size;                /* of queries: how sharp the pattern is */
} shape;

static const shape shapes[] = {
    {"one token", 2, 2, 8, 0, 1, 1, 0, true, 1, 1},
    {"a short prompt", 9, 3, 64, 0, 5, 5, 0, true, 1, 1},
    {"a prompt", 9, 3, 64, 0, 70, 70, 0, true, 1, 1},
    {"beyond a tile of keys", 4, 2, 16, 0, 300, 300, 0, true, 1, 2},
    {"odd everything", 5, 1, 7, 0, 53, 53, 0, true, 1, 1},
    {"one head a key head", 3, 3, 33, 0, 131, 131, 0, true, 1, 1},
    {"decoding", 9, 3, 64, 40, 1, 41, 0, true, 2, 1},
    {"decoding, far", 4, 4, 12, 1000, 1, 1001, 0, true, 3, 3},
    {"a fork", 9, 3, 64, 11, 4, 15, 0, true, 2, 1},
    {"a long fork", 6, 2, 20, 150, 60, 210, 0, true, 5, 1},
    {"a window", 4, 2, 16, 0, 200, 200, 17, true, 1, 1},
    {"a window, decoding", 4, 2, 16, 299, 1, 300, 128, true, 4, 1},
    {"a window, forked", 4, 2, 16, 100, 90, 190, 40, true, 3, 1},
    {"both ways", 12, 12, 32, 0, 45, 45, 0, false, 1, 1},
    {"cross", 4, 4, 16, 0, 30, 140, 0, false, 2, 1},
    {"sharp", 9, 3, 64, 0, 140, 140, 0, true, 1, 40},
};

/* A case: arrays of its own, and the attention that reads them. */
typedef struct scene {
    const shape *s;
    float *q, *k[MOST_TILES], *v[MOST_TILES];
    qkv_tile tiles[MOST_TILES];
    qkv_attention a;
} scene;

static void set_up(scene *c, const shape *s)
{
    const int64_t width = s->kv_heads * s->d + 3;   /* rows have gaps */
    *c = (scene){.s = s};
    c->q = normal(s->queries * (s->heads * s->d + 5), s->size);
    c->a = (qkv_attention){
        .n_heads = s->heads, .n_kv_heads = s->kv_heads, .d_head = s->d,
        .scale = (float)(1 / sqrt((double)s->d)), .causal = s->causal,
        .window = s->window, .p0 = s->p0, .n_queries = s->queries,
        .n_keys = s->keys, .q = c->q, .q_stride = s->heads * s->d + 5,
        .tiles = c->tiles, .n_tiles = s->tiles};
    for (int t = 0; t < s->tiles; t++) {
        const int64_t begin = s->keys * t / s->tiles;
        const int64_t n = s->keys * (t + 1) / s->tiles - begin;
        c->k[t] = normal(n * width, 1);
        c->v[t] = normal(n * width, 1);
        c->tiles[t] = (qkv_tile){c->k[t], c->v[t], width, width, n};
    }
}

static void take_down(scene *c)
{
    qkv_free(c->q);
    for (int t = 0; t < c->s->tiles; t++) {
        qkv_free(c->k[t]);
        qkv_free(c->v[t]);
    }
}

static const float *key_at(const scene *c, int64_t p, bool value)
{
    for (int t = 0; ; p -= c->tiles[t++].count)
        if (p < c->tiles[t].count)
            return value ? c->tiles[t].v + p * c->tiles[t].v_stride
                : c->tiles[t].k + p * c->tiles[t].k_stride;
}

/* p [keys] and z [d] of one query of one head, by definition. */
static void by_definition(double *p, double *z, const scene *c, int64_t h,
                          int64_t i)
{
    const shape *s = c->s;
    const int64_t kv = h / (s->heads / s->kv_heads), pos = s->p0 + i;
    double most = -HUGE_VAL, sum = 0;
    for (int64_t key = 0; key < s->keys; key++) {
        const float *k = key_at(c, key, false) + kv * s->d;
        const float *q = c->q + i * c->a.q_stride + h * s->d;
        const bool seen = (!s->causal || key <= pos)
            && (s->window == 0 || key > pos - s->window);
        p[key] = 0;
        for (int64_t j = 0; j < s->d; j++)
            p[key] += (double)q[j] * (double)k[j] * (double)c->a.scale;
        p[key] = seen ? p[key] : -HUGE_VAL;
        most = p[key] > most ? p[key] : most;
    }
    for (int64_t key = 0; key < s->keys; key++)
        sum += p[key] = exp(p[key] - most);
    for (int64_t j = 0; j < s->d; j++)
        z[j] = 0;
    for (int64_t key = 0; key < s->keys; key++) {
        p[key] /= sum;
        for (int64_t j = 0; j < s->d; j++)
            z[j] += p[key] * (double)key_at(c, key, true)[kv * s->d + j];
    }
}

/* Scores of size 40 are right to 40 * 2^-24 times a few, and so are the
 * exponents of the pattern. */
static double tolerance(const shape *s)
{
    return 4e-6 * (1 + s->size);
}

static void compare(const scene *c, const float *fused, const float *open,
                    const float *pattern, int64_t stride)
{
    const shape *s = c->s;
    double *p = malloc(sizeof *p * (size_t)s->keys);
    double *z = malloc(sizeof *z * (size_t)s->d);
    assert_true(p != NULL && z != NULL);
    for (int64_t h = 0; h < s->heads; h++)
        for (int64_t i = 0; i < s->queries; i++) {
            by_definition(p, z, c, h, i);
            for (int64_t j = 0; j < s->d; j++) {
                const int64_t at = i * stride + h * s->d + j;
                if (!(fabs((double)fused[at] - z[j]) <= tolerance(s))
                    || !(fabs((double)open[at] - z[j]) <= tolerance(s)))
                    fail_msg("%s, %s: z[%d, %d, %d] is %.9g fused, %.9g open, "
                             "expected %.9g", qkv_kernel()->name, s->what,
                             (int)i, (int)h, (int)j, (double)fused[at],
                             (double)open[at], z[j]);
            }
            for (int64_t key = 0; key < s->keys; key++) {
                const float got = pattern[(h * s->queries + i) * s->keys + key];
                if (!(fabs((double)got - p[key]) <= tolerance(s)))
                    fail_msg("%s, %s: pattern[%d, %d, %d] is %.9g, expected "
                             "%.9g", qkv_kernel()->name, s->what, (int)h,
                             (int)i, (int)key, (double)got, p[key]);
            }
        }
    free(p);
    free(z);
}

/* Both forms, with 1 and 3 threads: the same bits. */
static void check(const shape *s)
{
    scene c;
    qkv_error err;
    set_up(&c, s);
    const int64_t stride = s->heads * s->d + 1, n = s->queries * stride;
    float *fused[2], *open = normal(n, 1);
    float *pattern = normal(s->heads * s->queries * s->keys, 1);
    for (int t = 0; t < 2; t++) {
        qkv_set_threads(t == 0 ? 1 : 3);
        fused[t] = normal(n, 1);
        for (int64_t i = 0; i < s->queries; i++)
            fused[t][i * stride + stride - 1] = 7;  /* between rows */
        const int64_t each = qkv_attention_scratch(&c.a);
        float *scratch = normal(each * qkv_threads(), 1);
        c.a.z = fused[t];
        c.a.z_stride = stride;
        assert_true(qkv_attention_fused(&c.a, 1, scratch, each, &err));
        qkv_free(scratch);
        for (int64_t i = 0; i < s->queries; i++)
            assert_true(fused[t][i * stride + stride - 1] == 7);
    }
    assert_memory_equal(fused[0], fused[1], (size_t)n * sizeof **fused);
    const qkv_scores p = {pattern, s->queries * s->keys, s->keys};
    c.a.z = open;
    assert_true(qkv_attention_scores(p, &c.a, &err)
                && qkv_attention_pattern(p, p, &c.a, &err)
                && qkv_attention_mix(p, &c.a, &err));
    compare(&c, fused[0], open, pattern, stride);
    qkv_free(fused[0]);
    qkv_free(fused[1]);
    qkv_free(open);
    qkv_free(pattern);
    take_down(&c);
}

/* NaN in one query or one key is seen by who reads it, and nobody else. */
static void check_nan(void)
{
    static const shape s = {"NaN", 4, 2, 16, 0, 60, 60, 0, true, 1, 1};
    enum { QUERY = 20, KEY = 40, HEAD = 1 };
    scene c;
    qkv_error err;
    set_up(&c, &s);
    c.q[QUERY * c.a.q_stride + HEAD * s.d + 3] = NAN;
    c.k[0][KEY * c.tiles[0].k_stride + 5] = NAN;        /* key head 0 */
    const int64_t each = qkv_attention_scratch(&c.a);
    float *z = normal(s.queries * s.heads * s.d, 1);
    float *scratch = normal(each * qkv_threads(), 1);
    c.a.z = z;
    c.a.z_stride = s.heads * s.d;
    assert_true(qkv_attention_fused(&c.a, 1, scratch, each, &err));
    for (int64_t i = 0; i < s.queries; i++)
        for (int64_t h = 0; h < s.heads; h++)
            for (int64_t j = 0; j < s.d; j++) {
                const bool bad = (i == QUERY && h == HEAD)
                    || (i >= KEY && h < 2);
                if (isnan(z[(i * s.heads + h) * s.d + j]) != bad)
                    fail_msg("%s: z[%d, %d, %d] is %g", qkv_kernel()->name,
                             (int)i, (int)h, (int)j,
                             (double)z[(i * s.heads + h) * s.d + j]);
            }
    qkv_free(z);
    qkv_free(scratch);
    take_down(&c);
}

/* Many at once, large and small: the bits of each alone. */
static void check_many(void)
{
    enum { N = sizeof shapes / sizeof shapes[0] };
    scene c[N];
    qkv_attention all[N];
    float *alone[N];
    qkv_error err;
    int64_t each = 0;
    for (int i = 0; i < N; i++) {
        const shape *s = &shapes[i];
        const int64_t n = s->queries * s->heads * s->d;
        set_up(&c[i], s);
        const int64_t need = qkv_attention_scratch(&c[i].a);
        each = need > each ? need : each;
        float *scratch = normal(need * qkv_threads(), 1);
        alone[i] = c[i].a.z = normal(n, 1);
        c[i].a.z_stride = s->heads * s->d;
        assert_true(qkv_attention_fused(&c[i].a, 1, scratch, need, &err));
        all[i] = c[i].a;
        all[i].z = normal(n, 1);
        qkv_free(scratch);
    }
    float *scratch = normal(each * qkv_threads(), 1);
    assert_true(qkv_attention_fused(all, N, scratch, each, &err));
    for (int i = 0; i < N; i++) {
        const shape *s = &shapes[i];
        assert_memory_equal(all[i].z, alone[i], sizeof **alone
                            * (size_t)(s->queries * s->heads * s->d));
        qkv_free(all[i].z);
        qkv_free(alone[i]);
        take_down(&c[i]);
    }
    qkv_free(scratch);
}

static void all_shapes(void **state)
{
    (void)state;
    const char *names[8];
    const int n = qkv_kernel_names(names, 8);
    for (int i = 0; i < n; i++) {
        qkv_error err;
        assert_true(qkv_kernel_choose(names[i], &err));
        qkv_random_seed(&rng, 7);
        for (size_t j = 0; j < sizeof shapes / sizeof shapes[0]; j++)
            check(&shapes[j]);
        check_nan();
        check_many();
    }
}

/* What fused needs does not grow with the number of keys, once there are more
 * queries than a few. */
static void bounded(void **state)
{
    (void)state;
    qkv_attention a = {.n_heads = 9, .n_kv_heads = 3, .d_head = 64,
                       .n_queries = 100, .n_keys = 100};
    const int64_t floats = qkv_attention_scratch(&a);
    a.n_queries = a.n_keys = 1 << 20;
    assert_int_equal(qkv_attention_scratch(&a), floats);
    assert_true(floats * 4 < 1 << 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_shapes),
                                       cmocka_unit_test(bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
