/*
 * main.c - the program qkv: its arguments, and what they start
 *
 * Opens Lua with the module qkv, then, in this order: the model, the -e
 * statements, the script, the prompt; each if it was asked for, the prompt
 * also if nothing else was. Exit status: 0 all went well, 1 an error, 2 bad
 * usage, 130 stopped by Ctrl-C, 141 when stdout's reader went away.
 *
 * The main path: main -> start -> open_model (qkv.open in bind/model.c) ->
 * qkv_repl (repl.c) -> qkv_eval_* (eval.c) -> the bindings (bind/) -> core.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "repl/bind/bind.h"
#include "repl/eval.h"
#include "repl/globals.h"
#include "repl/line.h"
#include "repl/progress.h"
#include "repl/repl.h"
#include "repl/stop.h"

enum { OK = 0, FAILED = 1, USAGE = 2, INTERRUPTED = 130, NO_READER = 141 };

typedef struct options {
    const char **statements;    /* of -e, in order */
    int n_statements;
    bool wants_prompt, skips_init;
    const char *model, *script; /* NULL: none */
    char **arguments;           /* of the script, up to a NULL */
    bool is_terminal;
} options;

/* ---- arguments ---- */

static const char usage[] =
    "usage: qkv [options] [SCRIPT.lua [args] | MODEL | -]\n"
    "\n"
    "Open up a transformer: every activation has a name to read and to edit.\n"
    "MODEL is a .gguf file, a Hugging Face directory, word vectors, or the\n"
    "name of something fetched (smollm2); it is opened as `m`. A SCRIPT runs\n"
    "with its arguments in `arg`; - is a script on stdin. With neither, the\n"
    "prompt.\n"
    "\n"
    "  -e STAT     run Lua statements, or print an expression; repeatable\n"
    "  -i          the prompt after a script or -e\n"
    "  --no-init   do not run $XDG_CONFIG_HOME/qkv/init.lua at the prompt\n"
    "  --version   versions of qkv and of what it is built with\n"
    "  --help      this text\n";

static int print_version(void)
{
    printf("qkv %s\n%s, Readline %s\n"
           "License GPL-3.0-or-later; there is no warranty.\n",
           PACKAGE_VERSION, LUA_RELEASE, qkv_line_version());
    return OK;
}

/* A .lua file, stdin, or a file that names its interpreter ("#!"). */
static bool is_script(const char *name)
{
    const size_t n = strlen(name);
    if (strcmp(name, "-") == 0
        || (n > 4 && strcmp(name + n - 4, ".lua") == 0))
        return true;
    FILE *file = qkv_is_file(name) ? fopen(name, "r") : NULL;
    if (file == NULL)
        return false;
    const bool yes = getc(file) == '#' && getc(file) == '!';
    fclose(file);
    return yes;
}

/* One option; -1 to go on, else the exit status. */
static int take_option(options *o, int option)
{
    switch (option) {
    case 'e':
        o->statements[o->n_statements++] = optarg;
        return -1;
    case 'i':
        o->wants_prompt = true;
        return -1;
    case 'n':
        o->skips_init = true;
        return -1;
    case 'v':
        return print_version();
    case 'h':
        fputs(usage, stdout);
        return OK;
    default:
        fputs("see qkv --help\n", stderr);
        return USAGE;
    }
}

/* -1 to go on, else the exit status. Options may follow a model; all that
 * follows a script is the script's. */
static int take_arguments(options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"no-init", no_argument, NULL, 'n'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}
    };
    for (;;) {
        int option, status = -1;
        while ((option = getopt_long(argc, argv, "+e:ih", names, NULL)) != -1
               && status < 0)
            status = take_option(o, option);
        if (status >= 0 || optind >= argc)
            return status;
        const char *name = argv[optind++];
        if (is_script(name)) {
            o->script = name;
            o->arguments = argv + optind;
            return -1;
        }
        if (o->model != NULL) {
            fprintf(stderr, "qkv: one model at a time, got %s and %s\n",
                    o->model, name);
            return USAGE;
        }
        o->model = name;
    }
}

/* ---- what is asked for, in its order ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool report(lua_State *L, int status)
{
    qkv_progress_erase();
    if (status != LUA_OK)
        qkv_eval_report(L);
    return status == LUA_OK;
}

/* m = qkv.open(name), and a line that says what it is and how long it took. */
static bool open_model(lua_State *L, const options *o)
{
    const double start = seconds();
    lua_getglobal(L, "qkv");
    lua_getfield(L, -1, "open");
    lua_pushstring(L, o->model);
    lua_remove(L, -3);
    if (!report(L, qkv_eval_call(L, 1, 1)))
        return false;
    if (o->n_statements == 0) {
        printf("%s  %.2f s\n", luaL_tolstring(L, -1, NULL), seconds() - start);
        lua_pop(L, 1);
    }
    qkv_globals_set_model(L);
    return true;
}

