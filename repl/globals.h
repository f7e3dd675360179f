/*
 * globals.h - the names that the program adds to Lua's own
 *
 * `qkv` (the module), `help`, and `m` when a model was opened. The only place
 * that sets globals.
 */
#ifndef QKV_GLOBALS_H
#define QKV_GLOBALS_H
#include <stdbool.h>

#include <lua.h>

/* qkv and help. */
void qkv_globals_set(lua_State *L);

/* m, from the value on top; pops it. */
void qkv_globals_set_model(lua_State *L);

/* While strict, for scripts and -e, reading a global that was never set is an
 * error that offers the nearest name, and so is making one inside a function.
 * At the prompt both are allowed. */
void qkv_globals_set_strict(lua_State *L, bool is_strict);

#endif
