/*
 * heads.c - what attention heads do: see heads.h
 */
#include "config.h"

#include "probes/heads.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/parallel.h"

enum {
    BATCH_ROWS = 1024,          /* tokens run at once, or one longer sequence */
    SMALL = 1 << 15             /* cells of a pattern not worth a thread */
};

/* ---- one pattern ---- */

typedef struct reading {        /* of one layer of one sequence */
    double *rows;               /* [head, query, place] */
    const float *p;             /* [head, query, key] */
    int64_t head_stride, query_stride;
    const int32_t *ids;         /* [n] */
    int64_t n;
    bool causal;
} reading;

/* out [place]: the sums of query q, p [key]. */
static void read_row(double *out, const float *p, const reading *r, int64_t q)
{
    const int64_t seen = r->causal ? q + 1 : r->n;
    memset(out, 0, QKV_N_HEAD_PLACES * sizeof *out);
    for (int64_t k = 0; k < seen; k++) {
        const double x = (double)p[k];
        if (x > 0.0)
            out[QKV_HEAD_ENTROPY] -= x * log2(x);
        out[QKV_HEAD_DISTANCE] += x * fabs((double)(q - k));
    }
    out[QKV_HEAD_PREVIOUS] = (double)p[q - 1];
    out[QKV_HEAD_FIRST] = (double)p[0];
    out[QKV_HEAD_SELF] = (double)p[q];
    for (int64_t k = 0; k < q; k++) {
        if (r->ids[k] != r->ids[q])
            continue;
        out[QKV_HEAD_DUPLICATE] += (double)p[k];
        out[QKV_HEAD_FOLLOWING] += (double)p[k + 1];
    }
}

static void read_rows(void *context, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const reading *r = context;
    for (int64_t i = begin; i < end && !qkv_interrupted(); i++) {
        const int64_t head = i / (r->n - 1), q = 1 + i % (r->n - 1);
        read_row(r->rows + i * QKV_N_HEAD_PLACES,
                 r->p + head * r->head_stride + q * r->query_stride, r, q);
    }
}

/* queries, entries [place] of a sequence: they depend on its tokens alone. */
static void count_places(int64_t *queries, int64_t *entries,
                         const qkv_sequence *s)
{
    for (int i = 0; i < QKV_N_HEAD_PLACES; i++)
        queries[i] = entries[i] = s->n - 1;
    int64_t repeated = 0, pairs = 0;
    for (int64_t q = 1; q < s->n; q++) {
        const int64_t before = pairs;
        for (int64_t k = 0; k < q; k++)
            pairs += s->ids[k] == s->ids[q];
        repeated += pairs > before;
    }
    queries[QKV_HEAD_DUPLICATE] = queries[QKV_HEAD_FOLLOWING] = repeated;
    entries[QKV_HEAD_DUPLICATE] = entries[QKV_HEAD_FOLLOWING] = pairs;
}

/* ---- a batch of sequences, read by a hook on the pattern ---- */

typedef struct batch {
    qkv_heads *h;
    const qkv_sequence *seqs;
    int64_t first;              /* of the measurement's sequences */
    double *rows;               /* [head, query, place], of the longest */
    bool causal;
} batch;

static bool read_pattern(void *context, qkv_tensor *values,
                         const qkv_hook_at *at, qkv_error *err)
{
    const batch *b = context;
    const qkv_sequence *s = &b->seqs[b->first + at->seq];
    reading r = {.rows = b->rows, .p = qkv_tensor_data(values),
                 .head_stride = values->stride[0],
                 .query_stride = values->stride[1], .ids = s->ids, .n = s->n,
                 .causal = b->causal};
    const int64_t n_heads = b->h->n_heads, queries = s->n - 1;
    qkv_parallel(n_heads * queries, 1 + SMALL / s->n, read_rows, &r);
    if (!qkv_check(err))
        return false;
    float *sums = b->h->sums + ((b->first + at->seq) * b->h->n_layers
                                + at->layer) * n_heads * QKV_N_HEAD_PLACES;
    for (int64_t head = 0; head < n_heads; head++) {
        double sum[QKV_N_HEAD_PLACES] = {0};
        for (int64_t i = 0; i < queries * QKV_N_HEAD_PLACES; i++)
            sum[i % QKV_N_HEAD_PLACES]
                += r.rows[head * queries * QKV_N_HEAD_PLACES + i];
        for (int i = 0; i < QKV_N_HEAD_PLACES; i++)
            *sums++ = (float)sum[i];
    }
    return true;
}

/* A copy that a recipe can own. */
static bool copy_sequence(qkv_sequence *out, const qkv_sequence *s,
                          qkv_error *err)
{
    const size_t bytes = (size_t)s->n * sizeof *s->ids;
    out->n = out->n_prompt = s->n;
    out->ids = qkv_alloc(bytes, err);
    if (out->ids == NULL)
        return false;
    memcpy(out->ids, s->ids, bytes);
    if (s->types == NULL)
        return true;
    out->types = qkv_alloc(bytes, err);
    if (out->types != NULL)
        memcpy(out->types, s->types, bytes);
    return out->types != NULL;
}

