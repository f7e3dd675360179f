/*
 * quant.h - what a block looks like: unpacking, bit-exact
 *
 * One function a type (dtype.def); nothing else in the house but the few-row
 * kernels knows the layouts. GGML's formats, as documented in the gguf
 * package and llama.cpp's ggml-common.h; exact on tests/oracle/quant.
 */
#ifndef QKV_QUANT_H
#define QKV_QUANT_H
#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

/* out [n] floats from stored values; n is whole blocks; `from` may have any
 * alignment. All float and quantised types. */
void qkv_unpack(float *out, qkv_dtype dtype, const void *from, int64_t n);

/* The same as a table, [dtype]; NULL for the integers. */
typedef void qkv_unpack_fn(float *out, const void *from, int64_t n);
extern qkv_unpack_fn *const qkv_unpackers[QKV_N_DTYPES];

/* What a nibble of the IQ4 types stands for. */
extern const int8_t qkv_iq4_values[16];

/* f32 -> f16 and bf16, round to nearest even. */
uint16_t qkv_to_f16(float x);
uint16_t qkv_to_bf16(float x);

/* And back, exact; a signalling NaN in f16 comes out quiet, as the processor's
 * own instruction has it. */
static inline float qkv_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float x;
    if (bits > 0x7c00u << 13) {                 /* NaN, made quiet */
        bits |= 255u << 23 | 1u << 22;
    } else if (bits == 0x7c00u << 13) {         /* infinity */
        bits = 255u << 23;
    } else if (bits < 0x0400u << 13) {          /* zero and subnormal */
        x = (float)(h & 0x3ff) * 0x1p-24f;
        memcpy(&bits, &x, sizeof bits);
    } else {
        bits += (127u - 15) << 23;
    }
    bits |= sign;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float qkv_from_bf16(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Scale i of q3_k's 16: low nibbles in 8 bytes, high pairs in 4 more. */
static inline int qkv_scale_q3_k(const unsigned char *s, int i)
{
    const int low = s[i % 8] >> (i / 8 * 4) & 15;
    const int high = s[8 + i % 4] >> (i / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

/* Scale and offset i of 8, six bits each in 12 bytes: the first four in the
 * low bits of bytes i and 4 + i; of the others the low nibbles in byte 4 + i,
 * the high pairs on top of the first four's. */
static inline void qkv_scales_q4_k(float *scale, float *offset,
                                   const unsigned char *s, int i)
{
    if (i < 4) {
        *scale = (float)(s[i] & 63);
        *offset = (float)(s[4 + i] & 63);
    } else {
        *scale = (float)((s[4 + i] & 15) | (s[i - 4] >> 6) << 4);
        *offset = (float)(s[4 + i] >> 4 | (s[i] >> 6) << 4);
    }
}

#endif
