/*
 * limits.c - what this machine can do, whoever asks: arithmetic, sgemm, reading
 *
 * No code of qkv is in it but the pool that hands out work, so that qkv can be
 * held against it. Requests come one a line, each is answered with one number,
 * the best of several tries, since a limit is what can be reached:
 *   fma            multiply-adds in registers, GFLOP/s (2 for each)
 *   sgemm M N K    OpenBLAS, row-major, weights transposed, GFLOP/s
 *   read BYTES     reading as many bytes again and again, GB/s (1e9)
 * All on OMP_NUM_THREADS threads. The first line says the instruction set:
 * AVX-512, AVX2 with FMA, or what the compiler makes of plain C (4 floats at
 * once, multiplied, then added). sgemm is OpenBLAS on one thread in each of
 * ours, with an equal share of N: as fast as its own threads, and the same
 * for its OpenMP and its pthread build.
 */
#include "config.h"

#include <cblas.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"

#if defined __x86_64__ && defined __GNUC__
#include <immintrin.h>
#define X86 1
#else
#define X86 0
#endif

enum { LINE = 64, ROUNDS = 2000000, SUMS = 12 };
static const double LASTING = 0.3;      /* seconds of tries: cores wake up */

/* Twelve sums at once: more than latency times units of any such core. */
#define EACH(STEP) STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) \
    STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)

/* Add to *out what keeps the compiler from dropping the work. */
typedef void work(float *out, const float *x, int64_t n);

typedef struct instructions {
    const char *name;
    int width;                  /* floats at once */
    work *fma;                  /* n rounds of SUMS multiply-adds of width */
    work *read;                 /* x [n], n a multiple of SUMS * width */
} instructions;

/* ---- plain C ---- */

typedef float four __attribute__((vector_size(16), may_alias));

static void fma_plain(float *out, const float *x, int64_t n)
{
    const four f = {x[0], x[0], x[0], x[0]}, g = {x[1], x[1], x[1], x[1]};
#define START(i) four a##i = g * (float)i;
#define STEP(i) a##i = a##i * f + g;
#define STOP(i) *out += a##i[0];
    EACH(START)
    for (int64_t i = 0; i < n; i++) {
        EACH(STEP)
    }
    EACH(STOP)
#undef START
#undef STEP
}

static void read_plain(float *out, const float *x, int64_t n)
{
#define START(i) four a##i = {0};
#define STEP(i) a##i += p[i];
    EACH(START)
    for (const four *p = (const four *)x; (const float *)p < x + n; p += SUMS) {
        EACH(STEP)
    }
    EACH(STOP)
#undef START
#undef STEP
#undef STOP
}

/* ---- x86 ---- */

#if X86
__attribute__((target("avx2,fma")))
static void fma_avx2(float *out, const float *x, int64_t n)
{
    const __m256 f = _mm256_set1_ps(x[0]), g = _mm256_set1_ps(x[1]);
#define START(i) __m256 a##i = _mm256_set1_ps(x[1] * (float)i);
#define STEP(i) a##i = _mm256_fmadd_ps(a##i, f, g);
#define STOP(i) *out += _mm256_cvtss_f32(a##i);
    EACH(START)
    for (int64_t i = 0; i < n; i++) {
        EACH(STEP)
    }
    EACH(STOP)
#undef START
#undef STEP
}

__attribute__((target("avx2,fma")))
static void read_avx2(float *out, const float *x, int64_t n)
{
#define START(i) __m256 a##i = _mm256_setzero_ps();
#define STEP(i) a##i = _mm256_add_ps(a##i, _mm256_load_ps(x + at + 8 * i));
    EACH(START)
    for (int64_t at = 0; at < n; at += 8 * SUMS) {
        EACH(STEP)
    }
    EACH(STOP)
#undef START
#undef STEP
#undef STOP
}

__attribute__((target("avx512f")))
static void fma_avx512(float *out, const float *x, int64_t n)
{
    const __m512 f = _mm512_set1_ps(x[0]), g = _mm512_set1_ps(x[1]);
#define START(i) __m512 a##i = _mm512_set1_ps(x[1] * (float)i);
#define STEP(i) a##i = _mm512_fmadd_ps(a##i, f, g);
#define STOP(i) *out += _mm512_cvtss_f32(a##i);
    EACH(START)
    for (int64_t i = 0; i < n; i++) {
        EACH(STEP)
    }
    EACH(STOP)
#undef START
#undef STEP
}

__attribute__((target("avx512f")))
static void read_avx512(float *out, const float *x, int64_t n)
{
#define START(i) __m512 a##i = _mm512_setzero_ps();
#define STEP(i) a##i = _mm512_add_ps(a##i, _mm512_load_ps(x + at + 16 * i));
    EACH(START)
    for (int64_t at = 0; at < n; at += 16 * SUMS) {
        EACH(STEP)
    }
    EACH(STOP)
#undef START
#undef STEP
#undef STOP
}
#endif

static instructions best_instructions(void)
{
#if X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return (instructions){"AVX-512", 16, fma_avx512, read_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (instructions){"AVX2", 8, fma_avx2, read_avx2};
#endif
    return (instructions){"plain C", 4, fma_plain, read_plain};
}

