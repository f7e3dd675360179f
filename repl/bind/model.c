/*
 * model.c - opening models, and asking them, in Lua
 */
#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "repl/bind/model_impl.h"

/* ---- checks ---- */

qkv_model *qkv_check_model(lua_State *L, int index)
{
    return qkv_check_class(L, index, QKV_MODEL);
}

void qkv_push_model(lua_State *L, qkv_model *m)
{
    void **slot = qkv_push_empty(L, QKV_MODEL);
    qkv_bind_remember(L);
    *slot = qkv_model_retain(m);
}

/* ---- names of fetched models ---- */

/* Push the folder of fetched models: $XDG_DATA_HOME/qkv/models. */
static const char *push_models_folder(lua_State *L)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data != NULL && data[0] == '/')
        return lua_pushfstring(L, "%s/qkv/models", data);
    return lua_pushfstring(L, "%s/.local/share/qkv/models",
                           home != NULL ? home : "");
}

/* Push where a model of that name is, or nil: a file or folder, a fetched
 * model, or one that is installed with qkv. */
static const char *push_place(lua_State *L, const char *name)
{
    if (qkv_is_file(name) || qkv_is_directory(name))
        return lua_pushstring(L, name);
    if (strchr(name, '/') != NULL) {
        lua_pushnil(L);
        return NULL;
    }
    const char *installed = getenv("QKV_DATA");
    const char *folders[] = {push_models_folder(L),
                             installed != NULL ? installed : QKV_DATADIR};
    for (size_t i = 0; i < 2; i++) {
        const char *gguf = lua_pushfstring(L, "%s/%s.gguf", folders[i], name);
        if (qkv_is_file(gguf))
            return gguf;
        const char *folder = lua_pushfstring(L, "%s/%s", folders[i], name);
        if (qkv_is_directory(folder))
            return folder;
    }
    lua_pushnil(L);
    return NULL;
}

/* "no such file ...; fetched are: smollm2" */
static int no_such_model(lua_State *L, const char *name)
{
    const char *folder = push_models_folder(L);
    lua_pushliteral(L, "");
    DIR *d = opendir(folder);
    if (d != NULL) {
        int n = 0;
        for (const struct dirent *e; (e = readdir(d)) != NULL && n < 20; ) {
            if (e->d_name[0] == '.')
                continue;
            const char *dot = strstr(e->d_name, ".gguf");
            const int bytes = dot != NULL ? (int)(dot - e->d_name)
                : (int)strlen(e->d_name);
            char word[256];
            snprintf(word, sizeof word, "%s%.*s", n++ > 0 ? ", " : "", bytes,
                     e->d_name);
            lua_pushstring(L, word);
            lua_concat(L, 2);
        }
        closedir(d);
    }
    const char *fetched = lua_tostring(L, -1);
    return luaL_error(L, "'%s' is no file, no folder and no fetched model%s%s; "
                      "scripts/tools/fetch gets models", name,
                      fetched[0] != '\0' ? "; fetched are: " : "", fetched);
}

/* ---- functions ---- */

QKV_DOC(model_open, "qkv.open(path_or_name [, {large=}]) -> m",
    "Open a model: a .gguf file, a Hugging Face folder (config.json,\n"
    "model.safetensors, tokenizer.json), or the name of one that was\n"
    "fetched (\"smollm2\"). Weights are mapped, not read; quantised ones\n"
    "stay as they are. large = true also opens a model that is larger than\n"
    "this machine's memory.\n"
    "> qkv.open(m.path).config.n_layers == m.config.n_layers");
static int l_model_open(lua_State *L)
{
    static const char *const options[] = {"large", NULL};
    qkv_check_nargs(L, 2);
    const char *name = luaL_checkstring(L, 1);
    qkv_check_options(L, 2, options);
    const bool large = qkv_option_boolean(L, 2, "large", false);
    const char *path = push_place(L, name);
    if (path == NULL)
        return no_such_model(L, name);
    void **slot = qkv_push_empty(L, QKV_MODEL);
    qkv_bind_remember(L);
    qkv_error err;
    *slot = qkv_model_open(path, large, &err);
    return *slot != NULL ? 1 : qkv_raise(L, &err);
}

/* ---- fields ---- */

QKV_DOC(model_config, "m.config -> table",
    "What the model is: n_layers n_heads n_kv_heads d_model d_head d_mlp\n"
    "d_vocab n_ctx, family, norm, eps, activation, gated, causal, tied,\n"
    "rotary_dim, rotary_base, attn_scale.\n"
    "> m.config.n_heads * m.config.d_head == m.config.d_model");
