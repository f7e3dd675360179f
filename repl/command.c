/*
 * command.c - lines that are not Lua: see command.h
 */
#include "config.h"

#include "repl/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <lauxlib.h>

#include "base/text.h"
#include "repl/bind/bind.h"
#include "repl/eval.h"
#include "repl/repl.h"

typedef struct command {
    const char *name, *arguments, *text;
    bool (*run)(lua_State *L, const char *argument);
} command;

/* ---- help and source ---- */

/* Push the value of an expression, or nil when it has none. `m:run` stands
 * for `m.run`. */
static void push_value(lua_State *L, const char *text)
{
    const int top = lua_gettop(L);
    lua_pushfstring(L, "return %s", luaL_gsub(L, text, ":", "."));
    size_t n;
    const char *source = lua_tolstring(L, -1, &n);
    if (luaL_loadbufferx(L, source, n, "=?", "t") != LUA_OK
        || lua_pcall(L, 0, 1, 0) != LUA_OK)
        lua_pushnil(L);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
}

static bool is_documented(lua_State *L, const char *name)
{
    const int top = lua_gettop(L);
    const bool yes =
        lua_getfield(L, LUA_REGISTRYINDEX, "qkv.docs") == LUA_TTABLE
        && lua_getfield(L, -1, name) != LUA_TNIL;
    lua_settop(L, top);
    return yes;
}

/* help(what): by name if there is such a page, else by value. */
static void show_help(lua_State *L, const char *what)
{
    const int top = lua_gettop(L);
    if (lua_getglobal(L, "qkv") != LUA_TTABLE
        || lua_getfield(L, -1, "help") != LUA_TFUNCTION)
        luaL_error(L, "no help here: qkv.help is a %s value, not a function",
                   luaL_typename(L, -1));
    if (is_documented(L, what))
        lua_pushstring(L, what);
    else
        push_value(L, what);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushstring(L, what);
    }
    const int nargs = *what != '\0';        /* help() is the overview */
    lua_settop(L, top + 2 + nargs);
    lua_call(L, nargs, 1);
    if (lua_type(L, -1) == LUA_TSTRING)
        puts(lua_tostring(L, -1));
    lua_settop(L, top);
}

