/*
 * tensor_reduce.c - sums, means and orders, along an axis or over all
 *
 * An axis is a name or a number; it goes away. Without one the whole tensor
 * is reduced, to a number. softmax, cumsum, sort and topk keep the axis; the
 * last one unless another is given.
 */
#include "config.h"

#include "repl/bind/tensor_impl.h"
#include "tensor/reduce.h"

/* ---- reductions ---- */

static int reduce(lua_State *L, qkv_reduction op)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    const int axis = qkv_bind_axis(L, 2, t);
    qkv_error err;
    return qkv_push_value(L, qkv_reduce(op, t, axis, &err), &err);
}

QKV_DOC(tensor_sum, "t:sum([axis]) -> tensor or number",
    "The sum along an axis, by name or number, or of all elements.\n"
    "> qkv.ones(2, 3):sum() == 6\n"
    "> qkv.ones(2, 3):sum(1)[0] == 3");
static int l_tensor_sum(lua_State *L)
{
    return reduce(L, QKV_SUM);
}

QKV_DOC(tensor_mean, "t:mean([axis]) -> tensor or number",
    "The mean along an axis, or of all elements.\n"
    "> qkv.arange(5):mean() == 2");
static int l_tensor_mean(lua_State *L)
{
    return reduce(L, QKV_MEAN);
}

QKV_DOC(tensor_std, "t:std([axis]) -> tensor or number",
    "The standard deviation, with n - 1; NaN for one element.\n"
    "> qkv.tensor{1, 3, 5}:std() == 2");
static int l_tensor_std(lua_State *L)
{
    return reduce(L, QKV_STD);
}

QKV_DOC(tensor_var, "t:var([axis]) -> tensor or number",
    "The variance, with n - 1; NaN for one element.\n"
    "> qkv.tensor{1, 3, 5}:var() == 4");
static int l_tensor_var(lua_State *L)
{
    return reduce(L, QKV_VAR);
}

QKV_DOC(tensor_min, "t:min([axis]) -> tensor or number",
    "The smallest element; NaN if one is NaN.\n"
    "> qkv.tensor{3, 1, 2}:min() == 1");
static int l_tensor_min(lua_State *L)
{
    return reduce(L, QKV_MIN);
}

QKV_DOC(tensor_max, "t:max([axis]) -> tensor or number",
    "The largest element; NaN if one is NaN.\n"
    "> qkv.tensor{3, 1, 2}:max() == 3");
static int l_tensor_max(lua_State *L)
{
    return reduce(L, QKV_MAX);
}

QKV_DOC(tensor_norm, "t:norm([axis]) -> tensor or number",
    "The root of the sum of squares.\n"
    "> qkv.tensor{3, 4}:norm() == 5");
static int l_tensor_norm(lua_State *L)
{
    return reduce(L, QKV_NORM);
}

static int argmax(lua_State *L, bool smallest)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    const int axis = qkv_bind_axis(L, 2, t);
    qkv_error err;
    return qkv_push_value(L, qkv_argmax(t, axis, smallest, &err), &err);
}

QKV_DOC(tensor_argmax, "t:argmax([axis]) -> tensor or integer",
    "Where the largest element is, from 0: along an axis, or in all elements\n"
    "in a row. The first of several; the first NaN if there is one.\n"
    "> qkv.tensor{3, 9, 2}:argmax() == 1");
static int l_tensor_argmax(lua_State *L)
{
    return argmax(L, false);
}

QKV_DOC(tensor_argmin, "t:argmin([axis]) -> tensor or integer",
    "Where the smallest element is, from 0.\n"
    "> qkv.tensor{3, 9, 2}:argmin() == 2");
static int l_tensor_argmin(lua_State *L)
{
    return argmax(L, true);
}

/* ---- those that keep the axis ---- */

/* The axis at `index`, the last one unless given. */
static int check_kept_axis(lua_State *L, int index, const qkv_tensor *t)
{
    const int axis = qkv_bind_axis(L, index, t);
    if (axis < 0 && t->n_dims == 0)
        return luaL_error(L, "a tensor without axes: one axis expected");
    return axis < 0 ? t->n_dims - 1 : axis;
}

QKV_DOC(tensor_cumsum, "t:cumsum([axis]) -> tensor",
    "Running sums along an axis, the last one unless given.\n"
    "> qkv.ones(4):cumsum()[2] == 3");
static int l_tensor_cumsum(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    const int axis = check_kept_axis(L, 2, t);
    qkv_error err;
    return qkv_push_tensor(L, qkv_cumsum(t, axis, &err), &err);
}

static int softmax(lua_State *L, bool log)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    const int axis = check_kept_axis(L, 2, t);
    qkv_error err;
    return qkv_push_tensor(L, qkv_softmax(t, axis, log, &err), &err);
}

QKV_DOC(tensor_softmax, "t:softmax([axis]) -> tensor",
    "exp(t) over its sum along an axis, the last one unless given. A row of\n"
    "-inf becomes 0.\n"
    "> qkv.zeros(4):softmax()[0] == 0.25");
static int l_tensor_softmax(lua_State *L)
{
    return softmax(L, false);
}

QKV_DOC(tensor_log_softmax, "t:log_softmax([axis]) -> tensor",
    "The natural logarithm of the softmax, computed as such.\n"
    "> qkv.zeros(1):log_softmax()[0] == 0");
static int l_tensor_log_softmax(lua_State *L)
{
    return softmax(L, true);
}

