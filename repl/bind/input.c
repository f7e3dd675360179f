/*
 * input.c - from Lua's tables to a recipe: inputs, edits, hooks
 *
 * The recipe lives in a userdata that frees what it holds, so that any check
 * may raise. What it takes from Lua is copied.
 */
#include "config.h"

#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "repl/bind/model_impl.h"

/* ---- the recipe in its userdata ---- */

static int recipe_gc(lua_State *L)
{
    qkv_recipe_reset(lua_touserdata(L, 1));
    return 0;
}

qkv_recipe *qkv_push_recipe(lua_State *L, qkv_model *m)
{
    qkv_recipe *r = qkv_push_block(L, sizeof *r, "qkv.recipe", recipe_gc);
    r->model = qkv_model_retain(m);
    r->stop_at = m->stacks[0].config.n_layers;
    return r;
}

static void *zeros(lua_State *L, size_t count, size_t size)
{
    qkv_error err;
    void *block = qkv_alloc_zero(count, size, &err);
    if (block == NULL)
        qkv_raise(L, &err);
    return block;
}

/* ---- inputs ---- */

typedef struct input {
    qkv_recipe *recipe;
    bool special;
    int64_t more;
} input;

/* Copy ids (and types, or NULL) into sequence i. */
static void set_sequence(lua_State *L, const input *in, int64_t i,
                         const int64_t *ids, int64_t n, const int64_t *types)
{
    qkv_sequence *s = &in->recipe->seqs[i];
    s->ids = zeros(L, (size_t)(n + in->more), sizeof *s->ids);
    if (types != NULL)
        s->types = zeros(L, (size_t)(n + in->more), sizeof *s->types);
    s->n = s->n_prompt = n;
    for (int64_t p = 0; p < n; p++) {
        if (ids[p] < 0 || ids[p] > INT32_MAX)
            luaL_error(L, "token id %I at position %I: ids run 0..%I",
                       (LUAI_UACINT)ids[p], (LUAI_UACINT)p,
                       (LUAI_UACINT)in->recipe->model->stacks[0].config.d_vocab
                       - 1);
        s->ids[p] = (int32_t)ids[p];
        if (types != NULL)
            s->types[p] = types[p] < 0 || types[p] > INT32_MAX ? -1
                : (int32_t)types[p];
    }
}

/* Encode a text, or two that belong together, into sequence i. */
static void set_text(lua_State *L, const input *in, int64_t i, int index,
                     int pair)
{
    const qkv_tokenizer *t = qkv_bind_model_tokenizer(L, in->recipe->model);
    qkv_tokens ids = {0}, types = {0};
    qkv_slice a, b = {NULL, 0};
    qkv_error err;
    a.data = lua_tolstring(L, index, &a.bytes);
    if (pair != 0)
        b.data = lua_tolstring(L, pair, &b.bytes);
    bool done = pair == 0
        ? qkv_tokenizer_encode(&ids, t, a, in->special, &err)
        : qkv_tokenizer_encode_pair(&ids, &types, t, a, b, in->special, &err);
    qkv_sequence *s = &in->recipe->seqs[i];
    const size_t room = (size_t)(ids.count + in->more);
    if (done)
        done = (s->ids = qkv_alloc_zero(room, sizeof *s->ids, &err)) != NULL
            && (pair == 0 || in->recipe->model->stacks[0].config.n_types == 0
                || (s->types = qkv_alloc_zero(room, sizeof *s->types, &err))
                != NULL);
    if (done && ids.count > 0) {
        memcpy(s->ids, ids.ids, (size_t)ids.count * sizeof *s->ids);
        if (s->types != NULL)
            memcpy(s->types, types.ids,
                   (size_t)types.count * sizeof *s->types);
    }
    s->n = s->n_prompt = ids.count;
    qkv_tokens_free(&ids);
    qkv_tokens_free(&types);
    if (!done)
        qkv_raise(L, &err);
}