static bool run_batch(batch *b, qkv_model *m, int64_t n, qkv_error *err)
{
    qkv_recipe r = {.model = qkv_model_retain(m),
                    .stop_at = m->stacks[0].config.n_layers};
    r.seqs = qkv_alloc_zero((size_t)n, sizeof *r.seqs, err);
    r.hooks = qkv_alloc_zero(1, sizeof *r.hooks, err);
    bool good = r.seqs != NULL && r.hooks != NULL;
    for (; good && r.n_seqs < n; r.n_seqs++)
        good = copy_sequence(&r.seqs[r.n_seqs], &b->seqs[b->first + r.n_seqs],
                             err);
    if (!good) {
        r.n_seqs = r.seqs != NULL ? n : 0;
        qkv_recipe_reset(&r);
        return false;
    }
    r.n_hooks = 1;
    r.hooks[0] = (qkv_hook){.site = QKV_SITE_PATTERN, .layer = {.all = true},
                            .fn = read_pattern, .context = b};
    qkv_run *run = qkv_run_new(&r, NULL, 0, QKV_LOGITS_NONE, err);
    qkv_run_release(run);
    return run != NULL;
}

/* ---- measuring ---- */

void qkv_heads_free(qkv_heads *h)
{
    qkv_free(h->sums);
    qkv_free(h->queries);
    qkv_free(h->entries);
    qkv_free(h->lengths);
    *h = (qkv_heads){0};
}

/* Room for n_seqs, and what their tokens tell. */
static bool prepare(qkv_heads *h, const qkv_model *m, const qkv_sequence *seqs,
                    int64_t n_seqs, qkv_error *err)
{
    const qkv_config *c = &m->stacks[0].config;
    const size_t n = (size_t)n_seqs, places = n * QKV_N_HEAD_PLACES;
    *h = (qkv_heads){.n_seqs = n_seqs, .n_layers = c->n_layers,
                     .n_heads = c->n_heads};
    h->sums = qkv_alloc_zero(places * (size_t)(c->n_layers * c->n_heads),
                             sizeof *h->sums, err);
    h->queries = qkv_alloc(places * sizeof *h->queries, err);
    h->entries = qkv_alloc(places * sizeof *h->entries, err);
    h->lengths = qkv_alloc(n * sizeof *h->lengths, err);
    if (h->sums == NULL || h->queries == NULL || h->entries == NULL
        || h->lengths == NULL)
        return false;
    for (int64_t i = 0; i < n_seqs; i++) {
        if (seqs[i].n < 2)
            return qkv_fail(err, QKV_EINVAL, "sequence %lld has %lld tokens: "
                            "heads are scored on two or more", (long long)i,
                            (long long)seqs[i].n);
        h->lengths[i] = seqs[i].n;
        count_places(h->queries + i * QKV_N_HEAD_PLACES,
                     h->entries + i * QKV_N_HEAD_PLACES, &seqs[i]);
    }
    return true;
}

/* How many sequences from `first` on make a batch. */
static int64_t batch_size(const qkv_heads *h, int64_t first)
{
    int64_t rows = h->lengths[first], n = 1;
    while (first + n < h->n_seqs
           && (rows += h->lengths[first + n]) <= BATCH_ROWS)
        n++;
    return n;
}

bool qkv_heads_measure(qkv_heads *h, qkv_model *m, const qkv_sequence *seqs,
                       int64_t n_seqs, qkv_error *err)
{
    bool done = prepare(h, m, seqs, n_seqs, err);
    int64_t longest = 0;
    for (int64_t i = 0; done && i < n_seqs; i++)
        longest = h->lengths[i] > longest ? h->lengths[i] : longest;
    batch b = {.h = h, .seqs = seqs, .causal = m->stacks[0].config.causal};
    b.rows = done ? qkv_alloc((size_t)(h->n_heads * longest)
                              * QKV_N_HEAD_PLACES * sizeof *b.rows, err) : NULL;
    done = b.rows != NULL;
    while (done && b.first < n_seqs) {
        const int64_t n = batch_size(h, b.first);
        qkv_progress_within("heads", (double)b.first / (double)n_seqs,
                            (double)(b.first + n) / (double)n_seqs);
        done = run_batch(&b, m, n, err);
        b.first += n;
    }
    qkv_progress_within(NULL, 0, 0);
    qkv_free(b.rows);
    if (!done)
        qkv_heads_free(h);
    return done;
}

/* ---- scores ---- */

