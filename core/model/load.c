/*
 * load.c - from a file or folder to a model
 *
 * Facts give a family's row and the configuration; the dialect's row gives
 * names; every tensor is found, its shape checked against the configuration,
 * and bound as a weight over the mapped file. Nothing here computes.
 */
#include "config.h"

#include "model/model.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "tensor/elementwise.h"

enum { NAME_ROOM = 192 };

typedef struct loader {
    qkv_model *model;
    qkv_facts facts;
    const qkv_family *family;
    const qkv_dialect *dialect;
    qkv_stack *stack;
    char prefix[32];            /* what '~' stands for in this file */
    qkv_error *err;
} loader;

/* ---- names ---- */

/* Expand one alternative of a template: '~' the prefix, %d the layer, and for
 * a bias .weight -> .bias, .gamma -> .beta. */
static void expand(char *out, const loader *l, const char *template,
                   size_t bytes, int64_t layer, bool bias)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes && used < NAME_ROOM - 1; i++) {
        int n = 1;
        if (template[i] == '~')
            n = snprintf(out + used, NAME_ROOM - used, "%s", l->prefix);
        else if (template[i] == '%' && i + 1 < bytes)
            n = snprintf(out + used, NAME_ROOM - used, "%lld",
                         (long long)layer), i++;
        else
            out[used] = template[i];
        used += (size_t)n;
    }
    used = used < NAME_ROOM ? used : NAME_ROOM - 1;
    out[used] = '\0';
    if (!bias)
        return;
    static const char *const ends[][2] = {{".weight", ".bias"},
                                          {".gamma", ".beta"}};
    for (size_t i = 0; i < 2; i++) {
        const size_t n = strlen(ends[i][0]);
        if (used > n && strcmp(out + used - n, ends[i][0]) == 0) {
            strcpy(out + used - n, ends[i][1]);     /* shorter or as long */
            return;
        }
    }
    out[0] = '\0';
}

/* The tensor of a role (or its bias) and its name in the file. NULL with
 * ENOTFOUND when there is none. */
static qkv_tensor *find(const loader *l, char *name, qkv_role role,
                        int64_t layer, bool bias, qkv_error *err)
{
    const char *at = l->dialect->name[role];
    name[0] = '\0';
    qkv_fail(err, QKV_ENOTFOUND, "%s has no such tensor", l->model->path);
    while (at != NULL && *at != '\0') {
        const size_t bytes = strcspn(at, "|");
        char tried[NAME_ROOM];
        expand(tried, l, at, bytes, layer, bias);
        qkv_tensor *t = qkv_store_tensor(&l->model->store, tried, err);
        if (name[0] == '\0' || t != NULL)
            strcpy(name, tried);
        if (t != NULL || err->code != QKV_ENOTFOUND)
            return t;
        at += bytes + (at[bytes] == '|');
    }
    if (name[0] != '\0')
        qkv_fail(err, QKV_ENOTFOUND, "%s has no tensor '%s'", l->model->path,
                 name);
    return NULL;
}

/* ---- tensors with their shapes ---- */

static bool wrong_shape(const loader *l, const qkv_tensor *t, const char *name,
                        int64_t n, int64_t k)
{
    char shape[128], wanted[64];
    qkv_tensor_describe(t, shape, sizeof shape);
    if (k > 0)
        snprintf(wanted, sizeof wanted, "[%lld, %lld]", (long long)n,
                 (long long)k);
    else
        snprintf(wanted, sizeof wanted, "[%lld]", (long long)n);
    return qkv_fail(l->err, QKV_EFORMAT, "%s: '%s' is %s, the configuration "
                    "says %s", l->model->path, name, shape, wanted);
}

