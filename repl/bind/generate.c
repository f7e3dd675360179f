/*
 * generate.c - m:generate in Lua: tokens, stop strings, streaming
 */
#include "config.h"

#include <string.h>

#include "model/generate.h"
#include "repl/bind/model_impl.h"

/* What a generation holds, in a userdata that frees it. */
typedef struct generation {
    qkv_sampler sampler;
    qkv_run *run;
    qkv_text text;              /* new text so far */
    size_t sent;                /* of it, streamed */
} generation;

static int generation_gc(lua_State *L)
{
    generation *g = lua_touserdata(L, 1);
    qkv_sampler_reset(&g->sampler);
    qkv_run_release(g->run);
    g->run = NULL;
    qkv_text_free(&g->text);
    return 0;
}

/* ---- stop strings: option "stop", a text or a list ---- */

/* Push the list of stop strings (empty when there are none). */
static void push_stops(lua_State *L, int options)
{
    const int type = lua_getfield(L, options, "stop");
    if (type == LUA_TTABLE)
        return;
    lua_newtable(L);
    lua_insert(L, -2);
    if (type == LUA_TSTRING)
        lua_rawseti(L, -2, 1);
    else
        lua_pop(L, 1);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        luaL_error(L, "option 'stop': a text or a list of texts expected");
}

/* Where the first stop string begins in the text, or its length. *hold gets
 * how many bytes at the end might still become one. */