/* {text=, pair=} or {ids=, types=} at `index`. */
static void set_record(lua_State *L, const input *in, int64_t i, int index)
{
    static const char *const options[] = {"text", "pair", "ids", "types",
                                          NULL};
    qkv_check_options(L, index, options);
    if (lua_getfield(L, index, "text") == LUA_TSTRING) {
        const int text = lua_gettop(L);
        const bool pair = lua_getfield(L, index, "pair") == LUA_TSTRING;
        set_text(L, in, i, text, pair ? text + 1 : 0);
        lua_pop(L, 2);
        return;
    }
    int64_t n, n_types = 0;
    lua_pop(L, 1);
    lua_getfield(L, index, "ids");
    const int64_t *ids = qkv_check_integers(L, lua_gettop(L), &n, "token id");
    const int64_t *types = NULL;
    if (lua_getfield(L, index, "types") != LUA_TNIL) {
        types = qkv_check_integers(L, lua_gettop(L), &n_types, "token type");
        if (n_types != n)
            luaL_error(L, "%I ids but %I types", (LUAI_UACINT)n,
                       (LUAI_UACINT)n_types);
    }
    set_sequence(L, in, i, ids, n, types);
}

static bool is_record(lua_State *L, int index)
{
    if (!lua_istable(L, index))
        return false;
    lua_getfield(L, index, "text");
    lua_getfield(L, index, "ids");
    const bool record = !lua_isnil(L, -1) || !lua_isnil(L, -2);
    lua_pop(L, 2);
    return record;
}

static void set_one(lua_State *L, const input *in, int64_t i, int index)
{
    const int top = lua_gettop(L);
    int64_t n;
    if (lua_type(L, index) == LUA_TSTRING) {
        set_text(L, in, i, index, 0);
    } else if (is_record(L, index)) {
        set_record(L, in, i, index);
    } else {
        const int64_t *ids = qkv_check_integers(L, index, &n, "token id");
        set_sequence(L, in, i, ids, n, NULL);
    }
    lua_settop(L, top);
}

/* A list of inputs, not of ids. */
static bool is_batch(lua_State *L, int index)
{
    if (!lua_istable(L, index) || is_record(L, index))
        return false;
    lua_rawgeti(L, index, 1);
    const bool batch = !lua_isnumber(L, -1) && !lua_isnil(L, -1);
    lua_pop(L, 1);
    return batch;
}

void qkv_recipe_input(lua_State *L, qkv_recipe *r, int index, bool special,
                      int64_t more)
{
    const input in = {.recipe = r, .special = special, .more = more};
    index = lua_absindex(L, index);
    const bool batch = is_batch(L, index);
    if (lua_type(L, index) != LUA_TSTRING && !lua_istable(L, index)
        && qkv_test_class(L, index, QKV_TENSOR) == NULL)
        luaL_error(L, "input is a %s: a text, token ids, or a list of these "
                   "was expected", luaL_typename(L, index));
    const int64_t n = batch ? (int64_t)lua_rawlen(L, index) : 1;
    r->seqs = zeros(L, (size_t)n, sizeof *r->seqs);
    r->n_seqs = n;
    r->n_more = more;
    for (int64_t i = 0; i < n; i++) {
        if (batch)
            lua_rawgeti(L, index, i + 1);
        set_one(L, &in, i, batch ? lua_gettop(L) : index);
        if (batch)
            lua_pop(L, 1);
    }
}

/* ---- selectors ---- */

/* Field `name` of the table at `index`: a number, a list, {from=, to=}, or
 * absent, which means all. */
static void read_selector(lua_State *L, qkv_selector *sel, int index,
                          const char *name)
{
    const int top = lua_gettop(L);
    qkv_error err;
    *sel = (qkv_selector){.all = true};
    if (lua_getfield(L, index, name) == LUA_TNIL) {
        lua_settop(L, top);
        return;
    }
    int64_t n, from = 0;
    const int64_t *list = NULL;
    const int at = lua_gettop(L);
    if (lua_istable(L, at) && lua_getfield(L, at, "to") != LUA_TNIL) {
        static const char *const options[] = {"from", "to", NULL};
        qkv_check_options(L, at, options);
        from = qkv_option_integer(L, at, "from", 0);
        n = qkv_option_integer(L, at, "to", 0) - from;
        if (n < 0 || n > INT_MAX)
            luaL_error(L, "edit: %s from %I to %I", name, (LUAI_UACINT)from,
                       (LUAI_UACINT)(from + n));
    } else {
        list = qkv_check_integers(L, at, &n, name);
    }
    sel->index = qkv_alloc((size_t)n * sizeof *sel->index, &err);
    if (sel->index == NULL)
        qkv_raise(L, &err);
    sel->all = false;
    sel->one = lua_isinteger(L, at);
    sel->n = n;
    for (int64_t i = 0; i < n; i++)
        sel->index[i] = list != NULL ? list[i] : from + i;
    lua_settop(L, top);
}

