/*
 * globals.c - the names that the program adds to Lua's own: see globals.h
 */
#include "config.h"

#include "repl/globals.h"

#include <limits.h>
#include <string.h>

#include <lauxlib.h>

#include "base/text.h"

void qkv_globals_set(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "qkv");
    lua_getfield(L, -1, "help");
    lua_setglobal(L, "help");
    lua_setglobal(L, "qkv");
    lua_pop(L, 1);
}

void qkv_globals_set_model(lua_State *L)
{
    lua_setglobal(L, "m");
}

/* ---- strict globals ---- */

/* Push the global's name nearest to `word`, or nil. */
static void push_nearest(lua_State *L, const char *word)
{
    int least = INT_MAX;
    lua_pushnil(L);
    const int best = lua_gettop(L);
    lua_pushglobaltable(L);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            continue;
        const char *name = lua_tostring(L, -2);
        const int distance = qkv_text_distance(word, name);
        if (qkv_text_nearest(word, &name, 1) == NULL || distance >= least)
            continue;
        least = distance;
        lua_pushvalue(L, -2);
        lua_replace(L, best);
    }
    lua_settop(L, best);
}

/* _G[name], which is not there. Upvalue 1: the names declared. */
static int l_globals_index(lua_State *L)
{
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL
        || lua_type(L, 2) != LUA_TSTRING) {
        lua_pushnil(L);
        return 1;
    }
    const char *name = lua_tostring(L, 2);
    push_nearest(L, name);
    if (lua_isnil(L, -1))
        return luaL_error(L, "no global '%s'", name);
    return luaL_error(L, "no global '%s'; did you mean '%s'?", name,
                      lua_tostring(L, -1));
}

/* _G[name] = value, for a new name. */
static int l_globals_newindex(lua_State *L)
{
    lua_Debug ar;
    const bool is_known = lua_getstack(L, 1, &ar) != 0
        && lua_getinfo(L, "S", &ar) != 0;
    if (is_known && strcmp(ar.what, "Lua") == 0) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL)
            return luaL_error(L, "new global '%s' inside a function: declare "
                              "it local, or set it at the top level first",
                              luaL_tolstring(L, 2, NULL));
        lua_pop(L, 1);
    }
    lua_pushvalue(L, 2);
    lua_pushboolean(L, 1);
    lua_rawset(L, lua_upvalueindex(1));
    lua_rawset(L, 1);
    return 0;
}

void qkv_globals_set_strict(lua_State *L, bool is_strict)
{
    lua_pushglobaltable(L);
    if (is_strict) {
        lua_createtable(L, 0, 2);
        lua_newtable(L);                    /* the names declared */
        lua_pushvalue(L, -1);
        lua_pushcclosure(L, l_globals_index, 1);
        lua_setfield(L, -3, "__index");
        lua_pushcclosure(L, l_globals_newindex, 1);
        lua_setfield(L, -2, "__newindex");
    } else {
        lua_pushnil(L);
    }
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}