/* A vector of floats, optional or not. *out NULL when it is not there. */
static bool vector(const loader *l, qkv_tensor **out, qkv_role role,
                   int64_t layer, bool bias, bool must, int64_t n)
{
    char name[NAME_ROOM];
    qkv_error absent;
    qkv_tensor *t = find(l, name, role, layer, bias, &absent);
    *out = NULL;
    if (t == NULL) {
        if (!must && absent.code == QKV_ENOTFOUND)
            return true;
        *l->err = absent;
        return false;
    }
    if (t->n_dims != 1 || t->shape[0] != n) {
        wrong_shape(l, t, name, n, 0);
        qkv_tensor_release(t);
        return false;
    }
    *out = qkv_tensor_float(t, l->err);
    qkv_tensor_release(t);
    return *out != NULL;
}

static bool norm_over(const loader *l, qkv_norm *out, qkv_role role,
                      int64_t layer, int64_t n)
{
    return vector(l, &out->gain, role, layer, false, true, n)
        && vector(l, &out->bias, role, layer, true,
                  l->stack->config.norm == QKV_NORM_LAYER, n);
}

static bool norm(const loader *l, qkv_norm *out, qkv_role role, int64_t layer)
{
    return norm_over(l, out, role, layer, l->stack->config.d_model);
}

/* A matrix [n, k] of a role into w. transposed: stored [k, n]. */
static bool matrix(const loader *l, qkv_weight *w, qkv_role role,
                   int64_t layer, bool transposed, int64_t n, int64_t k)
{
    char name[NAME_ROOM];
    qkv_tensor *t = find(l, name, role, layer, false, l->err);
    if (t == NULL)
        return false;
    bool done = false;
    if (t->n_dims != 2 || t->shape[transposed] != n
        || t->shape[!transposed] != k)
        wrong_shape(l, t, name, transposed ? k : n, transposed ? n : k);
    else if (!qkv_is_float(t->dtype) && !qkv_is_quantised(t->dtype))
        qkv_fail(l->err, QKV_EFORMAT, "%s: '%s' is of type %s, numbers of a "
                 "floating or quantised type were expected", l->model->path,
                 name, qkv_dtypes[t->dtype].name);
    else
        done = qkv_weight_init(w, t, transposed, l->err)
            || qkv_fail_in(l->err, "%s: '%s'", l->model->path, name);
    qkv_tensor_release(t);
    return done;
}

static bool linear(const loader *l, qkv_linear *out, qkv_role role,
                   int64_t layer, int64_t n, int64_t k)
{
    return matrix(l, &out->w, role, layer, l->dialect->transposed, n, k)
        && vector(l, &out->bias, role, layer, true, false, n);
}

/* ---- fused matrices, and rows in pairs: row maps of weight.h ---- */

/* out's bias from the one that belongs to the stored matrix, by out's row map;
 * none from NULL. */
static bool map_bias(const loader *l, qkv_linear *out,
                     const qkv_tensor *stored)
{
    if (stored == NULL)
        return true;
    out->bias = qkv_tensor_new(QKV_F32, 1, &out->w.n, NULL, l->err);
    if (out->bias == NULL)
        return false;
    const float *from = qkv_tensor_data(stored);
    float *to = qkv_tensor_data(out->bias);
    for (int64_t i = 0; i < out->w.n; i++)
        to[i] = from[qkv_weight_map(&out->w, i)];
    return true;
}

/* n rows of the fused matrix and bias: groups of `group` rows, `pitch` apart,
 * the first at `first`. */
static bool part(const loader *l, qkv_linear *out, const qkv_linear *fused,
                 int64_t first, int64_t n, int64_t group, int64_t pitch)
{
    out->w = fused->w;
    out->w.stored = qkv_tensor_retain(fused->w.stored);
    out->w.first = first;
    out->w.n = n;
    out->w.group = group;
    out->w.pitch = pitch;
    return qkv_weight_check(&out->w, "a fused matrix", l->err)
        && map_bias(l, out, fused->bias);
}

static void linear_reset(qkv_linear *l)
{
    qkv_weight_reset(&l->w);
    qkv_tensor_release(l->bias);
    l->bias = NULL;
}

