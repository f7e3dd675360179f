/*
 * run.c - running models and reading runs, in Lua
 */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "probes/lens.h"
#include "repl/bind/model_impl.h"
#include "tensor/reduce.h"

/* ---- checks ---- */

static void release_view(void *view)
{
    qkv_run_view *v = view;
    qkv_run_release(v->run);
    qkv_free(v);
}

int qkv_push_run(lua_State *L, qkv_run *r, int64_t seq, const qkv_error *err)
{
    if (r == NULL)
        return qkv_raise(L, err);
    qkv_error own;
    qkv_run_view *v = qkv_alloc(sizeof *v, &own);
    if (v == NULL) {
        qkv_run_release(r);
        return qkv_raise(L, &own);
    }
    *v = (qkv_run_view){.run = r, .seq = seq};
    qkv_push_owned(L, QKV_RUN, v, release_view);
    qkv_bind_remember(L);
    return 1;
}

static const qkv_run_view *check_view(lua_State *L, int index)
{
    return qkv_check_class(L, index, QKV_RUN);
}

qkv_run *qkv_check_run(lua_State *L, int index, int64_t *seq)
{
    const qkv_run_view *v = check_view(L, index);
    const int64_t n = qkv_run_recipe(v->run)->n_seqs;
    if (v->seq < 0 && n > 1)
        luaL_error(L, "this run is a batch of %I sequences: ask one of them, "
                   "r:seq(0) .. r:seq(%I)", (LUAI_UACINT)n,
                   (LUAI_UACINT)(n - 1));
    *seq = v->seq < 0 ? 0 : v->seq;
    return v->run;
}

/* The position at `index`, the last one when absent. */
static int64_t check_pos(lua_State *L, int index, const qkv_run *r,
                         int64_t seq)
{
    qkv_error err;
    int64_t pos = luaL_optinteger(L, index, -1);
    if (!qkv_index(&pos, qkv_run_recipe(r)->seqs[seq].n, "position", &err))
        qkv_raise(L, &err);
    return pos;
}

/* ---- running ---- */

/* start = {layer=, resid=tensor or list} */
static void read_start(lua_State *L, qkv_recipe *r, int index)
{
    static const char *const options[] = {"layer", "resid", NULL};
    const int top = lua_gettop(L);
    if (lua_getfield(L, index, "start") == LUA_TNIL) {
        lua_settop(L, top);
        return;
    }
    const int at = lua_gettop(L);
    qkv_error err;
    qkv_check_options(L, at, options);
    r->start_layer = qkv_option_integer(L, at, "layer", 0);
    r->start_resid = qkv_alloc_zero((size_t)r->n_seqs,
                                    sizeof *r->start_resid, &err);
    if (r->start_resid == NULL)
        qkv_raise(L, &err);
    const bool list = lua_getfield(L, at, "resid") == LUA_TTABLE;
    for (int64_t i = 0; i < r->n_seqs; i++) {
        if (list)
            lua_rawgeti(L, at + 1, i + 1);
        else
            lua_pushvalue(L, at + 1);
        if (qkv_test_class(L, -1, QKV_TENSOR) == NULL)
            luaL_error(L, "start: resid of sequence %I is a %s: a tensor "
                       "[pos, d_model] was expected", (LUAI_UACINT)i,
                       luaL_typename(L, -1));
        r->start_resid[i] = qkv_tensor_retain(qkv_check_tensor(L, -1));
        lua_pop(L, 1);
    }
    lua_settop(L, top);
}

QKV_DOC(model_run, "m:run(input [, opts]) -> r",
    "Run a text, a list of token ids, {text=, pair=}, {ids=, types=}, or a\n"
    "list of these (a batch; lengths may differ). Options: special (add what\n"
    "the tokenizer adds; true), names (what to keep: names, patterns), edits\n"
    "({{site=, layer=, head=, pos=, op=\"set\"|\"add\"|\"scale\"|\"zero\",\n"
    "value=}, ...}), hooks ({{site=, layer=, fn=function(t, at) end}, ...}),\n"
    "logits (\"last\", \"all\", false), start ({layer=, resid=}), stop_at\n"
    "(a layer, exclusive).\n"
    "> #m:run(\"one two\"):top(3) == 3");
