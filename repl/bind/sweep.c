/*
 * sweep.c - what repl/lua/sweep.lua needs from C
 *
 * Private to that file, which has the public functions and their documents:
 * metrics of runs, and sweeps. A metric in Lua is a function of a run, or a
 * table {kind=, a=, b=, pos=, run=}.
 */
#include "config.h"

#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "probes/sweep.h"
#include "repl/bind/model_impl.h"

/* ---- metrics ---- */

/* Tokens of field `name` of the metric at `index`: one, or a list; in a
 * userdata (pushed). NULL when absent. */
static int32_t *read_tokens(lua_State *L, int index, const char *name,
                            qkv_model *m, int64_t *n)
{
    const int type = lua_getfield(L, index, name);
    const int at = lua_gettop(L);
    if (type == LUA_TNIL)
        return NULL;
    *n = type == LUA_TTABLE ? (int64_t)lua_rawlen(L, at) : 1;
    if (*n < 1)
        luaL_error(L, "the metric's list of tokens is empty");
    int32_t *ids = lua_newuserdatauv(L, (size_t)*n * sizeof *ids, 0);
    for (int64_t i = 0; i < *n; i++) {
        if (type == LUA_TTABLE)
            lua_rawgeti(L, at, i + 1);
        else
            lua_pushvalue(L, at);
        ids[i] = qkv_check_token(L, lua_gettop(L), m);
        lua_pop(L, 1);
    }
    return ids;
}

/* The Lua function of a metric, and its state. */
typedef struct call {
    lua_State *L;
    int fn;                     /* its place on the stack */
} call;

/* fn(run) -> number, protected: nothing raises across C. */
static int protected_call(lua_State *L)
{
    qkv_error err;
    qkv_push_run(L, qkv_run_retain(lua_touserdata(L, 2)),
                 lua_tointeger(L, 3), &err);
    lua_pushvalue(L, 1);
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    if (lua_type(L, -1) != LUA_TNUMBER)
        return luaL_error(L, "the metric gave a %s, a number was expected",
                          luaL_typename(L, -1));
    return 1;
}

static bool call_metric(double *value, void *context, qkv_run *r, int64_t seq,
                        qkv_error *err)
{
    const call *c = context;
    lua_State *L = c->L;
    if (!lua_checkstack(L, 6))
        return qkv_fail(err, QKV_EHOOK, "Lua's stack is full");
    lua_pushcfunction(L, protected_call);
    lua_pushvalue(L, c->fn);
    lua_pushlightuserdata(L, r);
    lua_pushinteger(L, seq);
    if (lua_pcall(L, 3, 1, 0) == LUA_OK) {
        *value = lua_tonumber(L, -1);
        lua_pop(L, 1);
        return true;
    }
    const char *said = lua_tostring(L, -1);
    const bool stopped = said != NULL && strcmp(said, "interrupted") == 0;
    qkv_fail(err, stopped ? QKV_EINTERRUPTED : QKV_EHOOK, "%s", said != NULL
             ? said : "the metric raised something that is no text");
    lua_pop(L, 1);
    return false;
}

static qkv_metric_kind read_kind(lua_State *L, int index)
{
    static const char *const words[] = {"logit_diff", "logprob", "prob",
                                        "loss", "kl"};
    lua_getfield(L, index, "kind");
    const char *word = lua_tostring(L, -1);
    for (int i = 0; word != NULL && i < 5; i++)
        if (strcmp(word, words[i]) == 0) {
            lua_pop(L, 1);
            return (qkv_metric_kind)i;
        }
    luaL_error(L, "a metric was expected: qkv.logit_diff(a, b), logprob, prob, "
               "loss, kl, or a function of a run that gives a number");
    return QKV_CALL;
}