/* GGUF's llama files store rows of q and k in neighbour order: see weight.h.
 * The matrix gets a row map, the bias is put in order here. */
static bool unpair(const loader *l, qkv_linear *out, int64_t d_head)
{
    out->w.group = out->w.pitch = d_head;
    out->w.pairs = true;
    if (!qkv_weight_check(&out->w, "q or k", l->err))
        return false;
    qkv_tensor *stored = out->bias;
    out->bias = NULL;
    const bool done = map_bias(l, out, stored);
    qkv_tensor_release(stored);
    return done;
}

/* q, k, v from the one matrix that holds them. */
static bool split(const loader *l, qkv_block *b, int64_t layer)
{
    const qkv_config *c = &l->stack->config;
    const int64_t n_q = c->n_heads * c->d_head, d = c->d_head;
    const int64_t n_kv = c->n_kv_heads * c->d_head;
    qkv_linear fused = {0};
    bool done = linear(l, &fused, QKV_ROLE_Q, layer, n_q + 2 * n_kv,
                       c->d_model);
    if (done && l->dialect->fusion == QKV_BY_HEAD)
        done = part(l, &b->q, &fused, 0, n_q, d, 3 * d)
            && part(l, &b->k, &fused, d, n_kv, d, 3 * d)
            && part(l, &b->v, &fused, 2 * d, n_kv, d, 3 * d);
    else if (done)
        done = part(l, &b->q, &fused, 0, n_q, n_q, n_q)
            && part(l, &b->k, &fused, n_q, n_kv, n_kv, n_kv)
            && part(l, &b->v, &fused, n_q + n_kv, n_kv, n_kv, n_kv);
    linear_reset(&fused);
    return done;
}

static bool attention(const loader *l, qkv_block *b, int64_t layer)
{
    const qkv_config *c = &l->stack->config;
    const int64_t n_q = c->n_heads * c->d_head;
    const int64_t n_kv = c->n_kv_heads * c->d_head;
    if (l->dialect->fusion != QKV_APART) {
        if (!split(l, b, layer))
            return false;
    } else if (!linear(l, &b->q, QKV_ROLE_Q, layer, n_q, c->d_model)
               || !linear(l, &b->k, QKV_ROLE_K, layer, n_kv, c->d_model)
               || !linear(l, &b->v, QKV_ROLE_V, layer, n_kv, c->d_model)) {
        return false;
    }
    if (l->dialect->pairs && (!unpair(l, &b->q, c->d_head)
                              || !unpair(l, &b->k, c->d_head)))
        return false;
    if (c->qk_norm
        && (!norm_over(l, &b->q_norm, QKV_ROLE_Q_NORM, layer, c->d_head)
            || !norm_over(l, &b->k_norm, QKV_ROLE_K_NORM, layer, c->d_head)))
        return false;
    if (!qkv_config_window(&b->window, c, &l->facts, layer, l->err))
        return false;
    b->scale = (float)(c->attn_scale
                       / (c->scale_by_layer ? (double)(layer + 1) : 1));
    if (l->stack->rotary != NULL)
        b->rotary = qkv_tensor_data(l->stack->rotary);
    return linear(l, &b->o, QKV_ROLE_O, layer, c->d_model, n_q);
}

/* ---- parts of a stack ---- */

/* The matrices that the MLP's input goes through. */
static bool mlp_in(const loader *l, qkv_block *b, int64_t layer)
{
    const qkv_config *c = &l->stack->config;
    const int64_t n = c->d_mlp;
    if (l->dialect->fused_gate) {
        qkv_linear fused = {0};
        const bool done =
            linear(l, &fused, QKV_ROLE_GATE, layer, 2 * n, c->d_model)
            && part(l, &b->gate, &fused, 0, n, n, n)
            && part(l, &b->in, &fused, n, n, n, n);
        linear_reset(&fused);
        return done;
    }
    return (!c->gated
            || linear(l, &b->gate, QKV_ROLE_GATE, layer, n, c->d_model))
        && linear(l, &b->in, QKV_ROLE_IN, layer, n, c->d_model);
}

