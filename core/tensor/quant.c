/*
 * quant.c - what a block looks like: unpacking, bit-exact
 *
 * A block is a run of 32 or 256 values of one row with a scale d in f16 (and
 * for some types an offset m). Values are small integers q; the types of 256
 * have scales of their own for every 16 or 32 values, in few bits, times d.
 * Layouts, offsets in bytes (source: the gguf package's quants.py and
 * ggml-common.h; checked against stored blocks in tests/oracle/quant):
 *
 *   q4_0    0 d    2 q: 16 bytes; value i is the low nibble of byte i, value
 *                  16 + i the high one                          d (q - 8)
 *   q4_1    0 d    2 m    4 q as q4_0                           d q + m
 *   q5_0    0 d    2 h: u32, bit i is bit 4 of value i
 *                  6 q as q4_0                                  d (q - 16)
 *   q5_1    0 d    2 m    4 h    8 q                            d q + m
 *   q8_0    0 d    2 q: 32 signed bytes                         d q
 *   iq4_nl  0 d    2 q as q4_0                                  d table[q]
 *
 *   q2_k    0 s: 16 bytes, scale in the low nibble, offset in the high
 *           16 q   80 d   82 m                      (d s) q - (m s_high)
 *   q3_k    0 h    32 q   96 s: 16 scales of 6 bits   108 d   (d (s - 32)) q
 *   q4_k    0 d    2 m    4 s: 8 scales and 8 offsets of 6 bits
 *           16 q                                    (d s) q - (m s_offset)
 *   q5_k    0 d    2 m    4 s    16 h   48 q        the same
 *   q6_k    0 q    128 h  192 s: 16 signed bytes   208 d   (d s) (q - 32)
 *   iq4_xs  0 d    2 high bits of 8 scales   4 low nibbles of them   8 q
 *                                                   (d (s - 32)) table[q]
 *
 * Every product and sum is rounded on its own (-ffp-contract=off).
 */
#include "config.h"

#include "tensor/quant.h"

#include <stddef.h>

typedef unsigned char byte;

const int8_t qkv_iq4_values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10,
    1, 13, 25, 38, 53, 69, 89, 113
};

static unsigned u16(const byte *b)
{
    return b[0] | (unsigned)b[1] << 8;
}

static uint32_t u32(const byte *b)
{
    return u16(b) | (uint32_t)u16(b + 2) << 16;
}

static float half(const byte *b)
{
    return qkv_from_f16((uint16_t)u16(b));
}

/* ---- plain types ---- */

static void unpack_f32(float *out, const void *from, int64_t n)
{
    memcpy(out, from, (size_t)n * sizeof *out);
}

static void unpack_f16(float *out, const void *from, int64_t n)
{
    const byte *b = from;
    for (int64_t i = 0; i < n; i++)
        out[i] = half(b + 2 * i);
}

static void unpack_bf16(float *out, const void *from, int64_t n)
{
    const byte *b = from;
    for (int64_t i = 0; i < n; i++)
        out[i] = qkv_from_bf16((uint16_t)u16(b + 2 * i));
}

/* ---- blocks of 32 ---- */

static void block_q4_0(float *out, const byte *b)
{
    const float d = half(b);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b[2 + i] & 15) - 8);
        out[16 + i] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

static void block_q4_1(float *out, const byte *b)
{
    const float d = half(b), m = half(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(b[4 + i] & 15) + m;
        out[16 + i] = d * (float)(b[4 + i] >> 4) + m;
    }
}

/* Values i and 16 + i of five bits: nibbles of q[i], top bits from h. */
static int five_low(const byte *q, uint32_t h, int i)
{
    return (q[i] & 15) | (int)(h >> i & 1) << 4;
}

static int five_high(const byte *q, uint32_t h, int i)
{
    return q[i] >> 4 | (int)(h >> (16 + i) & 1) << 4;
}

static void block_q5_0(float *out, const byte *b)
{
    const float d = half(b);
    const uint32_t h = u32(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(five_low(b + 6, h, i) - 16);
        out[16 + i] = d * (float)(five_high(b + 6, h, i) - 16);
    }
}

static void block_q5_1(float *out, const byte *b)
{
    const float d = half(b), m = half(b + 2);
    const uint32_t h = u32(b + 4);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)five_low(b + 8, h, i) + m;
        out[16 + i] = d * (float)five_high(b + 8, h, i) + m;
    }
}

static void block_q8_0(float *out, const byte *b)
{
    const float d = half(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)b[2 + i];
}

static void nibbles_iq4(float *out, float d, const byte *q)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)qkv_iq4_values[q[i] & 15];
        out[16 + i] = d * (float)qkv_iq4_values[q[i] >> 4];
    }
}

static void block_iq4_nl(float *out, const byte *b)
{
    nibbles_iq4(out, half(b), b + 2);
}

/* ---- blocks of 256 ---- */

/* Two halves of 128 values; in each, 32 bytes hold four runs of 32 values,
 * two bits each: run j in bits 2 j and 2 j + 1. A scale serves 16 values. */
static void block_q2_k(float *out, const byte *b)
{
    const float d = half(b + 80), m = half(b + 82);
    for (int i = 0; i < 256; i += 16) {
        const byte *q = b + 16 + i / 128 * 32 + i % 32;
        const int shift = i % 128 / 32 * 2;
        const float scale = d * (float)(b[i / 16] & 15);
        const float offset = m * (float)(b[i / 16] >> 4);
        for (int j = 0; j < 16; j++)
            out[i + j] = scale * (float)(q[j] >> shift & 3) - offset;
    }
}

/* Pairs of bits as q2_k; a third bit per value in 32 bytes of h, run of 32 by
 * run of 32, which when it is 0 means "minus 4". */
