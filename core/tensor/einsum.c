/*
 * einsum.c - sums of products, by axis names: qkv_einsum of blas.h
 *
 * Two operands at a time. Each of their names is one of four kinds:
 *   batch    in both, and still wanted afterwards
 *   summed   in both, and not wanted any more
 *   free     in one of them, and wanted
 *   lone     in one of them, and not wanted: summed before anything else
 * With the axes of each kind put together, the rest is a matrix product
 * [batch, free, summed] x [batch, summed, free]. A name twice in one operand
 * (a diagonal) is refused; there is qkv_tensor_diagonal.
 */
#include "config.h"

#include <string.h>

#include "tensor/blas.h"
#include "tensor/reduce.h"
#include "tensor/walk.h"

enum { MAX_OPERANDS = 8 };

/* The names of one operand, or of the result. */
typedef struct term {
    int n;
    char name[QKV_MAX_DIMS][QKV_AXIS_ROOM];
} term;

static int find(const term *t, const char *name)
{
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->name[i], name) == 0)
            return i;
    return -1;
}

static bool has(const term *t, const char *name)
{
    return find(t, name) >= 0;
}

/* ---- reading the equation ---- */

static bool add_name(term *t, const char *name, size_t bytes, qkv_error *err)
{
    char word[QKV_AXIS_ROOM] = "";
    if (bytes >= QKV_AXIS_ROOM)
        return qkv_fail(err, QKV_EINVAL, "einsum: name '%.*s' is longer than "
                        "%d bytes", bytes < 40 ? (int)bytes : 40, name,
                        QKV_AXIS_ROOM - 1);
    memcpy(word, name, bytes);
    if (has(t, word))
        return qkv_fail(err, QKV_EUNSUPPORTED, "einsum: '%s' twice in one "
                        "term; take the diagonal first", word);
    if (t->n == QKV_MAX_DIMS)
        return qkv_fail(err, QKV_ESHAPE, "einsum: more than %d names in one "
                        "term", QKV_MAX_DIMS);
    memcpy(t->name[t->n++], word, sizeof word);
    return true;
}

/* The words from `at` up to `end`. */
static bool read_term(term *t, const char *at, const char *end, qkv_error *err)
{
    *t = (term){0};
    while (at < end) {
        const size_t blank = strspn(at, " ");
        const size_t bytes = strcspn(at + blank, " ,-");
        at += blank;
        if (at >= end)
            break;
        if (bytes == 0)
            return qkv_fail(err, QKV_EINVAL, "einsum: unexpected '%c' in the "
                            "equation", *at);
        if (!add_name(t, at, bytes, err))
            return false;
        at += bytes;
    }
    return true;
}

/* terms [n] and the result, of "a b, b c -> a c" */
static bool read_equation(term *terms, term *result, const char *equation,
                          int n, qkv_error *err)
{
    const char *arrow = strstr(equation, "->"), *at = equation;
    int found = 1;
    if (arrow == NULL)
        return qkv_fail(err, QKV_EINVAL, "einsum: no '->' in '%.80s'; as in "
                        "\"query d, key d -> query key\"", equation);
    for (const char *c = equation; c < arrow; c++)
        found += *c == ',';
    if (found != n)
        return qkv_fail(err, QKV_EINVAL, "einsum: %d terms before '->' in "
                        "'%.80s', and %d tensors", found, equation, n);
    for (int i = 0; i < n; i++) {
        const char *comma = memchr(at, ',', (size_t)(arrow - at));
        const char *end = comma != NULL ? comma : arrow;
        if (!read_term(&terms[i], at, end, err))
            return false;
        at = end + 1;
    }
    return read_term(result, arrow + 2, arrow + strlen(arrow), err);
}

/* Each operand has its term's axes, sizes agree, the result's names exist. */
static bool check_sizes(const term *terms, const term *result,
                        qkv_tensor *const *operands, int n, qkv_error *err)
{
    char what[160], other[160];
    for (int i = 0; i < n; i++) {
        const qkv_tensor *t = operands[i];
        qkv_tensor_describe(t, what, sizeof what);
        if (terms[i].n != t->n_dims)
            return qkv_fail(err, QKV_ESHAPE, "einsum: %d names for operand "
                            "%d, %s", terms[i].n, i, what);
        for (int a = 0; a < t->n_dims; a++)
            for (int j = 0; j < i; j++) {
                const int b = find(&terms[j], terms[i].name[a]);
                if (b < 0 || operands[j]->shape[b] == t->shape[a])
                    continue;
                qkv_tensor_describe(operands[j], other, sizeof other);
                return qkv_fail(err, QKV_ESHAPE, "einsum: '%s' is %lld in %s "
                                "and %lld in %s", terms[i].name[a],
                                (long long)operands[j]->shape[b], other,
                                (long long)t->shape[a], what);
            }
    }
    for (int a = 0; a < result->n; a++) {
        bool found = false;
        for (int i = 0; i < n; i++)
            found = found || has(&terms[i], result->name[a]);
        if (!found)
            return qkv_fail(err, QKV_EINVAL, "einsum: '%s' of the result is "
                            "in no operand", result->name[a]);
    }
    return true;
}