static bool block(const loader *l, qkv_block *b, int64_t layer)
{
    const qkv_config *c = &l->stack->config;
    return norm(l, &b->ln1, QKV_ROLE_LN1, layer)
        && attention(l, b, layer)
        && (c->shared_norm || norm(l, &b->ln2, QKV_ROLE_LN2, layer))
        && mlp_in(l, b, layer)
        && linear(l, &b->out, QKV_ROLE_OUT, layer, c->d_model, c->d_mlp);
}

/* The frequencies of the rotation, one table for all layers. */
static bool rotary(const loader *l)
{
    qkv_stack *s = l->stack;
    const int64_t half = s->config.rotary_dim / 2;
    qkv_tensor *divisors;
    if (!vector(l, &divisors, QKV_ROLE_ROPE_FREQS, 0, false, false, half))
        return false;
    bool done = true;
    if (divisors == NULL) {     /* a GGUF says longrope by this alone */
        if (!vector(l, &divisors, QKV_ROLE_ROPE_SHORT, 0, false, false, half))
            return false;
        if (divisors != NULL)
            qkv_config_keep_short(&s->config);
    }
    if (divisors == NULL && s->config.rope_type == QKV_ROPE_LONG) {
        divisors = qkv_tensor_new(QKV_F32, 1, &half, NULL, l->err);
        done = divisors != NULL
            && qkv_config_divisors(qkv_tensor_data(divisors), &s->config,
                                   &l->facts, l->err);
    }
    if (done)
        s->rotary = qkv_tensor_new(QKV_F32, 1, &half, NULL, l->err);
    if (s->rotary != NULL)
        qkv_config_rotary(qkv_tensor_data(s->rotary), &s->config,
                          qkv_optional(divisors));
    qkv_tensor_release(divisors);
    return s->rotary != NULL;
}

static bool stem(const loader *l)
{
    qkv_stack *s = l->stack;
    qkv_config *c = &s->config;
    char name[NAME_ROOM];
    qkv_tensor *embed = find(l, name, QKV_ROLE_EMBED, 0, false, l->err);
    if (embed == NULL)
        return false;
    const int64_t rows = embed->n_dims == 2 ? embed->shape[0] : 0;
    const bool odd = rows < 1 || (c->d_vocab > 0 && c->d_vocab != rows);
    if (odd)
        wrong_shape(l, embed, name, c->d_vocab, c->d_model);
    qkv_tensor_release(embed);
    if (odd)
        return false;
    c->d_vocab = rows;
    return matrix(l, &s->embed, QKV_ROLE_EMBED, 0, false, rows, c->d_model)
        && (!c->learned_positions
            || matrix(l, &s->positions, QKV_ROLE_POSITIONS, 0, false,
                      c->n_ctx + c->position_offset, c->d_model))
        && (c->n_types == 0
            || matrix(l, &s->types, QKV_ROLE_TYPES, 0, false, c->n_types,
                      c->d_model))
        && (!c->embed_norm || norm(l, &s->embed_norm, QKV_ROLE_EMBED_NORM, 0))
        && (c->rotary_dim == 0 || rotary(l));
}

/* An output matrix that is in the file is used, whatever the file says of
 * tying; one that is not is the embedding. */
static bool unembedding(const loader *l)
{
    qkv_stack *s = l->stack;
    qkv_config *c = &s->config;
    char name[NAME_ROOM];
    qkv_error absent;
    qkv_tensor *own = find(l, name, QKV_ROLE_UNEMBED, 0, false, &absent);
    c->tied = own == NULL;
    if (own != NULL) {
        qkv_tensor_release(own);
        return matrix(l, &s->unembed.w, QKV_ROLE_UNEMBED, 0, false, c->d_vocab,
                      c->d_model);
    }
    if (absent.code != QKV_ENOTFOUND) {
        *l->err = absent;
        return false;
    }
    return qkv_weight_init(&s->unembed.w, s->embed.stored, false, l->err);
}

