/*
 * convert.c - tensors between Lua and C
 *
 * A tensor in Lua is a userdata that holds one reference. Tables of numbers
 * become f32 tensors. The collector sees a few bytes where there are
 * megabytes, so it is told to run when what is held outside Lua has doubled.
 */
#include "config.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "repl/bind/bind.h"

/* ---- the collector ---- */

void qkv_bind_pressure(lua_State *L)
{
    /* Below the floor a collection costs more than it frees. The mark follows
     * what is held downwards at once, upwards only after a collection. */
    static const size_t floor_bytes = (size_t)32 << 20;
    static size_t mark = (size_t)32 << 20;
    size_t live = qkv_alloc_live();
    if (live > 2 * mark) {
        lua_gc(L, LUA_GCCOLLECT);
        live = qkv_alloc_live();
        mark = live;
    }
    if (live < mark)
        mark = live;
    if (mark < floor_bytes)
        mark = floor_bytes;
}

/* ---- out ---- */

static int new_slot(lua_State *L)
{
    qkv_push_empty(L, lua_touserdata(L, 1));
    return 1;
}

int qkv_push_owned(lua_State *L, const char *metatable, void *it,
                   void (*release)(void *it))
{
    if (!lua_checkstack(L, 4)) {
        release(it);
        return luaL_error(L, "too many values on the stack");
    }
    lua_pushcfunction(L, new_slot);
    lua_pushlightuserdata(L, (void *)(uintptr_t)metatable);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        release(it);
        return lua_error(L);
    }
    *(void **)lua_touserdata(L, -1) = it;
    qkv_bind_pressure(L);
    return 1;
}

static void release_tensor(void *t)
{
    qkv_tensor_release(t);
}

int qkv_push_tensor(lua_State *L, qkv_tensor *t, const qkv_error *err)
{
    if (t == NULL)
        return qkv_raise(L, err);
    return qkv_push_owned(L, QKV_TENSOR, t, release_tensor);
}

int qkv_push_value(lua_State *L, qkv_tensor *t, const qkv_error *err)
{
    if (t == NULL || t->n_dims > 0 || qkv_is_quantised(t->dtype))
        return qkv_push_tensor(L, t, err);
    qkv_push_element(L, t, NULL);
    qkv_tensor_release(t);
    return 1;
}

void qkv_push_element(lua_State *L, const qkv_tensor *t, const int64_t *index)
{
    if (t->dtype == QKV_I64) {      /* a double would lose its last bits */
        const int64_t *p = qkv_tensor_data(t);
        for (int i = 0; i < t->n_dims; i++)
            p += index[i] * t->stride[i];
        lua_pushinteger(L, *p);
    } else if (qkv_is_float(t->dtype)) {
        lua_pushnumber(L, qkv_tensor_get(t, index));
    } else {
        lua_pushinteger(L, (lua_Integer)qkv_tensor_get(t, index));
    }
}

/* ---- in ---- */

qkv_tensor *qkv_check_tensor(lua_State *L, int index)
{
    return qkv_check_class(L, index, QKV_TENSOR);
}

/* Sizes of the nested table on top, by its first elements; how deep it is. */
static int measure(lua_State *L, int64_t *shape)
{
    const int top = lua_gettop(L);
    int n_dims = 0;
    lua_pushvalue(L, -1);
    while (lua_istable(L, -1)) {
        if (n_dims == QKV_MAX_DIMS)
            return luaL_error(L, "a table nested over %d deep has no shape",
                              (int)QKV_MAX_DIMS);
        shape[n_dims++] = (int64_t)lua_rawlen(L, -1);
        lua_rawgeti(L, -1, 1);
        if (shape[n_dims - 1] == 0)
            break;
    }
    lua_settop(L, top);
    return n_dims;
}

/* The numbers of the table on top, at this depth of the shape, into *out,
 * which moves on. */
static void fill(lua_State *L, const int64_t *shape, int n_dims, int depth,
                 float **out)
{
    if (depth == n_dims) {
        if (lua_type(L, -1) != LUA_TNUMBER)
            luaL_error(L, "a tensor is made of numbers, got %s",
                       luaL_typename(L, -1));
        *(*out)++ = (float)lua_tonumber(L, -1);
        return;
    }
    if (!lua_istable(L, -1))
        luaL_error(L, "rows differ in depth: %s where a table was expected",
                   luaL_typename(L, -1));
    const int64_t n = (int64_t)lua_rawlen(L, -1);
    if (n != shape[depth])
        luaL_error(L, "rows differ in length: %d and %d", (int)shape[depth],
                   (int)n);
    for (int64_t i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        fill(L, shape, n_dims, depth + 1, out);
        lua_pop(L, 1);
    }
}

qkv_tensor *qkv_to_tensor(lua_State *L, int index)
{
    luaL_checkstack(L, QKV_MAX_DIMS + 8, NULL);
    qkv_tensor *t = qkv_test_class(L, index, QKV_TENSOR);
    if (t != NULL) {
        lua_pushvalue(L, index);
        return t;
    }
    if (lua_type(L, index) != LUA_TNUMBER && !lua_istable(L, index))
        return qkv_check_tensor(L, index);      /* says what was expected */
    lua_pushvalue(L, index);
    int64_t shape[QKV_MAX_DIMS];
    const int n_dims = measure(L, shape);
    qkv_error err;
    qkv_push_tensor(L, qkv_tensor_new(QKV_F32, n_dims, shape, NULL, &err),
                    &err);
    t = qkv_check_tensor(L, -1);
    lua_insert(L, -2);
    float *out = qkv_tensor_data(t);
    fill(L, shape, n_dims, 0, &out);
    lua_pop(L, 1);
    return t;
}

