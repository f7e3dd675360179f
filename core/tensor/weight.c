/*
 * weight.c - products with matrices as they lie in the file: see weight.h
 *
 * Every row map is a sequence of runs: stored rows a fixed step apart ("pairs"
 * has two of step 2 in each group). A product is split over the rows of W in
 * chunks whose size follows from its shape alone, never from the number of
 * threads, so that bits do not depend on it. A chunk is computed
 *
 *   - for few rows of x: straight from the stored blocks (kernel few_rows);
 *   - for many: as a panel of floats, unpacked into scratch of this thread
 *     unless it lies there as floats already, times x by sgemm.
 *
 * A transposed matrix gives panels [k, columns]; with few rows each output is
 * then a sum of their rows (kernel mix).
 */
#include "config.h"

#include "tensor/weight.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "tensor/blas.h"
#include "tensor/kernel.h"

enum {
    FEW = 12,                   /* rows of x up to which few_rows is faster */
    ROWS_AT_ONCE = 512,         /* of x in one sgemm: bounds its time */
    ALONE = 100000,             /* multiply-adds not worth a second thread */
    CHUNK = 50000,              /* multiply-adds worth handing out */
    PANEL = 65536,              /* floats of a panel: 256 KB, in the L2 cache */
    PANEL_LEAST = 16, PANEL_MOST = 256      /* rows of W in a panel */
};

/* ---- the weight ---- */

bool qkv_weight_init(qkv_weight *w, qkv_tensor *stored, bool transposed,
                     qkv_error *err)
{
    *w = (qkv_weight){0};
    if (stored->n_dims != 2)
        return qkv_fail(err, QKV_ESHAPE, "a weight has 2 axes, not %d",
                        stored->n_dims);
    const int64_t n = stored->shape[transposed ? 1 : 0];
    *w = (qkv_weight){
        .stored = stored, .n = n, .k = stored->shape[transposed ? 0 : 1],
        .group = n, .transposed = transposed
    };
    if (!qkv_weight_check(w, "weight", err)) {
        *w = (qkv_weight){0};
        return false;
    }
    qkv_tensor_retain(stored);
    return true;
}

void qkv_weight_reset(qkv_weight *w)
{
    qkv_tensor_release(w->stored);
    *w = (qkv_weight){0};
}

static bool check_stored(const qkv_weight *w, const char *name, qkv_error *err)
{
    const qkv_tensor *t = w->stored;
    const qkv_dtype_info *type = &qkv_dtypes[t->dtype];
    if (t->n_dims != 2)
        return qkv_fail(err, QKV_ESHAPE, "%s has %d axes, expected 2", name,
                        t->n_dims);
    if (!qkv_is_float(t->dtype) && !qkv_is_quantised(t->dtype))
        return qkv_fail(err, QKV_EUNSUPPORTED, "%s is of type %s; a weight is "
                        "of floats or quantised", name, type->name);
    if (w->transposed && qkv_is_quantised(t->dtype))
        return qkv_fail(err, QKV_EUNSUPPORTED, "%s is of type %s, whose rows "
                        "lie the other way; it cannot be used transposed",
                        name, type->name);
    if (t->shape[0] < 1 || t->shape[1] < 1 || t->shape[0] > INT_MAX
        || t->shape[1] > INT_MAX || t->stride[0] > INT_MAX / 2
        || (t->stride[1] != 1 && t->shape[1] != 1)
        || t->shape[1] % type->block != 0 || t->stride[0] % type->block != 0)
        return qkv_fail(err, QKV_ESHAPE, "%s is stored as [%lld, %lld] with "
                        "strides %lld, %lld; expected contiguous rows of at "
                        "least one value", name, (long long)t->shape[0],
                        (long long)t->shape[1], (long long)t->stride[0],
                        (long long)t->stride[1]);
    return true;
}