/* A matrix that may be missing as a whole. */
static bool optional(const loader *l, qkv_linear *out, qkv_role role,
                     int64_t n, int64_t k)
{
    char name[NAME_ROOM];
    qkv_error absent;
    qkv_tensor *t = find(l, name, role, 0, false, &absent);
    if (t == NULL && absent.code == QKV_ENOTFOUND)
        return true;
    qkv_tensor_release(t);
    return linear(l, out, role, 0, n, k);
}

static bool head(const loader *l)
{
    qkv_stack *s = l->stack;
    qkv_config *c = &s->config;
    if (!unembedding(l)
        || (c->final_norm && !norm(l, &s->ln_final, QKV_ROLE_LN_FINAL, 0)))
        return false;
    if (c->head != QKV_HEAD_MASKED)
        return vector(l, &s->unembed.bias, QKV_ROLE_UNEMBED, 0, true, false,
                      c->d_vocab);
    if (!optional(l, &s->mlm_dense, QKV_ROLE_MLM_DENSE, c->d_model,
                  c->d_model)
        || !optional(l, &s->pooler, QKV_ROLE_POOLER, c->d_model, c->d_model)
        || !optional(l, &s->next_sentence, QKV_ROLE_NEXT_SENTENCE, 2,
                     c->d_model))
        return false;
    if (!qkv_weight_is_there(&s->mlm_dense.w))
        return true;            /* a sentence model: hidden states only */
    return norm(l, &s->mlm_norm, QKV_ROLE_MLM_NORM, 0)
        && vector(l, &s->unembed.bias, QKV_ROLE_MLM_BIAS, 0, false, false,
                  c->d_vocab);
}

/* Which prefix does this file put before its names? */
static bool find_prefix(loader *l)
{
    char name[NAME_ROOM];
    const char *template = l->dialect->name[QKV_ROLE_EMBED];
    for (const char *at = l->dialect->prefixes; ; ) {
        const size_t bytes = strcspn(at, "|");
        snprintf(l->prefix, sizeof l->prefix, "%.*s", (int)bytes, at);
        expand(name, l, template, strlen(template), 0, false);
        if (qkv_store_has(&l->model->store, name))
            return true;
        if (at[bytes] == '\0')
            break;
        at += bytes + 1;
    }
    return qkv_fail(l->err, QKV_EFORMAT, "%s has no tensor '%s': is it a %s "
                    "model?", l->model->path, name, l->stack->config.family);
}

static bool stack(loader *l)
{
    qkv_model *m = l->model;
    m->stacks = qkv_alloc_zero(1, sizeof *m->stacks, l->err);
    if (m->stacks == NULL)
        return false;
    m->n_stacks = 1;
    l->stack = m->stacks;
    l->stack->prefix = "";
    qkv_config *c = &l->stack->config;
    if (!qkv_config_read(c, l->family, &l->facts, l->err) || !find_prefix(l)
        || !stem(l))
        return false;
    l->stack->blocks = qkv_alloc_zero((size_t)c->n_layers,
                                      sizeof *l->stack->blocks, l->err);
    if (l->stack->blocks == NULL)
        return false;
    for (int64_t i = 0; i < c->n_layers; i++)
        if (!block(l, &l->stack->blocks[i], i))
            return false;
    return head(l);
}

/* ---- files ---- */