int qkv_bind_axis(lua_State *L, int index, const qkv_tensor *t)
{
    if (lua_isnoneornil(L, index))
        return -1;
    qkv_error err;
    if (lua_type(L, index) == LUA_TSTRING) {
        const int axis = qkv_tensor_axis(t, lua_tostring(L, index), &err);
        return axis >= 0 ? axis : qkv_raise(L, &err);
    }
    int64_t axis = luaL_checkinteger(L, index);
    if (!qkv_index(&axis, t->n_dims, "axis", &err))
        qkv_raise(L, &err);
    return (int)axis;
}

/* One integer of a list: a number without a fraction. */
static int64_t check_member(lua_State *L, const char *what)
{
    int is_integer = 0;
    const lua_Integer i = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "%s: integers expected, got %s", what,
                   luaL_tolstring(L, -1, NULL));
    return i;
}

static int64_t *push_integers(lua_State *L, int64_t n, const char *what)
{
    if (n > (INT64_C(1) << 40))
        luaL_error(L, "%s: too many", what);
    return lua_newuserdatauv(L, (size_t)(n > 0 ? n : 1) * sizeof(int64_t), 0);
}

static const int64_t *tensor_integers(lua_State *L, const qkv_tensor *t,
                                      int64_t *n, const char *what)
{
    if (t->n_dims > 1 || qkv_is_quantised(t->dtype))
        luaL_error(L, "%s: a list of integers expected, got a tensor of %d "
                   "dimensions", what, t->n_dims);
    *n = qkv_tensor_count(t);
    int64_t *out = push_integers(L, *n, what);
    for (int64_t i = 0; i < *n; i++) {
        qkv_push_element(L, t, &i);
        out[i] = check_member(L, what);
        lua_pop(L, 1);
    }
    return out;
}

/* The table at `index` as a list: no keys but 1, 2, ..., n. */
static int64_t list_length(lua_State *L, int index, const char *what)
{
    const int64_t n = (int64_t)lua_rawlen(L, index);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        int is_integer = 0;
        const lua_Integer key = lua_tointegerx(L, -2, &is_integer);
        if (!is_integer || key < 1 || key > n)
            luaL_error(L, "%s: a list of integers expected, got a table with "
                       "the field '%s'", what, luaL_tolstring(L, -2, NULL));
    }
    return n;
}

const int64_t *qkv_check_integers(lua_State *L, int index, int64_t *n,
                                  const char *what)
{
    index = lua_absindex(L, index);
    luaL_checkstack(L, 6, NULL);
    const qkv_tensor *t = qkv_test_class(L, index, QKV_TENSOR);
    if (t != NULL)
        return tensor_integers(L, t, n, what);
    if (!lua_istable(L, index)) {
        int64_t *one = push_integers(L, 1, what);
        lua_pushvalue(L, index);
        *one = check_member(L, what);
        lua_pop(L, 1);
        *n = 1;
        return one;
    }
    *n = list_length(L, index, what);
    int64_t *out = push_integers(L, *n, what);
    for (int64_t i = 0; i < *n; i++) {
        lua_rawgeti(L, index, i + 1);
        out[i] = check_member(L, what);
        lua_pop(L, 1);
    }
    return out;
}

/* ---- options that describe tensors ---- */

bool qkv_option_axes(lua_State *L, int index, const char **axes, int n_dims)
{
    if (lua_getfield(L, index, "axes") == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    if (!lua_istable(L, -1))
        luaL_error(L, "option 'axes': a list of names expected, got %s",
                   luaL_typename(L, -1));
    const int n = (int)lua_rawlen(L, -1);
    if (n != n_dims)
        luaL_error(L, "option 'axes': %d name%s for %d dimension%s", n,
                   n == 1 ? "" : "s", n_dims, n_dims == 1 ? "" : "s");
    for (int i = 0; i < n; i++) {
        if (lua_rawgeti(L, -1, i + 1) != LUA_TSTRING)
            luaL_error(L, "option 'axes': names expected, got %s",
                       luaL_typename(L, -1));
        axes[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return true;
}

bool qkv_option_dtype(lua_State *L, int index, qkv_dtype *dtype)
{
    const char *name = qkv_option_string(L, index, "dtype", NULL);
    if (name == NULL)
        return false;
    qkv_check_dtype(L, name, dtype);
    return true;
}

void qkv_check_dtype(lua_State *L, const char *name, qkv_dtype *dtype)
{
    if (qkv_dtype_named(dtype, name))
        return;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int i = 0; i < QKV_N_DTYPES; i++) {
        if (qkv_dtypes[i].block > 1)
            continue;
        luaL_addstring(&b, i > 0 ? ", " : "");
        luaL_addstring(&b, qkv_dtypes[i].name);
    }
    luaL_pushresult(&b);
    luaL_error(L, "unknown dtype '%s'; there are: %s", name,
               lua_tostring(L, -1));
}
