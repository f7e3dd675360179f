/*
 * scalar.c - the number types of safetensors and NumPy: see scalar.h
 */
#include "config.h"

#include "format/scalar.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/interrupt.h"

const qkv_scalar_info qkv_scalars[QKV_N_SCALARS] = {
#define QKV_SCALAR(id, word, kind, type, as, same) \
    [QKV_SCALAR_##id] = {word, kind, sizeof(type), QKV_##as, same},
#include "format/scalar.def"
#undef QKV_SCALAR
};

qkv_scalar qkv_scalar_of(qkv_dtype dtype)
{
    int s = 0;
    while (!qkv_scalars[s].same || qkv_scalars[s].as != dtype) {
        s++;
        assert(s < QKV_N_SCALARS);
    }
    return (qkv_scalar)s;
}

/* Bytes of each of n elements, turned round if swap. */
static void copy(void *out, const void *from, size_t bytes, int64_t n,
                 bool swap)
{
    if (n > 0 && (!swap || bytes == 1)) {
        memcpy(out, from, (size_t)n * bytes);
        return;
    }
    const unsigned char *in = from;
    unsigned char *to = out;
    for (int64_t i = 0; i < n; i++, in += bytes, to += bytes)
        for (size_t b = 0; b < bytes; b++)
            to[b] = in[bytes - 1 - b];
}

/* One element at a time: out[i] = (OUT)x, x of type IN. */
#define WIDEN(ID, IN, OUT)                                                  \
    case QKV_SCALAR_##ID:                                                   \
        for (int64_t i = 0; i < n; i++) {                                   \
            IN x;                                                           \
            copy(&x, in + (size_t)i * sizeof x, sizeof x, 1, swap);         \
            ((OUT *)out)[i] = (OUT)x;                                       \
        }                                                                   \
        return true;

static bool read_some(void *out, qkv_scalar s, const char *in, int64_t n,
                      bool swap, qkv_error *err)
{
    switch (s) {
    WIDEN(I8, int8_t, int32_t)
    WIDEN(U16, uint16_t, int32_t)
    WIDEN(I16, int16_t, int32_t)
    WIDEN(U32, uint32_t, int64_t)
    WIDEN(F64, double, float)
    case QKV_SCALAR_BOOL:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)out)[i] = in[i] != 0;
        return true;
    case QKV_SCALAR_U64:
        for (int64_t i = 0; i < n; i++) {
            uint64_t x;
            copy(&x, in + (size_t)i * sizeof x, sizeof x, 1, swap);
            if (x > INT64_MAX)
                return qkv_fail(err, QKV_EUNSUPPORTED, "an element is %" PRIu64
                                ", the largest i64 is %" PRId64, x, INT64_MAX);
            ((int64_t *)out)[i] = (int64_t)x;
        }
        return true;
    default:
        copy(out, in, qkv_scalars[s].bytes, n, swap);
        return true;
    }
}

bool qkv_scalar_read(void *out, qkv_scalar s, const void *from, int64_t n,
                     bool swap, qkv_error *err)
{
    enum { SOME = 1 << 20 };    /* elements between two looks at Ctrl-C */
    const qkv_scalar_info *type = &qkv_scalars[s];
    const size_t wide = (size_t)qkv_dtypes[type->as].bytes;
    for (int64_t i = 0; i < n; i += SOME)
        if (!qkv_check(err)
            || !read_some((char *)out + (size_t)i * wide, s,
                          (const char *)from + (size_t)i * type->bytes,
                          n - i < SOME ? n - i : SOME, swap, err))
            return false;
    return true;
}
