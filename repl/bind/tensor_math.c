/*
 * tensor_math.c - arithmetic with tensors
 *
 * Arguments broadcast from the right: sizes agree or are 1, and where both
 * name an axis the names agree. Either side may be a number or a table of
 * numbers. Results are f32.
 */
#include "config.h"

#include <math.h>

#include "repl/bind/tensor_impl.h"
#include "tensor/blas.h"
#include "tensor/elementwise.h"

/* ---- two arguments ---- */

/* op of the values at 1 and 2, of which one at least is a tensor or table. */
static int binary(lua_State *L, qkv_binary op)
{
    qkv_error err;
    const bool left = lua_type(L, 1) == LUA_TNUMBER;
    if (left || lua_type(L, 2) == LUA_TNUMBER) {
        const qkv_tensor *t = qkv_to_tensor(L, left ? 2 : 1);
        const double x = lua_tonumber(L, left ? 1 : 2);
        return qkv_push_value(L, qkv_binary_number(op, t, x, left, &err),
                              &err);
    }
    const qkv_tensor *a = qkv_to_tensor(L, 1), *b = qkv_to_tensor(L, 2);
    return qkv_push_value(L, qkv_binary_op(op, a, b, &err), &err);
}

static int l_tensor_add(lua_State *L)
{
    return binary(L, QKV_ADD);
}

static int l_tensor_sub(lua_State *L)
{
    return binary(L, QKV_SUB);
}

static int l_tensor_mul(lua_State *L)
{
    return binary(L, QKV_MUL);
}

static int l_tensor_div(lua_State *L)
{
    return binary(L, QKV_DIV);
}

static int l_tensor_pow(lua_State *L)
{
    return binary(L, QKV_POW);
}

/* The same as a method: t, and a tensor or number. */
static int compare(lua_State *L, qkv_binary op)
{
    qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    return binary(L, op);
}

QKV_DOC(tensor_lt, "t:lt(u) -> tensor",
    "1 where t < u, else 0. (t < u itself cannot be had: Lua makes one\n"
    "boolean of it.)\n"
    "> qkv.arange(4):lt(2):sum() == 2");
static int l_tensor_lt(lua_State *L)
{
    return compare(L, QKV_LT);
}

QKV_DOC(tensor_le, "t:le(u) -> tensor",
    "1 where t <= u, else 0.\n"
    "> qkv.arange(4):le(2):sum() == 3");
static int l_tensor_le(lua_State *L)
{
    return compare(L, QKV_LE);
}

QKV_DOC(tensor_gt, "t:gt(u) -> tensor",
    "1 where t > u, else 0.\n"
    "> qkv.arange(4):gt(2):sum() == 1");
static int l_tensor_gt(lua_State *L)
{
    return compare(L, QKV_GT);
}

QKV_DOC(tensor_ge, "t:ge(u) -> tensor",
    "1 where t >= u, else 0.\n"
    "> qkv.arange(4):ge(2):sum() == 2");
static int l_tensor_ge(lua_State *L)
{
    return compare(L, QKV_GE);
}

QKV_DOC(tensor_eq, "t:eq(u) -> tensor",
    "1 where t and u are the same number, else 0.\n"
    "> qkv.arange(4):eq(2):sum() == 1");
static int l_tensor_eq(lua_State *L)
{
    return compare(L, QKV_EQ);
}

static int extreme(lua_State *L, qkv_binary op)
{
    luaL_checkany(L, 2);
    qkv_check_nargs(L, 2);
    return binary(L, op);
}

QKV_DOC(qkv_minimum, "qkv.minimum(a, b) -> tensor",
    "The smaller of each two elements; NaN if one is NaN.\n"
    "> qkv.minimum(qkv.arange(4), 2):sum() == 5");
static int l_qkv_minimum(lua_State *L)
{
    return extreme(L, QKV_MIN_OF);
}

QKV_DOC(qkv_maximum, "qkv.maximum(a, b) -> tensor",
    "The larger of each two elements; NaN if one is NaN.\n"
    "> qkv.maximum(qkv.arange(4), 2):sum() == 9");
static int l_qkv_maximum(lua_State *L)
{
    return extreme(L, QKV_MAX_OF);
}

