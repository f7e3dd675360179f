/*
 * tensor_make.c - new tensors: of zeros, of tables, of random numbers
 *
 * Sizes are numbers or one list of them. Random numbers come from a stream
 * that starts with seed 0 in every session, or from a seed of their own, so
 * that a script gives the same numbers each time.
 */
#include "config.h"

#include <math.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/random.h"
#include "repl/bind/tensor_impl.h"

/* ---- check helpers ---- */

/* Sizes given as numbers: how many there are from slot `first` on. */
static int count_numbers(lua_State *L, int first)
{
    int n = 0;
    while (lua_type(L, first + n) == LUA_TNUMBER)
        n++;
    return n;
}

void qkv_check_making(lua_State *L, int first, qkv_making *m,
                      const char *const *options)
{
    int64_t n = count_numbers(L, first);
    m->options = first + (n > 0 ? (int)n : 1);
    if (n == 0 && lua_isnoneornil(L, first))
        luaL_error(L, "sizes expected, as in (2, 3) or ({2, 3})");
    qkv_check_nargs(L, m->options);
    qkv_check_options(L, m->options, options);
    if (n > QKV_MAX_DIMS)
        luaL_error(L, "%d sizes: a tensor has %d axes at most", (int)n,
                   (int)QKV_MAX_DIMS);
    if (n > 0) {
        for (int i = 0; i < n; i++)
            m->shape[i] = luaL_checkinteger(L, first + i);
    } else {
        const int64_t *shape = qkv_check_integers(L, first, &n, "sizes");
        if (n > QKV_MAX_DIMS)
            luaL_error(L, "%d sizes: a tensor has %d axes at most", (int)n,
                       (int)QKV_MAX_DIMS);
        memcpy(m->shape, shape, (size_t)n * sizeof *shape);
        lua_pop(L, 1);
    }
    m->n_dims = (int)n;
    m->axes = qkv_option_axes(L, m->options, m->names, m->n_dims)
        ? m->names : NULL;
}

static const char *const plain_options[] = {"axes", "dtype", NULL};

static qkv_dtype option_type(lua_State *L, int options)
{
    qkv_dtype dtype = QKV_F32;
    qkv_option_dtype(L, options, &dtype);
    return dtype;
}

static int push_filled(lua_State *L, const qkv_making *m, double value)
{
    qkv_error err;
    qkv_tensor *t = qkv_tensor_zeros(option_type(L, m->options), m->n_dims,
                                     m->shape, m->axes, &err);
    qkv_push_tensor(L, t, &err);
    if (value != 0 && !qkv_tensor_fill(t, value, &err))
        return qkv_raise(L, &err);
    return 1;
}

/* ---- filled with one number ---- */

QKV_DOC(qkv_tensor, "qkv.tensor(table [, {axes=, dtype=}]) -> tensor",
    "A tensor of the numbers in a table, nested as deep as there are axes.\n"
    "A number gives a tensor without axes. dtype: f32 (default), f16, bf16,\n"
    "i32, i64, u8. axes: a list of names, one for each axis.\n"
    "> qkv.tensor{{1, 2}, {3, 4}}:sum() == 10\n"
    "> qkv.tensor({1, 2, 3}, {axes = {\"pos\"}, dtype = \"i32\"})");
static int l_qkv_tensor(lua_State *L)
{
    qkv_check_nargs(L, 2);
    luaL_checkany(L, 1);
    qkv_check_options(L, 2, plain_options);
    const qkv_tensor *t = qkv_to_tensor(L, 1);
    const char *names[QKV_MAX_DIMS];
    const bool named = qkv_option_axes(L, 2, names, t->n_dims);
    qkv_dtype dtype = t->dtype;
    qkv_option_dtype(L, 2, &dtype);
    qkv_error err;
    qkv_tensor *made = qkv_tensor_to(t, dtype, &err);
    qkv_push_tensor(L, made, &err);
    for (int i = 0; i < made->n_dims && named; i++)
        if (!qkv_tensor_name(made, i, NULL, &err))
            return qkv_raise(L, &err);
    for (int i = 0; i < made->n_dims && named; i++)
        if (!qkv_tensor_name(made, i, names[i], &err))
            return qkv_raise(L, &err);
    return 1;
}

QKV_DOC(qkv_zeros, "qkv.zeros(sizes... [, {axes=, dtype=}]) -> tensor",
    "All 0. Sizes are numbers, or one list of them.\n"
    "> qkv.zeros(2, 3):sum() == 0\n"
    "> #qkv.zeros({4, 5}, {axes = {\"head\", \"pos\"}}) == 4");
