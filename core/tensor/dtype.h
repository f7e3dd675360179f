/*
 * dtype.h - the types of stored numbers (dtype.def), as a table
 */
#ifndef QKV_DTYPE_H
#define QKV_DTYPE_H
#include <stdbool.h>
#include <stdint.h>

typedef enum qkv_dtype {
#define QKV_DTYPE(id, name, values, bytes, gguf) QKV_##id,
#include "tensor/dtype.def"
#undef QKV_DTYPE
    QKV_N_DTYPES
} qkv_dtype;

typedef struct qkv_dtype_info {
    const char *name;
    int64_t block;              /* values in a block; 1: a plain type */
    int64_t bytes;              /* of a block */
    int gguf;                   /* GGML's type number, or -1 */
} qkv_dtype_info;

extern const qkv_dtype_info qkv_dtypes[QKV_N_DTYPES];

static inline bool qkv_is_quantised(qkv_dtype t)
{
    return qkv_dtypes[t].block > 1;
}

/* f32, f16, bf16: numbers that float arithmetic reads as they are. */
static inline bool qkv_is_float(qkv_dtype t)
{
    return t == QKV_F32 || t == QKV_F16 || t == QKV_BF16;
}

/* By name, or by GGML's number; false when there is none. */
bool qkv_dtype_named(qkv_dtype *out, const char *name);
bool qkv_dtype_gguf(qkv_dtype *out, int64_t number);

#endif