QKV_DOC(tensor_near, "t:near(u [, tolerance]) -> boolean",
    "Have both the same shape, and no element differs by more than the\n"
    "tolerance (1e-6)? NaN is near to nothing.\n"
    "> qkv.tensor{1, 2}:near({1, 2.00001}, 1e-4)\n"
    "> qkv.tensor{1, 2}:near{1, 3} == false");
static int l_tensor_near(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const double tolerance = luaL_optnumber(L, 3, 1e-6);
    qkv_check_nargs(L, 3);
    lua_pushboolean(L, qkv_tensor_near(t, qkv_to_tensor(L, 2), tolerance));
    return 1;
}

/* ---- in place ---- */

static int binary_into(lua_State *L, qkv_binary op)
{
    qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    const qkv_tensor *u = qkv_to_tensor(L, 2);
    qkv_error err;
    if (!qkv_binary_into(op, t, u, &err))
        return qkv_raise(L, &err);
    lua_settop(L, 1);
    return 1;
}

QKV_DOC(tensor_add_, "t:add_(u) -> t",
    "t + u, in place; u broadcasts to t.\n"
    "> qkv.ones(2):add_(2):sum() == 6");
static int l_tensor_add_(lua_State *L)
{
    return binary_into(L, QKV_ADD);
}

QKV_DOC(tensor_sub_, "t:sub_(u) -> t",
    "t - u, in place.\n"
    "> qkv.ones(2):sub_{1, 2}:sum() == -1");
static int l_tensor_sub_(lua_State *L)
{
    return binary_into(L, QKV_SUB);
}

QKV_DOC(tensor_mul_, "t:mul_(u) -> t",
    "t * u, in place.\n"
    "> qkv.ones(2):mul_(3):sum() == 6");
static int l_tensor_mul_(lua_State *L)
{
    return binary_into(L, QKV_MUL);
}

QKV_DOC(tensor_div_, "t:div_(u) -> t",
    "t / u, in place.\n"
    "> qkv.ones(2):div_(2):sum() == 1");
static int l_tensor_div_(lua_State *L)
{
    return binary_into(L, QKV_DIV);
}

/* ---- one argument ---- */

static int unary(lua_State *L, qkv_unary op)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 1);
    qkv_error err;
    return qkv_push_tensor(L, qkv_unary_op(op, t, &err), &err);
}

static int l_tensor_unm(lua_State *L)
{
    lua_settop(L, 1);               /* Lua passes the operand twice */
    return unary(L, QKV_NEG);
}

QKV_DOC(tensor_exp, "t:exp() -> tensor",
    "e to the power of each element.\n"
    "> qkv.zeros(2):exp():sum() == 2");
static int l_tensor_exp(lua_State *L)
{
    return unary(L, QKV_EXP);
}

QKV_DOC(tensor_log, "t:log() -> tensor",
    "Natural logarithm; NaN below 0, -inf at 0.\n"
    "> qkv.ones(2):log():sum() == 0");
static int l_tensor_log(lua_State *L)
{
    return unary(L, QKV_LOG);
}

QKV_DOC(tensor_sqrt, "t:sqrt() -> tensor",
    "Square root; NaN below 0.\n"
    "> qkv.tensor{4, 9}:sqrt():sum() == 5");
static int l_tensor_sqrt(lua_State *L)
{
    return unary(L, QKV_SQRT);
}

QKV_DOC(tensor_abs, "t:abs() -> tensor",
    "Absolute value.\n"
    "> qkv.tensor{-4, 9}:abs():sum() == 13");
static int l_tensor_abs(lua_State *L)
{
    return unary(L, QKV_ABS);
}

QKV_DOC(tensor_tanh, "t:tanh() -> tensor",
    "Hyperbolic tangent.\n"
    "> qkv.zeros(2):tanh():sum() == 0");
static int l_tensor_tanh(lua_State *L)
{
    return unary(L, QKV_TANH);
}

QKV_DOC(tensor_round, "t:round() -> tensor",
    "The nearest integer; halves to the even one.\n"
    "> qkv.tensor{0.5, 1.5, 2.4}:round():sum() == 4");
static int l_tensor_round(lua_State *L)
{
    return unary(L, QKV_ROUND);
}

QKV_DOC(tensor_isnan, "t:isnan() -> tensor",
    "1 where an element is not a number, else 0.\n"
    "> qkv.tensor{0/0, 1}:isnan():sum() == 1");
static int l_tensor_isnan(lua_State *L)
{
    return unary(L, QKV_ISNAN);
}

