/*
 * safetensors.h - safetensors files: one, or shards with their index
 *
 * Mapped; the header is checked whole (shapes against byte ranges, ranges
 * inside the file, without overlaps) before anything is used. Data may begin
 * at any byte: where a type's alignment does not hold the tensor is copied.
 * F64 becomes f32, BOOL and I8 become u8 and i32, I16 and U16, U32 i32 and
 * i64, copied when asked for.
 */
#ifndef QKV_SAFETENSORS_H
#define QKV_SAFETENSORS_H
#include "base/file.h"
#include "tensor/tensor.h"

typedef struct qkv_safetensors qkv_safetensors;

/* A .safetensors file, or a model.safetensors.index.json (its shards lie
 * beside it; a shard's name may not lead out of the folder). */
qkv_safetensors *qkv_safetensors_open(const char *path, qkv_error *err);
void qkv_safetensors_close(qkv_safetensors *s);     /* NULL is allowed */

int64_t qkv_safetensors_count(const qkv_safetensors *s);
const char *qkv_safetensors_name(const qkv_safetensors *s, int64_t i);
bool qkv_safetensors_has(const qkv_safetensors *s, const char *name);
/* A read-only view (it keeps the map alive) or a copy, see above; NULL with
 * ENOTFOUND when there is no such tensor. */
qkv_tensor *qkv_safetensors_tensor(const qkv_safetensors *s, const char *name,
                                   qkv_error *err);
/* Bytes of all tensors. */
size_t qkv_safetensors_bytes(const qkv_safetensors *s);

/* Write n named tensors to one file (plain types; strided ones are made
 * contiguous). */
bool qkv_safetensors_save(const char *path, int64_t n,
                          const char *const *names,
                          qkv_tensor *const *tensors, qkv_error *err);

#endif
