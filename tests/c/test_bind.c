/*
 * test_bind.c - the binding when memory runs out, or Ctrl-C comes
 *
 * Each row is a Lua chunk. It is run with every n-th allocation of ours
 * failing, then with every n-th of Lua's: each time it must end well or with
 * an error, and when its garbage is collected no byte of ours is held. Under
 * the address sanitizer this is also a test of lifetimes.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lualib.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "repl/bind/bind.h"

static const char *const chunks[] = {
    "return qkv.tensor({{1, 2}, {3, 4}}, {axes = {'a', 'b'}})",
    "return qkv.randn(3, 4, {seed = 1}):to('f16'):table()",
    "return qkv.randint({5}, {high = 3}):print()",
    "local t = qkv.arange(12):reshape(3, 4)"
    " return t[1], t:at{[1] = 2}, t:t()",
    "local t = qkv.zeros(3, 4) t[0] = {1, 2, 3, 4} t:set({[1] = {0, 2}}, 1)",
    "return qkv.eye(3):slice{[0] = {from = 1}}:take{[1] = {0, 2}}",
    "local t = qkv.ones(2, 3)"
    " return (1 - t * t / 2) ^ 2, -t, t:lt(2), t + {1}",
    "return qkv.ones(2, 3):matmul(qkv.ones(3, 2)),"
    " qkv.einsum('i,j->i j', {1}, {2})",
    "return qkv.cat{qkv.ones(2), qkv.ones(1)},"
    " qkv.stack{qkv.ones(2), qkv.ones(2)}",
    "local t = qkv.randn(3, 4)"
    " return t:sum(0), t:topk(2), t:sort(), t:ranked(3)",
    "local t = qkv.randn(3, 4) return t:softmax(), t:argmax(1), tostring(t)",
    "return qkv.svd(qkv.eye(3)), qkv.qr(qkv.eye(2)),"
    " qkv.solve(qkv.eye(2), {1, 2})",
    "return qkv.cosine(qkv.eye(3)), qkv.dot({1, 2}, {3, 4})",
    "return qkv.nearest(qkv.eye(4), {1, 0, 0, 0}, {k = 2, metric = 'l2'})",
    "local p = qkv.pca{{1, 2}, {3, 5}, {4, 4}}"
    " return p:project{1, 2}, tostring(p)",
    "qkv.save('bind-test.npz', {a = qkv.eye(2), b = qkv.ones(3)})"
    " return qkv.load('bind-test.npz')",
    "qkv.save('bind-test.safetensors', {a = qkv.eye(2), b = qkv.ones(3)})"
    " return qkv.load('bind-test.safetensors')",
    "qkv.eye(3):save('bind-test.csv') return qkv.load('bind-test.csv')",
    "return qkv.help_text('tensor'), qkv.help_text(qkv.zeros),"
    " qkv.help_text('x')",
    "local m = qkv.open(tiny) return m:weights(), m:weight('W_E'),"
    " m:weight('blocks.1.attn.W_K'), m:sites(), m.config, m:check()",
    "return qkv.tokenizer(tiny):pieces('The world, \\xff')",
    "local r = m:run({1, 2, 3}, {names = {'pattern', 'resid_post'}})"
    " return r('pattern', 0), r('z', 1), r:top(3), r:surprisal(), r:lens(2)",
    "local r = m:run({{1, 2, 3}, 'ab'}, {names = 'resid_post',"
    " edits = {{site = 'z', layer = 1, head = 0, op = 'zero'}},"
    " hooks = {{site = 'q', layer = 2, fn = function(t) t:mul_(2) end}}})"
    " return r:stack('resid_post')",
    "local r = m:run({1, 2, 3}) local f = r:fork{edits = {{site = 'z',"
    " layer = 2, pos = -1, op = 'zero'}}} r:forks{{from = 2, tokens = {4, 5}},"
    " {edits = {{site = 'k', layer = 1, pos = 0, value = f}}}}"
    " return f('resid_post', 3), f:logit(3)",
    "local r = m:run({1, 2, 3}) return qkv.patch{clean = r,"
    " corrupt = m:run{4, 2, 3}, site = 'resid_pre', axes = {'layer', 'pos'},"
    " metric = qkv.logit_diff(5, 6)}, qkv.ablate{run = r, site = 'z',"
    " axes = {'layer', 'head'}, with = 'zero', metric = qkv.logprob(5)}",
    "return m:generate('The', {n = 3, temperature = 1, seed = 1})",
    "return m:hidden({'one', 'two three'}, {normalize = true})",
};
enum { N_CHUNKS = sizeof chunks / sizeof chunks[0], MOST = 20000 };

/* Lua's allocations until one fails; -1: none does. */
static long lua_left = -1;

static void *lua_memory(void *context, void *block, size_t old, size_t bytes)
{
    (void)context, (void)old;
    if (bytes == 0) {
        free(block);
        return NULL;
    }
    if (lua_left == 0 && (block == NULL || bytes > old))
        return NULL;
    lua_left -= lua_left > 0;
    return realloc(block, bytes);
}

