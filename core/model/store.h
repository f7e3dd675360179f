/*
 * store.h - a model's tensors by name, whatever file they are in
 */
#ifndef QKV_STORE_H
#define QKV_STORE_H
#include "format/gguf.h"
#include "format/safetensors.h"

typedef struct qkv_store {      /* one of the two is set */
    qkv_gguf *gguf;
    qkv_safetensors *safetensors;
} qkv_store;

void qkv_store_close(qkv_store *s);
int64_t qkv_store_count(const qkv_store *s);
const char *qkv_store_name(const qkv_store *s, int64_t i);
/* A reference; NULL with ENOTFOUND when there is none. */
qkv_tensor *qkv_store_tensor(const qkv_store *s, const char *name,
                             qkv_error *err);
bool qkv_store_has(const qkv_store *s, const char *name);

#endif