bool qkv_weight_check(const qkv_weight *w, const char *name, qkv_error *err)
{
    if (w->stored == NULL)
        return true;
    if (!check_stored(w, name, err))
        return false;
    const int64_t *shape = w->stored->shape;
    const int64_t room = shape[w->transposed ? 1 : 0];
    if (w->k != shape[w->transposed ? 0 : 1])
        return qkv_fail(err, QKV_ESHAPE, "%s has %lld inputs, expected %lld",
                        name, (long long)shape[w->transposed ? 0 : 1],
                        (long long)w->k);
    if (w->n < 1 || w->group < 1 || w->n % w->group != 0 || w->first < 0
        || w->pitch < 0 || (w->pairs && w->group % 2 != 0))
        return qkv_fail(err, QKV_ESHAPE, "%s: %lld rows from row %lld on do "
                        "not come in groups of %lld%s, %lld apart", name,
                        (long long)w->n, (long long)w->first,
                        (long long)w->group, w->pairs ? " (an even number)"
                        : "", (long long)w->pitch);
    int64_t end;                /* of the last group */
    if (!qkv_int_mul(&end, w->n / w->group - 1, w->pitch)
        || !qkv_int_add(&end, end, w->first)
        || !qkv_int_add(&end, end, w->group) || end > room)
        return qkv_fail(err, QKV_ESHAPE, "%s has %lld rows; %lld rows in "
                        "groups of %lld, %lld apart from row %lld on, go "
                        "beyond them", name, (long long)room, (long long)w->n,
                        (long long)w->group, (long long)w->pitch,
                        (long long)w->first);
    return true;
}

/* Rows i, i + 1, ... of W: stored rows `row`, row + step, ...; count of them,
 * to the end of the run. */
typedef struct run {
    int64_t row, step, count;
} run;

static run run_at(const qkv_weight *w, int64_t i)
{
    const int64_t start = w->first + i / w->group * w->pitch;
    const int64_t j = i % w->group, half = w->group / 2;
    if (!w->pairs)
        return (run){start + j, 1, w->group - j};
    if (j < half)
        return (run){start + 2 * j, 2, half - j};
    return (run){start + 2 * (j - half) + 1, 2, w->group - j};
}

/* Bytes of `count` values that lie one after the other. */
static int64_t bytes_of(const qkv_tensor *t, int64_t count)
{
    return count / qkv_dtypes[t->dtype].block * qkv_dtypes[t->dtype].bytes;
}

static int64_t row_bytes(const qkv_tensor *t)
{
    return bytes_of(t, t->stride[0]);
}

static const char *stored_row(const qkv_tensor *t, int64_t row)
{
    return (const char *)qkv_tensor_data(t) + row * row_bytes(t);
}

void qkv_weight_row(float *out, const qkv_weight *w, int64_t i)
{
    const qkv_tensor *t = w->stored;
    const int64_t row = run_at(w, i).row;
    void (*unpack)(float *, const void *, int64_t) =
        qkv_kernel()->unpack[t->dtype];
    if (!w->transposed) {
        unpack(out, stored_row(t, row), w->k);
        return;
    }
    for (int64_t j = 0; j < w->k; j++)
        unpack(out + j, stored_row(t, j) + bytes_of(t, row), 1);
}

typedef struct rows_job {
    float *out;
    const qkv_weight *w;
} rows_job;

static void unpack_rows(void *context, int64_t begin, int64_t end, int thread)
{
    const rows_job *job = context;
    (void)thread;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++)
        qkv_weight_row(job->out + i * job->w->k, job->w, i);
}

qkv_tensor *qkv_weight_float(const qkv_weight *w, qkv_error *err)
{
    const int64_t shape[2] = {w->n, w->k};
    qkv_tensor *t = qkv_tensor_new(QKV_F32, 2, shape, NULL, err);
    if (t == NULL)
        return NULL;
    rows_job job = {qkv_tensor_data(t), w};
    qkv_parallel(w->n, ALONE / w->k + 1, unpack_rows, &job);
    if (!qkv_check(err)) {
        qkv_tensor_release(t);
        return NULL;
    }
    return t;
}

/* ---- scratch: a panel a thread ---- */

static struct {
    float *data;
    size_t floats;              /* in all */
} scratch;

void qkv_product_trim(void)
{
    qkv_free(scratch.data);
    scratch.data = NULL;
    scratch.floats = 0;
}

/* Room for `each` floats a thread; whole cache lines, so that threads do not
 * share one. */
