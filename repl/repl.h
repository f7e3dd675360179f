/*
 * repl.h - the loop: read, evaluate, print
 */
#ifndef QKV_REPL_H
#define QKV_REPL_H
#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

/* Read inputs until the end, from the terminal with prompts and all, or from
 * stdin in silence. Returns an exit status: 1 when an input that did not come
 * from a terminal failed, 130 when Ctrl-C stopped it. */
int qkv_repl(lua_State *L, bool is_terminal);

/* Evaluate text, one input or several, and print the values; errors are
 * reported on stderr and end it: then false. The last value is `_`. */
bool qkv_repl_evaluate(lua_State *L, const char *text, size_t n);

/* Call the function below nargs arguments and print what it returns, or
 * report the error: then false. Pops all of them. */
bool qkv_repl_call(lua_State *L, int nargs);

/* Push the text of the input that `chunk` (a lua_Debug's source) names;
 * false, and nothing, if there is none. */
bool qkv_repl_push_input(lua_State *L, const char *chunk);

/* May this stream show colours? A terminal, TERM not dumb, NO_COLOR unset. */
bool qkv_repl_has_colour(int fd);

#endif
