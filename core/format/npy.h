/*
 * npy.h - NumPy's .npy and .npz
 *
 * Read: versions 1 to 3; little- and big-endian b1, u1, i1 to i8, u2 to u8, f2
 * to f8, C and Fortran order; f8 becomes f32, other integers i32 or i64, b1
 * u8. .npz: stored and deflated members, zip64. Written: version 1.0,
 * C order, f32 f16 i32 i64 u8 (bf16 as f32); .npz stored, with checksums.
 * NumPy reads what we write and we read what NumPy writes, but for texts,
 * records, complex numbers and objects (which are programs in disguise).
 *
 * What is loaded is a copy: it can be written to, and the file may go.
 */
#ifndef QKV_NPY_H
#define QKV_NPY_H
#include "base/file.h"
#include "tensor/tensor.h"

qkv_tensor *qkv_npy_load(const char *path, qkv_error *err);
bool qkv_npy_save(const char *path, const qkv_tensor *t, qkv_error *err);

/* Members in the file's order; those that are not .npy are passed over.
 * Arrays of tensors and names, both the caller's: qkv_free each name and the
 * two arrays, qkv_tensor_release each tensor. */
bool qkv_npz_load(const char *path, int64_t *n, char ***names,
                  qkv_tensor ***tensors, qkv_error *err);
bool qkv_npz_save(const char *path, int64_t n, const char *const *names,
                  qkv_tensor *const *tensors, qkv_error *err);

#endif