static int quiet(lua_State *L)
{
    (void)L;
    return 0;
}

static int open_state(void **state)
{
    lua_State *L = lua_newstate(lua_memory, NULL);
    if (L == NULL)
        return -1;
    luaL_openlibs(L);
    lua_pushcfunction(L, quiet);
    lua_setglobal(L, "print");
    luaL_requiref(L, "qkv", luaopen_qkv, 1);
    const char *srcdir = getenv("srcdir");
    lua_pushfstring(L, "%s/data/tiny.gguf", srcdir != NULL ? srcdir : ".");
    lua_setglobal(L, "tiny");
    if (luaL_dostring(L, "m = qkv.open(tiny)") != LUA_OK) {
        print_error("%s\n", lua_tostring(L, -1));
        return -1;
    }
    lua_settop(L, 0);
    *state = L;
    return 0;
}

static int close_state(void **state)
{
    lua_close(*state);
    remove("bind-test.npz");
    remove("bind-test.safetensors");
    remove("bind-test.csv");
    return 0;
}

/* Bytes of ours that are held when the garbage is gone. */
static size_t held(lua_State *L)
{
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCCOLLECT);
    return qkv_alloc_live();
}

static void load_chunk(lua_State *L, const char *chunk)
{
    if (luaL_loadstring(L, chunk) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
}

static void run_well(lua_State *L, const char *chunk)
{
    load_chunk(L, chunk);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK)
        fail_msg("%s: %s", chunk, lua_tostring(L, -1));
}

static void test_our_memory(void **state)
{
    lua_State *L = *state;
    for (int i = 0; i < N_CHUNKS; i++) {
        run_well(L, chunks[i]);         /* scratch that is kept is made */
        const size_t before = held(L);
        int status = LUA_ERRRUN;
        for (long n = 0; status != LUA_OK && n < MOST; n++) {
            load_chunk(L, chunks[i]);
            qkv_alloc_fail_after(n);
            status = lua_pcall(L, 0, 0, 0);
            qkv_alloc_fail_after(-1);
            if (status != LUA_OK
                && strstr(lua_tostring(L, -1), "no memory") == NULL)
                fail_msg("%s: %s", chunks[i], lua_tostring(L, -1));
            if (held(L) != before)
                fail_msg("%s: %zu bytes lost at allocation %ld", chunks[i],
                         held(L) - before, n);
        }
        assert_int_equal(status, LUA_OK);
    }
}

static void test_memory_of_lua(void **state)
{
    lua_State *L = *state;
    for (int i = 0; i < N_CHUNKS; i++) {
        run_well(L, chunks[i]);
        const size_t before = held(L);
        int status = LUA_ERRMEM;
        for (long n = 0; status != LUA_OK && n < MOST; n++) {
            load_chunk(L, chunks[i]);
            lua_left = n;
            status = lua_pcall(L, 0, 0, 0);
            lua_left = -1;
            if (held(L) != before)
                fail_msg("%s: %zu bytes lost at Lua's allocation %ld",
                         chunks[i], held(L) - before, n);
        }
        assert_int_equal(status, LUA_OK);
    }
}

/* Opening the module without memory fails, and succeeds with it. */
static void test_open(void **state)
{
    (void)state;
    int status = LUA_ERRMEM;
    for (long n = 0; status != LUA_OK && n < MOST; n += 97) {
        lua_State *L = lua_newstate(lua_memory, NULL);
        assert_non_null(L);
        lua_pushcfunction(L, luaopen_qkv);
        luaL_openlibs(L);
        lua_left = n;
        status = lua_pcall(L, 0, 1, 0);
        lua_left = -1;
        lua_close(L);
    }
}

/* Ctrl-C during any call is the error "interrupted", without a line. */
static void test_interrupt(void **state)
{
    static const char *const long_ones[] = {
        "return qkv.randn(1000)", "return qkv.eye(9):matmul(qkv.eye(9))",
        "return qkv.cosine(qkv.eye(3))", "return qkv.pca(qkv.eye(3))",
        "return qkv.ones(100):sum()", "return qkv.arange(10):exp()",
        "return m:run({1, 2, 3})", "return m:generate('The')",
        "return m:hidden{'The'}", "return m:check()",
    };
    lua_State *L = *state;
    for (size_t i = 0; i < sizeof long_ones / sizeof long_ones[0]; i++) {
        run_well(L, long_ones[i]);
        const size_t before = held(L);
        load_chunk(L, long_ones[i]);
        qkv_interrupt();
        const int status = lua_pcall(L, 0, 0, 0);
        qkv_interrupt_clear();
        assert_int_equal(status, LUA_ERRRUN);
        assert_string_equal(lua_tostring(L, -1), "interrupted");
        assert_int_equal(held(L), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_our_memory, open_state,
                                        close_state),
        cmocka_unit_test_setup_teardown(test_memory_of_lua, open_state,
                                        close_state),
        cmocka_unit_test(test_open),
        cmocka_unit_test_setup_teardown(test_interrupt, open_state,
                                        close_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