static void push_config(lua_State *L, const qkv_config *c)
{
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {
        {"n_layers", c->n_layers}, {"n_heads", c->n_heads},
        {"n_kv_heads", c->n_kv_heads}, {"d_model", c->d_model},
        {"d_head", c->d_head}, {"d_mlp", c->d_mlp}, {"d_vocab", c->d_vocab},
        {"n_ctx", c->n_ctx}, {"n_types", c->n_types},
        {"rotary_dim", c->rotary_dim},
    };
    lua_createtable(L, 0, 20);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        lua_pushinteger(L, sizes[i].value);
        lua_setfield(L, -2, sizes[i].name);
    }
    const struct {
        const char *name;
        bool value;
    } switches[] = {{"gated", c->gated}, {"causal", c->causal},
                    {"tied", c->tied}};
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        lua_pushboolean(L, switches[i].value);
        lua_setfield(L, -2, switches[i].name);
    }
    lua_pushstring(L, c->family);
    lua_setfield(L, -2, "family");
    lua_pushstring(L, c->norm == QKV_NORM_RMS ? "rms" : "layer");
    lua_setfield(L, -2, "norm");
    lua_pushstring(L, c->layout == QKV_PRE_NORM ? "pre-norm" : "post-norm");
    lua_setfield(L, -2, "layout");
    lua_pushstring(L, qkv_activation_name(c->activation));
    lua_setfield(L, -2, "activation");
    lua_pushnumber(L, c->eps);
    lua_setfield(L, -2, "eps");
    lua_pushnumber(L, c->attn_scale);
    lua_setfield(L, -2, "attn_scale");
    if (c->rotary_dim > 0) {
        lua_pushnumber(L, c->rotary_base);
        lua_setfield(L, -2, "rotary_base");
    }
}

/* A view of a stored matrix with names; transposed for W_U. */
static int push_matrix(lua_State *L, const qkv_weight *w, const char *rows,
                       const char *columns, bool flip)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_view(w->stored, &err);
    const bool named = t != NULL && qkv_tensor_name(t, 0, rows, &err)
        && qkv_tensor_name(t, 1, columns, &err);
    if (t != NULL && (!named || flip)) {
        qkv_tensor *u = named ? qkv_tensor_transpose(t, 0, 1, &err) : NULL;
        qkv_tensor_release(t);
        t = u;
    }
    if (t != NULL)
        t->read_only = true;
    return qkv_push_tensor(L, t, &err);
}

QKV_DOC(model_embed, "m.embed -> tensor [vocab, d_model]",
    "The token embeddings as stored: a quantised tensor knows rows,\n"
    "products and :float().\n"
    "> m.embed:size(\"vocab\") == m.config.d_vocab");
QKV_DOC(model_unembed, "m.unembed -> tensor [d_model, vocab]",
    "The unembedding as stored (the embedding's transpose when tied).\n"
    "> m.unembed:size(\"vocab\") == m.config.d_vocab");
QKV_DOC(model_tokenizer, "m.tokenizer -> tokenizer",
    "The model's tokenizer; its methods are the model's, too.\n"
    "> #m.tokenizer > 0");
QKV_DOC(model_bos, "m.bos -> id", "The token that begins a text, or nil.");
QKV_DOC(model_eos, "m.eos -> id", "The token that ends a text, or nil.");
QKV_DOC(model_name, "m.name -> string", "What the model calls itself.");
QKV_DOC(model_path, "m.path -> string", "Where it was opened.");

static int push_tokenizer(lua_State *L, qkv_model *m)
{
    qkv_tokenizer *t;
    qkv_bind_model_tokenizer(L, m);
    t = m->tokenizer;
    void **slot = qkv_push_empty(L, QKV_TOKENIZER);
    *slot = qkv_tokenizer_retain(t);
    return 1;
}

static int push_id(lua_State *L, int32_t id)
{
    if (id < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, id);
    return 1;
}

static int model_index(lua_State *L)
{
    qkv_model *m = qkv_check_model(L, 1);
    const qkv_stack *s = &m->stacks[0];
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "config") == 0)
        return push_config(L, &s->config), 1;
    if (strcmp(key, "embed") == 0)
        return push_matrix(L, &s->embed, "vocab", "d_model", false);
    if (strcmp(key, "unembed") == 0)
        return push_matrix(L, &s->unembed.w, "vocab", "d_model", true);
    if (strcmp(key, "tokenizer") == 0)
        return push_tokenizer(L, m);
    if (strcmp(key, "bos") == 0)
        return push_id(L, qkv_tokenizer_bos(qkv_bind_model_tokenizer(L, m)));
    if (strcmp(key, "eos") == 0)
        return push_id(L, qkv_tokenizer_eos(qkv_bind_model_tokenizer(L, m)));
    if (strcmp(key, "name") == 0)
        return lua_pushstring(L, m->name), 1;
    if (strcmp(key, "path") == 0)
        return lua_pushstring(L, m->path), 1;
    return qkv_bind_index(L);
}

