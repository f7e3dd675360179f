/*
 * tensor.c - the class of tensors: sizes, copies, other views of the same
 *
 * The class has parts in tensor_index.c (elements), tensor_math.c,
 * tensor_reduce.c, tensor_make.c (constructors), tensor_file.c and
 * tensor_text.c. All follow one rule: methods give new tensors, those that
 * end in _ write in place, and a result without axes is a number.
 */
#include "config.h"

#include <string.h>

#include "repl/bind/tensor_impl.h"

/* ---- sizes and values ---- */

QKV_DOC(tensor_size, "t:size(axis) -> integer",
    "The size of one axis, by name or number.\n"
    "> qkv.zeros(2, 3):size(1) == 3\n"
    "> qkv.zeros(2, 3, {axes = {\"head\", \"pos\"}}):size(\"head\") == 2");
static int l_tensor_size(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    luaL_checkany(L, 2);
    qkv_check_nargs(L, 2);
    const int axis = qkv_bind_axis(L, 2, t);
    luaL_argcheck(L, axis >= 0, 2, "an axis expected");
    lua_pushinteger(L, t->shape[axis]);
    return 1;
}

QKV_DOC(tensor_count, "t:count() -> integer",
    "The number of elements.\n"
    "> qkv.zeros(2, 3):count() == 6");
static int l_tensor_count(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 1);
    lua_pushinteger(L, qkv_tensor_count(t));
    return 1;
}

QKV_DOC(tensor_item, "t:item() -> number",
    "The number in a tensor of one element.\n"
    "> qkv.full({1, 1}, 5):item() == 5");
static int l_tensor_item(lua_State *L)
{
    static const int64_t first[QKV_MAX_DIMS] = {0};
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 1);
    if (qkv_tensor_count(t) != 1 || qkv_is_quantised(t->dtype)) {
        char what[160];
        qkv_tensor_describe(t, what, sizeof what);
        return luaL_error(L, "item of %s: one element expected", what);
    }
    qkv_push_element(L, t, first);
    return 1;
}

/* The elements from this axis on, as nested tables. */
static void push_table(lua_State *L, const qkv_tensor *t, int axis,
                       int64_t *index)
{
    if (axis == t->n_dims) {
        qkv_push_element(L, t, index);
        return;
    }
    const int64_t n = t->shape[axis];
    lua_createtable(L, n < INT32_MAX ? (int)n : 0, 0);
    for (index[axis] = 0; index[axis] < n; index[axis]++) {
        push_table(L, t, axis + 1, index);
        lua_rawseti(L, -2, index[axis] + 1);
    }
}

QKV_DOC(tensor_table, "t:table() -> table",
    "The numbers as a Lua table, nested as deep as there are axes; it counts\n"
    "from 1, as Lua does.\n"
    "> qkv.eye(2):table()[1][2] == 0");
static int l_tensor_table(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    int64_t index[QKV_MAX_DIMS] = {0};
    qkv_check_nargs(L, 1);
    luaL_checkstack(L, QKV_MAX_DIMS + 4, NULL);
    if (qkv_is_quantised(t->dtype)) {
        qkv_error err;
        qkv_push_tensor(L, qkv_tensor_float(t, &err), &err);
        t = qkv_check_tensor(L, -1);
    }
    push_table(L, t, 0, index);
    return 1;
}

/* ---- copies ---- */

QKV_DOC(tensor_clone, "t:clone() -> tensor",
    "A copy that may be written to.\n"
    "> qkv.eye(2):clone():fill_(1):sum() == 4");
static int l_tensor_clone(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 1);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_clone(t, &err), &err);
}

QKV_DOC(tensor_to, "t:to(dtype) -> tensor",
    "A copy in another type: f32, f16, bf16, i32, i64 or u8. Integers are\n"
    "rounded to the nearest; what does not fit is an error.\n"
    "> qkv.tensor{1.6, 2.5}:to(\"i32\")[0] == 2\n"
    "> qkv.tensor{0.1}:to(\"f16\").dtype == \"f16\"");
static int l_tensor_to(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const char *name = luaL_checkstring(L, 2);
    qkv_check_nargs(L, 2);
    qkv_dtype dtype = t->dtype;
    qkv_check_dtype(L, name, &dtype);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_to(t, dtype, &err), &err);
}

QKV_DOC(tensor_float, "t:float() -> tensor",
    "t:to(\"f32\"): what quantised weights need before arithmetic.\n"
    "> qkv.arange(3, {dtype = \"u8\"}):float().dtype == \"f32\"");
static int l_tensor_float(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 1);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_to(t, QKV_F32, &err), &err);
}

/* ---- other views ---- */

QKV_DOC(tensor_t, "t:t() -> tensor",
    "The transpose of a matrix. Shares its memory.\n"
    "> qkv.tensor{{1, 2}, {3, 4}}:t():at(0, 1) == 3");
static int l_tensor_t(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 1);
    if (t->n_dims != 2) {
        char what[160];
        qkv_tensor_describe(t, what, sizeof what);
        return luaL_error(L, "t of %s: a matrix expected; t:transpose(a, b) "
                          "names two axes", what);
    }
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_transpose(t, 0, 1, &err), &err);
}