static int l_model_run(lua_State *L)
{
    static const char *const options[] = {"special", "names", "edits", "hooks",
                                          "logits", "start", "stop_at", NULL};
    qkv_check_nargs(L, 3);
    qkv_model *m = qkv_check_model(L, 1);
    luaL_checkany(L, 2);
    qkv_check_options(L, 3, options);
    qkv_recipe *r = qkv_push_recipe(L, m);
    qkv_recipe_input(L, r, 2, qkv_option_boolean(L, 3, "special", true), 0);
    qkv_recipe_edits(L, r, 3);
    qkv_recipe_hooks(L, r, 3);
    read_start(L, r, 3);
    r->stop_at = qkv_option_integer(L, 3, "stop_at", r->stop_at);
    const qkv_logits_wanted logits = qkv_option_logits(L, 3);
    const char *const *names;
    const int64_t n = qkv_check_names(L, 3, &names);
    qkv_error err;
    qkv_run *run = qkv_run_new(r, names, n, logits, &err);
    return qkv_push_run(L, run, -1, &err);
}

/* ---- reading sites ---- */

/* Push a site of one sequence by name; layer -1: as the name says. */
static int push_site(lua_State *L, qkv_run *r, int64_t seq, const char *name,
                     bool has_layer, int64_t layer)
{
    qkv_error err;
    qkv_site site;
    int64_t named;
    const int64_t n = qkv_run_stack(r)->config.n_layers;
    if (!qkv_site_find(&site, &named, qkv_run_stack(r), name, &err))
        return qkv_raise(L, &err);
    if (has_layer && named >= 0)
        return luaL_error(L, "'%s' takes no layer", name);
    if (has_layer && !qkv_index(&layer, n, "layer", &err))
        return qkv_raise(L, &err);
    return qkv_push_tensor(L, qkv_run_site(r, seq, site,
                                           has_layer ? layer : named, &err),
                           &err);
}

/* r(name [, layer]) */
static int run_call(lua_State *L)
{
    int64_t seq;
    qkv_check_nargs(L, 3);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    const bool has_layer = !lua_isnoneornil(L, 3);
    return push_site(L, r, seq, luaL_checkstring(L, 2), has_layer,
                     has_layer ? luaL_checkinteger(L, 3) : 0);
}

QKV_DOC(run_tokens, "r.tokens -> tensor [pos]",
    "The token ids, i32.\n> m:run({1, 2, 3}).tokens:size(\"pos\") == 3");
static int push_tokens(lua_State *L, const qkv_run *r, int64_t seq)
{
    static const char *const axes[] = {"pos"};
    const qkv_sequence *s = &qkv_run_recipe(r)->seqs[seq];
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_I32, 1, &s->n, axes, &err);
    if (t != NULL)
        memcpy(qkv_tensor_data(t), s->ids, (size_t)s->n * sizeof *s->ids);
    return qkv_push_tensor(L, t, &err);
}

