/*
 * tensor_index.c - elements and parts of tensors: reading and writing them
 *
 * A selection is a table whose keys are axes, by name or number, and whose
 * values are an index, a range {from=, to=} or a list. Indices count from 0,
 * negative ones from the end; ranges are half-open. What is not named is
 * whole. A part shares the tensor's memory, except for a list.
 */
#include "config.h"

#include <string.h>

#include "repl/bind/tensor_impl.h"

/* ---- selections ---- */

typedef enum choice_kind { ALL, ONE, RANGE, LIST } choice_kind;
typedef struct choice {
    choice_kind kind;
    int64_t from, to;               /* ONE: from */
    const int64_t *list;
    int64_t n;
} choice;

/* Is the value on top {from=, to=}, with one of them at least? */
static bool is_range(lua_State *L)
{
    if (!lua_istable(L, -1) || lua_rawlen(L, -1) > 0)
        return false;
    lua_getfield(L, -1, "from");
    lua_getfield(L, -2, "to");
    const bool yes = !lua_isnil(L, -1) || !lua_isnil(L, -2);
    lua_pop(L, 2);
    return yes;
}

/* The value on top, chosen along one axis; a list is kept alive in the table
 * at slot `kept`. */
static choice check_choice(lua_State *L, int kept)
{
    static const char *const ends[] = {"from", "to", NULL};
    choice c = {.kind = ONE};
    if (lua_type(L, -1) == LUA_TNUMBER) {
        int is_integer = 0;
        c.from = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer)
            luaL_error(L, "an index is an integer, got %s",
                       luaL_tolstring(L, -1, NULL));
    } else if (is_range(L)) {
        qkv_check_options(L, -1, ends);
        c.kind = RANGE;
        c.from = qkv_option_integer(L, -1, "from", 0);
        c.to = qkv_option_integer(L, -1, "to", INT64_MAX);
    } else {
        c.kind = LIST;
        c.list = qkv_check_integers(L, -1, &c.n, "indices");
        lua_rawseti(L, kept, (lua_Integer)lua_rawlen(L, kept) + 1);
    }
    return c;
}

/* The selection at `index`, by axis, into chosen [t->n_dims]. Pushes what
 * keeps its lists alive. */
static void check_selection(lua_State *L, int index, const qkv_tensor *t,
                            choice *chosen)
{
    luaL_checktype(L, index, LUA_TTABLE);
    memset(chosen, 0, QKV_MAX_DIMS * sizeof *chosen);
    lua_newtable(L);
    const int kept = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        const int axis = qkv_bind_axis(L, kept + 1, t);
        if (chosen[axis].kind != ALL)
            luaL_error(L, "axis %d is chosen twice", axis);
        chosen[axis] = check_choice(L, kept);
    }
}

/* All chosen axes must be of one kind. */
static void check_kind(lua_State *L, const qkv_tensor *t,
                       const choice *chosen, choice_kind kind)
{
    static const char *const words[] = {
        [ONE] = "a number (t:at)", [RANGE] = "{from=, to=} (t:slice)",
        [LIST] = "a list (t:take)"};
    for (int i = 0; i < t->n_dims; i++)
        if (chosen[i].kind != ALL && chosen[i].kind != kind)
            luaL_error(L, "axis %s: %s expected, got %s",
                       t->axis[i][0] != '\0' ? t->axis[i]
                                             : lua_pushfstring(L, "%d", i),
                       words[kind], words[chosen[i].kind]);
}

/* One step of a chain: `part` replaces t, whose reference it takes. */
static qkv_tensor *step(qkv_tensor *t, int axis, const choice *c,
                        qkv_error *err)
{
    if (t == NULL || c->kind == ALL)
        return t;
    qkv_tensor *part = c->kind == ONE
        ? qkv_tensor_select(t, axis, c->from, err)
        : c->kind == RANGE
        ? qkv_tensor_slice(t, axis, c->from, c->to, err)
        : qkv_tensor_take(t, axis, c->list, c->n, err);
    qkv_tensor_release(t);
    return part;
}

/* The chosen part of t; from the last axis on, since an index drops one. */
static qkv_tensor *part_of(const qkv_tensor *t, const choice *chosen,
                           qkv_error *err)
{
    qkv_tensor *part = qkv_tensor_view(t, err);
    for (int i = t->n_dims - 1; i >= 0; i--)
        part = step(part, i, &chosen[i], err);
    return part;
}

