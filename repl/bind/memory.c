/*
 * memory.c - what repl/lua/memory.lua needs from C: what is alive, how large
 *
 * Private to that file, which has the public function and its document. Every
 * model, run and tensor that Lua holds stands in the registry's weak table
 * "qkv.live" (bind.c).
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

/* Runs in a first round, so that a tensor which views what a run keeps is not
 * counted again. */
static void look(lua_State *L, bool runs)
{
    counter c = {.L = L, .seen = 2};
    const int object = lua_gettop(L);
    const qkv_run_view *v = qkv_test_class(L, object, QKV_RUN);
    if (runs) {
        if (v == NULL)
            return;
        const size_t own = qkv_run_bytes(v->run, count, &c);
        add(L, "run", own + c.bytes);
        return;
    }
    const qkv_tensor *t = qkv_test_class(L, object, QKV_TENSOR);
    const qkv_model *m = qkv_test_class(L, object, QKV_MODEL);
    if (m != NULL)
        add(L, "model", m->weight_bytes);
    if (t == NULL || !is_own(t->storage))
        return;
    count(&c, t->storage);
    if (c.bytes > 0)
        add(L, "tensor", c.bytes);
}

/* live() -> list of {object=, kind=, bytes=}, bytes that the core holds */
static int half_live(lua_State *L)
{
    luaL_checkstack(L, 12, NULL);
    lua_settop(L, 0);
    lua_newtable(L);
    lua_newtable(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.live");
    for (int round = 0; round < 2; round++)
        for (lua_pushnil(L); lua_next(L, 3) != 0; lua_settop(L, 4)) {
            lua_pushvalue(L, 4);
            look(L, round == 0);
        }
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
