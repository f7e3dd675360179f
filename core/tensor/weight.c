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
 *     unless it lies there as floats already, times x laid out once for all
 *     panels (kernel pack, many_rows). OpenBLAS would do, but it packs both
 *     sides for every panel, and versions older than the processor fall back
 *     to SSE: 24 GFLOP/s a core where these reach 110.
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
#include "tensor/kernel.h"

enum {
    FEW = 8,                    /* rows of x up to which few_rows is faster */
    ROWS_AT_ONCE = 512,         /* of x */
    ALONE = 100000,             /* multiply-adds not worth a second thread */
    CHUNK = 50000,              /* multiply-adds worth handing out */
    COLUMNS = 64,               /* of a transposed matrix: whole lines */
    PACK = 32768,               /* floats worth handing out for packing */
    PANEL = 73728,              /* floats of a panel: 288 KB, in the L2 cache */
    PANEL_MOST = 48             /* rows of W in a panel */
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
    if (w->n > INT_MAX)
        return qkv_fail(err, QKV_ESHAPE, "%s: %lld rows are too many", name,
                        (long long)w->n);
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

int64_t qkv_weight_map(const qkv_weight *w, int64_t i)
{
    return run_at(w, i).row;
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
    const int64_t row = qkv_weight_map(w, i);
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

/* ---- scratch: x packed, and a panel a thread ---- */

static struct {
    float *data;
    size_t floats;
} scratch;

void qkv_product_trim(void)
{
    qkv_free(scratch.data);
    scratch.data = NULL;
    scratch.floats = 0;
}

/* Room for `shared` floats and for `each` a thread. */
static bool reserve(int64_t shared, int64_t each, qkv_error *err)
{
    int64_t floats;
    size_t bytes;
    if (!qkv_int_mul(&floats, each, qkv_threads())
        || !qkv_int_add(&floats, floats, shared)
        || !qkv_size_mul(&bytes, (size_t)floats, sizeof(float)))
        return qkv_fail(err, QKV_ENOMEM, "no memory for panels of %lld floats",
                        (long long)each);
    if ((size_t)floats <= scratch.floats)
        return true;
    qkv_product_trim();
    scratch.data = qkv_alloc(bytes, err);
    if (scratch.data == NULL)
        return false;
    scratch.floats = (size_t)floats;
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
    float *packed;              /* x laid out for many_rows */
    float *room;                /* for panels, */
    int64_t room_each;          /* so many floats for each thread */
    int64_t chunk;              /* rows of W handed out at once */
} product;

/* Rows of W as floats: row i, value j at data[i * row_step + j * k_step]. */
typedef struct panel {
    const float *data;
    int64_t row_step, k_step;
} panel;

/* Columns of a stored matrix, [k, n]. Floats that are read many times are
 * copied too: lines far apart push each other out of the cache. */
static panel columns(const product *p, int64_t column, int64_t n, float *room)
{
    const qkv_tensor *t = p->w->stored;
    if (t->dtype == QKV_F32 && p->packed == NULL)
        return (panel){(const float *)qkv_tensor_data(t) + column, 1,
                       t->stride[0]};
    for (int64_t j = 0; j < p->w->k; j++)
        p->kernel->unpack[t->dtype](room + j * n, stored_row(t, j)
                                    + bytes_of(t, column), n);
    return (panel){room, 1, n};
}

static panel unpacked(const product *p, int64_t begin, int64_t end,
                      float *room)
{
    const qkv_tensor *t = p->w->stored;
    const run r = run_at(p->w, begin);
    if (r.count >= end - begin && p->w->transposed && r.step == 1)
        return columns(p, r.row, end - begin, room);
    if (r.count >= end - begin && !p->w->transposed && t->dtype == QKV_F32)
        return (panel){(const float *)qkv_tensor_data(t)
                       + r.row * t->stride[0], r.step * t->stride[0], 1};
    for (int64_t i = begin; i < end; i++)
        qkv_weight_row(room + (i - begin) * p->w->k, p->w, i);
    return (panel){room, p->w->k, 1};
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
    if (v.k_step == 1) {
        p->kernel->few_rows[QKV_F32](p->out + begin, p->out_stride, p->x,
                                     p->x_stride, p->rows, v.data,
                                     v.row_step * (int64_t)sizeof(float), n,
                                     p->w->k);
        return;
    }
    for (int64_t r = 0; r < p->rows; r++) {
        float *out = p->out + r * p->out_stride + begin;
        memset(out, 0, (size_t)n * sizeof *out);
        p->kernel->mix(out, p->x + r * p->x_stride, v.data, v.k_step,
                       p->w->k, n);
    }
}

static void few_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    if (qkv_interrupted())
        return;
    if (p->w->transposed)
        few_transposed(p, begin, end, p->room + thread * p->room_each);
    else
        few_straight(p, begin, end);
    add_bias(p, begin, end);
}

static void pack_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    (void)thread;
    p->kernel->pack(p->packed + begin * p->w->k, p->x + begin * p->x_stride,
                    p->x_stride, 1, end - begin, p->w->k);
}

static void many_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    if (qkv_interrupted())
        return;
    const panel v = unpacked(p, begin, end, p->room + thread * p->room_each);
    p->kernel->many_rows(p->out + begin, p->out_stride, 1, p->packed, p->rows,
                         v.data, v.row_step, v.k_step, end - begin, p->w->k,
                         1, 0);
    add_bias(p, begin, end);
}

/* Rows of W in a panel: what fits the cache, a multiple of 16. */
static int64_t panel_rows(int64_t k)
{
    const int64_t rows = PANEL / k / 16 * 16;
    return rows < 16 ? 16 : rows > PANEL_MOST ? PANEL_MOST : rows;
}

