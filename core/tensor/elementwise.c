/*
 * elementwise.c - arithmetic element by element: see elementwise.h
 *
 * Each operation is one loop over short runs of floats (walk.h brings them
 * there whatever their type and strides), so there is one loop to read and
 * for the compiler to vectorise.
 */
#include "config.h"

#include "tensor/elementwise.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/interrupt.h"
#include "tensor/kernel.h"
#include "tensor/walk.h"

#define EACH(expression)                                                    \
    for (int64_t i = 0; i < n; i++)                                         \
        out[i] = (expression);                                              \
    break

/* out [n] = a [n] op b [n]; out may be a. */
static void binary_run(qkv_binary op, float *out, const float *a,
                       const float *b, int64_t n)
{
    switch (op) {
    case QKV_ADD: qkv_kernel()->add(out, a, b, n); break;
    case QKV_SUB: EACH(a[i] - b[i]);
    case QKV_MUL: qkv_kernel()->multiply(out, a, b, n); break;
    case QKV_DIV: EACH(a[i] / b[i]);
    case QKV_POW: EACH(powf(a[i], b[i]));
    /* a NaN on either side comes through */
    case QKV_MIN_OF: EACH(a[i] < b[i] || isnan(a[i]) ? a[i] : b[i]);
    case QKV_MAX_OF: EACH(a[i] > b[i] || isnan(a[i]) ? a[i] : b[i]);
    case QKV_LT: EACH(a[i] < b[i] ? 1.0f : 0.0f);
    case QKV_LE: EACH(a[i] <= b[i] ? 1.0f : 0.0f);
    case QKV_GT: EACH(a[i] > b[i] ? 1.0f : 0.0f);
    case QKV_GE: EACH(a[i] >= b[i] ? 1.0f : 0.0f);
    case QKV_EQ: EACH(a[i] == b[i] ? 1.0f : 0.0f);
    }
}

static void unary_run(qkv_unary op, float *out, const float *a, int64_t n)
{
    switch (op) {
    case QKV_NEG: EACH(-a[i]);
    case QKV_EXP: qkv_kernel()->exp(out, a, n); break;
    case QKV_LOG: EACH(logf(a[i]));
    case QKV_SQRT: EACH(sqrtf(a[i]));
    case QKV_ABS: EACH(fabsf(a[i]));
    case QKV_TANH: qkv_kernel()->tanh(out, a, n); break;
    case QKV_ROUND: EACH(rintf(a[i]));      /* ties to even */
    case QKV_ISNAN: EACH(isnan(a[i]) ? 1.0f : 0.0f);
    }
}

/* What a walk over {out, arguments...} does with each run. */
typedef struct operation {
    int code;                   /* qkv_binary or qkv_unary */
    float low, high;
} operation;

/* Where a run's results go: out itself, if it is plain floats, else room. */
static float *results(const qkv_strip *out, float *room)
{
    const bool direct = out->dtype == QKV_F32
        && out->stride == (int64_t)sizeof(float)
        && (uintptr_t)out->data % sizeof(float) == 0;
    return direct ? (float *)(void *)out->data : room;
}

static void keep(const qkv_strip *out, const float *values, const float *room,
                 int64_t n)
{
    if (values == room)
        qkv_strip_store_floats(out, values, n);
}

static void visit_binary(void *context, const qkv_strip *s, int64_t n,
                         int64_t first)
{
    const operation *o = context;
    float room[3][QKV_RUN], *out = results(&s[0], room[0]);
    (void)first;
    binary_run((qkv_binary)o->code, out, qkv_strip_floats(&s[1], n, room[1]),
               qkv_strip_floats(&s[2], n, room[2]), n);
    keep(&s[0], out, room[0], n);
}

static void visit_unary(void *context, const qkv_strip *s, int64_t n,
                        int64_t first)
{
    const operation *o = context;
    float room[2][QKV_RUN], *out = results(&s[0], room[0]);
    (void)first;
    unary_run((qkv_unary)o->code, out, qkv_strip_floats(&s[1], n, room[1]), n);
    keep(&s[0], out, room[0], n);
}