QKV_DOC(run_pieces, "r.pieces -> list", "The text of each token.");
static int push_pieces(lua_State *L, const qkv_run *r, int64_t seq)
{
    const qkv_recipe *rc = qkv_run_recipe(r);
    const qkv_sequence *s = &rc->seqs[seq];
    lua_createtable(L, (int)s->n, 0);
    for (int64_t i = 0; i < s->n; i++) {
        qkv_push_piece(L, rc->model, s->ids[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

QKV_DOC(run_logits, "r.logits -> tensor [pos, vocab]",
    "The logits of every position (r:logit, r:top and their kin compute only\n"
    "what they show).\n"
    "> m:run({1, 2, 3}).logits:size(\"vocab\") == m.config.d_vocab");
QKV_DOC(run_model, "r.model -> m", "The model that was run.\n"
    "> m:run({1}).model == m");

static int run_index(lua_State *L)
{
    const qkv_run_view *v = check_view(L, 1);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    int64_t seq;
    if (strcmp(key, "model") == 0)
        return qkv_push_model(L, qkv_run_recipe(v->run)->model), 1;
    if (luaL_getmetafield(L, 1, "methods") == LUA_TTABLE) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, -2) != LUA_TNIL)
            return 1;
    }
    lua_settop(L, 2);
    const bool field = strcmp(key, "tokens") == 0 || strcmp(key, "pieces") == 0;
    qkv_site site;
    int64_t layer;
    qkv_error err;
    if (!field && !qkv_site_find(&site, &layer, qkv_run_stack(v->run), key,
                                 &err)) {
        if (strchr(key, '.') != NULL || strstr(key, "hook") != NULL)
            return qkv_raise(L, &err);
        return qkv_bind_index(L);
    }
    qkv_run *r = qkv_check_run(L, 1, &seq);
    if (strcmp(key, "tokens") == 0)
        return push_tokens(L, r, seq);
    if (strcmp(key, "pieces") == 0)
        return push_pieces(L, r, seq);
    return push_site(L, r, seq, key, false, 0);
}

/* ---- questions ---- */

QKV_DOC(run_seq, "r:seq(i) -> r",
    "One sequence of a batch, from 0. #r tells how many there are.\n"
    "> #m:run({{1, 2}, {3}}):seq(1).pieces == 1");
static int l_run_seq(lua_State *L)
{
    qkv_check_nargs(L, 2);
    const qkv_run_view *v = check_view(L, 1);
    qkv_error err;
    int64_t i = luaL_checkinteger(L, 2);
    if (!qkv_index(&i, qkv_run_recipe(v->run)->n_seqs, "sequence", &err))
        return qkv_raise(L, &err);
    return qkv_push_run(L, qkv_run_retain(v->run), i, &err);
}

QKV_DOC(run_piece, "r:piece(pos) -> text", "The text of one token.");
static int l_run_piece(lua_State *L)
{
    int64_t seq;
    qkv_check_nargs(L, 2);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    luaL_checkinteger(L, 2);
    const int64_t pos = check_pos(L, 2, r, seq);
    qkv_push_piece(L, qkv_run_recipe(r)->model,
                   qkv_run_recipe(r)->seqs[seq].ids[pos]);
    return 1;
}

QKV_DOC(run_pos, "r:pos(piece [, nth]) -> pos",
    "Where a token stands: by its text or id, the nth time (from 0;\n"
    "negative: from the last).\n"
    "> m:run({5, 6, 5}):pos(5, -1) == 2");
static int l_run_pos(lua_State *L)
{
    int64_t seq, found[2] = {0, 0};
    qkv_check_nargs(L, 3);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    const qkv_recipe *rc = qkv_run_recipe(r);
    const int32_t id = qkv_check_token(L, 2, rc->model);
    int64_t nth = luaL_optinteger(L, 3, 0);
    for (int64_t i = 0; i < rc->seqs[seq].n; i++)
        found[0] += rc->seqs[seq].ids[i] == id;
    if (found[0] == 0 || nth >= found[0] || nth < -found[0])
        return luaL_error(L, "token %d stands %I times in this run, asked for "
                          "number %I", (int)id, (LUAI_UACINT)found[0],
                          (LUAI_UACINT)nth);
    nth += nth < 0 ? found[0] : 0;
    for (int64_t i = 0; i < rc->seqs[seq].n; i++)
        if (rc->seqs[seq].ids[i] == id && found[1]++ == nth)
            return lua_pushinteger(L, i), 1;
    return 0;
}

QKV_DOC(run_names, "r:names() -> list",
    "The names of the activations that were kept; others are computed when\n"
    "they are read.");
static int l_run_names(lua_State *L)
{
    qkv_check_nargs(L, 1);
    const qkv_run_view *v = check_view(L, 1);
    const qkv_stack *s = qkv_run_stack(v->run);
    const size_t slots = (size_t)(s->config.n_layers * QKV_N_SITES);
    uint8_t *mark = lua_newuserdatauv(L, slots, 0);
    memset(mark, 0, slots);
    qkv_run_kept(v->run, mark);
    qkv_push_site_names(L, s, mark);
    return 1;
}

/* The logits of one position as a tensor on the stack, and their log-sum. */
static const float *push_logits(lua_State *L, qkv_run *r, int64_t seq,
                                int64_t pos, double *whole)
{
    qkv_error err;
    qkv_push_tensor(L, qkv_run_logits(r, seq, pos, &err), &err);
    const float *x = qkv_tensor_data(qkv_check_tensor(L, -1));
    *whole = qkv_log_sum_exp(x, qkv_run_stack(r)->config.d_vocab);
    return x;
}

QKV_DOC(run_top, "r:top(k [, pos]) -> list",
    "The k likeliest next tokens at a position (the last): records\n"
    "{piece=, id=, logit=, prob=}.\n"
    "> m:run({1, 2}):top(2)[1].prob >= m:run({1, 2}):top(2)[2].prob");
static int l_run_top(lua_State *L)
{
    int64_t seq;
    double whole;
    qkv_check_nargs(L, 3);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    const int64_t k = luaL_optinteger(L, 2, 10);
    const int64_t pos = check_pos(L, 3, r, seq);
    const float *x = push_logits(L, r, seq, pos, &whole);
    const qkv_tensor *logits = qkv_check_tensor(L, -1);
    void **best = qkv_push_empty(L, QKV_TENSOR);
    void **where = qkv_push_empty(L, QKV_TENSOR);
    qkv_error err;
    qkv_tensor *indices = NULL;
    *best = qkv_topk(logits, k, 0, &indices, &err);
    if (*best == NULL)
        return qkv_raise(L, &err);
    *where = indices;
    const int64_t *ids = qkv_tensor_data(indices);
    lua_createtable(L, (int)k, 0);
    for (int64_t i = 0; i < k; i++) {
        lua_createtable(L, 0, 4);
        qkv_push_piece(L, qkv_run_recipe(r)->model, (int32_t)ids[i]);
        lua_setfield(L, -2, "piece");
        lua_pushinteger(L, ids[i]);
        lua_setfield(L, -2, "id");
        lua_pushnumber(L, (lua_Number)x[ids[i]]);
        lua_setfield(L, -2, "logit");
        lua_pushnumber(L, exp((double)x[ids[i]] - whole));
        lua_setfield(L, -2, "prob");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* The logit of the token at 2 at the position at 3, and the log-sum. */
static double one_logit(lua_State *L, double *whole)
{
    int64_t seq;
    qkv_check_nargs(L, 3);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    const int32_t id = qkv_check_token(L, 2, qkv_run_recipe(r)->model);
    const int64_t pos = check_pos(L, 3, r, seq);
    return (double)push_logits(L, r, seq, pos, whole)[id];
}

QKV_DOC(run_logit, "r:logit(token [, pos]) -> number",
    "The logit of a next token (a text that is one token, or an id) at a\n"
    "position (the last).");
static int l_run_logit(lua_State *L)
{
    double whole;
    lua_pushnumber(L, one_logit(L, &whole));
    return 1;
}

QKV_DOC(run_logprob, "r:logprob(token [, pos]) -> nats",
    "The natural logarithm of a next token's probability.\n"
    "> m:run({1}):logprob(3) < 0");
static int l_run_logprob(lua_State *L)
{
    double whole;
    const double logit = one_logit(L, &whole);
    lua_pushnumber(L, logit - whole);
    return 1;
}

QKV_DOC(run_prob, "r:prob(token [, pos]) -> probability",
    "The probability of a next token.\n> m:run({1}):prob(3) < 1");
static int l_run_prob(lua_State *L)
{
    double whole;
    const double logit = one_logit(L, &whole);
    lua_pushnumber(L, exp(logit - whole));
    return 1;
}

QKV_DOC(run_surprisal, "r:surprisal() -> tensor [pos]",
    "-log2 of each token's probability given those before it, in bits; the\n"
    "first is NaN.\n"
    "> m:run({1, 2, 3}):surprisal():size(\"pos\") == 3");
static int l_run_surprisal(lua_State *L)
{
    int64_t seq;
    qkv_error err;
    qkv_check_nargs(L, 1);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    return qkv_push_tensor(L, qkv_run_surprisal(r, seq, &err), &err);
}

QKV_DOC(run_lens, "r:lens([k]) -> list",
    "The logit lens: the k (1) likeliest next tokens of each layer's residual\n"
    "read through the final norm and the unembedding. l[layer + 1][pos + 1]\n"
    "is a list of {piece=, id=, prob=}; the last layer's are the model's own.\n"
    "> #m:run({1, 2}):lens(2) == m.config.n_layers");
static int l_run_lens(lua_State *L)
{
    int64_t seq;
    qkv_error err;
    qkv_tensor *ids, *p;
    qkv_check_nargs(L, 2);
    qkv_run *r = qkv_check_run(L, 1, &seq);
    const int64_t k = luaL_optinteger(L, 2, 1);
    void **a = qkv_push_empty(L, QKV_TENSOR);
    void **b = qkv_push_empty(L, QKV_TENSOR);
    if (!qkv_lens(&ids, &p, r, seq, k, &err))
        return qkv_raise(L, &err);
    *a = ids;
    *b = p;
    const int32_t *id = qkv_tensor_data(ids);
    const float *prob = qkv_tensor_data(p);
    luaL_checkstack(L, 8, NULL);
    lua_createtable(L, (int)ids->shape[0], 0);
    for (int64_t l = 0; l < ids->shape[0]; l++) {
        lua_createtable(L, (int)ids->shape[1], 0);
        for (int64_t pos = 0; pos < ids->shape[1]; pos++) {
            lua_createtable(L, (int)k, 0);
            for (int64_t i = 0; i < k; i++, id++, prob++) {
                lua_createtable(L, 0, 3);
                qkv_push_piece(L, qkv_run_recipe(r)->model, *id);
                lua_setfield(L, -2, "piece");
                lua_pushinteger(L, *id);
                lua_setfield(L, -2, "id");
                lua_pushnumber(L, (lua_Number)*prob);
                lua_setfield(L, -2, "prob");
                lua_rawseti(L, -2, i + 1);
            }
            lua_rawseti(L, -2, pos + 1);
        }
        lua_rawseti(L, -2, l + 1);
    }
    return 1;
}

/* ---- metamethods ---- */

static int run_len(lua_State *L)
{
    const qkv_run_view *v = check_view(L, 1);
    lua_pushinteger(L, v->seq < 0 ? qkv_run_recipe(v->run)->n_seqs : 1);
    return 1;
}

/* "run of 'MODEL', 14 tokens: When| Mary| and ..." */
static int run_tostring(lua_State *L)
{
    const qkv_run_view *v = qkv_test_class(L, 1, QKV_RUN);
    if (v == NULL) {
        lua_pushliteral(L, "run (closed)");
        return 1;
    }
    const qkv_recipe *rc = qkv_run_recipe(v->run);
    if (v->seq < 0 && rc->n_seqs > 1) {
        lua_pushfstring(L, "run  %s  batch of %I sequences", rc->model->name,
                        (LUAI_UACINT)rc->n_seqs);
        return 1;
    }
    const qkv_sequence *s = &rc->seqs[v->seq < 0 ? 0 : v->seq];
    const int64_t shown = s->n < 16 ? s->n : 16;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int64_t i = 0; i < shown; i++) {
        luaL_addstring(&b, i > 0 ? "|" : "");
        qkv_push_piece(L, rc->model, s->ids[i]);
        luaL_addvalue(&b);
    }
    if (shown < s->n)
        luaL_addstring(&b, "| ...");
    luaL_pushresult(&b);
    const char *text = luaL_gsub(L, lua_tostring(L, -1), "\n", "\\n");
    lua_pushfstring(L, "run  %s  %I token%s  %s", rc->model->name,
                    (LUAI_UACINT)s->n, s->n == 1 ? "" : "s", text);
    return 1;
}

/* Names of sites, inside r"..." and r["..."]. */
static int run_complete(lua_State *L)
{
    const qkv_run_view *v = qkv_test_class(L, 1, QKV_RUN);
    if (v == NULL)
        return 0;
    qkv_push_site_words(L, qkv_run_stack(v->run));
    return 1;
}

static int run_gc(lua_State *L)
{
    void **slot = luaL_checkudata(L, 1, QKV_RUN);
    if (*slot != NULL)
        release_view(*slot);
    *slot = NULL;
    return 0;
}

/* ---- tables ---- */

static const qkv_bind_row model_methods[] = {
    QKV_ROW("run", model_run),
    QKV_ROW_END
};

static const qkv_bind_row methods[] = {
    QKV_FIELD("tokens", run_tokens),
    QKV_FIELD("pieces", run_pieces),
    QKV_FIELD("logits", run_logits),
    QKV_FIELD("model", run_model),
    QKV_ROW("seq", run_seq),
    QKV_ROW("piece", run_piece),
    QKV_ROW("pos", run_pos),
    QKV_ROW("names", run_names),
    QKV_ROW("top", run_top),
    QKV_ROW("logit", run_logit),
    QKV_ROW("logprob", run_logprob),
    QKV_ROW("prob", run_prob),
    QKV_ROW("surprisal", run_surprisal),
    QKV_ROW("lens", run_lens),
    QKV_ROW_END
};

static const luaL_Reg metamethods[] = {
    {"__call", run_call},
    {"__index", run_index},
    {"__len", run_len},
    {"__tostring", run_tostring},
    {"__complete", run_complete},
    {"__gc", run_gc},
    {"__close", run_gc},
    {NULL, NULL}
};

void qkv_bind_run(lua_State *L)
{
    qkv_bind_class(L, "run", methods, metamethods);
    qkv_bind_class(L, "run", qkv_fork_methods, NULL);
    qkv_bind_class(L, "model", model_methods, NULL);
    qkv_bind_class(L, "model", qkv_generate_methods, NULL);
}
