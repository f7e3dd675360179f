/*
 * store.c - a model's tensors by name: see store.h
 */
#include "config.h"

#include "model/store.h"

void qkv_store_close(qkv_store *s)
{
    qkv_gguf_close(s->gguf);
    qkv_safetensors_close(s->safetensors);
    *s = (qkv_store){0};
}

int64_t qkv_store_count(const qkv_store *s)
{
    return s->gguf != NULL ? qkv_gguf_n_tensors(s->gguf)
        : qkv_safetensors_count(s->safetensors);
}

const char *qkv_store_name(const qkv_store *s, int64_t i)
{
    return s->gguf != NULL ? qkv_gguf_tensor_name(s->gguf, i)
        : qkv_safetensors_name(s->safetensors, i);
}

qkv_tensor *qkv_store_tensor(const qkv_store *s, const char *name,
                             qkv_error *err)
{
    return s->gguf != NULL ? qkv_gguf_tensor(s->gguf, name, err)
        : qkv_safetensors_tensor(s->safetensors, name, err);
}

bool qkv_store_has(const qkv_store *s, const char *name)
{
    qkv_error err;
    if (s->safetensors != NULL)
        return qkv_safetensors_has(s->safetensors, name);
    qkv_tensor *t = qkv_gguf_tensor(s->gguf, name, &err);
    qkv_tensor_release(t);
    return t != NULL || err.code != QKV_ENOTFOUND;
}
