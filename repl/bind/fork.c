/*
 * fork.c - runs that share with another what cannot differ, in Lua
 */
#include "config.h"

#include "base/alloc.h"
#include "repl/bind/model_impl.h"

/* ---- reading a fork ---- */

/* Sequences [i, i + n) of the recipe: those of the parent from `of` on, with
 * from, tokens of the table at `index`. */
static void read_tokens(lua_State *L, qkv_recipe *r, int64_t i, int64_t of,
                        int64_t n, int index)
{
    const int top = lua_gettop(L);
    const qkv_recipe *p = qkv_run_recipe(r->parent);
    const bool some = lua_getfield(L, index, "tokens") != LUA_TNIL;
    const bool at = lua_getfield(L, index, "from") != LUA_TNIL;
    int64_t from = at ? luaL_checkinteger(L, -1) : 0;
    const int32_t *ids = NULL;
    int64_t n_ids = 0;
    if (at && !some)
        luaL_error(L, "fork: from = %I needs tokens = to go on with",
                   (LUAI_UACINT)from);
    if (some)
        ids = qkv_check_tokens(L, top + 1, p->model, &n_ids);
    for (int64_t k = 0; k < n; k++) {
        qkv_error err;
        int64_t start = some ? p->seqs[of + k].n : -1;
        if (at) {
            start = from + (from < 0 ? p->seqs[of + k].n : 0);
            if (start < 0)
                luaL_error(L, "fork: from = %I, the run has %I positions",
                           (LUAI_UACINT)from,
                           (LUAI_UACINT)p->seqs[of + k].n);
        }
        if (!qkv_recipe_fork(r, i + k, of + k, start, ids, n_ids, &err))
            qkv_raise(L, &err);
    }
    lua_settop(L, top);
}

/* Edits of the table at `index`, on sequences [i, i + n) alone. */
static void read_edits(lua_State *L, qkv_recipe *r, int64_t i, int64_t n,
                       int index)
{
    const int64_t before = r->n_edits;
    qkv_recipe_edits(L, r, index);
    for (int64_t e = before; e < r->n_edits; e++) {
        qkv_selector *seqs = &r->edits[e].select[QKV_EDIT_SEQ];
        qkv_error err;
        if (seqs->all) {
            seqs->index = qkv_alloc((size_t)n * sizeof *seqs->index, &err);
            if (seqs->index == NULL)
                qkv_raise(L, &err);
            *seqs = (qkv_selector){.n = n, .one = n == 1,
                                   .index = seqs->index};
            for (int64_t k = 0; k < n; k++)
                seqs->index[k] = i + k;
            continue;
        }
        for (int64_t k = 0; k < seqs->n; k++) {
            if (!qkv_index(&seqs->index[k], n, "edit: seq", &err))
                qkv_raise(L, &err);
            seqs->index[k] += i;
        }
    }
}

/* The recipe (pushed) for n_forks forks of the run at 1, and the parent's
 * sequences that each is of: [*of, *of + *n). */
static qkv_recipe *push_forks(lua_State *L, int64_t n_forks, int64_t *of,
                              int64_t *n)
{
    const qkv_run_view *v = qkv_check_class(L, 1, QKV_RUN);
    qkv_recipe *r = qkv_push_recipe(L, qkv_run_recipe(v->run)->model);
    qkv_error err;
    qkv_recipe_reset(r);
    if (!qkv_recipe_fork_of(r, v->run, &err))
        qkv_raise(L, &err);
    *of = v->seq < 0 ? 0 : v->seq;
    *n = v->seq < 0 ? qkv_run_recipe(v->run)->n_seqs : 1;
    r->seqs = qkv_alloc_zero((size_t)(n_forks * *n), sizeof *r->seqs, &err);
    if (r->seqs == NULL)
        qkv_raise(L, &err);
    r->n_seqs = n_forks * *n;
    return r;
}

/* Run it, with hooks, names, logits of the table at `index`. */
static int run_forks(lua_State *L, qkv_recipe *r, int index)
{
    const char *const *names;
    qkv_recipe_hooks(L, r, index);
    const qkv_logits_wanted logits = qkv_option_logits(L, index);
    const int64_t n = qkv_check_names(L, index, &names);
    qkv_error err;
    qkv_run *run = qkv_run_new(r, names, n, logits, &err);
    return qkv_push_run(L, run, -1, &err);
}

/* ---- functions ---- */

QKV_DOC(run_fork, "r:fork{edits=, hooks=, from=, tokens=} -> r",
    "The run as it would be with more edits or hooks, or with other tokens (a\n"
    "text, ids) from a position on (the end; tokens = {} cuts it there). What\n"
    "cannot differ is shared with r and not computed again; r's own edits\n"
    "stay. Also names, logits as in m:run. Forks of forks are fine.\n"
    "> m:run({1, 2, 3}):fork{edits = {{site = \"z\", layer = 1, op = \"zero\"}"
    "}}(\"z\", 1):sum() == 0\n"
    "> #m:run({1, 2, 3}):fork{from = 1, tokens = {5, 6, 7}}.pieces == 4");
static int l_run_fork(lua_State *L)
{
    static const char *const options[] = {"edits", "hooks", "from", "tokens",
                                          "names", "logits", NULL};
    int64_t of, n;
    qkv_check_nargs(L, 2);
    qkv_check_options(L, 2, options);
    qkv_recipe *r = push_forks(L, 1, &of, &n);
    read_tokens(L, r, 0, of, n, 2);
    read_edits(L, r, 0, n, 2);
    return run_forks(L, r, 2);
}

QKV_DOC(run_forks, "r:forks(list [, opts]) -> r",
    "Many forks as one batch, computed together: list has a table {edits=,\n"
    "from=, tokens=} for each (help \"run.fork\"); options hooks, names,\n"
    "logits are for all. f:seq(i) is fork i, from 0; of a batch of n\n"
    "sequences, each fork is n of them.\n"
    "> #m:run({1, 2}):forks{{}, {tokens = {3}}, {tokens = {4, 5}}} == 3");
static int l_run_forks(lua_State *L)
{
    static const char *const each[] = {"edits", "from", "tokens", NULL};
    static const char *const options[] = {"hooks", "names", "logits", NULL};
    int64_t of, n;
    qkv_check_nargs(L, 3);
    luaL_checktype(L, 2, LUA_TTABLE);
    qkv_check_options(L, 3, options);
    const int64_t n_forks = (int64_t)lua_rawlen(L, 2);
    if (n_forks < 1)
        return luaL_error(L, "forks: a list of tables {edits=, from=, tokens=}"
                          " was expected, this one is empty");
    qkv_recipe *r = push_forks(L, n_forks, &of, &n);
    for (int64_t i = 0; i < n_forks; i++) {
        lua_rawgeti(L, 2, i + 1);
        const int at = lua_gettop(L);
        qkv_check_options(L, at, each);
        read_tokens(L, r, i * n, of, n, at);
        read_edits(L, r, i * n, n, at);
        lua_pop(L, 1);
    }
    return run_forks(L, r, 3);
}

const qkv_bind_row qkv_fork_methods[] = {
    QKV_ROW("fork", run_fork),
    QKV_ROW("forks", run_forks),
    QKV_ROW_END
};