QKV_DOC(tensor_clamp, "t:clamp(low, high) -> tensor",
    "What is below low becomes low, above high high. nil: no bound.\n"
    "> qkv.arange(5):clamp(1, 3):sum() == 10\n"
    "> qkv.arange(5):clamp(nil, 1):sum() == 4");
static int l_tensor_clamp(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const double low = luaL_optnumber(L, 2, -HUGE_VAL);
    const double high = luaL_optnumber(L, 3, HUGE_VAL);
    qkv_check_nargs(L, 3);
    qkv_error err;
    return qkv_push_tensor(L, qkv_clamp(t, low, high, &err), &err);
}

QKV_DOC(tensor_triu, "t:triu([k]) -> tensor",
    "The upper triangle of the last two axes: where column >= row + k; the\n"
    "rest is 0.\n"
    "> qkv.ones(3, 3):triu():sum() == 6\n"
    "> qkv.ones(3, 3):triu(1):sum() == 3");
static int l_tensor_triu(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const lua_Integer k = luaL_optinteger(L, 2, 0);
    qkv_check_nargs(L, 2);
    qkv_error err;
    return qkv_push_tensor(L, qkv_triu(t, k, &err), &err);
}

QKV_DOC(qkv_where, "qkv.where(c, t, u) -> tensor",
    "t where c is not 0, else u; all three broadcast together.\n"
    "> qkv.where(qkv.arange(4):lt(2), 1, 0):sum() == 2");
static int l_qkv_where(lua_State *L)
{
    qkv_check_nargs(L, 3);
    const qkv_tensor *c = qkv_to_tensor(L, 1), *t = qkv_to_tensor(L, 2);
    const qkv_tensor *u = qkv_to_tensor(L, 3);
    qkv_error err;
    return qkv_push_value(L, qkv_where(c, t, u, &err), &err);
}

/* ---- products ---- */

QKV_DOC(tensor_matmul, "t:matmul(u) -> tensor",
    "Matrix product: t [..., m, k], u [k, n] or [..., k, n] -> [..., m, n].\n"
    "A vector is a row on the left and a column on the right, and goes away.\n"
    "> qkv.ones(2, 3):matmul(qkv.ones(3, 4)):sum() == 24\n"
    "> qkv.tensor{1, 2}:matmul{3, 4} == 11");
static int l_tensor_matmul(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    const qkv_tensor *u = qkv_to_tensor(L, 2);
    qkv_error err;
    return qkv_push_value(L, qkv_matmul(t, u, &err), &err);
}

/* n tensors from slot `first` on, in memory of a userdata that is pushed. */
static qkv_tensor **collect(lua_State *L, int first, int n)
{
    qkv_tensor **list = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *list,
                                          0);
    for (int i = 0; i < n; i++)
        list[i] = qkv_check_tensor(L, first + i);
    return list;
}

QKV_DOC(qkv_einsum, "qkv.einsum(equation, t, ...) -> tensor",
    "Products and sums by the names of axes: operands' axes, separated by\n"
    "commas, then -> and those of the result; what is not in the result is\n"
    "summed. The names are the equation's own.\n"
    "> qkv.einsum(\"i j, j -> i\", qkv.ones(2, 3), qkv.ones(3)):sum() == 6\n"
    "> qkv.einsum(\"i j -> j i\", qkv.ones(2, 3)).shape[1] == 3");
static int l_qkv_einsum(lua_State *L)
{
    const char *equation = luaL_checkstring(L, 1);
    const int n = lua_gettop(L) - 1;
    if (n < 1)
        return luaL_error(L, "einsum of no tensors");
    for (int i = 0; i < n; i++) {
        qkv_to_tensor(L, i + 2);
        lua_replace(L, i + 2);
    }
    qkv_error err;
    return qkv_push_value(L, qkv_einsum(equation, collect(L, 2, n), n, &err),
                          &err);
}

/* The list at 1 as tensors, which stay on the stack; *n of them. */
static qkv_tensor **check_list(lua_State *L, int *n)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    const lua_Unsigned length = lua_rawlen(L, 1);
    if (length < 1 || length > 100000)
        luaL_error(L, "a list of tensors expected, got %I of them",
                   (LUAI_UACINT)length);
    *n = (int)length;
    luaL_checkstack(L, *n + 8, "too many tensors");
    const int first = lua_gettop(L) + 1;
    for (int i = 0; i < *n; i++) {
        lua_rawgeti(L, 1, i + 1);
        qkv_to_tensor(L, -1);
        lua_remove(L, -2);
    }
    return collect(L, first, *n);
}