QKV_DOC(tensor_topk, "t:topk(k [, axis]) -> values, indices",
    "The k largest along an axis, the last one unless given, largest first,\n"
    "and where they are.\n"
    "> qkv.tensor{3, 9, 2}:topk(2)[1] == 3\n"
    "> select(2, qkv.tensor{3, 9, 2}:topk(1))[0] == 1");
static int l_tensor_topk(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const lua_Integer k = luaL_checkinteger(L, 2);
    qkv_check_nargs(L, 3);
    const int axis = check_kept_axis(L, 3, t);
    void **values = qkv_push_empty(L, QKV_TENSOR);
    void **where = qkv_push_empty(L, QKV_TENSOR);
    qkv_error err;
    qkv_tensor *indices = NULL;
    *values = qkv_topk(t, k, axis, &indices, &err);
    *where = indices;
    return *values != NULL ? 2 : qkv_raise(L, &err);
}

QKV_DOC(tensor_sort, "t:sort([axis] [, {descending=}]) -> values, indices",
    "In rising order along an axis, the last one unless given, and where\n"
    "each came from.\n"
    "> qkv.tensor{3, 9, 2}:sort()[0] == 2\n"
    "> qkv.tensor{3, 9, 2}:sort(0, {descending = true})[0] == 9");
static int l_tensor_sort(lua_State *L)
{
    static const char *const options[] = {"descending", NULL};
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 3);
    if (lua_istable(L, 2) && lua_isnoneornil(L, 3)) {
        lua_settop(L, 2);
        lua_pushnil(L);
        lua_insert(L, 2);
    }
    qkv_check_options(L, 3, options);
    const bool descending = qkv_option_boolean(L, 3, "descending", false);
    const int axis = check_kept_axis(L, 2, t);
    void **values = qkv_push_empty(L, QKV_TENSOR);
    void **where = qkv_push_empty(L, QKV_TENSOR);
    qkv_error err;
    qkv_tensor *indices = NULL;
    *values = qkv_sort(t, axis, descending, &indices, &err);
    *where = indices;
    return *values != NULL ? 2 : qkv_raise(L, &err);
}

/* ---- ranks ---- */

/* The word for an axis in a record: its name, or a plain word. */
static void push_axis_word(lua_State *L, const qkv_tensor *t, int i)
{
    if (t->axis[i][0] != '\0')
        lua_pushstring(L, t->axis[i]);
    else if (t->n_dims == 1)
        lua_pushliteral(L, "index");
    else if (t->n_dims == 2)
        lua_pushstring(L, i == 0 ? "row" : "col");
    else
        lua_pushfstring(L, "axis%d", i);
}

/* {layer=, head=, ..., value=} of the element at a flat index. */
static void push_record(lua_State *L, const qkv_tensor *t, int64_t flat,
                        double value)
{
    lua_createtable(L, 0, t->n_dims + 1);
    for (int i = t->n_dims - 1; i >= 0; i--) {
        push_axis_word(L, t, i);
        lua_pushinteger(L, flat % t->shape[i]);
        lua_rawset(L, -3);
        flat /= t->shape[i];
    }
    lua_pushnumber(L, value);
    lua_setfield(L, -2, "value");
}

QKV_DOC(tensor_ranked, "t:ranked(k) -> list of {<axis>=, ..., value=}",
    "The k largest of all elements, largest first, each with its indices by\n"
    "axis name (index, row and col where there are none). Use (-t) or\n"
    "t:abs() for other orders.\n"
    "> qkv.tensor{{1, 9}, {3, 4}}:ranked(2)[1].col == 1\n"
    "> qkv.tensor({5, 7}, {axes = {\"head\"}}):ranked(1)[1].head == 1");
static int l_tensor_ranked(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    lua_Integer k = luaL_checkinteger(L, 2);
    qkv_check_nargs(L, 2);
    luaL_argcheck(L, k >= 0, 2, "0 or more expected");
    const int64_t all = -1, count = qkv_tensor_count(t);
    qkv_error err;
    qkv_push_tensor(L, qkv_tensor_reshape(t, 1, &all, NULL, &err), &err);
    const qkv_tensor *flat = qkv_check_tensor(L, -1);
    void **values = qkv_push_empty(L, QKV_TENSOR);
    void **where = qkv_push_empty(L, QKV_TENSOR);
    if (k > count)
        k = count;
    qkv_tensor *indices = NULL;
    *values = qkv_topk(flat, k, 0, &indices, &err);
    *where = indices;
    if (*values == NULL)
        return qkv_raise(L, &err);
    lua_createtable(L, (int)k, 0);
    for (int64_t i = 0; i < k; i++) {
        const double at = qkv_tensor_get(indices, &i);
        push_record(L, t, (int64_t)at, qkv_tensor_get(*values, &i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ---- tables ---- */

static const qkv_bind_row methods[] = {
    QKV_ROW("sum", tensor_sum),
    QKV_ROW("mean", tensor_mean),
    QKV_ROW("std", tensor_std),
    QKV_ROW("var", tensor_var),
    QKV_ROW("min", tensor_min),
    QKV_ROW("max", tensor_max),
    QKV_ROW("norm", tensor_norm),
    QKV_ROW("argmax", tensor_argmax),
    QKV_ROW("argmin", tensor_argmin),
    QKV_ROW("cumsum", tensor_cumsum),
    QKV_ROW("softmax", tensor_softmax),
    QKV_ROW("log_softmax", tensor_log_softmax),
    QKV_ROW("topk", tensor_topk),
    QKV_ROW("sort", tensor_sort),
    QKV_ROW("ranked", tensor_ranked),
    QKV_ROW_END};

void qkv_bind_tensor_reduce(lua_State *L)
{
    qkv_bind_class(L, "tensor", methods, NULL);
}