/* ---- writing ---- */

/* What is written: a tensor, or a number where there is none. */
typedef struct source {
    const qkv_tensor *tensor;
    double number;
} source;

static source check_source(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TNUMBER)
        return (source){NULL, lua_tonumber(L, index)};
    return (source){qkv_to_tensor(L, index), 0};
}

static bool assign(qkv_tensor *t, const choice *chosen, int axis, source u,
                   qkv_error *err);

/* Element after element of a list; u's own axis, counted from the right, goes
 * along unless it is broadcast. */
static bool assign_list(qkv_tensor *t, const choice *chosen, int axis,
                        source u, qkv_error *err)
{
    const choice *c = &chosen[axis];
    const int after = t->n_dims - 1 - axis;
    const int along = u.tensor != NULL ? u.tensor->n_dims - 1 - after : -1;
    const bool moves = along >= 0 && u.tensor->shape[along] != 1;
    if (moves && u.tensor->shape[along] != c->n)
        return qkv_fail(err, QKV_ESHAPE, "%lld indices for a value of size "
                        "%lld", (long long)c->n,
                        (long long)u.tensor->shape[along]);
    bool good = true;
    for (int64_t j = 0; j < c->n && good; j++) {
        int64_t i = c->list[j];
        const char *name = t->axis[axis][0] != '\0' ? t->axis[axis] : "index";
        qkv_tensor *row = NULL, *value = NULL;
        source v = u;
        good = qkv_index(&i, t->shape[axis], name, err)
            && (row = qkv_tensor_slice(t, axis, i, i + 1, err)) != NULL;
        if (good && moves)
            v.tensor = value = qkv_tensor_slice(u.tensor, along, j, j + 1,
                                                err);
        good = good && (!moves || value != NULL)
            && assign(row, chosen, axis - 1, v, err);
        qkv_tensor_release(value);
        qkv_tensor_release(row);
    }
    return good;
}

/* t[chosen] = u, for the axes from `axis` down to 0. */
static bool assign(qkv_tensor *t, const choice *chosen, int axis, source u,
                   qkv_error *err)
{
    if (axis < 0)
        return u.tensor != NULL ? qkv_tensor_copy(t, u.tensor, err)
                                : qkv_tensor_fill(t, u.number, err);
    if (chosen[axis].kind == LIST)
        return assign_list(t, chosen, axis, u, err);
    qkv_tensor *part = step(qkv_tensor_retain(t), axis, &chosen[axis], err);
    const bool good = part != NULL && assign(part, chosen, axis - 1, u, err);
    qkv_tensor_release(part);
    return good;
}

static int write_to(lua_State *L, qkv_tensor *t, const choice *chosen,
                    source u)
{
    qkv_error err;
    if (!assign(t, chosen, t->n_dims - 1, u, &err))
        return qkv_raise(L, &err);
    lua_settop(L, 1);
    return 1;
}

/* ---- methods ---- */

QKV_DOC(tensor_at, "t:at{axis = index, ...} -> tensor or number",
    "The part with these indices; each named axis goes away. All axes named:\n"
    "a number. Also by position: t:at(0, 1). Shares t's memory.\n"
    "> qkv.eye(2):at(0, 1) == 0\n"
    "> qkv.zeros(2, 3, {axes = {\"head\", \"pos\"}}):at{pos = -1}\n"
    "> qkv.tensor{{1, 2}, {3, 4}}:at{[1] = 0}[1] == 3");
static int l_tensor_at(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    choice chosen[QKV_MAX_DIMS] = {{ALL, 0, 0, NULL, 0}};
    if (lua_istable(L, 2)) {
        qkv_check_nargs(L, 2);
        check_selection(L, 2, t, chosen);
        check_kind(L, t, chosen, ONE);
    } else {
        const int n = lua_gettop(L) - 1;
        if (n > t->n_dims)
            return luaL_error(L, "%d indices for %d axes", n, t->n_dims);
        luaL_checkinteger(L, 2);
        for (int i = 0; i < n; i++)
            chosen[i] = (choice){.kind = ONE,
                                 .from = luaL_checkinteger(L, i + 2)};
    }
    qkv_error err;
    return qkv_push_value(L, part_of(t, chosen, &err), &err);
}

