/*
 * help.c - what Lua halves write documents and classes with
 *
 * The pages themselves are laid out by repl/lua/help.lua, from the records
 * that bind.c keeps in the registry.
 */
#include "config.h"

#include "base/text.h"
#include "repl/bind/bind.h"

/* doc(name, signature, text [, fn]) -> fn */
static int half_doc(lua_State *L)
{
    static const char *const fields[] = {"name", "signature", "text"};
    for (int i = 1; i <= 3; i++)
        luaL_checktype(L, i, LUA_TSTRING);
    lua_settop(L, 4);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.docs");
    lua_createtable(L, 0, 3);
    for (int i = 1; i <= 3; i++) {
        lua_pushvalue(L, i);
        lua_setfield(L, -2, fields[i - 1]);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
    if (!lua_isnil(L, 4)) {
        lua_pushvalue(L, 4);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
    }
    lua_pushvalue(L, 4);
    return 1;
}

/* class(name) -> methods, metatable: those of "qkv.<name>", made if need be */
static int half_class(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_pushfstring(L, "qkv.%s", name);
    if (luaL_getmetatable(L, lua_tostring(L, -1)) == LUA_TNIL) {
        qkv_bind_class(L, name, NULL, NULL);
        luaL_getmetatable(L, lua_tostring(L, -2));
    }
    lua_getfield(L, -1, "methods");
    lua_insert(L, -2);
    return 2;
}

/* distance(a, b): how many letters must change */
static int half_distance(lua_State *L)
{
    lua_pushinteger(L, qkv_text_distance(luaL_checkstring(L, 1),
                                         luaL_checkstring(L, 2)));
    return 1;
}

void qkv_bind_help(lua_State *L)
{
    static const luaL_Reg functions[] = {{"doc", half_doc},
                                         {"class", half_class},
                                         {"distance", half_distance},
                                         {NULL, NULL}};
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.half");
    luaL_setfuncs(L, functions, 0);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.docs");
    lua_setfield(L, -2, "docs");
    lua_pop(L, 1);
}