static bool run_statements(lua_State *L, const options *o)
{
    for (int i = 0; i < o->n_statements; i++)
        if (!qkv_repl_evaluate(L, o->statements[i], strlen(o->statements[i])))
            return false;
    return true;
}

/* The table `arg` and the same as arguments of the chunk; how many. */
static int push_arguments(lua_State *L, const options *o)
{
    int n = 0;
    lua_newtable(L);
    const int table = lua_gettop(L);
    lua_pushstring(L, o->script);
    lua_rawseti(L, table, 0);
    for (; o->arguments[n] != NULL; n++) {
        luaL_checkstack(L, 4, "too many arguments");
        lua_pushstring(L, o->arguments[n]);
        lua_pushvalue(L, -1);
        lua_rawseti(L, table, n + 1);
    }
    lua_pushvalue(L, table);
    lua_setglobal(L, "arg");
    lua_remove(L, table);
    return n;
}

static bool run_script(lua_State *L, const options *o)
{
    const char *path = strcmp(o->script, "-") == 0 ? NULL : o->script;
    const int status = luaL_loadfile(L, path);
    if (status != LUA_OK)
        return report(L, status);
    return report(L, qkv_eval_call(L, push_arguments(L, o), 0));
}

/* The user's init.lua, if there is one; an error there is only reported. */
static void run_init(lua_State *L)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (config != NULL && config[0] == '/')
        lua_pushfstring(L, "%s/qkv/init.lua", config);
    else if (home != NULL)
        lua_pushfstring(L, "%s/.config/qkv/init.lua", home);
    else
        return;
    const char *path = lua_tostring(L, -1);
    if (!qkv_is_file(path))
        return;
    int status = luaL_loadfile(L, path);
    if (status == LUA_OK)
        status = qkv_eval_call(L, 0, 0);
    report(L, status);
}

static int run_prompt(lua_State *L, const options *o)
{
    qkv_globals_set_strict(L, false);
    if (o->is_terminal && o->script == NULL && o->n_statements == 0)
        printf("qkv %s   help \"start\", ?name for help, :help for commands, "
               "Ctrl-D to leave\n", PACKAGE_VERSION);
    if (o->is_terminal && !o->skips_init)
        run_init(L);
    return qkv_repl(L, o->is_terminal);
}

static bool run_asked(lua_State *L, const options *o)
{
    return (o->model == NULL || open_model(L, o)) && run_statements(L, o)
        && (o->script == NULL || run_script(L, o));
}

/* Protected: all of the above. Takes the options, returns the status. */
static int start(lua_State *L)
{
    const options *o = lua_touserdata(L, 1);
    luaL_openlibs(L);
    qkv_stop_install(L);
    luaL_requiref(L, "qkv", luaopen_qkv, 0);
    lua_settop(L, 1);
    qkv_globals_set(L);
    qkv_progress_install();
    qkv_globals_set_strict(L, true);
    int status = run_asked(L, o) ? OK : qkv_stop_asked() ? INTERRUPTED
                                                        : FAILED;
    qkv_stop_clear();
    const bool is_alone = o->script == NULL && o->n_statements == 0;
    if ((is_alone && status == OK) || o->wants_prompt)
        status = run_prompt(L, o);
    lua_pushinteger(L, status);
    return 1;
}

/* ---- main ---- */

/* Text is UTF-8; where no locale is set at all, say so to Readline. */
static void set_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0
        && getenv("LC_ALL") == NULL && getenv("LC_CTYPE") == NULL
        && getenv("LANG") == NULL)
        setlocale(LC_CTYPE, "C.UTF-8");
}

/* What was printed must have arrived. */
static int close_stdout(int status)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return qkv_stop_pipe_closed() ? NO_READER : status;
    if (errno == EPIPE || qkv_stop_pipe_closed())
        return NO_READER;
    fprintf(stderr, "qkv: writing to stdout: %s\n", strerror(errno));
    return status == OK ? FAILED : status;
}

static int run(const options *o)
{
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        fputs("qkv: no memory for Lua\n", stderr);
        return FAILED;
    }
    lua_pushcfunction(L, start);
    lua_pushlightuserdata(L, (void *)o);
    int status = FAILED;
    if (report(L, lua_pcall(L, 1, 1, 0)))
        status = (int)lua_tointeger(L, -1);
    lua_close(L);
    return close_stdout(status);
}

int main(int argc, char **argv)
{
    qkv_error err;
    options o = {.is_terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    set_locale();
    o.statements = qkv_alloc(sizeof *o.statements * (size_t)argc, &err);
    if (o.statements == NULL) {
        fprintf(stderr, "qkv: %s\n", err.msg);
        return FAILED;
    }
    int status = take_arguments(&o, argc, argv);
    status = status < 0 ? run(&o) : close_stdout(status);
    qkv_free(o.statements);
    return status;
}