static void visit_clamp(void *context, const qkv_strip *s, int64_t n,
                        int64_t first)
{
    const operation *o = context;
    float room[2][QKV_RUN], *out = results(&s[0], room[0]);
    const float *a = qkv_strip_floats(&s[1], n, room[1]);
    (void)first;
    for (int64_t i = 0; i < n; i++)         /* NaN stays */
        out[i] = a[i] < o->low ? o->low : a[i] > o->high ? o->high : a[i];
    keep(&s[0], out, room[0], n);
}

static void visit_where(void *context, const qkv_strip *s, int64_t n,
                        int64_t first)
{
    float room[4][QKV_RUN], *out = results(&s[0], room[0]);
    const float *c = qkv_strip_floats(&s[1], n, room[1]);
    const float *t = qkv_strip_floats(&s[2], n, room[2]);
    const float *u = qkv_strip_floats(&s[3], n, room[3]);
    (void)context, (void)first;
    for (int64_t i = 0; i < n; i++)
        out[i] = c[i] != 0.0f ? t[i] : u[i];
    keep(&s[0], out, room[0], n);
}

/* Walk over out and the arguments [n_arguments], which broadcast to it. */
static bool run(const qkv_tensor *out, const qkv_tensor *const *arguments,
                int n_arguments, qkv_visit *visit, operation *o,
                qkv_error *err)
{
    qkv_walk w;
    qkv_walk_init(&w, out->n_dims, out->shape);
    qkv_walk_add(&w, out);
    for (int i = 0; i < n_arguments; i++)
        qkv_walk_add(&w, arguments[i]);
    return qkv_walk_run(&w, false, visit, o, err);
}

