/*
 * qkv.c - the Lua module: require "qkv"
 *
 * One table, filled by each binding file and then by the Lua halves. No
 * global is touched.
 */
#include "config.h"

#include "repl/bind/bind.h"

void qkv_bind_half(lua_State *L, const qkv_lua_half *half)
{
    lua_pushfstring(L, "=qkv/%s.lua", half->name);
    if (luaL_loadbufferx(L, (const char *)half->text, half->bytes,
                         lua_tostring(L, -1), "t") != LUA_OK)
        lua_error(L);
    lua_remove(L, -2);
}

/* Each half is called with (qkv, doc, class, all of "qkv.half"). */
static void run_halves(lua_State *L)
{
    luaL_checkstack(L, 10, NULL);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.half");
    for (const qkv_lua_half *h = qkv_lua_halves; h->name != NULL; h++) {
        qkv_bind_half(L, h);
        lua_pushvalue(L, -3);
        lua_getfield(L, -3, "doc");
        lua_getfield(L, -4, "class");
        lua_pushvalue(L, -5);
        lua_call(L, 4, 0);
    }
    lua_pop(L, 1);
}

int luaopen_qkv(lua_State *L)
{
    luaL_checkversion(L);
    lua_newtable(L);
    lua_pushliteral(L, PACKAGE_VERSION);
    lua_setfield(L, -2, "version");
    qkv_bind_help(L);
    qkv_bind_tensor(L);
    qkv_bind_linalg(L);
    qkv_bind_geometry(L);
    qkv_bind_model(L);
    qkv_bind_run(L);
    qkv_bind_heads(L);
    qkv_bind_plot(L);
    qkv_bind_sweep(L);
    qkv_bind_memory(L);
    run_halves(L);
    return 1;
}
