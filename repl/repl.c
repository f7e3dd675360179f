/*
 * repl.c - the loop: see repl.h
 *
 * An input is a line, or lines until they make whole Lua. A paste of several
 * inputs, prompts and printed results included, is taken apart again. Inputs
 * are called "input 1", "input 2" in messages, and their text is kept (in the
 * registry) for ??name.
 */
#include "config.h"

#include "repl/repl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/text.h"
#include "repl/command.h"
#include "repl/complete.h"
#include "repl/eval.h"
#include "repl/line.h"
#include "repl/print.h"
#include "repl/progress.h"
#include "repl/stop.h"

#define INPUTS "qkv.inputs"
#define PROMPT "qkv> "
#define CONTINUED "  ..> "

typedef struct session {
    bool is_terminal, has_failed;
    qkv_text input;             /* the lines so far of what is being typed */
} session;

bool qkv_repl_has_colour(int fd)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");
    return isatty(fd) && term != NULL && strcmp(term, "dumb") != 0
        && (no == NULL || *no == '\0');
}

/* ---- one input ---- */

/* Keep the first of the arguments as `_`, and print all but when upvalue 1,
 * is_quiet, is true. */
static int l_show(lua_State *L)
{
    if (lua_gettop(L) > 0 && !lua_isnil(L, 1)) {
        lua_pushglobaltable(L);
        lua_pushliteral(L, "_");
        lua_pushvalue(L, 1);
        lua_rawset(L, -3);
        lua_pop(L, 1);
    }
    if (!lua_toboolean(L, lua_upvalueindex(1)))
        qkv_print_values(L, 1);
    return 0;
}

/* Call and show; on failure the message is left where the function was. */
static bool call(lua_State *L, int nargs, bool is_quiet)
{
    const int base = lua_gettop(L) - nargs;
    const int status = qkv_eval_call(L, nargs, LUA_MULTRET);
    qkv_progress_erase();
    if (status != LUA_OK)
        return false;
    if (qkv_stop_asked()) {             /* it caught the error itself */
        lua_settop(L, base - 1);
        lua_pushliteral(L, "interrupted");
        return false;
    }
    lua_pushboolean(L, is_quiet);
    lua_pushcclosure(L, l_show, 1);
    lua_insert(L, base);
    return lua_pcall(L, lua_gettop(L) - base, 0, 0) == LUA_OK;
}

bool qkv_repl_call(lua_State *L, int nargs)
{
    const bool done = call(L, nargs, false);
    if (!done)
        qkv_eval_report(L);
    return done;
}

/* Keep the text and push the name of a new input, "=input 3". */
static const char *push_name(lua_State *L, const char *text, size_t n)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, INPUTS);
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1) + 1;
    const char *name = lua_pushfstring(L, "=input %I", (LUAI_UACINT)count);
    lua_pushboolean(L, 1);
    lua_rawseti(L, -3, count);
    lua_pushlstring(L, text, n);
    lua_setfield(L, -3, name);
    lua_remove(L, -2);
    return name;
}

bool qkv_repl_push_input(lua_State *L, const char *chunk)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, INPUTS);
    if (lua_getfield(L, -1, chunk) == LUA_TSTRING) {
        lua_remove(L, -2);
        return true;
    }
    lua_pop(L, 2);
    return false;
}

/* Take "input 3:1: " off a message about an input of one line. */
static void shorten(lua_State *L, const char *name, const char *text, size_t n)
{
    const char *newline = memchr(text, '\n', n);
    if (newline != NULL && newline + 1 < text + n)
        return;
    const char *message = lua_tostring(L, -1);
    const char *prefix = lua_pushfstring(L, "%s:1: ", name + 1);
    const size_t bytes = strlen(prefix);
    lua_pop(L, 1);
    if (strncmp(message, prefix, bytes) == 0) {
        lua_pushstring(L, message + bytes);
        lua_remove(L, -2);
    }
}

static bool evaluate_one(lua_State *L, const char *text, size_t n)
{
    const int top = lua_gettop(L);
    const char *name = push_name(L, text, n);
    bool done = qkv_eval_compile(L, text, n, name)
        && call(L, 1, qkv_eval_is_quiet(text, n));
    if (!done) {
        shorten(L, name, text, n);
        qkv_eval_report(L);
    }
    lua_settop(L, top);
    return done;
}

bool qkv_repl_evaluate(lua_State *L, const char *text, size_t n)
{
    bool done = true;
    while (n > 0 && done) {
        const size_t first = qkv_eval_first(L, text, n);
        done = evaluate_one(L, text, first);
        text += first;
        n -= first;
    }
    return done;
}

/* ---- what was typed ---- */

/* Length of the prompt that a line begins with, ours or that of examples. */
static size_t prompt_bytes(const char *line, bool *is_first)
{
    static const char *const prompts[] = {PROMPT, "> ", CONTINUED, ">> "};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        const size_t n = strlen(prompts[i]);
        if (strncmp(line, prompts[i], n) == 0) {
            *is_first = i < 2;
            return n;
        }
    }
    return 0;
}

/* Take prompts off what was pasted; when it begins with one, lines that have
 * none are what the inputs printed, and go too. In place. */