/* One selector for a layer that a full name gave. */
static void select_layer(lua_State *L, qkv_selector *sel, int64_t layer)
{
    if (layer < 0 || !sel->all)
        return;
    sel->index = zeros(L, 1, sizeof *sel->index);
    sel->index[0] = layer;
    sel->n = 1;
    sel->one = true;
    sel->all = false;
}

static void read_site(lua_State *L, const qkv_recipe *r, int index,
                      qkv_site *site, int64_t *layer)
{
    qkv_error err;
    const char *name = qkv_option_string(L, index, "site", NULL);
    if (name == NULL)
        luaL_error(L, "an edit or hook needs site = \"...\"");
    if (!qkv_site_find(site, layer, &r->model->stacks[0], name, &err))
        qkv_raise(L, &err);
    if (qkv_sites[*site].level != QKV_BLOCK)
        *layer = -1;
}

/* ---- edits ---- */

/* The values that another run has at an edit's place, at one layer. */
static qkv_tensor *donated(const qkv_edit *e, const qkv_run_view *from,
                           int64_t layer, qkv_error *err)
{
    const int64_t seq = from->seq < 0 ? 0 : from->seq;
    return qkv_edit_part(qkv_run_site(from->run, seq, e->site, layer, err), e,
                         false, err);
}

/* Room for one more edit. */
static qkv_edit *new_edit(lua_State *L, qkv_recipe *r)
{
    qkv_error err;
    qkv_edit *edits = qkv_realloc(r->edits, (size_t)(r->n_edits + 1)
                                  * sizeof *edits, &err);
    if (edits == NULL)
        qkv_raise(L, &err);
    r->edits = edits;
    qkv_edit *e = &r->edits[r->n_edits++];
    *e = (qkv_edit){0};
    for (int a = 0; a < QKV_N_EDIT_AXES; a++)
        e->select[a].all = true;
    return e;
}

/* The selectors, site and operation of the edit table at `index`. */
static void read_edit(lua_State *L, qkv_recipe *r, qkv_edit *e, int index)
{
    static const char *const names[] = {"seq", "layer", "pos", "head",
                                        "neuron", "key"};
    static const char *const ops[] = {"set", "add", "scale", "zero"};
    int64_t layer;
    read_site(L, r, index, &e->site, &layer);
    for (int a = 0; a < QKV_N_EDIT_AXES; a++)
        read_selector(L, &e->select[a], index, names[a]);
    if (qkv_sites[e->site].shape == QKV_SHAPE_SCORES
        && e->select[QKV_EDIT_POS].all)
        read_selector(L, &e->select[QKV_EDIT_POS], index, "query");
    select_layer(L, &e->select[QKV_EDIT_LAYER], layer);
    const char *op = qkv_option_string(L, index, "op", "set");
    int i = 0;
    while (i < 4 && strcmp(op, ops[i]) != 0)
        i++;
    if (i == 4)
        luaL_error(L, "edit: op '%s' is not one of set, add, scale, zero", op);
    e->op = i == 3 ? QKV_EDIT_SET : (qkv_edit_op)i;
    lua_getfield(L, index, "value");
    if (i == 3 && !lua_isnil(L, -1))
        luaL_error(L, "edit: op 'zero' takes no value");
    if (i != 3 && lua_isnil(L, -1))
        luaL_error(L, "edit: op '%s' needs a value: a number, a tensor, or a "
                   "run", op);
    lua_pop(L, 1);
}