/* Print lines first..last of a text. */
static void put_lines(const char *text, int first, int last)
{
    for (int i = 1; i <= last && *text != '\0'; i++) {
        const size_t n = strcspn(text, "\n");
        if (i >= first)
            printf("%.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void put_file_lines(lua_State *L, const char *path, int first, int last)
{
    char piece[512];
    FILE *file = fopen(path, "r");
    if (file == NULL)
        luaL_error(L, "%s is not there any more", path);
    for (int i = 1; i <= last && fgets(piece, sizeof piece, file) != NULL;) {
        if (i >= first)
            fputs(piece, stdout);
        i += strchr(piece, '\n') != NULL;
    }
    fclose(file);
}

/* The Lua half that a chunk's name, "=qkv/plot.lua", stands for, or NULL. */
static const char *half_text(const char *chunk)
{
    char name[64];
    for (const qkv_lua_half *h = qkv_lua_halves; h->name != NULL; h++) {
        snprintf(name, sizeof name, "=qkv/%s.lua", h->name);
        if (strcmp(name, chunk) == 0)
            return (const char *)h->text;       /* ends in a NUL */
    }
    return NULL;
}

static void show_source(lua_State *L, const char *what)
{
    lua_Debug ar;
    push_value(L, what);
    if (!lua_isfunction(L, -1))
        luaL_error(L, "%s is a %s value, not a function with a source", what,
                   luaL_typename(L, -1));
    if (lua_iscfunction(L, -1)) {
        show_help(L, what);
        puts("(written in C)");
        return;
    }
    lua_getinfo(L, ">S", &ar);
    const char *half = half_text(ar.source);
    if (half != NULL) {
        put_lines(half, ar.linedefined, ar.lastlinedefined);
    } else if (ar.source[0] == '@') {
        put_file_lines(L, ar.source + 1, ar.linedefined, ar.lastlinedefined);
    } else if (qkv_repl_push_input(L, ar.source)) {
        put_lines(lua_tostring(L, -1), ar.linedefined, ar.lastlinedefined);
    } else {
        luaL_error(L, "the source of %s is not kept (%s:%d)", what,
                   ar.short_src, ar.linedefined);
    }
}

/* ---- the commands ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool run_time(lua_State *L, const char *argument)
{
    const double start = seconds();
    if (qkv_repl_evaluate(L, argument, strlen(argument)))
        printf("%.3f s\n", seconds() - start);
    return true;
}

/* Push the words of a line; how many. */
static int push_words(lua_State *L, const char *line)
{
    int n = 0;
    luaL_checkstack(L, (int)strlen(line) / 2 + 2, "too many words");
    for (line += strspn(line, " \t"); *line != '\0';
         line += strspn(line, " \t")) {
        const size_t bytes = strcspn(line, " \t");
        lua_pushlstring(L, line, bytes);
        line += bytes;
        n++;
    }
    return n;
}

static bool run_file(lua_State *L, const char *argument)
{
    const int top = lua_gettop(L), n = push_words(L, argument);
    if (n == 0)
        luaL_error(L, ":run needs the name of a file");
    if (luaL_loadfile(L, lua_tostring(L, top + 1)) != LUA_OK)
        lua_error(L);
    lua_replace(L, top + 1);                /* f, arguments */
    qkv_repl_call(L, n - 1);
    return true;
}

/* print(require "qkv".memory()) */
static bool run_memory(lua_State *L, const char *argument)
{
    (void)argument;
    lua_getglobal(L, "require");
    lua_pushliteral(L, "qkv");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "memory");
    lua_call(L, 0, 1);
    puts(luaL_tolstring(L, -1, NULL));
    return true;
}

static bool run_quit(lua_State *L, const char *argument)
{
    (void)L;
    (void)argument;
    return false;
}

static bool run_help(lua_State *L, const char *argument);

static const command commands[] = {
    {"help", "[name]", "this page, or the help of a name", run_help},
    {"mem", "", "what is held in memory, and by whom", run_memory},
    {"quit", "", "leave (so does Ctrl-D)", run_quit},
    {"run", "file [args]", "run a Lua file, in this session", run_file},
    {"time", "expr", "how long an input takes", run_time},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static bool run_help(lua_State *L, const char *argument)
{
    static const char page[] =
        "?name              help of a name; ??name its source\n"
        "!program           run a program\n"
        "_                  the last value\n"
        "x = 1;             a ';' at the end: do not show the value\n"
        "Tab                names, methods, files, sites in strings\n"
        "Ctrl-R             search the history\n"
        "Ctrl-C             stop a computation (three times: end qkv);\n"
        "                   what ends first: help \"interrupt\"";
    if (*argument != '\0') {
        show_help(L, argument);
        return true;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        printf(":%-5s%-13s%s\n", commands[i].name, commands[i].arguments,
               commands[i].text);
    puts(page);
    return true;
}

const char *qkv_command_name(int i)
{
    return i < N_COMMANDS ? commands[i].name : NULL;
}

static void run_program(lua_State *L, const char *program)
{
    fflush(stdout);
    const int status = system(program);
    if (status == -1)
        luaL_error(L, "no shell could be started");
    if (WIFSIGNALED(status))
        printf("(ended by signal %d)\n", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        printf("(exit status %d)\n", WEXITSTATUS(status));
}

bool qkv_command_is(const char *line)
{
    return *line == '?' || *line == '!'
        || (*line == ':' && line[1] != ':');
}

/* The command called by the first n bytes of a line. */
static const command *find(lua_State *L, const char *name)
{
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(names[i], name) == 0)
            return &commands[i];
    }
    const char *near = qkv_text_nearest(name, names, N_COMMANDS);
    luaL_error(L, near == NULL ? "no command ':%s'; see :help"
                               : "no command ':%s'; did you mean ':%s'?",
               name, near);
    return NULL;
}

static const char *skip_blanks(const char *s)
{
    return s + strspn(s, " \t");
}

bool qkv_command_run(lua_State *L, const char *line)
{
    size_t n = strlen(line);
    while (n > 0 && strchr(" \t\r\n", line[n - 1]) != NULL)
        n--;
    line = lua_pushlstring(L, line, n);
    if (*line == '!') {
        run_program(L, line + 1);
        return true;
    }
    if (*line == '?') {
        const bool wants_source = line[1] == '?';
        n = strlen(line);
        while (n > 1 && strchr("() \t", line[n - 1]) != NULL)
            n--;                                /* what Tab put there */
        const char *what =
            skip_blanks(lua_pushlstring(L, line, n) + 1 + wants_source);
        (wants_source ? show_source : show_help)(L, what);
        return true;
    }
    n = strcspn(++line, " \t");
    const command *c = find(L, lua_pushlstring(L, line, n));
    return c->run(L, skip_blanks(line + n));
}
