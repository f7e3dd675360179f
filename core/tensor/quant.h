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

#include "tensor/dtype.h"

/* out [n] floats from stored values; n is whole blocks; `from` may have any
 * alignment. All float and quantised types. */
void qkv_unpack(float *out, qkv_dtype dtype, const void *from, int64_t n);

/* f32 -> f16 and bf16, round to nearest even; and back. */
uint16_t qkv_to_f16(float x);
float qkv_from_f16(uint16_t h);
uint16_t qkv_to_bf16(float x);
float qkv_from_bf16(uint16_t h);

#endif
