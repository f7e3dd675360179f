/*
 * stop.c - Ctrl-C and closed pipes stop whatever runs: see stop.h
 *
 * lua_sethook may be called from a signal handler (Lua manual 4.7), but only
 * by the thread that runs Lua; a worker of the thread pool that catches the
 * signal hands it on. All handlers are installed without SA_RESTART, so that
 * a read from the keyboard ends too.
 */
#include "config.h"

#include "repl/stop.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/interrupt.h"

enum { PATIENCE = 3, EXIT_INTERRUPTED = 130 };

static pthread_t interpreter;           /* the thread that runs Lua */
static lua_State *volatile running;     /* the coroutine that runs now */
static lua_State *main_state;
static volatile sig_atomic_t presses, pipe_closed;

/* After the first error, what the program wants to do when it is stopped
 * (__close, the handler of xpcall) may run undisturbed for so long. */
static const double grace = 0.05;       /* s */
static double first_raised;             /* s; 0: not yet */

/* ---- the hook ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Raises once, and after the grace wherever it fires, until the stop is
 * cleared; then it takes itself off the threads on which it was left. */
static void stop_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (!qkv_interrupted()) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    const double now = seconds();
    if (first_raised > 0.0 && now < first_raised + grace)
        return;
    if (!(first_raised > 0.0))
        first_raised = now;
    luaL_error(L, "interrupted");
}

static void arm(lua_State *L)
{
    lua_sethook(L, stop_hook,
                LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* ---- signals ---- */

/* true when this thread runs Lua; else the signal is sent to the one that
 * does. */
static bool is_ours(int signal)
{
    if (pthread_equal(pthread_self(), interpreter))
        return true;
    pthread_kill(interpreter, signal);
    return false;
}

static void on_interrupt(int signal)
{
    if (!is_ours(signal))
        return;
    if (++presses >= PATIENCE)
        _exit(EXIT_INTERRUPTED);
    qkv_interrupt();
    arm(running);
}

/* A pipe without a reader polls as an error; other files do not. */
static bool has_no_reader(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) != 0;
}

static void on_pipe(int signal)
{
    if (!is_ours(signal) || !has_no_reader(STDOUT_FILENO))
        return;
    pipe_closed = 1;
    qkv_interrupt();
    arm(running);
}

static void catch(int signal, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

void qkv_stop_clear(void)
{
    presses = 0;
    first_raised = 0.0;
    qkv_interrupt_clear();
    running = main_state;
    lua_sethook(main_state, NULL, 0, 0);
}

bool qkv_stop_asked(void)
{
    return presses > 0;
}

bool qkv_stop_pipe_closed(void)
{
    return pipe_closed != 0 || has_no_reader(STDOUT_FILENO);
}

/* ---- coroutines ---- */

static void switch_to(lua_State *L)
{
    running = L;
    if (qkv_interrupted())      /* the signal came while another one ran */
        arm(L);
}

/* Call Lua's own function, upvalue 1, with our arguments, while `co` counts as
 * running. Leaves its results; a Lua status. */
static int call_in(lua_State *L, lua_State *co)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    if (co != NULL)
        switch_to(co);
    const int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    switch_to(L);
    return status;
}

/* coroutine.resume and coroutine.close: the thread is the first argument. */
static int l_stop_resume(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co != NULL, 1, "coroutine");
    if (call_in(L, co) != LUA_OK)
        return lua_error(L);
    return lua_gettop(L);
}

/* What coroutine.wrap returned; the thread is that closure's upvalue. */
static int l_stop_wrapped(lua_State *L)
{
    lua_getupvalue(L, lua_upvalueindex(1), 1);
    lua_State *co = lua_tothread(L, -1);
    lua_pop(L, 1);              /* upvalue 1 keeps the thread alive */
    if (call_in(L, co) == LUA_OK)
        return lua_gettop(L);
    if (lua_type(L, -1) == LUA_TSTRING) {       /* as wrap does: who called */
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int l_stop_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    if (call_in(L, NULL) != LUA_OK)
        return lua_error(L);
    lua_pushcclosure(L, l_stop_wrapped, 1);
    return 1;
}

static void replace(lua_State *L, const char *name, lua_CFunction fn)
{
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

void qkv_stop_install(lua_State *L)
{
    interpreter = pthread_self();
    main_state = running = L;
    lua_getglobal(L, LUA_COLIBNAME);
    replace(L, "resume", l_stop_resume);
    replace(L, "close", l_stop_resume);
    replace(L, "wrap", l_stop_wrap);
    lua_pop(L, 1);
    catch(SIGINT, on_interrupt);
    catch(SIGPIPE, on_pipe);
}