static int l_qkv_zeros(lua_State *L)
{
    qkv_making m;
    qkv_check_making(L, 1, &m, plain_options);
    return push_filled(L, &m, 0);
}

QKV_DOC(qkv_ones, "qkv.ones(sizes... [, {axes=, dtype=}]) -> tensor",
    "All 1.\n"
    "> qkv.ones(2, 3):sum() == 6");
static int l_qkv_ones(lua_State *L)
{
    qkv_making m;
    qkv_check_making(L, 1, &m, plain_options);
    return push_filled(L, &m, 1);
}

QKV_DOC(qkv_full, "qkv.full(sizes, value [, {axes=, dtype=}]) -> tensor",
    "All the same number. sizes: a list, or one number.\n"
    "> qkv.full({2, 2}, 0.5):sum() == 2");
static int l_qkv_full(lua_State *L)
{
    const double value = luaL_checknumber(L, 2);
    qkv_check_nargs(L, 3);
    lua_remove(L, 2);
    qkv_making m;
    qkv_check_making(L, 1, &m, plain_options);
    return push_filled(L, &m, value);
}

QKV_DOC(qkv_eye, "qkv.eye(n [, m] [, {axes=, dtype=}]) -> tensor",
    "[n, m] with 1 on the diagonal, 0 elsewhere; m is n unless given.\n"
    "> qkv.eye(3):sum() == 3");
static int l_qkv_eye(lua_State *L)
{
    luaL_checkinteger(L, 1);
    if (lua_type(L, 2) != LUA_TNUMBER) {
        lua_pushvalue(L, 1);
        lua_insert(L, 2);
    }
    qkv_making m;
    qkv_check_making(L, 1, &m, plain_options);
    if (m.n_dims != 2)
        return luaL_error(L, "eye has two sizes, got %d", m.n_dims);
    push_filled(L, &m, 0);
    qkv_tensor *t = qkv_check_tensor(L, -1);
    const int64_t n = m.shape[0] < m.shape[1] ? m.shape[0] : m.shape[1];
    qkv_error err;
    for (int64_t i = 0; i < n; i++)
        if (!qkv_tensor_set(t, (int64_t[]){i, i}, 1, &err))
            return qkv_raise(L, &err);
    return 1;
}

QKV_DOC(qkv_arange, "qkv.arange([from,] to [, step] [, {axes=, dtype=}]) -> "
    "tensor",
    "Numbers from `from` (0) on, in steps (1), as long as they are below `to`.\n"
    "> qkv.arange(4):table()[4] == 3\n"
    "> qkv.arange(1, 2, 0.25)[3] == 1.75");
static int l_qkv_arange(lua_State *L)
{
    const int n = count_numbers(L, 1);
    const double first = luaL_checknumber(L, 1);
    const double from = n > 1 ? first : 0;
    const double to = n > 1 ? lua_tonumber(L, 2) : first;
    const double step = n > 2 ? lua_tonumber(L, 3) : 1;
    if (n > 3)
        return luaL_error(L, "three numbers at most, got %d", n);
    qkv_check_nargs(L, n + 1);
    qkv_check_options(L, n + 1, plain_options);
    const double count = ceil((to - from) / step);
    if (!(fabs(count) < 1e12))
        return luaL_error(L, "arange from %f to %f in steps of %f has no end",
                          from, to, step);
    qkv_making m = {.n_dims = 1, .options = n + 1};
    m.shape[0] = count > 0 ? (int64_t)count : 0;
    m.axes = qkv_option_axes(L, n + 1, m.names, 1) ? m.names : NULL;
    push_filled(L, &m, 0);
    qkv_tensor *t = qkv_check_tensor(L, -1);
    qkv_error err;
    for (int64_t i = 0; i < m.shape[0]; i++)
        if (!qkv_tensor_set(t, &i, from + (double)i * step, &err)
            || (i % 65536 == 0 && !qkv_check(&err)))
            return qkv_raise(L, &err);
    return 1;
}

/* ---- random numbers ---- */

/* The session's stream, or one of its own (in *own) if options has a seed. */
static qkv_random *check_stream(lua_State *L, int options, qkv_random *own)
{
    if (lua_getfield(L, options, "seed") != LUA_TNIL) {
        lua_pop(L, 1);
        qkv_random_seed(own, (uint64_t)qkv_option_integer(L, options, "seed",
                                                          0));
        return own;
    }
    lua_getfield(L, LUA_REGISTRYINDEX, "qkv.random");
    qkv_random *stream = lua_touserdata(L, -1);
    lua_pop(L, 2);
    return stream;
}