QKV_DOC(tensor_slice, "t:slice{axis = {from=, to=}, ...} -> tensor",
    "The part of each named axis from `from` up to, not including, `to`. What\n"
    "is left out is the axis's own end; ends beyond it are cut. Shares t's\n"
    "memory.\n"
    "> #qkv.arange(10):slice{[0] = {from = 2, to = 5}} == 3\n"
    "> qkv.arange(10):slice{[0] = {from = -2}}[0] == 8");
static int l_tensor_slice(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    choice chosen[QKV_MAX_DIMS];
    qkv_check_nargs(L, 2);
    check_selection(L, 2, t, chosen);
    check_kind(L, t, chosen, RANGE);
    qkv_error err;
    return qkv_push_tensor(L, part_of(t, chosen, &err), &err);
}

QKV_DOC(tensor_take, "t:take{axis = {index, ...}, ...} -> tensor",
    "A copy with these indices of each named axis, in this order; a list may\n"
    "be a tensor of integers. Rows of a quantised tensor come as f32.\n"
    "> qkv.arange(10):take{[0] = {7, 1, -1}}:table()[3] == 9");
static int l_tensor_take(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    choice chosen[QKV_MAX_DIMS];
    qkv_check_nargs(L, 2);
    check_selection(L, 2, t, chosen);
    check_kind(L, t, chosen, LIST);
    qkv_error err;
    return qkv_push_tensor(L, part_of(t, chosen, &err), &err);
}

QKV_DOC(tensor_set, "t:set({axis = index | {from=, to=} | list, ...}, u) -> t",
    "Write u, a number or a tensor that broadcasts, into a part of t.\n"
    "> qkv.zeros(2, 3):set({[1] = 0}, 1):sum() == 2\n"
    "> qkv.zeros(4):set({[0] = {0, 3}}, {5, 6})[3] == 6\n"
    "> qkv.zeros(4):set({[0] = {from = 2}}, 1):sum() == 2");
static int l_tensor_set(lua_State *L)
{
    qkv_tensor *t = qkv_check_tensor(L, 1);
    choice chosen[QKV_MAX_DIMS];
    qkv_check_nargs(L, 3);
    luaL_checkany(L, 3);
    check_selection(L, 2, t, chosen);
    return write_to(L, t, chosen, check_source(L, 3));
}

QKV_DOC(tensor_fill_, "t:fill_(number) -> t",
    "Every element becomes that number, in place.\n"
    "> qkv.zeros(3):fill_(2):sum() == 6");
static int l_tensor_fill_(lua_State *L)
{
    qkv_tensor *t = qkv_check_tensor(L, 1);
    const double value = luaL_checknumber(L, 2);
    qkv_check_nargs(L, 2);
    qkv_error err;
    if (!qkv_tensor_fill(t, value, &err))
        return qkv_raise(L, &err);
    lua_settop(L, 1);
    return 1;
}

QKV_DOC(tensor_copy_, "t:copy_(u) -> t",
    "Every element becomes that of u, which broadcasts to t, in place.\n"
    "> qkv.zeros(2, 2):copy_{1, 2}:sum() == 6");
static int l_tensor_copy_(lua_State *L)
{
    static const choice all[QKV_MAX_DIMS] = {{ALL, 0, 0, NULL, 0}};
    qkv_tensor *t = qkv_check_tensor(L, 1);
    qkv_check_nargs(L, 2);
    return write_to(L, t, all, check_source(L, 2));
}

QKV_DOC(tensor_diagonal, "t:diagonal([offset]) -> tensor",
    "The diagonal of the last two axes, where key = query + offset. Shares\n"
    "t's memory.\n"
    "> qkv.eye(3):diagonal():sum() == 3\n"
    "> #qkv.eye(3):diagonal(-1) == 2");
static int l_tensor_diagonal(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const lua_Integer offset = luaL_optinteger(L, 2, 0);
    qkv_check_nargs(L, 2);
    qkv_error err;
    return qkv_push_tensor(L, qkv_tensor_diagonal(t, offset, &err), &err);
}

/* ---- fields ---- */

QKV_DOC(tensor_shape, "t.shape -> list",
    "The size of each axis, a Lua list.\n"
    "> qkv.zeros(2, 3).shape[2] == 3");