/* ---- one or two operands ---- */

/* A tensor with the equation's names for its axes; a reference. */
typedef struct operand {
    qkv_tensor *t;
    term names;
} operand;

/* Sum the names of o that neither `a` nor `b` has. */
static bool sum_lone(operand *o, const term *a, const term *b, qkv_error *err)
{
    for (int i = o->names.n - 1; i >= 0; i--) {
        if (has(a, o->names.name[i]) || has(b, o->names.name[i]))
            continue;
        qkv_tensor *sum = qkv_reduce(QKV_SUM, o->t, i, err);
        if (sum == NULL)
            return false;
        qkv_tensor_release(o->t);
        o->t = sum;
        memmove(o->names.name[i], o->names.name[i + 1],
                (size_t)(o->names.n - 1 - i) * QKV_AXIS_ROOM);
        o->names.n--;
    }
    return true;
}

/* The axes of one operand by kind: batch, free, summed, each a run of
 * order [n]. Batch and summed come in the order of `lead`, the first
 * operand, so that they meet their like. */
typedef struct kinds {
    int order[QKV_MAX_DIMS];
    int n_batch, n_free, n_summed;
} kinds;

static kinds sort_axes(const term *own, const term *lead, const term *other,
                       const term *wanted)
{
    kinds k = {0};
    int n = 0;
    for (int i = 0; i < lead->n; i++)
        if (has(own, lead->name[i]) && has(other, lead->name[i])
            && has(wanted, lead->name[i]))
            k.order[n++] = find(own, lead->name[i]);
    k.n_batch = n;
    for (int i = 0; i < own->n; i++)
        if (!has(other, own->name[i]))
            k.order[n++] = i;
    k.n_free = n - k.n_batch;
    for (int i = 0; i < lead->n; i++)
        if (has(own, lead->name[i]) && has(other, lead->name[i])
            && !has(wanted, lead->name[i]))
            k.order[n++] = find(own, lead->name[i]);
    k.n_summed = n - k.n_batch - k.n_free;
    return k;
}

static int64_t product_of(const qkv_tensor *t, const int *order, int n)
{
    int64_t product = 1;
    for (int i = 0; i < n; i++)
        product *= t->shape[order[i]];
    return product;
}

/* t as [batch, free, summed], or [free, summed] without batch. */
static qkv_tensor *as_matrices(const qkv_tensor *t, const kinds *k,
                               qkv_error *err)
{
    const int *free_axes = k->order + k->n_batch;
    const int64_t shape[] = {
        product_of(t, k->order, k->n_batch),
        product_of(t, free_axes, k->n_free),
        product_of(t, free_axes + k->n_free, k->n_summed),
    };
    qkv_tensor *turned = qkv_tensor_permute(t, k->order, err);
    if (turned == NULL
        || (k->n_batch == 0 && k->n_free == 1 && k->n_summed == 1))
        return turned;          /* as it is; it may be quantised */
    const bool flat = k->n_batch == 0;
    qkv_tensor *out = qkv_tensor_reshape(turned, flat ? 2 : 3, shape + flat,
                                         NULL, err);
    qkv_tensor_release(turned);
    return out;
}

/* The same as [batch, summed, free]: without a copy if t lies either way. */
static qkv_tensor *as_right_matrices(const qkv_tensor *t, const kinds *k,
                                     qkv_error *err)
{
    kinds swapped = {.n_batch = k->n_batch, .n_free = k->n_summed,
                     .n_summed = k->n_free};
    int n = 0;
    for (int i = 0; i < k->n_batch; i++)
        swapped.order[n++] = k->order[i];
    for (int i = 0; i < k->n_summed; i++)
        swapped.order[n++] = k->order[k->n_batch + k->n_free + i];
    for (int i = 0; i < k->n_free; i++)
        swapped.order[n++] = k->order[k->n_batch + i];
    qkv_tensor *turned = qkv_tensor_permute(t, swapped.order, err);
    if (turned == NULL)
        return NULL;
    const bool ready = qkv_tensor_is_contiguous(turned);
    qkv_tensor_release(turned);
    if (ready)
        return as_matrices(t, &swapped, err);
    qkv_tensor *rows = as_matrices(t, k, err);
    qkv_tensor *out = rows == NULL ? NULL
        : qkv_tensor_transpose(rows, rows->n_dims - 2, rows->n_dims - 1, err);
    qkv_tensor_release(rows);
    return out;
}

