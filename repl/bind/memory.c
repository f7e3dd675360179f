/*
 * memory.c - what repl/lua/memory.lua needs from C: what is alive, how large
 *
 * Private to that file, which has the public function and its document. Models
 * and runs stand in the registry's weak table "qkv.live" (bind.c); tensors are
 * made too often for that, and are those that a variable holds.
 */
#include "config.h"

#include <string.h>

#include "base/alloc.h"
#include "repl/bind/model_impl.h"

/* Bytes of what a run keeps; those of its storages that a table at `seen`
 * does not list yet, which then does. */
typedef struct counter {
    lua_State *L;
    int seen;
    size_t bytes;
} counter;

static void count(void *context, const qkv_storage *s)
{
    counter *c = context;
    lua_pushlightuserdata(c->L, (void *)(uintptr_t)s);
    if (lua_rawget(c->L, c->seen) == LUA_TNIL) {
        c->bytes += s->bytes;
        lua_pushlightuserdata(c->L, (void *)(uintptr_t)s);
        lua_pushboolean(c->L, true);
        lua_rawset(c->L, c->seen);
    }
    lua_pop(c->L, 1);
}

/* Is it memory of ours, or a part of a file that is mapped? */
static bool is_own(const qkv_storage *s)
{
    return s->owner == s->data;
}

/* Push {object=, kind=, bytes=} into the list at 1 for a value on top. */
static void add(lua_State *L, const char *kind, size_t bytes)
{
    lua_createtable(L, 0, 3);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "object");
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushinteger(L, (lua_Integer)bytes);
    lua_setfield(L, -2, "bytes");
    lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1) + 1);
}

static void add_run(lua_State *L)
{
    const qkv_run_view *v = qkv_test_class(L, -1, QKV_RUN);
    counter c = {.L = L, .seen = 2};
    if (v == NULL)
        return;
    const size_t own = qkv_run_bytes(v->run, count, &c);
    add(L, "run", own + c.bytes);
}

static void add_model(lua_State *L)
{
    const qkv_model *m = qkv_test_class(L, -1, QKV_MODEL);
    if (m != NULL)
        add(L, "model", m->weight_bytes);
}

static void add_tensor(lua_State *L)
{
    const qkv_tensor *t = qkv_test_class(L, -1, QKV_TENSOR);
    counter c = {.L = L, .seen = 2};
    if (t == NULL || !is_own(t->storage))
        return;
    count(&c, t->storage);
    if (c.bytes > 0)
        add(L, "tensor", c.bytes);
}

/* Call add_run, add_model or add_tensor with each key of the table at
 * `index`. */
static void each_key(lua_State *L, int index, void (*fn)(lua_State *L))
{
    const int top = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_settop(L, top + 1)) {
        lua_pushvalue(L, top + 1);
        fn(L);
    }
}

/* live(named) -> list of {object=, kind=, bytes=}, bytes that the core holds.
 * named: the keys are what variables hold. */
static int half_live(lua_State *L)
{
    luaL_checkstack(L, 12, NULL);
    lua_settop(L, 1);
    lua_newtable(L);
    lua_insert(L, 1);
    lua_newtable(L);
    lua_insert(L, 2);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.live");
    each_key(L, 4, add_run);        /* first: views of theirs are not counted */
    each_key(L, 4, add_model);
    each_key(L, 3, add_tensor);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, (lua_Integer)qkv_alloc_live());
    return 2;
}

static const luaL_Reg functions[] = {{"live", half_live}, {NULL, NULL}};

void qkv_bind_memory(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.half");
    luaL_newlib(L, functions);
    lua_setfield(L, -2, "memory");
    lua_pop(L, 1);
}