static int push_drawn(lua_State *L, const qkv_making *m,
                      double (*draw)(qkv_random *))
{
    qkv_random own, *r = check_stream(L, m->options, &own);
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_F32, m->n_dims, m->shape, m->axes,
                                   &err);
    qkv_push_tensor(L, t, &err);
    float *out = qkv_tensor_data(t);
    const int64_t n = qkv_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        if (i % 65536 == 0 && !qkv_check(&err))
            return qkv_raise(L, &err);
        out[i] = (float)draw(r);
    }
    return 1;
}

static const char *const random_options[] = {"axes", "seed", NULL};

QKV_DOC(qkv_randn, "qkv.randn(sizes... [, {seed=, axes=}]) -> tensor",
    "Normal random numbers, mean 0 and standard deviation 1. With a seed:\n"
    "the same ones each time; else the session's stream (see qkv.seed).\n"
    "> qkv.randn(1000, {seed = 1}):mean() < 0.2\n"
    "> qkv.randn({2, 3}, {seed = 1}):near(qkv.randn(2, 3, {seed = 1}))");
static int l_qkv_randn(lua_State *L)
{
    qkv_making m;
    qkv_check_making(L, 1, &m, random_options);
    return push_drawn(L, &m, qkv_random_normal);
}

QKV_DOC(qkv_rand, "qkv.rand(sizes... [, {seed=, axes=}]) -> tensor",
    "Uniform random numbers in [0, 1).\n"
    "> qkv.rand(100, {seed = 1}):max() < 1");
static int l_qkv_rand(lua_State *L)
{
    qkv_making m;
    qkv_check_making(L, 1, &m, random_options);
    return push_drawn(L, &m, qkv_random_uniform);
}

QKV_DOC(qkv_randint,
    "qkv.randint(sizes..., {high=, low=, seed=, axes=}) -> tensor",
    "Random integers in [low, high), i64; low is 0 unless given.\n"
    "> qkv.randint({100}, {low = 5, high = 8, seed = 1}):max() == 7");
static int l_qkv_randint(lua_State *L)
{
    static const char *const options[] = {"high", "low", "seed", "axes", NULL};
    qkv_making m;
    qkv_check_making(L, 1, &m, options);
    const lua_Integer low = qkv_option_integer(L, m.options, "low", 0);
    const lua_Integer high = qkv_option_integer(L, m.options, "high", low);
    if (high <= low)
        return luaL_error(L, "option 'high': more than low (%I) expected, got "
                          "%I", (LUAI_UACINT)low, (LUAI_UACINT)high);
    qkv_random own, *r = check_stream(L, m.options, &own);
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_I64, m.n_dims, m.shape, m.axes, &err);
    qkv_push_tensor(L, t, &err);
    int64_t *out = qkv_tensor_data(t);
    const int64_t n = qkv_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        if (i % 65536 == 0 && !qkv_check(&err))
            return qkv_raise(L, &err);
        out[i] = qkv_random_integer(r, low, high);
    }
    return 1;
}

QKV_DOC(qkv_seed, "qkv.seed(n)",
    "Start the session's stream of random numbers again from seed n. A new\n"
    "session starts from 0.\n"
    "> qkv.seed(7)");
static int l_qkv_seed(lua_State *L)
{
    qkv_check_nargs(L, 1);
    const lua_Integer seed = luaL_checkinteger(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, "qkv.random");
    qkv_random_seed(lua_touserdata(L, -1), (uint64_t)seed);
    return 0;
}

/* ---- tables ---- */

static const qkv_bind_row functions[] = {
    QKV_ROW("tensor", qkv_tensor),
    QKV_ROW("zeros", qkv_zeros),
    QKV_ROW("ones", qkv_ones),
    QKV_ROW("full", qkv_full),
    QKV_ROW("eye", qkv_eye),
    QKV_ROW("arange", qkv_arange),
    QKV_ROW("randn", qkv_randn),
    QKV_ROW("rand", qkv_rand),
    QKV_ROW("randint", qkv_randint),
    QKV_ROW("seed", qkv_seed),
    QKV_ROW_END};

void qkv_bind_tensor_make(lua_State *L)
{
    qkv_random *stream = lua_newuserdatauv(L, sizeof *stream, 0);
    qkv_random_seed(stream, 0);
    lua_setfield(L, LUA_REGISTRYINDEX, "qkv.random");
    qkv_bind_functions(L, "qkv", functions);
}
