/*
 * command.h - lines that are not Lua: `:name`, `?name`, `??name`, `!program`
 *
 * None of these characters can begin a Lua statement, but for the label `::`.
 */
#ifndef QKV_COMMAND_H
#define QKV_COMMAND_H
#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

bool qkv_command_is(const char *line);

/* Run one line; false when it asks to leave. Raises what goes wrong. */
bool qkv_command_run(lua_State *L, const char *line);

/* The i-th name after ':', from 0; NULL after the last. */
const char *qkv_command_name(int i);

#endif