static bool reserve(int64_t *each, qkv_error *err)
{
    *each = (*each + 15) / 16 * 16;
    size_t floats, bytes;
    if (!qkv_size_mul(&floats, (size_t)*each, (size_t)qkv_threads())
        || !qkv_size_mul(&bytes, floats, sizeof(float)))
        return qkv_fail(err, QKV_ENOMEM, "no memory for panels of %lld floats",
                        (long long)*each);
    if (floats <= scratch.floats)
        return true;
    qkv_product_trim();
    scratch.data = qkv_alloc(bytes, err);
    if (scratch.data == NULL)
        return false;
    scratch.floats = floats;
    return true;
}

/* ---- products ---- */

typedef struct product {
    const qkv_kernels *kernel;
    float *out;
    int64_t out_stride;
    const float *x;
    int64_t x_stride, rows;
    const qkv_weight *w;
    const int64_t *picked;      /* rows of W, or NULL: all */
    const float *bias;
    int64_t panel;              /* floats of scratch that a thread has */
} product;

/* Rows [begin, end) of W as floats: a panel [end - begin, k], rows ld apart;
 * transposed: [k, end - begin]. */
typedef struct panel {
    const float *data;
    int64_t ld;
    bool transposed;
} panel;

/* Columns of a stored matrix: what lies there, or a copy. */
static panel columns(const product *p, int64_t column, int64_t n, float *room)
{
    const qkv_tensor *t = p->w->stored;
    if (t->dtype == QKV_F32)
        return (panel){(const float *)qkv_tensor_data(t) + column,
                       t->stride[0], true};
    for (int64_t j = 0; j < p->w->k; j++)
        p->kernel->unpack[t->dtype](room + j * n, stored_row(t, j)
                                    + bytes_of(t, column), n);
    return (panel){room, n, true};
}

static panel unpacked(const product *p, int64_t begin, int64_t end,
                      float *room)
{
    const qkv_tensor *t = p->w->stored;
    const run r = run_at(p->w, begin);
    if (r.count >= end - begin && r.step == 1) {
        if (p->w->transposed)
            return columns(p, r.row, end - begin, room);
        if (t->dtype == QKV_F32)
            return (panel){(const float *)qkv_tensor_data(t)
                           + r.row * t->stride[0], t->stride[0], false};
    }
    for (int64_t i = begin; i < end; i++)
        qkv_weight_row(room + (i - begin) * p->w->k, p->w, i);
    return (panel){room, p->w->k, false};
}

static void add_bias(const product *p, int64_t begin, int64_t end)
{
    if (p->bias == NULL)
        return;
    for (int64_t r = 0; r < p->rows; r++) {
        float *out = p->out + r * p->out_stride + begin;
        p->kernel->add(out, out, p->bias + begin, end - begin);
    }
}

/* Columns [begin, end) of the result, of stored rows as they are. */
static void few_straight(const product *p, int64_t begin, int64_t end)
{
    const qkv_tensor *t = p->w->stored;
    for (int64_t i = begin; i < end; ) {
        const run r = run_at(p->w, i);
        const int64_t n = r.count < end - i ? r.count : end - i;
        p->kernel->few_rows[t->dtype](p->out + i, p->out_stride, p->x,
                                      p->x_stride, p->rows,
                                      stored_row(t, r.row),
                                      r.step * row_bytes(t), n, p->w->k);
        i += n;
    }
}

static void few_transposed(const product *p, int64_t begin, int64_t end,
                           float *room)
{
    const int64_t n = end - begin;
    const panel v = unpacked(p, begin, end, room);
    if (!v.transposed) {
        p->kernel->few_rows[QKV_F32](p->out + begin, p->out_stride, p->x,
                                     p->x_stride, p->rows, v.data,
                                     v.ld * (int64_t)sizeof(float), n,
                                     p->w->k);
        return;
    }
    for (int64_t r = 0; r < p->rows; r++) {
        float *out = p->out + r * p->out_stride + begin;
        memset(out, 0, (size_t)n * sizeof *out);
        p->kernel->mix(out, p->x + r * p->x_stride, v.data, v.ld, p->w->k, n);
    }
}

static void few_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    if (qkv_interrupted())
        return;
    if (p->w->transposed)
        few_transposed(p, begin, end, scratch.data + thread * p->panel);
    else
        few_straight(p, begin, end);
    add_bias(p, begin, end);
}