/* Total bytes, and the type that most of them are of. */
static bool weigh(qkv_model *m, bool large, qkv_error *err)
{
    size_t bytes[QKV_N_DTYPES] = {0};
    int most = 0;
    for (int64_t i = 0; i < qkv_store_count(&m->store); i++) {
        qkv_error skip;
        size_t size = 0;
        qkv_tensor *t = m->store.gguf == NULL ? NULL
            : qkv_gguf_tensor(m->store.gguf,
                              qkv_gguf_tensor_name(m->store.gguf, i), &skip);
        if (t != NULL
            && qkv_tensor_bytes(&size, t->dtype, t->n_dims, t->shape, &skip))
            bytes[t->dtype] += size;
        qkv_tensor_release(t);
        m->weight_bytes += size;
    }
    if (m->store.safetensors != NULL) {
        m->weight_bytes = qkv_safetensors_bytes(m->store.safetensors);
        most = (int)m->stacks[0].embed.stored->dtype;
    }
    for (int i = 0; i < QKV_N_DTYPES; i++)
        if (bytes[i] > bytes[most])
            most = i;
    m->dtype = qkv_dtypes[most].name;
    if (!large && m->weight_bytes > qkv_memory_total())
        return qkv_fail(err, QKV_ENOMEM, "%s holds %.1f GB of weights, this "
                        "machine has %.1f GB of memory; large = true opens it "
                        "all the same", m->path, (double)m->weight_bytes / 1e9,
                        (double)qkv_memory_total() / 1e9);
    return true;
}

/* "folder/file" into out. */
static bool join(char *out, size_t room, const char *folder, const char *file,
                 qkv_error *err)
{
    const int n = snprintf(out, room, "%s/%s", folder, file);
    if (n < 0 || (size_t)n >= room)
        return qkv_fail(err, QKV_EINVAL, "path of %d bytes is too long", n);
    return true;
}

static bool open_folder(loader *l, const char *folder)
{
    qkv_model *m = l->model;
    char path[4096];
    m->format = QKV_FORMAT_HF;
    if (!join(path, sizeof path, folder, "config.json", l->err))
        return false;
    if (!qkv_is_file(path))
        return qkv_fail(l->err, QKV_EIO, "%s has no config.json: a Hugging "
                        "Face model folder was expected", folder);
    if (!qkv_facts_json(&l->facts, path, l->err))
        return false;
    const char *type = NULL;
    if (!qkv_facts_string(&type, &l->facts, "model_type", l->err))
        return false;
    if (type == NULL)
        return qkv_fail(l->err, QKV_EFORMAT, "%s has no model_type", path);
    l->family = qkv_family_named(type, l->err);
    if (l->family == NULL)
        return qkv_fail_in(l->err, "%s", path);
    static const char *const files[] = {"model.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < 2; i++) {
        if (!join(path, sizeof path, folder, files[i], l->err))
            return false;
        if (qkv_is_file(path)) {
            m->store.safetensors = qkv_safetensors_open(path, l->err);
            return m->store.safetensors != NULL;
        }
    }
    if (join(path, sizeof path, folder, "pytorch_model.bin", l->err)
        && qkv_is_file(path))
        return qkv_fail(l->err, QKV_EUNSUPPORTED, "%s is a Python pickle, "
                        "which can run any program when it is read: convert "
                        "it to model.safetensors first", path);
    return qkv_fail(l->err, QKV_EIO, "%s has no model.safetensors", folder);
}

static bool open_gguf(loader *l, const char *path)
{
    qkv_model *m = l->model;
    m->format = QKV_FORMAT_GGUF;
    m->store.gguf = qkv_gguf_open(path, l->err);
    if (m->store.gguf == NULL
        || !qkv_facts_gguf(&l->facts, m->store.gguf, l->err))
        return false;
    const char *arch = NULL;
    if (!qkv_facts_string(&arch, &l->facts, "general.architecture", l->err))
        return false;
    if (arch == NULL)
        return qkv_fail(l->err, QKV_EFORMAT, "%s has no general.architecture",
                        path);
    l->family = qkv_family_named(arch, l->err);
    return l->family != NULL || qkv_fail_in(l->err, "%s", path);
}