QKV_DOC(tensor_transpose, "t:transpose(a, b) -> tensor",
    "Two axes change places. Shares t's memory.\n"
    "> qkv.zeros(2, 3, 4):transpose(0, 2).shape[1] == 4");
static int l_tensor_transpose(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    luaL_checkany(L, 3);
    qkv_check_nargs(L, 3);
    const int a = qkv_bind_axis(L, 2, t), b = qkv_bind_axis(L, 3, t);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_transpose(t, a, b, &err), &err);
}

QKV_DOC(tensor_permute, "t:permute(axis, ...) -> tensor",
    "The axes in this order, each named once. Shares t's memory.\n"
    "> qkv.zeros(2, 3, 4):permute(2, 0, 1).shape[3] == 3");
static int l_tensor_permute(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const int n = lua_gettop(L) - 1;
    int order[QKV_MAX_DIMS];
    if (n != t->n_dims)
        return luaL_error(L, "permute: all %d axes expected, got %d",
                          t->n_dims, n);
    for (int i = 0; i < n; i++) {
        luaL_argcheck(L, !lua_isnil(L, i + 2), i + 2, "an axis expected");
        order[i] = qkv_bind_axis(L, i + 2, t);
    }
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_permute(t, order, &err), &err);
}

QKV_DOC(tensor_reshape, "t:reshape(sizes... [, {axes=}]) -> tensor",
    "The same elements in other sizes, the last axis fastest; one size may\n"
    "be -1, for what is left. Axis names go unless given. Shares t's memory\n"
    "where that is possible.\n"
    "> qkv.arange(6):reshape(2, -1):at(1, 0) == 3\n"
    "> qkv.arange(6):reshape({3, 2}, {axes = {\"pos\", \"comp\"}})");
static int l_tensor_reshape(lua_State *L)
{
    static const char *const options[] = {"axes", NULL};
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_making m;
    qkv_check_making(L, 2, &m, options);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_reshape(t, m.n_dims, m.shape, m.axes,
                                                 &err), &err);
}

/* New names for axes: first all old ones that change are taken off, so that
 * two axes can change names. */
static void rename_axes(lua_State *L, qkv_tensor *t, const bool *given)
{
    qkv_error err;
    for (int i = 0; i < t->n_dims; i++)
        if (given[i])
            qkv_tensor_name(t, i, NULL, &err);
    for (int i = 0; i < t->n_dims; i++)
        if (given[i]) {
            lua_rawgeti(L, -1, i);
            if (!qkv_tensor_name(t, i, lua_tostring(L, -1), &err))
                qkv_raise(L, &err);
            lua_pop(L, 1);
        }
}

QKV_DOC(tensor_rename, "t:rename{axis = name, ...} -> tensor",
    "The same memory with other names of axes; \"\" takes a name off.\n"
    "> qkv.eye(2):rename{[0] = \"query\", [1] = \"key\"}.axes[2] == \"key\"");
static int l_tensor_rename(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    bool given[QKV_MAX_DIMS] = {false};
    luaL_checktype(L, 2, LUA_TTABLE);
    qkv_check_nargs(L, 2);
    qkv_error err;
    qkv_push_tensor(L, qkv_tensor_view(t, &err), &err);
    lua_newtable(L);                /* axis number -> name */
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        const int axis = qkv_bind_axis(L, 5, t);
        if (lua_type(L, -1) != LUA_TSTRING)
            return luaL_error(L, "an axis is named by a string, got %s",
                              luaL_typename(L, -1));
        given[axis] = true;
        lua_pushvalue(L, -1);
        lua_rawseti(L, 4, axis);
    }
    rename_axes(L, qkv_check_tensor(L, 3), given);
    lua_pop(L, 1);
    return 1;
}

/* ---- metamethods ---- */

static int l_tensor_gc(lua_State *L)
{
    void **slot = luaL_checkudata(L, 1, QKV_TENSOR);
    qkv_tensor_release(*slot);
    *slot = NULL;
    return 0;
}

/* ---- tables ---- */

static const qkv_bind_row methods[] = {
    QKV_ROW("size", tensor_size),
    QKV_ROW("count", tensor_count),
    QKV_ROW("item", tensor_item),
    QKV_ROW("table", tensor_table),
    QKV_ROW("clone", tensor_clone),
    QKV_ROW("to", tensor_to),
    QKV_ROW("float", tensor_float),
    QKV_ROW("t", tensor_t),
    QKV_ROW("transpose", tensor_transpose),
    QKV_ROW("permute", tensor_permute),
    QKV_ROW("reshape", tensor_reshape),
    QKV_ROW("rename", tensor_rename),
    QKV_ROW_END};

static const luaL_Reg metamethods[] = {{"__gc", l_tensor_gc},
                                       {"__close", l_tensor_gc},
                                       {NULL, NULL}};

void qkv_bind_tensor(lua_State *L)
{
    qkv_bind_class(L, "tensor", methods, metamethods);
    qkv_bind_tensor_index(L);
    qkv_bind_tensor_math(L);
    qkv_bind_tensor_reduce(L);
    qkv_bind_tensor_text(L);
    qkv_bind_tensor_make(L);
    qkv_bind_tensor_file(L);
}
