/*
 * npy_impl.h - .npy in memory, for .npy and .npz
 */
#ifndef QKV_NPY_IMPL_H
#define QKV_NPY_IMPL_H
#include "base/text.h"
#include "tensor/tensor.h"

/* A tensor of its own from a .npy file's bytes. */
qkv_tensor *qkv_npy_decode(const unsigned char *data, size_t bytes,
                           qkv_error *err);

/* t as it is written: row-major, of a type that NumPy has; a new reference.
 * Its bytes follow the header, which is put behind what `head` has. */
qkv_tensor *qkv_npy_encode(qkv_text *head, const qkv_tensor *t,
                           qkv_error *err);
/* Bytes of the elements of what qkv_npy_encode gave. */
size_t qkv_npy_bytes(const qkv_tensor *t);

#endif