/* A run as the value: an edit for each layer, with that layer's tensor. */
static void from_run(lua_State *L, qkv_recipe *r, int index,
                     const qkv_run_view *from)
{
    const int64_t n_layers = r->model->stacks[0].config.n_layers;
    qkv_edit *first = &r->edits[r->n_edits - 1];
    const bool block = qkv_sites[first->site].level == QKV_BLOCK;
    const qkv_selector *sel = &first->select[QKV_EDIT_LAYER];
    const int64_t n = !block ? 1 : sel->all ? n_layers : sel->n;
    int64_t *layers = lua_newuserdatauv(L, (size_t)n * sizeof *layers, 0);
    for (int64_t i = 0; i < n; i++) {
        layers[i] = !block ? 0 : sel->all ? i : sel->index[i];
        layers[i] += layers[i] < 0 ? n_layers : 0;
    }
    qkv_edit_reset(first);
    r->n_edits--;
    for (int64_t i = 0; i < n; i++) {
        qkv_error err;
        qkv_edit *e = new_edit(L, r);
        read_edit(L, r, e, index);
        if (block) {
            qkv_selector *own = &e->select[QKV_EDIT_LAYER];
            qkv_free(own->index);
            *own = (qkv_selector){.all = true};
            select_layer(L, own, layers[i]);
        }
        e->value = donated(e, from, layers[i], &err);
        if (e->value == NULL)
            qkv_raise(L, &err);
    }
    lua_pop(L, 1);
}

void qkv_recipe_edits(lua_State *L, qkv_recipe *r, int index)
{
    static const char *const options[] = {
        "site", "seq", "layer", "pos", "head", "neuron", "query", "key", "op",
        "value", NULL};
    const int top = lua_gettop(L);
    index = lua_absindex(L, index);
    if (lua_getfield(L, index, "edits") == LUA_TNIL) {
        lua_settop(L, top);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    for (lua_Integer i = 1; lua_rawgeti(L, top + 1, i) != LUA_TNIL; i++) {
        const int at = lua_gettop(L);
        qkv_check_options(L, at, options);
        qkv_edit *e = new_edit(L, r);
        read_edit(L, r, e, at);
        lua_getfield(L, at, "value");
        const qkv_run_view *from = qkv_test_class(L, -1, QKV_RUN);
        if (from != NULL)
            from_run(L, r, at, from);
        else if (lua_type(L, -1) == LUA_TNUMBER)
            e->number = lua_tonumber(L, -1);
        else if (!lua_isnil(L, -1))
            e->value = qkv_tensor_retain(qkv_to_tensor(L, lua_gettop(L)));
        lua_settop(L, top + 1);
    }
    lua_settop(L, top);
}

/* ---- hooks ---- */

typedef struct hook_context {
    lua_State *L;               /* that of the call that runs */
    int fn;                     /* in the registry */
} hook_context;

static void hook_free(void *context)
{
    hook_context *h = context;
    luaL_unref(h->L, LUA_REGISTRYINDEX, h->fn);
    qkv_free(h);
}

/* fn(t, at): t a copy of the values, written back afterwards, so that a t
 * that Lua keeps stays as it was. Runs protected: nothing raises across C. */
static int protected_hook(lua_State *L)
{
    qkv_tensor *values = lua_touserdata(L, 1);
    const qkv_hook_at *at = lua_touserdata(L, 2);
    qkv_error err;
    lua_rawgeti(L, LUA_REGISTRYINDEX, lua_tointeger(L, 3));
    qkv_push_tensor(L, qkv_tensor_clone(values, &err), &err);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, at->name);
    lua_setfield(L, -2, "name");
    if (at->layer >= 0) {
        lua_pushinteger(L, at->layer);
        lua_setfield(L, -2, "layer");
    }
    lua_pushinteger(L, at->seq);
    lua_setfield(L, -2, "seq");
    lua_pushinteger(L, at->pos0);
    lua_setfield(L, -2, "pos0");
    lua_pushvalue(L, -2);
    lua_insert(L, -4);                  /* t, fn, t, at */
    lua_call(L, 2, 1);
    const qkv_tensor *changed = lua_isnil(L, -1) ? qkv_check_tensor(L, -2)
        : qkv_check_tensor(L, -1);
    if (!qkv_tensor_copy(values, changed, &err)) {
        qkv_fail_in(&err, "hook at %s", at->name);
        return qkv_raise(L, &err);
    }
    return 0;
}