static void many_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    if (qkv_interrupted())
        return;
    const panel v = unpacked(p, begin, end, scratch.data + thread * p->panel);
    for (int64_t r = 0; r < p->rows && !qkv_interrupted(); r += ROWS_AT_ONCE) {
        const int64_t m = p->rows - r < ROWS_AT_ONCE ? p->rows - r
            : ROWS_AT_ONCE;
        qkv_gemm_1(false, !v.transposed, m, end - begin, p->w->k, 1.0f,
                   p->x + r * p->x_stride, p->x_stride, v.data, v.ld, 0.0f,
                   p->out + r * p->out_stride + begin, p->out_stride);
    }
    add_bias(p, begin, end);
}

/* Rows of W in a panel: what fits the cache, made even over the matrix and a
 * multiple of 16. */
static int64_t panel_rows(int64_t n, int64_t k)
{
    int64_t most = PANEL / k;
    most = most < PANEL_LEAST ? PANEL_LEAST : most > PANEL_MOST ? PANEL_MOST
        : most;
    int64_t pieces = (n + most - 1) / most;
    pieces += pieces % 2;
    const int64_t rows = (n + pieces - 1) / pieces;
    return (rows + 15) / 16 * 16;
}

/* Rows of W that few rows of x are handed out by; a multiple of 4, the
 * kernels' tile. */
static int64_t few_chunk(int64_t rows, int64_t n, int64_t k)
{
    if (rows * n * k <= ALONE)
        return n;
    return (CHUNK / (rows * k) + 4) / 4 * 4;
}

bool qkv_product(float *out, int64_t out_stride, const float *x,
                 int64_t x_stride, int64_t rows, const qkv_weight *w,
                 const float *bias, qkv_error *err)
{
    assert(w->stored != NULL);
    product p = {
        .kernel = qkv_kernel(), .out = out, .out_stride = out_stride, .x = x,
        .x_stride = x_stride, .rows = rows, .w = w, .bias = bias
    };
    const bool few = rows <= FEW;
    const int64_t chunk = few && !w->transposed
        ? few_chunk(rows < 1 ? 1 : rows, w->n, w->k) : panel_rows(w->n, w->k);
    if (rows < 1)
        return true;
    if (!few || w->transposed) {
        p.panel = chunk * w->k;
        if (!reserve(&p.panel, err))
            return false;
    }
    qkv_parallel(w->n, chunk, few ? few_body : many_body, &p);
    return qkv_check(err);
}

/* Columns [begin, end) of `picked`. */
static void picked_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    const qkv_tensor *t = p->w->stored;
    float *room = scratch.data + thread * p->panel;
    for (int64_t j = begin; j < end && !qkv_interrupted(); j++) {
        const int64_t i = p->picked[j];
        const void *row = room;
        qkv_dtype type = QKV_F32;
        if (p->w->transposed) {
            qkv_weight_row(room, p->w, i);
        } else {
            row = stored_row(t, run_at(p->w, i).row);
            type = t->dtype;
        }
        p->kernel->few_rows[type](p->out + j, p->out_stride, p->x,
                                  p->x_stride, p->rows, row, 0, 1, p->w->k);
        for (int64_t r = 0; r < p->rows && p->bias != NULL; r++)
            p->out[r * p->out_stride + j] += p->bias[i];
    }
}

bool qkv_product_rows(float *out, int64_t out_stride, const float *x,
                      int64_t x_stride, int64_t rows, const qkv_weight *w,
                      const int64_t *picked, int64_t n_picked,
                      const float *bias, qkv_error *err)
{
    assert(w->stored != NULL);
    for (int64_t j = 0; j < n_picked; j++)
        if (picked[j] < 0 || picked[j] >= w->n)
            return qkv_fail(err, QKV_EINVAL, "row %lld of %lld: rows run "
                            "0..%lld", (long long)picked[j], (long long)w->n,
                            (long long)w->n - 1);
    if (rows < 1 || n_picked < 1)
        return true;
    product p = {
        .kernel = qkv_kernel(), .out = out, .out_stride = out_stride, .x = x,
        .x_stride = x_stride, .rows = rows, .w = w, .picked = picked,
        .bias = bias, .panel = w->transposed ? w->k : 0
    };
    if (!reserve(&p.panel, err))
        return false;
    qkv_parallel(n_picked, few_chunk(rows, n_picked, w->k), picked_body, &p);
    return qkv_check(err);
}