/* ---- methods ---- */

/* Append `name` to the list on top. */
static bool append(void *context, const char *name)
{
    lua_State *L = context;
    lua_pushstring(L, name);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    return true;
}

static void push_weight_names(lua_State *L, const qkv_model *m)
{
    lua_newtable(L);
    for (int64_t i = 0; i < qkv_store_count(&m->store); i++)
        append(L, qkv_store_name(&m->store, i));
    qkv_model_canonical_names(m, append, L);
}

QKV_DOC(model_weights, "m:weights() -> names",
    "The names of all weights: those of the file, then the canonical ones\n"
    "(\"blocks.3.attn.W_Q\"). m:weight(name) gives one.\n"
    "> #m:weights() > 0");
static int l_model_weights(lua_State *L)
{
    qkv_check_nargs(L, 1);
    push_weight_names(L, qkv_check_model(L, 1));
    return 1;
}

QKV_DOC(model_weight, "m:weight(name) -> tensor",
    "A weight by its name in the file, as stored; or by its canonical name,\n"
    "in float32: \"W_E\" [vocab, d_model], \"W_U\" [d_model, vocab],\n"
    "\"blocks.3.attn.W_Q\" [head, d_model, d_head] (W_K, W_V with key-value\n"
    "heads), \"W_O\" [head, d_head, d_model], \"mlp.W_in\", \"mlp.W_gate\"\n"
    "[d_model, d_mlp], \"mlp.W_out\" [d_mlp, d_model], b_* and ln1.w.\n"
    "> m:weight(\"blocks.0.attn.W_Q\"):size(\"head\") == m.config.n_heads");
static int l_model_weight(lua_State *L)
{
    qkv_check_nargs(L, 2);
    const qkv_model *m = qkv_check_model(L, 1);
    const char *name = luaL_checkstring(L, 2);
    qkv_error err;
    return qkv_push_tensor(L, qkv_model_weight(m, name, &err), &err);
}

void qkv_push_site_names(lua_State *L, const qkv_stack *s,
                         const uint8_t *mark)
{
    lua_newtable(L);
    for (int64_t slot = 0; slot < s->config.n_layers * QKV_N_SITES; slot++) {
        char name[QKV_SITE_ROOM];
        if (!mark[slot])
            continue;
        qkv_site_name(name, (qkv_site)(slot % QKV_N_SITES),
                      slot / QKV_N_SITES);
        append(L, name);
    }
}

void qkv_push_sites(lua_State *L, const qkv_stack *s, const char *pattern)
{
    const size_t slots = (size_t)(s->config.n_layers * QKV_N_SITES);
    uint8_t *mark = lua_newuserdatauv(L, slots, 0);
    memset(mark, 0, slots);
    qkv_error err;
    if (!qkv_site_match(mark, 1, s, pattern, &err))
        qkv_raise(L, &err);
    qkv_push_site_names(L, s, mark);
}

/* "attn.hook_rot_q" -> "rot_q"; the module stays where the rest alone does not
 * mean this site: "ln1.hook_scale" -> "ln1.scale". out [QKV_SITE_ROOM]. */
static void short_name(char *out, qkv_site site, const qkv_stack *s)
{
    qkv_error err;
    qkv_site meant;
    int64_t layer;
    const char *name = qkv_sites[site].name, *dot = strrchr(name, '.');
    const char *rest = dot != NULL ? dot + 1 : name;
    rest += strncmp(rest, "hook_", 5) == 0 ? 5 : 0;
    if (qkv_site_find(&meant, &layer, s, rest, &err) && meant == site)
        snprintf(out, QKV_SITE_ROOM, "%s", rest);
    else
        snprintf(out, QKV_SITE_ROOM, "%.*s%s",
                 dot != NULL ? (int)(dot + 1 - name) : 0, name, rest);
}