/* A new f32 tensor of the arguments' common shape, filled by visit. */
static qkv_tensor *compute(const qkv_tensor *const *arguments, int n_arguments,
                           qkv_visit *visit, operation *o, qkv_error *err)
{
    qkv_tensor shape = *arguments[0];
    for (int i = 0; i < n_arguments; i++)
        if (!qkv_check_plain(arguments[i], "arithmetic on the elements", err)
            || (i > 0 && !qkv_broadcast(&shape, &shape, arguments[i], err)))
            return NULL;
    qkv_tensor *out = qkv_tensor_like(&shape, QKV_F32, err);
    if (out == NULL || run(out, arguments, n_arguments, visit, o, err))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

qkv_tensor *qkv_binary_op(qkv_binary op, const qkv_tensor *a,
                          const qkv_tensor *b, qkv_error *err)
{
    const qkv_tensor *const arguments[] = {a, b};
    operation o = {.code = (int)op};
    return compute(arguments, 2, visit_binary, &o, err);
}

qkv_tensor *qkv_binary_number(qkv_binary op, const qkv_tensor *a, double b,
                              bool swapped, qkv_error *err)
{
    if (op == QKV_POW && !swapped && b == 2.0)
        return qkv_binary_op(QKV_MUL, a, a, err);   /* exact, and fast */
    float number = (float)b;
    qkv_storage storage = {.refs = 1, .data = &number, .bytes = sizeof number};
    const qkv_tensor t = {.refs = 1, .dtype = QKV_F32, .storage = &storage};
    return swapped ? qkv_binary_op(op, &t, a, err)
                   : qkv_binary_op(op, a, &t, err);
}

qkv_tensor *qkv_unary_op(qkv_unary op, const qkv_tensor *a, qkv_error *err)
{
    const qkv_tensor *const arguments[] = {a};
    operation o = {.code = (int)op};
    return compute(arguments, 1, visit_unary, &o, err);
}

qkv_tensor *qkv_clamp(const qkv_tensor *a, double low, double high,
                      qkv_error *err)
{
    const qkv_tensor *const arguments[] = {a};
    operation o = {.low = (float)low, .high = (float)high};
    if (!(low <= high)) {
        qkv_fail(err, QKV_EINVAL, "clamp from %g to %g: the first must not "
                 "be above the second", low, high);
        return NULL;
    }
    return compute(arguments, 1, visit_clamp, &o, err);
}

qkv_tensor *qkv_where(const qkv_tensor *c, const qkv_tensor *t,
                      const qkv_tensor *u, qkv_error *err)
{
    const qkv_tensor *const arguments[] = {c, t, u};
    return compute(arguments, 3, visit_where, NULL, err);
}

bool qkv_binary_into(qkv_binary op, qkv_tensor *t, const qkv_tensor *b,
                     qkv_error *err)
{
    if (op > QKV_DIV)
        return qkv_fail(err, QKV_EINVAL,
                        "in place there are add, sub, mul and div");
    if (!qkv_check_writable(t, err)
        || !qkv_check_plain(b, "arithmetic on the elements", err)
        || !qkv_check_into(t, b, err))
        return false;
    const qkv_tensor *const arguments[] = {t, b};
    operation o = {.code = (int)op};
    if (qkv_is_float(t->dtype) && t->storage->data != b->storage->data)
        return run(t, arguments, 2, visit_binary, &o, err);
    /* Apart first: the two may overlap, or a result may not fit. */
    qkv_tensor *values = qkv_binary_op(op, t, b, err);
    const bool good = values != NULL && qkv_tensor_copy(t, values, err);
    qkv_tensor_release(values);
    return good;
}

qkv_tensor *qkv_triu(const qkv_tensor *a, int64_t k, qkv_error *err)
{
    char what[160];
    if (a->n_dims < 2) {
        qkv_tensor_describe(a, what, sizeof what);
        qkv_fail(err, QKV_ESHAPE, "triu of %s: two axes at least", what);
        return NULL;
    }
    if (!qkv_check_plain(a, "triu", err))
        return NULL;
    qkv_tensor *out = qkv_tensor_to(a, QKV_F32, err);
    if (out == NULL)
        return NULL;
    const int64_t rows = a->shape[a->n_dims - 2], cols = a->shape[a->n_dims - 1];
    const int64_t all_rows = cols > 0 ? qkv_tensor_count(a) / cols : 0;
    float *x = qkv_tensor_data(out);
    for (int64_t r = 0; r < all_rows; r++) {
        const int64_t row = r % rows;
        /* row + k > col goes; k may be anything, so no sum of it */
        const int64_t gone = k > cols - row ? cols : k < -row ? 0 : row + k;
        memset(x + r * cols, 0, (size_t)gone * sizeof *x);
    }
    if (qkv_check(err))
        return out;
    qkv_tensor_release(out);
    return NULL;
}

typedef struct comparison {
    double tol;
    atomic_bool differ;
} comparison;

static void visit_near(void *context, const qkv_strip *s, int64_t n,
                       int64_t first)
{
    comparison *c = context;
    double a[QKV_RUN], b[QKV_RUN];
    (void)first;
    qkv_strip_doubles(a, &s[0], n);
    qkv_strip_doubles(b, &s[1], n);
    bool near = true;
    for (int64_t i = 0; i < n; i++)     /* equal infinities are near */
        near = near && (fabs(a[i] - b[i]) <= c->tol
                        || (isinf(a[i]) && a[i] * b[i] > 0 && isinf(b[i])));
    if (!near)
        atomic_store(&c->differ, true);
}

bool qkv_tensor_near(const qkv_tensor *a, const qkv_tensor *b, double tol)
{
    qkv_error ignored;
    qkv_walk w;
    comparison c = {.tol = tol};
    if (a->n_dims != b->n_dims || qkv_is_quantised(a->dtype)
        || qkv_is_quantised(b->dtype))
        return false;
    for (int i = 0; i < a->n_dims; i++)
        if (a->shape[i] != b->shape[i])
            return false;
    qkv_walk_init(&w, a->n_dims, a->shape);
    qkv_walk_add(&w, a);
    qkv_walk_add(&w, b);
    return qkv_walk_run(&w, false, visit_near, &c, &ignored)
        && !atomic_load(&c.differ);
}
