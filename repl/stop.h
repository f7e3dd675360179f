/*
 * stop.h - Ctrl-C and closed pipes stop whatever runs
 *
 * The first SIGINT asks: it sets qkv_interrupt(), which loops in C poll, and
 * arms a debug hook on the running Lua thread, which raises "interrupted"
 * there. The hook stays armed until qkv_stop_clear(): it lets what closes
 * files run for 50 ms, then raises wherever Lua is, so that a loop around
 * pcall cannot swallow it. The third SIGINT during one computation ends the
 * program at once with status 130, for what cannot be asked (a backtracking
 * string.find, a child that hangs).
 *
 * SIGPIPE of a closed stdout stops in the same way, so that files are closed
 * and the program ends with a status; that of any other pipe is left to the
 * write that fails.
 *
 * What it cannot do: stop a single call into LAPACK or Lua's string matching.
 */
#ifndef QKV_STOP_H
#define QKV_STOP_H
#include <stdbool.h>

#include <lua.h>

/* Install the handlers for this process; L is the main Lua thread. Replaces
 * coroutine.resume, wrap and close by versions that keep track of the running
 * thread, since a hook acts on one thread only. One state a process. */
void qkv_stop_install(lua_State *L);

/* Back at the prompt, or at the end: forget SIGINT, take the hook off. That
 * stdout is closed is not forgotten. */
void qkv_stop_clear(void);

bool qkv_stop_asked(void);          /* was SIGINT seen since? */
bool qkv_stop_pipe_closed(void);    /* has stdout no reader any more? */

#endif
