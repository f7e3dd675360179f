/*
 * bind.c - what every binding file shares: documents, classes, checks
 *
 * Functions enter a Lua table together with their documents, so that help,
 * completion, the manual and the tests read the one row beside the code.
 * Misspelt options, fields and methods are errors that offer what was meant.
 */
#include "config.h"

#include "repl/bind/bind.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define DOCS "qkv.docs"

enum { NAME_ROOM = 96 };            /* "<module>.<name>" and its NUL */

/* ---- documents ---- */

/* The table on top is that of the module: help finds its name. */
static void record_module(lua_State *L, const char *module)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, DOCS);
    lua_pushvalue(L, -2);
    lua_pushstring(L, module);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* Write one row's record under its full name and, the first time, under its
 * function. */
static void record(lua_State *L, const char *module, const qkv_bind_row *row)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, DOCS);
    lua_createtable(L, 0, 3);
    lua_pushfstring(L, "%s.%s", module, row->name);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "name");
    lua_pushstring(L, row->doc->signature);
    lua_setfield(L, -3, "signature");
    lua_pushstring(L, row->doc->text);
    lua_setfield(L, -3, "text");        /* docs, record, name */
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
    if (row->fn != NULL) {
        lua_pushcfunction(L, row->fn);
        if (lua_rawget(L, -3) == LUA_TNIL) {
            lua_pushcfunction(L, row->fn);
            lua_pushvalue(L, -3);
            lua_rawset(L, -5);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
}

void qkv_bind_functions(lua_State *L, const char *module,
                        const qkv_bind_row *rows)
{
    luaL_checkstack(L, 8, NULL);
    record_module(L, module);
    for (; rows->name != NULL; rows++) {
        if (rows->fn != NULL) {
            lua_pushcfunction(L, rows->fn);
            lua_setfield(L, -2, rows->name);
        }
        if (rows->doc != NULL)
            record(L, module, rows);
    }
}

/* ---- the nearest of some names ---- */

/* Push "; did you mean 'x'?" with the nearest of all that is documented as
 * "<class>.<name>", or "" when nothing is near. */
static void push_class_guess(lua_State *L, const char *class,
                             const char *word)
{
    char best[NAME_ROOM] = "";
    int least = 0;
    const size_t prefix = strlen(class);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, DOCS);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            continue;
        const char *name = lua_tostring(L, -2);
        if (strncmp(name, class, prefix) != 0 || name[prefix] != '.')
            continue;
        name += prefix + 1;
        if (qkv_text_nearest(word, &name, 1) == NULL)
            continue;
        const int distance = qkv_text_distance(word, name);
        /* equals are decided by the alphabet: tables have no order */
        if (best[0] == '\0' || distance < least
            || (distance == least && strcmp(name, best) < 0)) {
            snprintf(best, sizeof best, "%s", name);
            least = distance;
        }
    }
    lua_pop(L, 1);
    if (best[0] != '\0')
        lua_pushfstring(L, "; did you mean '%s'?", best);
    else
        lua_pushliteral(L, "");
}

/* ---- classes ---- */

static int no_field(lua_State *L, const char *class, const char *field)
{
    push_class_guess(L, class, field);
    return luaL_error(L, "%s has no '%s'%s", class, field,
                      lua_tostring(L, -1));
}

/* __index of a table of methods: upvalue 1 is the class's name. */
static int missing_method(lua_State *L)
{
    const char *class = lua_tostring(L, lua_upvalueindex(1));
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "%s is not indexed by a %s", class,
                          luaL_typename(L, 2));
    return no_field(L, class, lua_tostring(L, 2));
}

/* The name of the class of value `index`, without "qkv.". */
static const char *class_of(lua_State *L, int index)
{
    if (luaL_getmetafield(L, index, "__name") != LUA_TSTRING)
        return luaL_typename(L, index);
    const char *name = lua_tostring(L, -1);
    lua_pop(L, 1);                  /* the metatable keeps it alive */
    return strncmp(name, "qkv.", 4) == 0 ? name + 4 : name;
}

void qkv_bind_class(lua_State *L, const char *name, const qkv_bind_row *methods,
                    const luaL_Reg *metamethods)
{
    luaL_checkstack(L, 10, NULL);
    lua_pushfstring(L, "qkv.%s", name);
    luaL_newmetatable(L, lua_tostring(L, -1));
    static const qkv_bind_row none[] = {QKV_ROW_END};
    if (lua_getfield(L, -1, "methods") != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
    }
    qkv_bind_functions(L, name, methods != NULL ? methods : none);
    lua_createtable(L, 0, 1);
    lua_pushstring(L, name);
    lua_pushcclosure(L, missing_method, 1);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);        /* full name, metatable, methods */
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "methods");
    lua_getfield(L, -2, "__index");
    const bool indexed = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (indexed)
        lua_pop(L, 1);
    else
        lua_setfield(L, -2, "__index");
    if (metamethods != NULL)
        luaL_setfuncs(L, metamethods, 0);
    lua_pop(L, 2);
}

int qkv_bind_index(lua_State *L)
{
    if (luaL_getmetafield(L, 1, "methods") == LUA_TTABLE) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, -2) != LUA_TNIL)
            return 1;
    }
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "%s is not indexed by a %s", class_of(L, 1),
                          luaL_typename(L, 2));
    return qkv_bind_no_field(L, 1, lua_tostring(L, 2));
}

int qkv_bind_no_field(lua_State *L, int index, const char *field)
{
    return no_field(L, class_of(L, index), field);
}