static int push_shape(lua_State *L, const qkv_tensor *t)
{
    lua_createtable(L, t->n_dims, 0);
    for (int i = 0; i < t->n_dims; i++) {
        lua_pushinteger(L, t->shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

QKV_DOC(tensor_axes, "t.axes -> list",
    "The name of each axis, a Lua list; \"\" for an axis without a name.\n"
    "> qkv.zeros(2, 3, {axes = {\"head\", \"pos\"}}).axes[2] == \"pos\"");
static int push_axes(lua_State *L, const qkv_tensor *t)
{
    lua_createtable(L, t->n_dims, 0);
    for (int i = 0; i < t->n_dims; i++) {
        lua_pushstring(L, t->axis[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

QKV_DOC(tensor_dtype, "t.dtype -> string",
    "How the numbers are stored: f32, f16, bf16, i32, i64, u8, or a block\n"
    "type of quantised weights such as q4_1.\n"
    "> qkv.zeros(2).dtype == \"f32\"");
static int push_dtype(lua_State *L, const qkv_tensor *t)
{
    lua_pushstring(L, qkv_dtypes[t->dtype].name);
    return 1;
}

/* ---- metamethods ---- */

static int l_tensor_index(lua_State *L)
{
    static const struct {
        const char *name;
        int (*push)(lua_State *L, const qkv_tensor *t);
    } fields[] = {{"shape", push_shape}, {"axes", push_axes},
                  {"dtype", push_dtype}};
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    if (lua_type(L, 2) == LUA_TNUMBER) {
        const choice c = check_choice(L, 0);
        qkv_error err;
        if (t->n_dims == 0)
            return luaL_error(L, "a tensor without axes has no index: t:item()");
        return qkv_push_value(L, qkv_tensor_select(t, 0, c.from, &err), &err);
    }
    if (lua_type(L, 2) == LUA_TSTRING) {
        const char *key = lua_tostring(L, 2);
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
            if (strcmp(fields[i].name, key) == 0)
                return fields[i].push(L, t);
    }
    return qkv_bind_index(L);
}

static int l_tensor_newindex(lua_State *L)
{
    qkv_tensor *t = qkv_check_tensor(L, 1);
    choice chosen[QKV_MAX_DIMS] = {{ALL, 0, 0, NULL, 0}};
    if (lua_type(L, 2) != LUA_TNUMBER)
        return luaL_error(L, "t[index] = value: an index is an integer, got %s",
                          luaL_tolstring(L, 2, NULL));
    if (t->n_dims == 0)
        return luaL_error(L, "a tensor without axes has no index: t:fill_(x)");
    const source u = check_source(L, 3);
    lua_pushvalue(L, 2);
    chosen[0] = check_choice(L, 0);
    write_to(L, t, chosen, u);
    return 0;
}

static int l_tensor_len(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    if (t->n_dims == 0)
        return luaL_error(L, "a tensor without axes has no length");
    lua_pushinteger(L, t->shape[0]);
    return 1;
}

/* for i, row in pairs(t): i from 0 to #t - 1. */
static int next_row(lua_State *L)
{
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    const int64_t i = lua_isnil(L, 2) ? 0 : lua_tointeger(L, 2) + 1;
    qkv_error err;
    if (t->n_dims == 0 || i >= t->shape[0])
        return 0;
    lua_pushinteger(L, i);
    return 1 + qkv_push_value(L, qkv_tensor_select(t, 0, i, &err), &err);
}

static int l_tensor_pairs(lua_State *L)
{
    qkv_check_tensor(L, 1);
    lua_pushcfunction(L, next_row);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* ---- tables ---- */

static const qkv_bind_row methods[] = {
    QKV_FIELD("shape", tensor_shape),
    QKV_FIELD("axes", tensor_axes),
    QKV_FIELD("dtype", tensor_dtype),
    QKV_ROW("at", tensor_at),
    QKV_ROW("slice", tensor_slice),
    QKV_ROW("take", tensor_take),
    QKV_ROW("set", tensor_set),
    QKV_ROW("fill_", tensor_fill_),
    QKV_ROW("copy_", tensor_copy_),
    QKV_ROW("diagonal", tensor_diagonal),
    QKV_ROW_END};

static const luaL_Reg metamethods[] = {{"__index", l_tensor_index},
                                       {"__newindex", l_tensor_newindex},
                                       {"__len", l_tensor_len},
                                       {"__pairs", l_tensor_pairs},
                                       {NULL, NULL}};

void qkv_bind_tensor_index(lua_State *L)
{
    qkv_bind_class(L, "tensor", methods, metamethods);
}
