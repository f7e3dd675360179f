/*
 * eval.h - what a person typed becomes Lua and runs
 *
 * A piece of text is tried as an expression (`return <text>`), else as
 * statements. Text of several lines, such as a paste, is taken apart into the
 * inputs it consists of, so that each shows its value as if it had been typed.
 * A top-level `local` lives on: it becomes a global of the session when its
 * input ends.
 *
 * Knows no terminal. What it prints is up to its caller.
 */
#ifndef QKV_EVAL_H
#define QKV_EVAL_H
#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

typedef enum qkv_eval_state {
    QKV_EVAL_COMPLETE,
    QKV_EVAL_INCOMPLETE,        /* more lines could make it complete */
    QKV_EVAL_WRONG              /* nothing can */
} qkv_eval_state;

/* Is this text a whole input, or several? */
qkv_eval_state qkv_eval_check(lua_State *L, const char *text, size_t n);

/* How many bytes at the start of a complete text are its first input: whole
 * lines, as few as can be; of a text that is wrong, up to where it is. */
size_t qkv_eval_first(lua_State *L, const char *text, size_t n);

/* Push the function that one input makes, named `chunk` in messages (as in
 * luaL_loadbuffer), and the one argument it is to be called with; or the
 * message that says why it is none. */
bool qkv_eval_compile(lua_State *L, const char *text, size_t n,
                      const char *chunk);

/* Does it end in ';', which asks not to see the value? */
bool qkv_eval_is_quiet(const char *text, size_t n);

/* lua_pcall. On failure one string is left: message and traceback, down to
 * but without the frames of whoever called this. */
int qkv_eval_call(lua_State *L, int nargs, int nresults);

/* "qkv: message" on stderr, after all that went to stdout; pops the message.
 * Only "interrupted" if that is what it was. */
void qkv_eval_report(lua_State *L);

#endif
