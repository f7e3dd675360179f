/*
 * kernel_avx2.c - the inner loops for AVX2 with FMA and F16C
 *
 * Vectors of 8 floats; the loops are in kernel_body.inc.
 */
#include "config.h"

#include "tensor/kernel_impl.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>
#include <string.h>

#include "tensor/quant.h"

enum { W = 8, TALL = 4 };
typedef __m256 vec;
typedef int32_t ivec __attribute__((vector_size(4 * W)));
typedef uint32_t uvec __attribute__((vector_size(4 * W)));
typedef __m256d dvec;

static inline vec v_set(float a)
{
    return _mm256_set1_ps(a);
}

static inline vec v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void v_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

static inline __m256i first(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of W, 0 <= n <= W; the others read as 0. */
static inline vec v_load_part(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, first(n));
}

static inline void v_store_part(float *p, vec v, int64_t n)
{
    _mm256_maskstore_ps(p, first(n), v);
}

static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec v_select(ivec mask, vec a, vec b)
{
    return _mm256_blendv_ps(b, a, (vec)mask);
}

/* b where either is NaN */
static inline vec v_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec v_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}

/* out [4] = the sums of a, b, c, d */
static inline void v_sum4(float *out, vec a, vec b, vec c, vec d)
{
    const vec s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s),
                                  _mm256_extractf128_ps(s, 1)));
}

static inline dvec d_set(double a)
{
    return _mm256_set1_pd(a);
}

static inline dvec d_load(const float *p)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
}

static inline dvec d_fma(dvec a, dvec b, dvec c)
{
    return _mm256_fmadd_pd(a, b, c);
}

static inline double d_sum(dvec a)
{
    return (a[0] + a[1]) + (a[2] + a[3]);
}

/* out [4, 4] = in [4, 4] turned round; rows out_stride, in_stride apart */
static inline void transpose4(float *out, int64_t out_stride, const float *in,
                              int64_t in_stride)
{
    __m128 a = _mm_loadu_ps(in), b = _mm_loadu_ps(in + in_stride);
    __m128 c = _mm_loadu_ps(in + 2 * in_stride);
    __m128 d = _mm_loadu_ps(in + 3 * in_stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out, a);
    _mm_storeu_ps(out + out_stride, b);
    _mm_storeu_ps(out + 2 * out_stride, c);
    _mm_storeu_ps(out + 3 * out_stride, d);
}

/* ---- 32 values in registers, by type ---- */

static inline __m128i bytes16(const unsigned char *b)
{
    return _mm_loadu_si128((const __m128i *)(const void *)b);
}

/* An f16 at b, in all lanes; 8 bytes are there to be read. Converting straight
 * from memory leaves the port alone that permutes. */
static inline vec half(const unsigned char *b)
{
    return _mm256_broadcastss_ps(
        _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)b)));
}

static inline float one_half(const unsigned char *b)
{
    unsigned short h;
    memcpy(&h, b, sizeof h);
    return _cvtsh_ss(h);
}

/* W bytes as integers; integers below 2^31 as floats */
static inline uvec u_bytes(const unsigned char *b)
{
    return (uvec)_mm256_cvtepu8_epi32(
        _mm_loadl_epi64((const __m128i *)(const void *)b));
}

static inline vec v_float(uvec u)
{
    return _mm256_cvtepi32_ps((__m256i)u);
}

/* table [16] at each index */
static inline vec v_table(const float *table, uvec index)
{
    const __m256i i = (__m256i)index;
    const vec low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i);
    const vec high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);
    return v_select((ivec)(index > 7), high, low);
}

static inline void load_f16(vec *out, const unsigned char *b)
{
    for (int i = 0; i < 4; i++)
        out[i] = _mm256_cvtph_ps(bytes16(b + 16 * i));
}

static inline void load_bf16(vec *out, const unsigned char *b)
{
    for (int i = 0; i < 4; i++)
        out[i] = _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_cvtepu16_epi32(bytes16(b + 16 * i)), 16));
}

/* 16 signed bytes as floats */
static inline void floats16(vec *out, __m128i b)
{
    out[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));
    out[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)));
}

/* 32 nibbles: the low ones of 16 bytes, then the high ones */
static inline void nibbles(vec *out, const unsigned char *q)
{
    const __m128i b = bytes16(q), low = _mm_set1_epi8(15);
    floats16(out, _mm_and_si128(b, low));
    floats16(out + 2, _mm_and_si128(_mm_srli_epi16(b, 4), low));
}

static inline void load_q8_0(vec *out, const unsigned char *b)
{
    const vec d = half(b);
    floats16(out, bytes16(b + 2));
    floats16(out + 2, bytes16(b + 18));
    for (int i = 0; i < 4; i++)
        out[i] *= d;
}

static inline void load_q4_0(vec *out, const unsigned char *b)
{
    const vec d = half(b);
    nibbles(out, b + 2);
    for (int i = 0; i < 4; i++)
        out[i] = d * (out[i] - v_set(8.0f));
}

/* d q has 15 bits, so that the fused sum is the rounded one. */
static inline void load_q4_1(vec *out, const unsigned char *b)
{
    const vec d = half(b), m = half(b + 2);
    nibbles(out, b + 4);
    for (int i = 0; i < 4; i++)
        out[i] = v_fma(d, out[i], m);
}

#define KERNELS qkv_kernels_avx2
#define KERNELS_NAME "avx2"
#include "tensor/kernel_body.inc"

#else

const qkv_kernels qkv_kernels_avx2 = {0};

#endif
