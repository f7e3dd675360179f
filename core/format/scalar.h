/*
 * scalar.h - the number types of safetensors and NumPy, read as ours
 *
 * They have more than dtype.def: what is missing is widened to the next type
 * that holds it (u16 as i32, u32 as i64), f64 is rounded to f32, and u64 must
 * fit in i64.
 */
#ifndef QKV_SCALAR_H
#define QKV_SCALAR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

typedef enum qkv_scalar {
#define QKV_SCALAR(id, word, kind, type, as, same) QKV_SCALAR_##id,
#include "format/scalar.def"
#undef QKV_SCALAR
    QKV_N_SCALARS
} qkv_scalar;

typedef struct qkv_scalar_info {
    const char *word;           /* of safetensors */
    char kind;                  /* of NumPy */
    size_t bytes;
    qkv_dtype as;
    bool same;                  /* the bytes are those of `as` already */
} qkv_scalar_info;

extern const qkv_scalar_info qkv_scalars[QKV_N_SCALARS];

/* out [n] of type `as`, aligned; from [n] at any byte, reversed in each element
 * if swap. Fails on a u64 over 2^63 - 1, and on Ctrl-C. */
bool qkv_scalar_read(void *out, qkv_scalar s, const void *from, int64_t n,
                     bool swap, qkv_error *err);

/* How a plain type of ours is spelt. */
qkv_scalar qkv_scalar_of(qkv_dtype dtype);

#endif