static void block_q3_k(float *out, const byte *b)
{
    const float d = half(b + 108);
    for (int i = 0; i < 256; i += 16) {
        const byte *h = b + i % 32;
        const byte *q = b + 32 + i / 128 * 32 + i % 32;
        const int shift = i % 128 / 32 * 2, bit = i / 32;
        const float scale = d * (float)qkv_scale_q3_k(b + 96, i / 16);
        for (int j = 0; j < 16; j++) {
            const int less = (h[j] >> bit & 1) ? 0 : 4;
            out[i + j] = scale * (float)((q[j] >> shift & 3) - less);
        }
    }
}

/* 32 bytes hold 64 values: first the low nibbles, then the high ones. */
static void block_q4_k(float *out, const byte *b)
{
    const float d = half(b), m = half(b + 2);
    for (int i = 0; i < 8; i++) {
        const byte *q = b + 16 + i / 2 * 32;
        const int shift = i % 2 * 4;
        float scale, offset;
        qkv_scales_q4_k(&scale, &offset, b + 4, i);
        scale *= d;
        offset *= m;
        for (int j = 0; j < 32; j++)
            out[32 * i + j] = scale * (float)(q[j] >> shift & 15) - offset;
    }
}

/* q4_k with a fifth bit: bit i of h[j] for value j of run i. */
static void block_q5_k(float *out, const byte *b)
{
    const float d = half(b), m = half(b + 2);
    const byte *h = b + 16;
    for (int i = 0; i < 8; i++) {
        const byte *q = b + 48 + i / 2 * 32;
        const int shift = i % 2 * 4;
        float scale, offset;
        qkv_scales_q4_k(&scale, &offset, b + 4, i);
        scale *= d;
        offset *= m;
        for (int j = 0; j < 32; j++) {
            const int value = (q[j] >> shift & 15) | (h[j] >> i & 1) << 4;
            out[32 * i + j] = scale * (float)value - offset;
        }
    }
}

/* Two halves of 128 values: 64 bytes hold the low nibbles of runs 0 and 1,
 * the high ones those of runs 2 and 3; 32 bytes of h two more bits a run. */
static void block_q6_k(float *out, const byte *b)
{
    const float d = half(b + 208);
    for (int i = 0; i < 256; i += 16) {
        const byte *q = b + i / 128 * 64 + i % 64;
        const byte *h = b + 128 + i / 128 * 32 + i % 32;
        const int shift = i % 128 / 64 * 4, high = i % 128 / 32 * 2;
        const float scale = d * (float)(int8_t)b[192 + i / 16];
        for (int j = 0; j < 16; j++) {
            const int value = (q[j] >> shift & 15) | (h[j] >> high & 3) << 4;
            out[i + j] = scale * (float)(value - 32);
        }
    }
}

static void block_iq4_xs(float *out, const byte *b)
{
    const float d = half(b);
    const unsigned high = u16(b + 2);
    for (int i = 0; i < 8; i++) {
        const int low = b[4 + i / 2] >> (i % 2 * 4) & 15;
        const int scale = (low | (int)(high >> (2 * i) & 3) << 4) - 32;
        nibbles_iq4(out + 32 * i, d * (float)scale, b + 8 + 16 * i);
    }
}

/* ---- rows ---- */

#define ROW(name, values, bytes)                                        \
    static void unpack_##name(float *out, const void *from, int64_t n)  \
    {                                                                   \
        const byte *b = from;                                           \
        for (int64_t i = 0; i < n; i += (values), b += (bytes))         \
            block_##name(out + i, b);                                   \
    }
ROW(q4_0, 32, 18)
ROW(q4_1, 32, 20)
ROW(q5_0, 32, 22)
ROW(q5_1, 32, 24)
ROW(q8_0, 32, 34)
ROW(q2_k, 256, 84)
ROW(q3_k, 256, 110)
ROW(q4_k, 256, 144)
ROW(q5_k, 256, 176)
ROW(q6_k, 256, 210)
ROW(iq4_nl, 32, 18)
ROW(iq4_xs, 256, 136)
#undef ROW

/* ORDER dtype */
qkv_unpack_fn *const qkv_unpackers[QKV_N_DTYPES] = {
    [QKV_F32] = unpack_f32, [QKV_F16] = unpack_f16, [QKV_BF16] = unpack_bf16,
    [QKV_Q4_0] = unpack_q4_0, [QKV_Q4_1] = unpack_q4_1,
    [QKV_Q5_0] = unpack_q5_0, [QKV_Q5_1] = unpack_q5_1,
    [QKV_Q8_0] = unpack_q8_0, [QKV_Q2_K] = unpack_q2_k,
    [QKV_Q3_K] = unpack_q3_k, [QKV_Q4_K] = unpack_q4_k,
    [QKV_Q5_K] = unpack_q5_k, [QKV_Q6_K] = unpack_q6_k,
    [QKV_IQ4_NL] = unpack_iq4_nl, [QKV_IQ4_XS] = unpack_iq4_xs
};

void qkv_unpack(float *out, qkv_dtype dtype, const void *from, int64_t n)
{
    qkv_unpackers[dtype](out, from, n);
}

/* ---- to 16 bits ---- */

uint16_t qkv_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 255u << 23)                      /* NaN, made quiet */
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x477ff000)                     /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (bits < 113u << 23) {                    /* subnormal: below 2^-14 */
        /* Adding 0.5 puts the last bit kept, 2^-24, at the float's end. */
        float y;
        memcpy(&y, &bits, sizeof y);
        y += 0.5f;
        memcpy(&bits, &y, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);           /* to nearest, ties to even */
    return (uint16_t)(sign | ((bits >> 13) - ((127u - 15) << 10)));
}

uint16_t qkv_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 255u << 23)       /* NaN, made quiet */
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