/* The metric at `index` for runs of m; what it points at is on the stack. */
static qkv_metric read_metric(lua_State *L, int index, qkv_model *m)
{
    luaL_checkstack(L, 12, NULL);
    if (lua_isfunction(L, index)) {
        call *c = lua_newuserdatauv(L, sizeof *c, 0);
        *c = (call){.L = L, .fn = lua_absindex(L, index)};
        return (qkv_metric){.kind = QKV_CALL, .fn = call_metric,
                            .context = c};
    }
    if (!lua_istable(L, index))
        luaL_error(L, "a metric was expected: qkv.logit_diff(a, b) or its "
                   "kin, or a function of a run; got a %s",
                   luaL_typename(L, index));
    qkv_metric metric = {.kind = read_kind(L, index)};
    int64_t n_b = 0;
    metric.a = read_tokens(L, index, "a", m, &metric.n);
    metric.b = read_tokens(L, index, "b", m, &n_b);
    metric.pos = qkv_option_integer(L, index, "pos", -1);
    if (metric.b != NULL && n_b != metric.n)
        luaL_error(L, "the metric compares %I tokens with %I",
                   (LUAI_UACINT)metric.n, (LUAI_UACINT)n_b);
    if (metric.kind == QKV_KL) {
        lua_getfield(L, index, "run");
        const qkv_run_view *v = qkv_check_class(L, -1, QKV_RUN);
        if (v->seq >= 0 && qkv_run_recipe(v->run)->n_seqs > 1)
            luaL_error(L, "kl: a whole run was expected, not one sequence of "
                       "a batch");
        metric.reference = v->run;
    }
    return metric;
}

/* ---- sweeps ---- */