/* Rows of W that few rows of x are handed out by; a multiple of 4, the
 * kernels' tile. */
static int64_t few_chunk(int64_t rows, int64_t n, int64_t k)
{
    const double each = (double)rows * (double)k;
    if (each * (double)n <= (double)ALONE)
        return n;
    return ((int64_t)((double)CHUNK / each) + 4) / 4 * 4;
}

/* Products of one x, chunk after chunk of all of them in one loop. */
typedef struct batch {
    const product *p;
    int n;
    qkv_body *body;
} batch;

static int64_t chunks_of(const product *p)
{
    return (p->w->n + p->chunk - 1) / p->chunk;
}

static void batch_body(void *context, int64_t begin, int64_t end, int thread)
{
    const batch *b = context;
    for (int64_t i = begin; i < end; i++) {
        const product *p = b->p;
        int64_t at = i;
        for (; at >= chunks_of(p); p++)
            at -= chunks_of(p);
        const int64_t from = at * p->chunk, to = from + p->chunk;
        b->body((void *)(uintptr_t)p, from, to < p->w->n ? to : p->w->n,
                thread);
    }
}

static void run_batch(const product *p, int n, qkv_body *body)
{
    batch b = {p, n, body};
    double adds = 0;
    int64_t chunks = 0;
    for (int i = 0; i < n; i++) {
        adds += (double)p[i].rows * (double)p[i].w->n * (double)p[i].w->k;
        chunks += chunks_of(&p[i]);
    }
    qkv_parallel(chunks, adds <= ALONE ? chunks : 1, batch_body, &b);
}

static bool few_products(product *p, int n, qkv_error *err)
{
    int64_t each = 0;
    for (int i = 0; i < n; i++) {
        const qkv_weight *w = p[i].w;
        p[i].chunk = few_chunk(p[i].rows, w->n, w->k);
        if (!w->transposed)
            continue;
        p[i].chunk = p[i].chunk / COLUMNS * COLUMNS + COLUMNS;
        each = p[i].chunk * w->k > each ? p[i].chunk * w->k : each;
    }
    if (each > 0 && !reserve(0, each, err))
        return false;
    for (int i = 0; i < n; i++) {
        p[i].room = scratch.data;
        p[i].room_each = each;
    }
    run_batch(p, n, few_body);
    return qkv_check(err);
}

/* Some rows of x at a time, which bounds their packed copy and the time
 * between looks at Ctrl-C. */
static bool many_products(product *p, int n, qkv_error *err)
{
    const int64_t k = p->w->k, rows = p->rows, lanes = p->kernel->lanes;
    const int64_t most = rows < ROWS_AT_ONCE ? rows : ROWS_AT_ONCE;
    const int64_t packed = (most + lanes - 1) / lanes * lanes * k;
    const int64_t chunk = panel_rows(k);
    if (!reserve(packed, chunk * k, err))
        return false;
    for (int i = 0; i < n; i++) {
        p[i].chunk = chunk;
        p[i].packed = scratch.data;
        p[i].room = scratch.data + packed;
        p[i].room_each = chunk * k;
    }
    for (int64_t r = 0; r < rows; r += most) {
        for (int i = 0; i < n; i++)
            p[i].rows = rows - r < most ? rows - r : most;
        qkv_parallel(p->rows, PACK / k / lanes * lanes + lanes, pack_body, p);
        run_batch(p, n, many_body);
        if (!qkv_check(err))
            return false;
        for (int i = 0; i < n; i++) {
            p[i].out += p[i].rows * p[i].out_stride;
            p[i].x += p[i].rows * p[i].x_stride;
        }
    }
    return true;
}

bool qkv_products(const qkv_output *out, int n, const float *x,
                  int64_t x_stride, int64_t rows, qkv_error *err)
{
    product p[QKV_PRODUCTS_MOST];
    assert(n >= 1 && n <= QKV_PRODUCTS_MOST);
    for (int i = 0; i < n; i++) {
        assert(out[i].w->stored != NULL && out[i].w->k == out[0].w->k);
        p[i] = (product){
            .kernel = qkv_kernel(), .out = out[i].data,
            .out_stride = out[i].stride, .x = x, .x_stride = x_stride,
            .rows = rows, .w = out[i].w, .bias = out[i].bias
        };
    }
    if (rows < 1)
        return true;
    return rows <= FEW ? few_products(p, n, err) : many_products(p, n, err);
}

bool qkv_product(float *out, int64_t out_stride, const float *x,
                 int64_t x_stride, int64_t rows, const qkv_weight *w,
                 const float *bias, qkv_error *err)
{
    const qkv_output one = {out, out_stride, w, bias};
    return qkv_products(&one, 1, x, x_stride, rows, err);
}

/* Columns [begin, end) of `picked`. */
static void picked_body(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    const qkv_tensor *t = p->w->stored;
    float *room = p->room + thread * p->room_each;
    for (int64_t j = begin; j < end && !qkv_interrupted(); j++) {
        const int64_t i = p->picked[j];
        const void *row = room;
        qkv_dtype type = QKV_F32;
        if (p->w->transposed) {
            qkv_weight_row(room, p->w, i);
        } else {
            row = stored_row(t, qkv_weight_map(p->w, i));
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
        .bias = bias, .room_each = w->transposed ? w->k : 0
    };
    if (!reserve(0, p.room_each, err))
        return false;
    p.room = scratch.data;
    qkv_parallel(n_picked, few_chunk(rows, n_picked, w->k), picked_body, &p);
    return qkv_check(err);
}