/* ---- measuring ---- */

static double now(void)         /* seconds */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Zeroed, 64-byte aligned and touched; ends the program when there is none. */
static float *floats(int64_t n)
{
    const size_t bytes = ((size_t)n * sizeof(float) / LINE + 1) * LINE;
    float *x = n < 0 ? NULL : aligned_alloc(LINE, bytes);
    if (x == NULL) {
        fprintf(stderr, "limits: no memory for %" PRId64 " floats\n", n);
        exit(1);
    }
    memset(x, 0, bytes);
    return x;
}

static volatile float sink;     /* where results go, so that they are made */

/* A share of the work for each thread, and where its sum goes. */
typedef struct shares {
    const instructions *with;
    const float *x;             /* read: [pieces, SUMS * width] */
    int64_t pieces;
    float *sums;                /* [threads], LINE bytes apart */
} shares;

enum { APART = LINE / sizeof(float), MOST_THREADS = 256 };
static float sums[MOST_THREADS * APART];

/* Seconds that the body takes for all shares. */
static double timed(qkv_body *body, void *context)
{
    const int threads = qkv_threads();
    memset(sums, 0, sizeof sums);
    const double start = now();
    qkv_parallel(threads, 1, body, context);
    const double seconds = now() - start;
    for (int i = 0; i < threads; i++)
        sink = sums[i * APART];
    return seconds;
}

static void fma_share(void *context, int64_t begin, int64_t end, int thread)
{
    static const float x[2] = {0.999f, 0.001f};     /* stays near 1 */
    const shares *s = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        s->with->fma(s->sums + i * APART, x, ROUNDS);
}

static double fma_once(const instructions *with)
{
    shares s = {.with = with, .sums = sums};
    const double seconds = timed(fma_share, &s);
    return 2e-9 * ROUNDS * SUMS * with->width * qkv_threads() / seconds;
}

static void read_share(void *context, int64_t begin, int64_t end, int thread)
{
    const shares *s = context;
    const int64_t step = SUMS * s->with->width, threads = qkv_threads();
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t from = s->pieces * i / threads * step;
        const int64_t to = s->pieces * (i + 1) / threads * step;
        s->with->read(s->sums + i * APART, s->x + from, to - from);
    }
}

static double read_once(const instructions *with, const float *x, int64_t n)
{
    const int64_t step = SUMS * with->width;
    shares s = {.with = with, .x = x, .pieces = n / step, .sums = sums};
    const double seconds = timed(read_share, &s);
    return 1e-9 * (double)(s.pieces * step) * sizeof(float) / seconds;
}

/* c [m, n] = a [m, k] W^T, W [n, k] */
typedef struct product {
    float *c;
    const float *a, *w;
    int m, n, k;
} product;

static void sgemm_share(void *context, int64_t begin, int64_t end, int thread)
{
    const product *p = context;
    const int64_t threads = qkv_threads();
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int from = (int)(p->n * i / threads);
        const int to = (int)(p->n * (i + 1) / threads);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, p->m, to - from,
                    p->k, 1.0f, p->a, p->k, p->w + (int64_t)from * p->k, p->k,
                    0.0f, p->c + from, p->n);
    }
}

static double sgemm_once(float *c, const float *a, const float *w, int m,
                         int n, int k)
{
    product p = {c, a, w, m, n, k};
    return 2e-9 * m * n * k / timed(sgemm_share, &p);
}

static double more(double a, double b)
{
    return a > b ? a : b;
}

static double measure_fma(const instructions *with)
{
    double best = 0;
    for (const double end = now() + LASTING; now() < end;)
        best = more(best, fma_once(with));
    return best;
}

static double measure_read(const instructions *with, int64_t bytes)
{
    const int64_t n = bytes / (int64_t)sizeof(float);
    float *x = floats(n);
    double best = 0;
    for (const double end = now() + LASTING; now() < end;)
        best = more(best, read_once(with, x, n));
    free(x);
    return best;
}

static double measure_sgemm(int m, int n, int k)
{
    float *a = floats((int64_t)m * k), *w = floats((int64_t)n * k);
    float *c = floats((int64_t)m * n);
    double best = 0;
    for (const double end = now() + LASTING; now() < end;)
        best = more(best, sgemm_once(c, a, w, m, n, k));
    free(a);
    free(w);
    free(c);
    return best;
}

int main(void)
{
    const instructions with = best_instructions();
    char line[128];
    openblas_set_num_threads(1);
    printf("%s, %d threads\n", with.name, qkv_threads());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int64_t bytes;
        int m, n, k;
        double found;
        if (strncmp(line, "fma", 3) == 0) {
            found = measure_fma(&with);
        } else if (sscanf(line, "read %" SCNd64, &bytes) == 1) {
            found = measure_read(&with, bytes);
        } else if (sscanf(line, "sgemm %d %d %d", &m, &n, &k) == 3) {
            found = measure_sgemm(m, n, k);
        } else {
            fprintf(stderr, "limits: fma, sgemm M N K or read BYTES expected, "
                            "not %s", line);
            return 2;
        }
        printf("%.6g\n", found);
        fflush(stdout);
    }
    return 0;
}