/* A head's score on one sequence; NaN where no query has such a key. */
static double score_of(const qkv_heads *h, int64_t seq, int64_t head,
                       qkv_head_place place, qkv_head_share share)
{
    const double s = (double)h->sums[(seq * h->n_layers * h->n_heads + head)
                                     * QKV_N_HEAD_PLACES + place];
    const int64_t at = seq * QKV_N_HEAD_PLACES + place;
    const double entries = (double)h->entries[at], n = (double)h->lengths[seq];
    switch (share) {
    case QKV_HEAD_PER_QUERY:
        return s / (double)h->queries[at];
    case QKV_HEAD_PER_ENTRY:
        return s / entries;
    case QKV_HEAD_MUL:
        return s / n;
    case QKV_HEAD_ABS:
        return (2.0 * s - entries) / n;
    }
    return (double)NAN;
}

bool qkv_heads_score(qkv_tensor **mean, qkv_tensor **sd, int64_t *n,
                     const qkv_heads *h, int64_t from, int64_t to,
                     qkv_head_place place, qkv_head_share share,
                     qkv_error *err)
{
    static const char *const axes[] = {"layer", "head"};
    const int64_t shape[] = {h->n_layers, h->n_heads};
    *mean = qkv_tensor_new(QKV_F32, 2, shape, axes, err);
    *sd = *mean != NULL ? qkv_tensor_new(QKV_F32, 2, shape, axes, err) : NULL;
    if (*sd == NULL) {
        qkv_tensor_release(*mean);
        *mean = NULL;
        return false;
    }
    *n = 0;
    for (int64_t i = from; i < to; i++)
        *n += h->queries[i * QKV_N_HEAD_PLACES + place] > 0;
    float *out = qkv_tensor_data(*mean), *spread = qkv_tensor_data(*sd);
    for (int64_t head = 0; head < h->n_layers * h->n_heads; head++) {
        double sum = 0.0, squares = 0.0;
        for (int64_t i = from; i < to; i++)
            if (h->queries[i * QKV_N_HEAD_PLACES + place] > 0)
                sum += score_of(h, i, head, place, share);
        const double middle = sum / (double)*n;
        for (int64_t i = from; i < to; i++) {
            if (h->queries[i * QKV_N_HEAD_PLACES + place] == 0)
                continue;
            const double off = score_of(h, i, head, place, share) - middle;
            squares += off * off;
        }
        out[head] = *n > 0 ? (float)middle : NAN;
        spread[head] = *n > 1 ? (float)sqrt(squares / (double)(*n - 1)) : NAN;
    }
    return true;
}

/* ---- random tokens, over and over ---- */

/* The ordinary tokens that may be drawn, [*n]; qkv_free. */
static int32_t *ordinary_tokens(int64_t *n, qkv_model *m, qkv_error *err)
{
    qkv_error none;             /* a model may well have no tokenizer */
    const qkv_tokenizer *t = qkv_model_tokenizer(m, &none);
    int64_t size = m->stacks[0].config.d_vocab;
    if (t != NULL && qkv_tokenizer_size(t) < size)
        size = qkv_tokenizer_size(t);       /* the embedding is padded */
    const int64_t rare = size / 50;
    int32_t *pool = qkv_alloc((size_t)size * sizeof *pool, err);
    *n = 0;
    for (int64_t id = rare; pool != NULL && id < size - rare; id++)
        if (t == NULL || !qkv_tokenizer_is_special(t, (int32_t)id))
            pool[(*n)++] = (int32_t)id;
    return pool;
}

/* The first n of the pool become a random choice: Fisher and Yates. */
static void shuffle(int32_t *pool, int64_t size, int64_t n, qkv_random *random)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = qkv_random_integer(random, i, size);
        const int32_t id = pool[i];
        pool[i] = pool[j];
        pool[j] = id;
    }
}

bool qkv_heads_repeat(qkv_sequence *seqs, int64_t n, qkv_model *m, int32_t bos,
                      int64_t length, int times, qkv_random *random,
                      qkv_error *err)
{
    int64_t size;
    int32_t *pool = ordinary_tokens(&size, m, err);
    bool done = pool != NULL;
    if (done && (length < 1 || length > size))
        done = qkv_fail(err, QKV_EINVAL, "%lld different random tokens: %s has "
                        "%lld to draw from", (long long)length, m->name,
                        (long long)size);
    for (int64_t i = 0; done && i < n; i++) {
        qkv_sequence *s = &seqs[i];
        s->ids = qkv_alloc((size_t)(length * times + 1) * sizeof *s->ids, err);
        if (s->ids == NULL) {
            done = false;
            break;
        }
        shuffle(pool, size, length, random);
        if (bos >= 0)
            s->ids[s->n++] = bos;
        for (int k = 0; k < times; k++, s->n += length)
            memcpy(s->ids + s->n, pool, (size_t)length * sizeof *pool);
        s->n_prompt = s->n;
    }
    qkv_free(pool);
    return done;
}