QKV_DOC(qkv_cat, "qkv.cat(list [, axis]) -> tensor",
    "Tensors one after the other along an axis they have (the first one).\n"
    "> qkv.cat{qkv.ones(2), qkv.zeros(3)}:count() == 5\n"
    "> qkv.cat({qkv.ones(2, 1), qkv.zeros(2, 3)}, 1).shape[2] == 4");
static int l_qkv_cat(lua_State *L)
{
    qkv_check_nargs(L, 2);
    lua_settop(L, 2);
    int n = 0;
    qkv_tensor **list = check_list(L, &n);
    const int axis = qkv_bind_axis(L, 2, list[0]);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_cat(list, n, axis < 0 ? 0 : axis,
                                             &err), &err);
}

QKV_DOC(qkv_stack, "qkv.stack(list [, axis] [, name]) -> tensor",
    "Tensors of one shape side by side along a new axis: its number (0)\n"
    "and its name. A name alone makes the new axis the first.\n"
    "> qkv.stack{qkv.ones(2), qkv.zeros(2)}.shape[1] == 2\n"
    "> qkv.stack({qkv.ones(3), qkv.zeros(3)}, \"layer\").axes[1] == "
    "\"layer\"");
static int l_qkv_stack(lua_State *L)
{
    qkv_check_nargs(L, 3);
    if (lua_type(L, 2) == LUA_TSTRING) {
        lua_settop(L, 2);
        lua_pushinteger(L, 0);
        lua_insert(L, 2);
    }
    lua_settop(L, 3);
    int64_t axis = luaL_optinteger(L, 2, 0);
    const char *name = luaL_optstring(L, 3, NULL);
    int n = 0;
    qkv_tensor **list = check_list(L, &n);
    qkv_error err;
    if (!qkv_index(&axis, list[0]->n_dims + 1, "axis", &err))
        return qkv_raise(L, &err);
    return qkv_push_tensor(L, qkv_tensor_stack(list, n, (int)axis, name, &err),
                           &err);
}

/* ---- tables ---- */

static const qkv_bind_row methods[] = {
    QKV_ROW("lt", tensor_lt),
    QKV_ROW("le", tensor_le),
    QKV_ROW("gt", tensor_gt),
    QKV_ROW("ge", tensor_ge),
    QKV_ROW("eq", tensor_eq),
    QKV_ROW("near", tensor_near),
    QKV_ROW("add_", tensor_add_),
    QKV_ROW("sub_", tensor_sub_),
    QKV_ROW("mul_", tensor_mul_),
    QKV_ROW("div_", tensor_div_),
    QKV_ROW("exp", tensor_exp),
    QKV_ROW("log", tensor_log),
    QKV_ROW("sqrt", tensor_sqrt),
    QKV_ROW("abs", tensor_abs),
    QKV_ROW("tanh", tensor_tanh),
    QKV_ROW("round", tensor_round),
    QKV_ROW("isnan", tensor_isnan),
    QKV_ROW("clamp", tensor_clamp),
    QKV_ROW("triu", tensor_triu),
    QKV_ROW("matmul", tensor_matmul),
    QKV_ROW_END};

static const luaL_Reg metamethods[] = {{"__add", l_tensor_add},
                                       {"__sub", l_tensor_sub},
                                       {"__mul", l_tensor_mul},
                                       {"__div", l_tensor_div},
                                       {"__pow", l_tensor_pow},
                                       {"__unm", l_tensor_unm},
                                       {NULL, NULL}};

static const qkv_bind_row functions[] = {
    QKV_ROW("minimum", qkv_minimum),
    QKV_ROW("maximum", qkv_maximum),
    QKV_ROW("where", qkv_where),
    QKV_ROW("einsum", qkv_einsum),
    QKV_ROW("cat", qkv_cat),
    QKV_ROW("stack", qkv_stack),
    QKV_ROW_END};

void qkv_bind_tensor_math(lua_State *L)
{
    qkv_bind_class(L, "tensor", methods, metamethods);
    qkv_bind_functions(L, "qkv", functions);
}