static bool hook_call(void *context, qkv_tensor *values, const qkv_hook_at *at,
                      qkv_error *err)
{
    hook_context *h = context;
    lua_State *L = h->L;
    qkv_hook_at own = *at;
    if (!lua_checkstack(L, 8))
        return qkv_fail(err, QKV_EHOOK, "hook at %s: Lua's stack is full",
                        at->name);
    lua_pushcfunction(L, protected_hook);
    lua_pushlightuserdata(L, values);
    lua_pushlightuserdata(L, &own);
    lua_pushinteger(L, h->fn);
    if (lua_pcall(L, 3, 0, 0) == LUA_OK)
        return true;
    const char *said = lua_tostring(L, -1);
    const bool stopped = said != NULL && strcmp(said, "interrupted") == 0;
    qkv_fail(err, stopped ? QKV_EINTERRUPTED : QKV_EHOOK, "%s",
             said != NULL ? said : "the hook raised something that is no "
             "text");
    lua_pop(L, 1);
    return false;
}

void qkv_recipe_hooks(lua_State *L, qkv_recipe *r, int index)
{
    static const char *const options[] = {"site", "layer", "fn", NULL};
    const int top = lua_gettop(L);
    index = lua_absindex(L, index);
    if (lua_getfield(L, index, "hooks") == LUA_TNIL) {
        lua_settop(L, top);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    const lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    r->hooks = zeros(L, (size_t)n, sizeof *r->hooks);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, top + 1, i);
        const int at = lua_gettop(L);
        int64_t layer;
        qkv_check_options(L, at, options);
        if (lua_getfield(L, at, "fn") != LUA_TFUNCTION)
            luaL_error(L, "a hook needs fn = function(t, at) ... end");
        qkv_hook *h = &r->hooks[r->n_hooks++];
        hook_context *context = zeros(L, 1, sizeof *context);
        *context = (hook_context){.L = L, .fn = LUA_NOREF};
        *h = (qkv_hook){.fn = hook_call, .context = context,
                        .free_context = hook_free, .layer = {.all = true}};
        context->fn = luaL_ref(L, LUA_REGISTRYINDEX);
        read_site(L, r, at, &h->site, &layer);
        read_selector(L, &h->layer, at, "layer");
        select_layer(L, &h->layer, layer);
        lua_settop(L, top + 1);
    }
    lua_settop(L, top);
}

/* ---- names ---- */

int64_t qkv_check_names(lua_State *L, int index, const char *const **list)
{
    index = lua_absindex(L, index);
    const int type = lua_getfield(L, index, "names");
    const int64_t n = type == LUA_TNIL ? 0 : type == LUA_TTABLE
        ? (int64_t)lua_rawlen(L, -1) : 1;
    if (type != LUA_TNIL && type != LUA_TTABLE && type != LUA_TSTRING)
        luaL_error(L, "option 'names': a name or a list of names expected, "
                   "got a %s", luaL_typename(L, -1));
    const char **names = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *names,
                                           0);
    for (int64_t i = 0; i < n; i++) {
        if (type == LUA_TTABLE)
            lua_rawgeti(L, -2, i + 1);
        else
            lua_pushvalue(L, -2);
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "option 'names': names are strings, got a %s",
                       luaL_typename(L, -1));
        names[i] = lua_tostring(L, -1);     /* the table keeps it alive */
        lua_pop(L, 1);
    }
    *list = names;
    return n;
}

/* ---- logits ---- */

qkv_logits_wanted qkv_option_logits(lua_State *L, int index)
{
    qkv_logits_wanted wanted = QKV_LOGITS_LAST;
    const int type = lua_getfield(L, index, "logits");
    const char *said = lua_tostring(L, -1);
    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))
        wanted = QKV_LOGITS_NONE;
    else if (type == LUA_TSTRING && strcmp(said, "all") == 0)
        wanted = QKV_LOGITS_ALL;
    else if (type != LUA_TNIL && (type != LUA_TSTRING
                                  || strcmp(said, "last") != 0))
        luaL_error(L, "option 'logits': \"last\", \"all\" or false expected");
    lua_pop(L, 1);
    return wanted;
}
