/*
 * dtype.c - the table of stored types: see dtype.h
 */
#include "config.h"

#include "tensor/dtype.h"

#include <stddef.h>
#include <string.h>

const qkv_dtype_info qkv_dtypes[QKV_N_DTYPES] = {
#define QKV_DTYPE(id, word, values, size, number)                           \
    [QKV_##id] = {.name = word, .block = values, .bytes = size,             \
                  .gguf = number},
#include "tensor/dtype.def"
#undef QKV_DTYPE
};

bool qkv_dtype_named(qkv_dtype *out, const char *name)
{
    for (int i = 0; i < QKV_N_DTYPES; i++)
        if (strcmp(qkv_dtypes[i].name, name) == 0) {
            *out = (qkv_dtype)i;
            return true;
        }
    return false;
}

bool qkv_dtype_gguf(qkv_dtype *out, int64_t number)
{
    for (int i = 0; i < QKV_N_DTYPES; i++)
        if (number >= 0 && qkv_dtypes[i].gguf == number) {
            *out = (qkv_dtype)i;
            return true;
        }
    return false;
}
