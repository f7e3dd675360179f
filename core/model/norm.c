/*
 * norm.c - norms, activations, the masked head: see norm.h
 */
#include "config.h"

#include "model/norm.h"

#include <math.h>

#include "base/alloc.h"
#include "base/parallel.h"
#include "tensor/kernel.h"

enum { CHUNK = 32 };            /* rows handed out at once */

typedef struct work {
    float *out;
    const float *x, *scale, *gain, *bias;
    int64_t d;
    double eps;
    bool centred;
} work;

static double mean_of(const work *w, const float *x)
{
    return w->centred ? qkv_kernel()->sum(x, w->d) / (double)w->d : 0;
}

static float scale_of(const work *w, const float *x, double mean)
{
    return (float)sqrt(qkv_kernel()->sum_squares(x, mean, w->d)
                       / (double)w->d + w->eps);
}

static void scale_body(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const work *w = context;
    for (int64_t row = begin; row < end; row++) {
        const float *x = w->x + row * w->d;
        w->out[row] = scale_of(w, x, mean_of(w, x));
    }
}

void qkv_norm_scale(float *scale, const float *x, int64_t rows,
                    const qkv_config *c)
{
    work w = {.out = scale, .x = x, .d = c->d_model, .eps = c->eps,
              .centred = c->norm == QKV_NORM_LAYER};
    qkv_parallel(rows, CHUNK, scale_body, &w);
}

/* scale NULL: computed here. */
static void apply_body(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const work *w = context;
    for (int64_t row = begin; row < end; row++) {
        const float *x = w->x + row * w->d;
        const double mean = mean_of(w, x);
        const float scale = w->scale != NULL ? w->scale[row]
            : scale_of(w, x, mean);
        qkv_kernel()->normalise(w->out + row * w->d, x, (float)mean,
                                1 / scale, w->gain, w->bias, w->d);
    }
}

void qkv_norm_apply(float *out, const float *x, const float *scale,
                    int64_t rows, const qkv_norm *n, const qkv_config *c)
{
    work w = {.out = out, .x = x, .scale = scale, .d = c->d_model,
              .gain = qkv_optional(n->gain), .bias = qkv_optional(n->bias),
              .centred = c->norm == QKV_NORM_LAYER};
    qkv_parallel(rows, CHUNK, apply_body, &w);
}

void qkv_norm_heads(float *out, const float *x, int64_t rows, int64_t n,
                    const qkv_norm *norm, const qkv_config *c)
{
    work w = {.out = out, .x = x, .d = n, .eps = c->eps,
              .gain = qkv_optional(norm->gain),
              .bias = qkv_optional(norm->bias),
              .centred = c->norm == QKV_NORM_LAYER};
    qkv_parallel(rows, CHUNK, apply_body, &w);
}

void qkv_activate(float *out, const float *x, qkv_activation f, int64_t n)
{
    const qkv_kernels *kernel = qkv_kernel();
    switch (f) {
#define QKV_ACTIVATION(id, fn, names) \
    case QKV_ACT_##id: \
        kernel->fn(out, x, n); \
        break;
#include "model/activation.def"
#undef QKV_ACTIVATION
    case QKV_N_ACTIVATIONS:
        break;
    }
}

bool qkv_masked_head(float *out, const float *x, int64_t rows,
                     const qkv_stack *s, qkv_error *err)
{
    const qkv_config *c = &s->config;
    const int64_t d = c->d_model;
    float *y = qkv_alloc((size_t)(rows * (d + 1)) * sizeof *y, err);
    if (y == NULL)
        return false;
    const bool done = qkv_product(y, d, x, d, rows, &s->mlm_dense.w,
                                  qkv_optional(s->mlm_dense.bias), err);
    if (done) {
        float *scale = y + rows * d;
        qkv_activate(y, y, c->head_activation, rows * d);
        qkv_norm_scale(scale, y, rows, c);
        qkv_norm_apply(out, y, scale, rows, &s->mlm_norm, c);
    }
    qkv_free(y);
    return done;
}