static size_t find_stop(lua_State *L, int stops, const qkv_text *t,
                        size_t from, size_t *hold)
{
    size_t first = t->bytes;
    *hold = 0;
    for (lua_Integer i = 1; lua_rawgeti(L, stops, i) == LUA_TSTRING; i++) {
        size_t n;
        const char *s = lua_tolstring(L, -1, &n);
        for (size_t at = from; n > 0 && at < t->bytes; at++) {
            const size_t left = t->bytes - at, m = left < n ? left : n;
            if (memcmp(t->data + at, s, m) != 0)
                continue;
            if (m == n && at < first)
                first = at;
            else if (m < n && left > *hold)
                *hold = left;
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return first;
}

/* Bytes at the end that are the beginning of a UTF-8 character. */
static size_t cut_character(const qkv_text *t)
{
    for (size_t n = 1; n <= 3 && n <= t->bytes; n++) {
        const unsigned char c = (unsigned char)t->data[t->bytes - n];
        if (c >= 0xc0)
            return (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) > n ? n : 0;
        if (c < 0x80)
            return 0;
    }
    return 0;
}

/* Call stream(piece) with the bytes up to `upto` that it has not seen. */
static void stream(lua_State *L, generation *g, int options, size_t upto)
{
    if (upto <= g->sent || lua_getfield(L, options, "stream") == LUA_TNIL) {
        lua_settop(L, lua_gettop(L) - (upto > g->sent));
        return;
    }
    lua_pushlstring(L, g->text.data + g->sent, upto - g->sent);
    g->sent = upto;
    lua_call(L, 1, 0);
}

/* ---- the method ---- */

typedef struct job {
    int options, stops;         /* stack slots */
    const qkv_tokenizer *tokenizer;     /* NULL: ids only */
    int64_t n;
    int32_t eos;
    bool whole;                 /* names or hooks: run the last row, too */
} job;

/* Add a token's text; true when a stop string ended it. */
static bool add_text(lua_State *L, generation *g, const job *j, int32_t id)
{
    qkv_error err;
    size_t hold = 0;
    if (j->tokenizer == NULL)
        return false;
    if (!qkv_tokenizer_decode(&g->text, j->tokenizer, &id, 1, &err))
        qkv_raise(L, &err);
    const size_t end = find_stop(L, j->stops, &g->text, g->sent, &hold);
    if (end < g->text.bytes) {
        g->text.bytes = end;
        stream(L, g, j->options, end);
        return true;
    }
    const size_t half = cut_character(&g->text);
    stream(L, g, j->options, g->text.bytes - (hold > half ? hold : half));
    return false;
}

static void go_on(lua_State *L, generation *g, const job *j)
{
    qkv_error err;
    for (int64_t i = 0; i < j->n; i++) {
        int32_t id;
        if (!qkv_sampler_pick(&id, &g->sampler, qkv_run_last(g->run), &err))
            qkv_raise(L, &err);
        const bool over = id == j->eos || add_text(L, g, j, id);
        if (!qkv_run_append(g->run, id, j->whole || (!over && i + 1 < j->n),
                            &err))
            qkv_raise(L, &err);
        if (over)
            break;
    }
    stream(L, g, j->options, g->text.bytes);
}

QKV_DOC(model_generate, "m:generate(prompt [, opts]) -> text, ids, r",
    "Go on from a prompt (a text or ids): the new text, its token ids (the\n"
    "end token included if it came), and the run over all of it. Options: n\n"
    "(50 tokens at most), temperature (0: greedy), top_k, top_p, seed, stop\n"
    "(texts), stream (function(piece)), stop_at_eos (true; false goes on to n\n"
    "tokens), special, edits, hooks, names as in m:run; positions of edits\n"
    "count from the prompt's end when negative.\n"
    "> #select(2, m:generate({1, 2}, {n = 3, stop_at_eos = false})) == 3");
static int l_model_generate(lua_State *L)
{
    static const char *const options[] = {
        "n", "temperature", "top_k", "top_p", "seed", "stop", "stream",
        "stop_at_eos", "special", "edits", "hooks", "names", NULL};
    qkv_check_nargs(L, 3);
    qkv_model *m = qkv_check_model(L, 1);
    luaL_checkany(L, 2);
    qkv_check_options(L, 3, options);
    qkv_error err;
    job j = {.options = 3, .n = qkv_option_integer(L, 3, "n", 50), .eos = -1};
    if (j.n < 0 || j.n > 1 << 24)
        return luaL_error(L, "n = %I: 0 or more was expected",
                          (LUAI_UACINT)j.n);
    j.tokenizer = qkv_model_tokenizer(m, &err);
    if (qkv_option_boolean(L, 3, "stop_at_eos", true) && j.tokenizer != NULL)
        j.eos = qkv_tokenizer_eos(j.tokenizer);
    lua_settop(L, 3);
    push_stops(L, 3);
    j.stops = 4;
    generation *g = qkv_push_block(L, sizeof *g, "qkv.generation",
                                   generation_gc);
    qkv_recipe *r = qkv_push_recipe(L, m);
    qkv_recipe_input(L, r, 2, qkv_option_boolean(L, 3, "special", true),
                     j.n > 0 ? j.n : 1);
    qkv_recipe_edits(L, r, 3);
    qkv_recipe_hooks(L, r, 3);
    const char *const *names;
    const int64_t n_names = qkv_check_names(L, 3, &names);
    j.whole = n_names > 0 || r->n_hooks > 0;
    if (!qkv_sampler_init(&g->sampler, m->stacks[0].config.d_vocab,
                          qkv_option_number(L, 3, "temperature", 0),
                          qkv_option_integer(L, 3, "top_k", 0),
                          qkv_option_number(L, 3, "top_p", 1),
                          (uint64_t)qkv_option_integer(L, 3, "seed", 0), &err))
        return qkv_raise(L, &err);
    g->run = qkv_run_new(r, names, n_names, QKV_LOGITS_LAST, &err);
    if (g->run == NULL)
        return qkv_raise(L, &err);
    go_on(L, g, &j);
    lua_pushlstring(L, g->text.data != NULL ? g->text.data : "",
                    g->text.bytes);
    const qkv_sequence *s = &qkv_run_recipe(g->run)->seqs[0];
    lua_createtable(L, (int)(s->n - s->n_prompt), 0);
    for (int64_t i = s->n_prompt; i < s->n; i++) {
        lua_pushinteger(L, s->ids[i]);
        lua_rawseti(L, -2, i - s->n_prompt + 1);
    }
    qkv_run *run = g->run;
    g->run = NULL;
    qkv_push_run(L, run, -1, &err);
    return 3;
}

const qkv_bind_row qkv_generate_methods[] = {
    QKV_ROW("generate", model_generate),
    QKV_ROW_END
};
