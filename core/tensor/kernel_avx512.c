/*
 * kernel_avx512.c - the inner loops for AVX-512 (F, BW, VL, DQ)
 *
 * Vectors of 16 floats; the loops are in kernel_body.inc. Nibbles become
 * weights by one look-up: the 16 weights a block can hold are a vector, and
 * vpermps takes from it by the low four bits of each lane.
 */
#include "config.h"

#include "tensor/kernel_impl.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) \
    && defined(__AVX512DQ__)

#include <immintrin.h>
#include <string.h>

#include "tensor/quant.h"

enum { W = 16, TALL = 8 };
typedef __m512 vec;
typedef int32_t ivec __attribute__((vector_size(4 * W)));
typedef uint32_t uvec __attribute__((vector_size(4 * W)));
typedef __m512d dvec;

static inline vec v_set(float a)
{
    return _mm512_set1_ps(a);
}

static inline vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void v_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

/* The first n of W, 0 <= n <= W; the others read as 0. */
static inline vec v_load_part(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

static inline void v_store_part(float *p, vec v, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}

static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec v_select(ivec mask, vec a, vec b)
{
    return _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), b, a);
}

/* b where either is NaN */
static inline vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec v_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

static inline __m256 halves(vec v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v),
                         _mm512_extractf32x8_ps(v, 1));
}

/* out [4] = the sums of a, b, c, d */
static inline void v_sum4(float *out, vec a, vec b, vec c, vec d)
{
    const __m256 ab = _mm256_hadd_ps(halves(a), halves(b));
    const __m256 cd = _mm256_hadd_ps(halves(c), halves(d));
    const __m256 s = _mm256_hadd_ps(ab, cd);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s),
                                  _mm256_extractf128_ps(s, 1)));
}

static inline dvec d_set(double a)
{
    return _mm512_set1_pd(a);
}

static inline dvec d_load(const float *p)
{
    return _mm512_cvtps_pd(_mm256_loadu_ps(p));
}

static inline dvec d_fma(dvec a, dvec b, dvec c)
{
    return _mm512_fmadd_pd(a, b, c);
}

static inline double d_sum(dvec a)
{
    return _mm512_reduce_add_pd(a);
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

static inline __m256i bytes32(const unsigned char *b)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)b);
}

/* The f16 at b and those behind it; 8 bytes are there to be read. Converting
 * straight from memory leaves the port alone that permutes. */
static inline __m128 halves4(const unsigned char *b)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)b));
}

/* An f16 at b, in all lanes. */
static inline vec half(const unsigned char *b)
{
    return _mm512_broadcastss_ps(halves4(b));
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
    return (uvec)_mm512_cvtepu8_epi32(bytes16(b));
}

static inline vec v_float(uvec u)
{
    return _mm512_cvtepi32_ps((__m512i)u);
}

/* table [16] at each index */
static inline vec v_table(const float *table, uvec index)
{
    return _mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}

static inline void load_f16(vec *out, const unsigned char *b)
{
    out[0] = _mm512_cvtph_ps(bytes32(b));
    out[1] = _mm512_cvtph_ps(bytes32(b + 32));
}

static inline void load_bf16(vec *out, const unsigned char *b)
{
    for (int i = 0; i < 2; i++)
        out[i] = _mm512_castsi512_ps(_mm512_slli_epi32(
            _mm512_cvtepu16_epi32(bytes32(b + 32 * i)), 16));
}

static inline void load_q8_0(vec *out, const unsigned char *b)
{
    const vec d = half(b);
    for (int i = 0; i < 2; i++)
        out[i] = d * _mm512_cvtepi32_ps(
            _mm512_cvtepi8_epi32(bytes16(b + 2 + 16 * i)));
}

/* Nibbles of 16 bytes to weights: table [16]. */
static inline void look_up(vec *out, vec table, const unsigned char *q)
{
    const __m512i low = _mm512_cvtepu8_epi32(bytes16(q));
    out[0] = _mm512_permutexvar_ps(low, table);
    out[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(low, 4), table);
}

static inline void load_q4_0(vec *out, const unsigned char *b)
{
    const vec q = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3,
                                 4, 5, 6, 7);
    look_up(out, half(b) * q, b + 2);
}

/* d q has 15 bits, so that the fused sum is the rounded one. */
static inline void load_q4_1(vec *out, const unsigned char *b)
{
    const vec q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
                                 14, 15);
    float dm[4];                /* broadcast from memory: the same reason */
    _mm_storeu_ps(dm, halves4(b));
    __asm__("" : "+m"(dm));
    look_up(out, v_fma(q, v_set(dm[0]), v_set(dm[1])), b + 4);
}

#define KERNELS qkv_kernels_avx512
#define KERNELS_NAME "avx512"
#include "tensor/kernel_body.inc"

#else

const qkv_kernels qkv_kernels_avx512 = {0};

#endif
