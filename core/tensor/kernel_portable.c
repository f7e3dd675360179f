/*
 * kernel_portable.c - the inner loops for any processor
 *
 * Vectors of four floats in the form that gcc and clang turn into whatever the
 * processor has (SSE2, NEON, or plain instructions); the loops themselves are
 * in kernel_body.inc. There is no fused multiply-add: a product is rounded
 * before it is added.
 */
#include "config.h"

#include "tensor/kernel_impl.h"

#include <string.h>

#include "tensor/quant.h"

enum { W = 4, TALL = 4 };
typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ivec __attribute__((vector_size(4 * W)));
typedef uint32_t uvec __attribute__((vector_size(4 * W)));
typedef float hvec __attribute__((vector_size(2 * W)));
typedef double dvec __attribute__((vector_size(4 * W)));

static inline vec v_set(float a)
{
    return (vec){a, a, a, a};
}

static inline vec v_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void v_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

/* The first n of W, 0 <= n <= W; the others read as 0. */
static inline vec v_load_part(const float *p, int64_t n)
{
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void v_store_part(float *p, vec v, int64_t n)
{
    memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline vec v_fma(vec a, vec b, vec c)
{
    return a * b + c;
}

static inline vec v_select(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* b where either is NaN */
static inline vec v_max(vec a, vec b)
{
    return v_select(a > b, a, b);
}

static inline vec v_min(vec a, vec b)
{
    return v_select(a < b, a, b);
}

/* out [4] = the sums of a, b, c, d */
static inline void v_sum4(float *out, vec a, vec b, vec c, vec d)
{
    for (int i = 0; i < 4; i++) {
        const vec v = i == 0 ? a : i == 1 ? b : i == 2 ? c : d;
        out[i] = (v[0] + v[1]) + (v[2] + v[3]);
    }
}

static inline dvec d_set(double a)
{
    return (dvec){a, a};
}

static inline dvec d_load(const float *p)
{
    hvec v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, dvec);
}

static inline dvec d_fma(dvec a, dvec b, dvec c)
{
    return a * b + c;
}

static inline double d_sum(dvec a)
{
    return a[0] + a[1];
}

/* out [4, 4] = in [4, 4] turned round; rows out_stride, in_stride apart */
static inline void transpose4(float *out, int64_t out_stride, const float *in,
                              int64_t in_stride)
{
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            out[j * out_stride + i] = in[i * in_stride + j];
}

/* ---- 32 values in registers, by type ---- */

/* The f16 at b. */
static inline float one_half(const unsigned char *b)
{
    return qkv_from_f16((uint16_t)(b[0] | b[1] << 8));
}

/* W bytes as integers; integers below 2^31 as floats */
static inline uvec u_bytes(const unsigned char *b)
{
    return (uvec){b[0], b[1], b[2], b[3]};
}

static inline vec v_float(uvec u)
{
    return __builtin_convertvector((ivec)u, vec);
}

/* table [16] at each index */
static inline vec v_table(const float *table, uvec index)
{
    return (vec){table[index[0]], table[index[1]], table[index[2]],
                 table[index[3]]};
}

static inline void load_buffer(vec *out, const float *b)
{
    for (int i = 0; i < 32 / W; i++)
        out[i] = v_load(b + W * i);
}

static inline void load_f16(vec *out, const unsigned char *b)
{
    float x[32];
    for (int i = 0; i < 32; i++)
        x[i] = qkv_from_f16((uint16_t)(b[2 * i] | b[2 * i + 1] << 8));
    load_buffer(out, x);
}

static inline void load_bf16(vec *out, const unsigned char *b)
{
    float x[32];
    for (int i = 0; i < 32; i++)
        x[i] = qkv_from_bf16((uint16_t)(b[2 * i] | b[2 * i + 1] << 8));
    load_buffer(out, x);
}

static inline void load_q8_0(vec *out, const unsigned char *b)
{
    float x[32];
    qkv_unpack(x, QKV_Q8_0, b, 32);
    load_buffer(out, x);
}

static inline void load_q4_0(vec *out, const unsigned char *b)
{
    float x[32];
    qkv_unpack(x, QKV_Q4_0, b, 32);
    load_buffer(out, x);
}

static inline void load_q4_1(vec *out, const unsigned char *b)
{
    float x[32];
    qkv_unpack(x, QKV_Q4_1, b, 32);
    load_buffer(out, x);
}

#define KERNELS qkv_kernels_portable
#define KERNELS_NAME "portable"
#include "tensor/kernel_body.inc"