void qkv_bind_remember(lua_State *L)
{
    if (lua_getfield(L, LUA_REGISTRYINDEX, "qkv.live") == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_newtable(L);
        lua_pushliteral(L, "k");
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_setfield(L, LUA_REGISTRYINDEX, "qkv.live");
    }
    lua_pushvalue(L, -2);
    lua_pushboolean(L, true);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

void **qkv_push_empty(lua_State *L, const char *metatable)
{
    void **slot = lua_newuserdatauv(L, sizeof *slot, 0);
    *slot = NULL;
    luaL_setmetatable(L, metatable);
    return slot;
}

void *qkv_check_class(lua_State *L, int index, const char *metatable)
{
    void **slot = luaL_checkudata(L, index, metatable);
    if (*slot == NULL)
        luaL_argerror(L, index, "it is closed");
    return *slot;
}

void *qkv_test_class(lua_State *L, int index, const char *metatable)
{
    void **slot = luaL_testudata(L, index, metatable);
    return slot != NULL ? *slot : NULL;
}

void *qkv_push_block(lua_State *L, size_t bytes, const char *metatable,
                     lua_CFunction gc)
{
    void *block = lua_newuserdatauv(L, bytes, 0);
    memset(block, 0, bytes);
    if (luaL_newmetatable(L, metatable)) {
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return block;
}

/* ---- raising and checking ---- */

int qkv_raise(lua_State *L, const qkv_error *err)
{
    if (err->code == QKV_ENOMEM)
        lua_gc(L, LUA_GCCOLLECT);   /* so that the next attempt may do */
    if (err->code != QKV_EINTERRUPTED)
        return luaL_error(L, "%s", err->msg);
    lua_pushstring(L, err->msg);    /* no file and line: nothing is wrong */
    return lua_error(L);
}

void qkv_check_nargs(lua_State *L, int most)
{
    const int n = lua_gettop(L);
    if (n <= most)
        return;
    lua_Debug ar;
    const char *name = NULL;
    int self = 0;                   /* t:sum(1, 2) has two arguments, not three */
    if (lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar)) {
        name = ar.name;
        self = ar.namewhat != NULL && strcmp(ar.namewhat, "method") == 0;
    }
    luaL_error(L, "%s%s%d argument%s at most, got %d", name ? name : "",
               name ? ": " : "", most - self, most - self == 1 ? "" : "s",
               n - self);
}

void qkv_check_options(lua_State *L, int index, const char *const *names)
{
    index = lua_absindex(L, index);
    if (lua_gettop(L) < index)
        lua_settop(L, index);
    if (lua_isnil(L, index)) {
        lua_newtable(L);
        lua_replace(L, index);
        return;
    }
    luaL_checktype(L, index, LUA_TTABLE);
    size_t n = 0;
    while (names[n] != NULL)
        n++;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            luaL_error(L, "options are named, {%s = ...}; got [%s]",
                       n > 0 ? names[0] : "name",
                       luaL_tolstring(L, -2, NULL));
            return;
        }
        const char *key = lua_tostring(L, -2);
        size_t i = 0;
        while (i < n && strcmp(names[i], key) != 0)
            i++;
        if (i < n)
            continue;
        const char *near = qkv_text_nearest(key, names, n);
        if (near != NULL)
            luaL_error(L, "unknown option '%s'; did you mean '%s'?", key, near);
        luaL_Buffer list;
        luaL_buffinit(L, &list);
        for (i = 0; i < n; i++) {
            luaL_addstring(&list, i > 0 ? ", " : "");
            luaL_addstring(&list, names[i]);
        }
        luaL_pushresult(&list);
        luaL_error(L, "unknown option '%s'; there are: %s", key,
                   lua_tostring(L, -1));
    }
}

/* Push the field; true when it is there. */
static bool push_option(lua_State *L, int index, const char *name)
{
    if (!lua_istable(L, index))
        luaL_checktype(L, index, LUA_TTABLE);
    return lua_getfield(L, index, name) != LUA_TNIL;
}

static int wrong_option(lua_State *L, const char *name, const char *expected)
{
    const char *got = lua_type(L, -1) == LUA_TNUMBER
        ? luaL_tolstring(L, -1, NULL) : luaL_typename(L, -1);
    return luaL_error(L, "option '%s': %s expected, got %s", name, expected,
                      got);
}

lua_Integer qkv_option_integer(lua_State *L, int index, const char *name,
                               lua_Integer otherwise)
{
    if (push_option(L, index, name)) {
        int is_integer = 0;
        otherwise = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || lua_type(L, -1) != LUA_TNUMBER)
            wrong_option(L, name, "integer");
    }
    lua_pop(L, 1);
    return otherwise;
}

lua_Number qkv_option_number(lua_State *L, int index, const char *name,
                             lua_Number otherwise)
{
    if (push_option(L, index, name)) {
        if (lua_type(L, -1) != LUA_TNUMBER)
            wrong_option(L, name, "number");
        otherwise = lua_tonumber(L, -1);
    }
    lua_pop(L, 1);
    return otherwise;
}

bool qkv_option_boolean(lua_State *L, int index, const char *name,
                        bool otherwise)
{
    if (push_option(L, index, name)) {
        if (!lua_isboolean(L, -1))
            wrong_option(L, name, "true or false");
        otherwise = lua_toboolean(L, -1);
    }
    lua_pop(L, 1);
    return otherwise;
}

const char *qkv_option_string(lua_State *L, int index, const char *name,
                              const char *otherwise)
{
    if (push_option(L, index, name)) {
        if (lua_type(L, -1) != LUA_TSTRING)
            wrong_option(L, name, "string");
        otherwise = lua_tostring(L, -1);
    }
    lua_pop(L, 1);
    return otherwise;
}