void qkv_push_site_words(lua_State *L, const qkv_stack *s)
{
    qkv_push_sites(L, s, "*");
    for (int i = 0; i < QKV_N_SITES; i++) {
        char name[QKV_SITE_ROOM];
        if (!qkv_site_is_there((qkv_site)i, s))
            continue;
        short_name(name, (qkv_site)i, s);
        append(L, name);
    }
}

QKV_DOC(model_sites, "m:sites([pattern]) -> names",
    "The names of the activations: all, or those that a pattern means: a\n"
    "full name in which * stands for anything, or a short one (\"pattern\").\n"
    "> #m:sites \"pattern\" == m.config.n_layers");
static int l_model_sites(lua_State *L)
{
    qkv_check_nargs(L, 2);
    qkv_push_sites(L, &qkv_check_model(L, 1)->stacks[0],
                   luaL_optstring(L, 2, "*"));
    return 1;
}

QKV_DOC(model_check, "m:check() -> true",
    "Look through all weights for values that are not finite: an error that\n"
    "names the first tensor that has some.\n"
    "> m:check()");
static int l_model_check(lua_State *L)
{
    qkv_check_nargs(L, 1);
    qkv_error err;
    if (!qkv_model_check(qkv_check_model(L, 1), &err))
        return qkv_raise(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

/* ---- metamethods ---- */

static int model_tostring(lua_State *L)
{
    const qkv_model *m = qkv_test_class(L, 1, QKV_MODEL);
    if (m == NULL) {
        lua_pushliteral(L, "model (closed)");
        return 1;
    }
    const qkv_config *c = &m->stacks[0].config;
    char line[512], kv[32] = "";
    if (c->n_kv_heads != c->n_heads)
        snprintf(kv, sizeof kv, " (%lld kv)", (long long)c->n_kv_heads);
    snprintf(line, sizeof line, "%.200s  %s  %lld layers x %lld heads%s  "
             "d_model %lld  vocab %lld  %s", m->name, c->family,
             (long long)c->n_layers, (long long)c->n_heads, kv,
             (long long)c->d_model, (long long)c->d_vocab, m->dtype);
    lua_pushstring(L, line);
    return 1;
}

/* What Tab offers inside m:weight"...", and inside the strings of methods that
 * take names of sites. */
static int model_complete(lua_State *L)
{
    static const char *const with_sites[] =
        {"sites", "run", "generate", "hidden"};
    const qkv_model *m = qkv_test_class(L, 1, QKV_MODEL);
    const char *method = lua_tostring(L, 2);
    if (m == NULL || method == NULL)
        return 0;
    if (strcmp(method, "weight") == 0) {
        push_weight_names(L, m);
        return 1;
    }
    for (size_t i = 0; i < sizeof with_sites / sizeof *with_sites; i++) {
        if (strcmp(method, with_sites[i]) == 0) {
            qkv_push_site_words(L, &m->stacks[0]);
            return 1;
        }
    }
    return 0;
}

static int model_eq(lua_State *L)
{
    lua_pushboolean(L, qkv_test_class(L, 1, QKV_MODEL)
                    == qkv_test_class(L, 2, QKV_MODEL));
    return 1;
}

static int model_gc(lua_State *L)
{
    void **slot = luaL_checkudata(L, 1, QKV_MODEL);
    qkv_model_release(*slot);
    *slot = NULL;
    return 0;
}

/* ---- tables ---- */

static const qkv_bind_row functions[] = {
    QKV_ROW("open", model_open),
    QKV_ROW_END
};

static const qkv_bind_row methods[] = {
    QKV_FIELD("config", model_config),
    QKV_FIELD("embed", model_embed),
    QKV_FIELD("unembed", model_unembed),
    QKV_FIELD("tokenizer", model_tokenizer),
    QKV_FIELD("bos", model_bos),
    QKV_FIELD("eos", model_eos),
    QKV_FIELD("name", model_name),
    QKV_FIELD("path", model_path),
    QKV_ROW("weights", model_weights),
    QKV_ROW("weight", model_weight),
    QKV_ROW("sites", model_sites),
    QKV_ROW("check", model_check),
    QKV_ROW_END
};

static const luaL_Reg metamethods[] = {
    {"__index", model_index},
    {"__tostring", model_tostring},
    {"__complete", model_complete},
    {"__eq", model_eq},
    {"__gc", model_gc},
    {"__close", model_gc},
    {NULL, NULL}
};

void qkv_bind_model(lua_State *L)
{
    qkv_bind_tokenizer(L);
    qkv_bind_functions(L, "qkv", functions);
    qkv_bind_class(L, "model", methods, metamethods);
    qkv_bind_class(L, "model", qkv_token_methods, NULL);
}