static void strip_prompts(qkv_text *t, size_t from)
{
    bool is_first = false;
    char *in = t->data + from, *out = in;
    if (t->bytes == from || prompt_bytes(in, &is_first) == 0)
        return;
    while (*in != '\0') {
        const size_t skip = prompt_bytes(in, &is_first);
        size_t n = strcspn(in, "\n");
        n += in[n] == '\n';
        if (skip > 0) {
            memmove(out, in + skip, n - skip);
            out += n - skip;
        }
        in += n;
    }
    *out = '\0';
    t->bytes = (size_t)(out - t->data);
}

static bool is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n")] == '\0';
}

/* Bytes of the line at s, with its newline. */
static size_t line_bytes(const char *s)
{
    const size_t n = strcspn(s, "\n");
    return n + (s[n] == '\n');
}

/* Upvalues and arguments of the protected functions below: the session. */
static int l_is_whole(lua_State *L)
{
    const session *s = lua_touserdata(L, 1);
    const char *text = s->input.data;
    while (qkv_command_is(text))
        text += line_bytes(text);
    lua_pushboolean(L, qkv_eval_check(L, text, strlen(text))
                       != QKV_EVAL_INCOMPLETE);
    return 1;
}

/* Run what was typed: commands first, the rest is Lua. Returns whether to go
 * on, and whether all went well. */
static int l_run(lua_State *L)
{
    session *s = lua_touserdata(L, 1);
    const char *text = s->input.data;
    bool goes_on = true;
    while (goes_on && qkv_command_is(text)) {
        const size_t n = line_bytes(text);
        goes_on = qkv_command_run(L, lua_pushlstring(L, text, n));
        lua_settop(L, 1);
        text += n;
    }
    if (goes_on && !is_blank(text)
        && !qkv_repl_evaluate(L, text, strlen(text)))
        s->has_failed = true;
    lua_pushboolean(L, goes_on);
    return 1;
}

/* fn(session) -> boolean; `otherwise`, and a report, when it raised. */
static bool ask(lua_State *L, session *s, lua_CFunction fn, bool otherwise)
{
    lua_pushcfunction(L, fn);
    lua_pushlightuserdata(L, s);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        s->has_failed = true;
        qkv_eval_report(L);
        return otherwise;
    }
    const bool yes = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return yes;
}

static void forget_input(session *s)
{
    qkv_text_free(&s->input);
}

/* A line came, or the last one did: run the input if it is whole. false: the
 * session is over. */
static bool take_line(lua_State *L, session *s, size_t from, bool is_last)
{
    strip_prompts(&s->input, from);
    if (s->input.data == NULL || is_blank(s->input.data)) {
        forget_input(s);
        return true;
    }
    if (!is_last && !ask(L, s, l_is_whole, true))
        return true;
    qkv_line_remember(s->input.data);
    const bool goes_on = ask(L, s, l_run, true);
    forget_input(s);
    fflush(stdout);
    return goes_on;
}

/* ---- the loop ---- */

static const char *prompt(const session *s)
{
    static const char *const plain[] = {PROMPT, CONTINUED},
        *const coloured[] = {"\001\033[1;32m\002qkv>\001\033[0m\002 ",
                             "\001\033[32m\002  ..>\001\033[0m\002 "};
    const bool is_continued = s->input.bytes > 0;
    return qkv_repl_has_colour(STDOUT_FILENO) ? coloured[is_continued]
                                              : plain[is_continued];
}

/* Read one line behind what is there; where it begins in *from. */
static qkv_line_result read_line(session *s, size_t *from, qkv_error *err)
{
    const char *show = prompt(s);
    if (s->input.bytes > 0 && !qkv_text_put(&s->input, "\n", 1, err))
        return QKV_LINE_FAILED;
    *from = s->input.bytes;
    return qkv_line_read(&s->input, show, err);
}

static void loop(lua_State *L, session *s)
{
    qkv_error err;
    for (bool goes_on = true; goes_on && !qkv_stop_pipe_closed();) {
        size_t from;
        if (!s->is_terminal && qkv_stop_asked())
            return;
        qkv_stop_clear();
        switch (read_line(s, &from, &err)) {
        case QKV_LINE_READ:
            goes_on = take_line(L, s, from, false);
            break;
        case QKV_LINE_END:
            if (s->is_terminal)
                putchar('\n');
            take_line(L, s, from, true);
            return;
        case QKV_LINE_INTERRUPTED:
            forget_input(s);
            break;
        case QKV_LINE_FAILED:
            fprintf(stderr, "qkv: %s\n", err.msg);
            forget_input(s);
            s->has_failed = true;
            break;
        }
    }
}

int qkv_repl(lua_State *L, bool is_terminal)
{
    session s = {.is_terminal = is_terminal};
    const qkv_line_helper helper = {L, qkv_complete, qkv_complete_word};
    if (is_terminal)
        qkv_line_open(&helper);
    loop(L, &s);
    const bool is_interrupted = !is_terminal && qkv_stop_asked();
    qkv_stop_clear();
    if (is_terminal)
        qkv_line_close();
    forget_input(&s);
    return is_interrupted ? 130 : s.has_failed && !is_terminal ? 1 : 0;
}