/* Give product [batch, m, n] the axes that stand behind it. */
static bool unfold(operand *out, const qkv_tensor *product, const operand *a,
                   const kinds *ka, const operand *b, const kinds *kb,
                   qkv_error *err)
{
    const int first_b = kb->n_batch, n_a = ka->n_batch + ka->n_free;
    int64_t shape[QKV_MAX_DIMS];
    out->names = (term){.n = n_a + kb->n_free};
    if (out->names.n > QKV_MAX_DIMS)
        return qkv_fail(err, QKV_ESHAPE, "einsum: a product of %d axes; %d "
                        "is the most", out->names.n, QKV_MAX_DIMS);
    for (int i = 0; i < out->names.n; i++) {
        const operand *o = i < n_a ? a : b;
        const int axis = i < n_a ? ka->order[i] : kb->order[first_b + i - n_a];
        shape[i] = o->t->shape[axis];
        memcpy(out->names.name[i], o->names.name[axis], QKV_AXIS_ROOM);
    }
    out->t = qkv_tensor_reshape(product, out->names.n, shape, NULL, err);
    return out->t != NULL;
}

/* a = the sum of products of a and b, with the names of both that are
 * wanted. */
static bool contract(operand *a, operand *b, const term *wanted,
                     qkv_error *err)
{
    operand out = {0};
    if (!sum_lone(a, &b->names, wanted, err)
        || !sum_lone(b, &a->names, wanted, err))
        return false;
    const kinds ka = sort_axes(&a->names, &a->names, &b->names, wanted);
    const kinds kb = sort_axes(&b->names, &a->names, &a->names, wanted);
    qkv_tensor *left = as_matrices(a->t, &ka, err);
    qkv_tensor *right = left != NULL ? as_right_matrices(b->t, &kb, err)
                                     : NULL;
    for (int i = 0; i < 3 && right != NULL; i++) {
        memset(left->axis[i], 0, QKV_AXIS_ROOM);    /* views of ours: the */
        memset(right->axis[i], 0, QKV_AXIS_ROOM);   /* equation names them */
    }
    qkv_tensor *product = right != NULL ? qkv_matmul(left, right, err) : NULL;
    const bool good = product != NULL
        && unfold(&out, product, a, &ka, b, &kb, err);
    qkv_tensor_release(product);
    qkv_tensor_release(right);
    qkv_tensor_release(left);
    if (good) {
        qkv_tensor_release(a->t);
        *a = out;
    }
    return good;
}

/* ---- the whole ---- */

/* The names that the result and the terms after i ask for. */
static bool wanted_after(term *wanted, const term *terms, const term *result,
                         const term *a, int i, int n, qkv_error *err)
{
    *wanted = *result;
    for (int at = 0; at < a->n + terms[i].n; at++) {
        const char *name = at < a->n ? a->name[at]
                                     : terms[i].name[at - a->n];
        for (int j = i + 1; j < n; j++)
            if (has(&terms[j], name) && !has(wanted, name)) {
                if (!add_name(wanted, name, strlen(name), err))
                    return false;
                break;
            }
    }
    return true;
}

/* o with its axes in the result's order: a new, contiguous f32 tensor. */
static qkv_tensor *arrange(const operand *o, const term *result,
                           qkv_error *err)
{
    int order[QKV_MAX_DIMS] = {0};
    for (int i = 0; i < result->n; i++)
        order[i] = find(&o->names, result->name[i]);
    qkv_tensor *view = qkv_tensor_permute(o->t, order, err);
    qkv_tensor *out = view != NULL ? qkv_tensor_to(view, QKV_F32, err) : NULL;
    qkv_tensor_release(view);
    if (out == NULL)
        return NULL;
    memset(out->axis, 0, sizeof out->axis);
    for (int i = 0; i < result->n; i++)
        memcpy(out->axis[i], result->name[i], QKV_AXIS_ROOM);
    return out;
}

qkv_tensor *qkv_einsum(const char *equation, qkv_tensor *const *operands,
                       int n, qkv_error *err)
{
    term terms[MAX_OPERANDS], result, wanted;
    if (n < 1 || n > MAX_OPERANDS) {
        qkv_fail(err, QKV_EINVAL, "einsum of %d tensors: 1 to %d", n,
                 MAX_OPERANDS);
        return NULL;
    }
    if (!read_equation(terms, &result, equation, n, err)
        || !check_sizes(terms, &result, operands, n, err))
        return NULL;
    operand all = {qkv_tensor_retain(operands[0]), terms[0]};
    bool good = true;
    for (int i = 1; i < n && good; i++) {
        operand next = {qkv_tensor_retain(operands[i]), terms[i]};
        good = wanted_after(&wanted, terms, &result, &all.names, i, n, err)
            && contract(&all, &next, &wanted, err);
        qkv_tensor_release(next.t);
    }
    good = good && sum_lone(&all, &result, &result, err);
    qkv_tensor *out = good ? arrange(&all, &result, err) : NULL;
    qkv_tensor_release(all.t);
    return out;
}