/* What the model calls itself: general.name, else the last part of the path. */
static bool give_name(loader *l)
{
    qkv_model *m = l->model;
    const char *name = NULL;
    if (!qkv_facts_string(&name, &l->facts, "general.name", l->err))
        return false;
    if (name == NULL || *name == '\0') {
        name = strrchr(m->path, '/');
        name = name != NULL && name[1] != '\0' ? name + 1 : m->path;
    }
    m->name = qkv_strdup(name, l->err);
    return m->name != NULL;
}

/* A shard or model.safetensors stands for its folder; slashes at the end do
 * not matter. */
static void tidy(char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        path[--n] = '\0';
    static const char end[] = ".safetensors";
    if (n > sizeof end - 1 && strcmp(path + n - (sizeof end - 1), end) == 0) {
        char *slash = strrchr(path, '/');
        strcpy(slash != NULL ? slash : path, slash != NULL ? "" : ".");
    }
}

qkv_model *qkv_model_open(const char *path, bool large, qkv_error *err)
{
    loader l = {.err = err};
    qkv_model *m = qkv_alloc_zero(1, sizeof *m, err);
    if (m == NULL)
        return NULL;
    l.model = m;
    m->refs = 1;
    m->path = qkv_strdup(path, err);
    if (m->path == NULL) {
        qkv_model_release(m);
        return NULL;
    }
    tidy(m->path);
    const bool folder = qkv_is_directory(m->path);
    const bool done = (folder ? open_folder(&l, m->path)
                       : open_gguf(&l, m->path))
        && (l.dialect = qkv_dialect_of(l.family, m->format, err)) != NULL
        && give_name(&l) && stack(&l) && weigh(m, large, err);
    qkv_facts_free(&l.facts);
    if (done)
        return m;
    qkv_model_release(m);
    return NULL;
}

static void norm_reset(qkv_norm *n)
{
    qkv_tensor_release(n->gain);
    qkv_tensor_release(n->bias);
}

static void block_reset(qkv_block *b)
{
    norm_reset(&b->ln1);
    norm_reset(&b->ln2);
    norm_reset(&b->q_norm);
    norm_reset(&b->k_norm);
    qkv_linear *all[] = {&b->q, &b->k, &b->v, &b->o, &b->gate, &b->in, &b->out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        linear_reset(all[i]);
}

static void stack_reset(qkv_stack *s)
{
    for (int64_t i = 0; s->blocks != NULL && i < s->config.n_layers; i++)
        block_reset(&s->blocks[i]);
    qkv_free(s->blocks);
    qkv_weight_reset(&s->embed);
    qkv_weight_reset(&s->positions);
    qkv_weight_reset(&s->types);
    norm_reset(&s->embed_norm);
    norm_reset(&s->ln_final);
    norm_reset(&s->mlm_norm);
    linear_reset(&s->unembed);
    linear_reset(&s->mlm_dense);
    linear_reset(&s->pooler);
    linear_reset(&s->next_sentence);
    qkv_tensor_release(s->rotary);
}

qkv_model *qkv_model_retain(qkv_model *m)
{
    m->refs++;
    return m;
}

void qkv_model_release(qkv_model *m)
{
    if (m == NULL || --m->refs > 0)
        return;
    for (int i = 0; i < m->n_stacks; i++)
        stack_reset(&m->stacks[i]);
    qkv_free(m->stacks);
    qkv_tokenizer_release(m->tokenizer);
    qkv_store_close(&m->store);
    qkv_free(m->name);
    qkv_free(m->path);
    qkv_free(m);
}

qkv_tokenizer *qkv_model_tokenizer(qkv_model *m, qkv_error *err)
{
    if (m->tokenizer == NULL)
        m->tokenizer = m->store.gguf != NULL
            ? qkv_tokenizer_from_gguf(m->store.gguf, err)
            : qkv_tokenizer_open(m->path, err);
    return m->tokenizer;
}