/* Values on the stack as numbers of a list. */
static void push_numbers(lua_State *L, const double *x, int64_t n)
{
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        lua_pushnumber(L, x[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* measure(run, metric) -> list of numbers, one a sequence */
static int half_measure(lua_State *L)
{
    const qkv_run_view *v = qkv_check_class(L, 1, QKV_RUN);
    const qkv_recipe *r = qkv_run_recipe(v->run);
    const qkv_metric metric = read_metric(L, 2, r->model);
    double *value = lua_newuserdatauv(L, (size_t)r->n_seqs * sizeof *value, 0);
    qkv_error err;
    if (!qkv_metric_check(&metric, v->run, &err)
        || !qkv_metric_values(value, &metric, v->run, NULL, &err))
        return qkv_raise(L, &err);
    if (v->seq < 0)
        push_numbers(L, value, r->n_seqs);
    else
        push_numbers(L, value + v->seq, 1);
    return 1;
}

/* same(run, donor) -> list: of each sequence of run, how many of its first
 * positions hold the donor's values already. */
static int half_same(lua_State *L)
{
    const qkv_run_view *v = qkv_check_class(L, 1, QKV_RUN);
    const qkv_run_view *from = qkv_check_class(L, 2, QKV_RUN);
    const int64_t n = qkv_run_recipe(v->run)->n_seqs;
    const int64_t n_from = qkv_run_recipe(from->run)->n_seqs;
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = from->seq >= 0 ? from->seq : n_from == 1 ? 0 : i;
        lua_pushinteger(L, qkv_sweep_same(v->run, i, from->run, j));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static qkv_edit_axis read_axis(lua_State *L, const char *word)
{
    static const char *const words[] = {"layer", "pos", "head", "neuron",
                                        "query"};
    static const qkv_edit_axis axes[] = {QKV_EDIT_LAYER, QKV_EDIT_POS,
                                         QKV_EDIT_HEAD, QKV_EDIT_NEURON,
                                         QKV_EDIT_POS};
    for (int i = 0; word != NULL && i < 5; i++)
        if (strcmp(word, words[i]) == 0)
            return axes[i];
    luaL_error(L, "axis '%s' of a sweep: layer, pos, head or neuron was "
               "expected", word != NULL ? word : "?");
    return QKV_EDIT_LAYER;
}

static void read_axes(lua_State *L, qkv_sweep *s, int index)
{
    lua_getfield(L, index, "axes");
    luaL_checktype(L, -1, LUA_TTABLE);
    const int64_t n = (int64_t)lua_rawlen(L, -1);
    if (n < 1 || n > 4)
        luaL_error(L, "a sweep over %I axes: 1 to 4 was expected",
                   (LUAI_UACINT)n);
    for (int64_t i = 0; i < n; i++) {
        lua_rawgeti(L, -1, i + 1);
        s->axes[i] = read_axis(L, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    s->n_axes = (int)n;
    lua_pop(L, 1);
}

/* Field values: a tensor for each sequence, as f32 without gaps; the tensors
 * stay on the stack, in a table. */
static void read_values(lua_State *L, qkv_sweep *s, int index)
{
    const int64_t n = qkv_run_recipe(s->run)->n_seqs;
    if (lua_getfield(L, index, "values") == LUA_TNIL)
        return;
    lua_createtable(L, (int)n, 0);
    const int keep = lua_gettop(L);
    qkv_tensor **list = lua_newuserdatauv(L, (size_t)n * sizeof *list, 0);
    for (int64_t i = 0; i < n; i++) {
        qkv_error err;
        lua_rawgeti(L, keep - 1, i + 1);
        qkv_push_tensor(L, qkv_tensor_float(qkv_check_tensor(L, -1), &err),
                        &err);
        list[i] = qkv_check_tensor(L, -1);
        lua_rawseti(L, keep, i + 1);
        lua_pop(L, 1);
    }
    s->value = list;
}

static void read_same(lua_State *L, qkv_sweep *s, int index)
{
    const int64_t n = qkv_run_recipe(s->run)->n_seqs;
    if (lua_getfield(L, index, "same") == LUA_TNIL)
        return;
    int64_t *same = lua_newuserdatauv(L, (size_t)n * sizeof *same, 0);
    for (int64_t i = 0; i < n; i++) {
        lua_rawgeti(L, -2, i + 1);
        same[i] = lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    s->same = same;
}

/* sweep{run=, site=, axes=, block=, values=, same=, metric=} ->
 * tensor [seq, axes...], share that was done, list of the metric before */
static int half_sweep(lua_State *L)
{
    luaL_checkstack(L, 24, NULL);
    lua_settop(L, 1);
    lua_getfield(L, 1, "run");
    const qkv_run_view *v = qkv_check_class(L, 2, QKV_RUN);
    const qkv_recipe *r = qkv_run_recipe(v->run);
    qkv_sweep s = {.run = v->run};
    qkv_error err;
    int64_t layer, done, size[4];
    if (!qkv_site_find(&s.site, &layer, qkv_run_stack(v->run),
                       qkv_option_string(L, 1, "site", ""), &err))
        return qkv_raise(L, &err);
    s.block = qkv_option_integer(L, 1, "block", 1);
    read_axes(L, &s, 1);
    lua_getfield(L, 1, "metric");
    const qkv_metric metric = read_metric(L, 3, r->model);
    s.metric = &metric;
    read_values(L, &s, 1);
    read_same(L, &s, 1);
    double *before = lua_newuserdatauv(L, (size_t)r->n_seqs * sizeof *before,
                                       0);
    if (!qkv_sweep_sizes(size, &s, &err)
        || !qkv_metric_values(before, &metric, v->run, NULL, &err))
        return qkv_raise(L, &err);
    int64_t cells = r->n_seqs;
    for (int i = 0; i < s.n_axes; i++)
        cells *= size[i];
    qkv_push_tensor(L, qkv_sweep_run(&done, &s, before, &err), &err);
    if (done < cells)
        qkv_interrupt_clear();          /* it was answered */
    lua_pushnumber(L, (lua_Number)done / (lua_Number)cells);
    push_numbers(L, before, r->n_seqs);
    return 3;
}

/* ---- tables ---- */

static const luaL_Reg functions[] = {{"measure", half_measure},
                                     {"same", half_same},
                                     {"sweep", half_sweep},
                                     {NULL, NULL}};

void qkv_bind_sweep(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.half");
    luaL_newlib(L, functions);
    lua_setfield(L, -2, "sweep");
    lua_pop(L, 1);
}
