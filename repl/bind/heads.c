/*
 * heads.c - qkv.heads: what the attention heads of a model do, in Lua
 *
 * A Lua table of tensors, as the methods in repl/lua/heads.lua know it:
 * {model=, seed=, bos=, length=, prefix_length=, texts=, <score>=, ...,
 * sd={<score>=}, n={<score>=}}.
 */
#include "config.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "probes/heads.h"
#include "repl/bind/model_impl.h"

#define QKV_HEADS "qkv.heads"

/* What a score is read from. Random tokens also stand for texts when none are
 * given. */
typedef enum source { TEXTS, TWICE, FOUR_TIMES, N_SOURCES } source;

/* ---- the scores: field, source, place, share, document ---- */
#define HEAD_SCORES(SCORE) \
    SCORE(induction, TWICE, FOLLOWING, PER_QUERY, \
        "TransformerLens's induction stripe: on random tokens A twice, the\n" \
        "attention from a token of the second A to the one after its\n" \
        "first occurrence, p(q, q - (|A| - 1)), mean over the second A:\n" \
        "0 to 1.") \
    SCORE(prefix_matching, FOUR_TIMES, FOLLOWING, PER_ENTRY, \
        "Olsson et al. 2022: on 25 random tokens four times, the mean of\n" \
        "all entries of the pattern from a token to those that followed\n" \
        "its earlier occurrences. A query has up to three such keys, so a\n" \
        "perfect head reaches 0.5.") \
    SCORE(previous, TEXTS, PREVIOUS, PER_QUERY, \
        "Attention to the token before.") \
    SCORE(first, TEXTS, FIRST, PER_QUERY, \
        "Attention to position 0: the model's BOS, or what stands there.") \
    SCORE(self, TEXTS, SELF, PER_QUERY, \
        "Attention of a token to itself.") \
    SCORE(duplicate, TEXTS, DUPLICATE, PER_QUERY, \
        "Attention to earlier occurrences of the query's token, mean over\n" \
        "the queries that have one; nan where no text repeats a token.") \
    SCORE(following, TEXTS, FOLLOWING, PER_QUERY, \
        "Attention to the tokens that followed earlier occurrences of the\n" \
        "query's token: induction in the texts; the same as induction\n" \
        "when there are none.") \
    SCORE(entropy, TEXTS, ENTROPY, PER_QUERY, \
        "Entropy of the pattern's rows, in bits.") \
    SCORE(distance, TEXTS, DISTANCE, PER_QUERY, \
        "Mean distance between query and key, in tokens, weighted by the\n" \
        "attention. Attention to position 0 counts as far.")

static const struct {
    const char *name;
    source from;
    qkv_head_place place;
    qkv_head_share share;
} scores[] = {
#define SCORE(name, from, place, share, doc) \
    {#name, from, QKV_HEAD_##place, QKV_HEAD_##share},
    HEAD_SCORES(SCORE)
#undef SCORE
};
enum { N_SCORES = sizeof scores / sizeof scores[0] };

/* ---- check helpers ---- */

static int heads_gc(lua_State *L)
{
    qkv_heads_free(lua_touserdata(L, 1));
    return 0;
}

/* Option bos: true (the model's, if it has one), false, or an id; -1: none. */
static int32_t read_bos(lua_State *L, int index, qkv_model *m)
{
    qkv_error err;
    const int type = lua_getfield(L, index, "bos");
    const qkv_tokenizer *t = qkv_model_tokenizer(m, &err);
    int32_t bos = t != NULL ? qkv_tokenizer_bos(t) : -1;
    if (type == LUA_TNUMBER)
        bos = qkv_check_token(L, lua_gettop(L), m);
    else if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))
        bos = -1;
    else if (type == LUA_TBOOLEAN && bos < 0)
        luaL_error(L, "bos = true: %s has no token that begins a text; give "
                   "its id, or false", m->name);
    else if (type != LUA_TNIL && type != LUA_TBOOLEAN)
        luaL_error(L, "option 'bos': true, false or a token id expected, got "
                   "a %s", luaL_typename(L, -1));
    lua_pop(L, 1);
    return bos;
}

/* Option measure, for what TransformerLens's detector scores, too. */
static qkv_head_share read_measure(lua_State *L, int index)
{
    static const char *const words[] = {"query", "entry", "mul", "abs"};
    const char *word = qkv_option_string(L, index, "measure", words[0]);
    for (int i = 0; i < 4; i++)
        if (strcmp(word, words[i]) == 0)
            return (qkv_head_share)i;
    luaL_error(L, "option 'measure': query, entry, mul or abs expected, got "
               "'%s'", word);
    return QKV_HEAD_PER_QUERY;
}

/* An option that is at least 1. */
static int64_t read_count(lua_State *L, int index, const char *name,
                          int64_t otherwise, int64_t most)
{
    const lua_Integer n = qkv_option_integer(L, index, name, otherwise);
    if (n < 1 || n > most)
        luaL_error(L, "%s = %I: 1 to %I was expected", name, (LUAI_UACINT)n,
                   (LUAI_UACINT)most);
    return n;
}

/* ---- what is run ---- */

typedef struct request {
    qkv_recipe *recipe;         /* holds the sequences, source by source */
    int64_t from[N_SOURCES], to[N_SOURCES];
    int64_t length, prefix_length;
    int32_t bos;
    lua_Integer seed;
    qkv_head_share measure;
} request;

/* As many random tokens as are usual, or as the model's context can take. */
static int64_t fitting(const qkv_model *m, int64_t usual, int times,
                       int32_t bos)
{
    const int64_t room = (m->stacks[0].config.n_ctx - (bos >= 0)) / times;
    return room < usual ? room : usual;
}

/* Append n sequences of random tokens `times` times. */
static void add_repeats(lua_State *L, request *r, source which, int64_t n,
                        int64_t length, int times, qkv_random *random)
{
    qkv_error err;
    qkv_recipe *rc = r->recipe;
    qkv_sequence *seqs = qkv_realloc(rc->seqs, (size_t)(rc->n_seqs + n)
                                     * sizeof *seqs, &err);
    if (seqs == NULL)
        qkv_raise(L, &err);
    rc->seqs = seqs;
    memset(seqs + rc->n_seqs, 0, (size_t)n * sizeof *seqs);
    r->from[which] = rc->n_seqs;
    r->to[which] = rc->n_seqs += n;
    if (!qkv_heads_repeat(seqs + r->from[which], n, rc->model, r->bos, length,
                          times, random, &err))
        qkv_raise(L, &err);
}

/* The options at 2 into a request; pushes its recipe. Are there texts? */
static bool read_request(lua_State *L, request *r, qkv_model *m)
{
    *r = (request){.bos = read_bos(L, 2, m),
                   .seed = qkv_option_integer(L, 2, "seed", 0),
                   .measure = read_measure(L, 2)};
    const int64_t n = read_count(L, 2, "n", 10, 100000);
    r->length = read_count(L, 2, "length", fitting(m, 50, 2, r->bos),
                           INT32_MAX);
    r->prefix_length = fitting(m, 25, 4, r->bos);
    const bool special = qkv_option_boolean(L, 2, "special", true);
    const bool texts = lua_getfield(L, 2, "texts") != LUA_TNIL;
    r->recipe = qkv_push_recipe(L, m);
    if (texts) {
        qkv_recipe_input(L, r->recipe, lua_gettop(L) - 1, special, 0);
        r->to[TEXTS] = r->recipe->n_seqs;
    }
    qkv_random random;
    qkv_random_seed(&random, (uint64_t)r->seed);
    add_repeats(L, r, TWICE, n, r->length, 2, &random);
    add_repeats(L, r, FOUR_TIMES, n, r->prefix_length, 4, &random);
    if (!texts) {
        r->from[TEXTS] = r->from[TWICE];
        r->to[TEXTS] = r->to[TWICE];
    }
    return texts;
}

/* ---- functions ---- */

/* Set h[name], h.sd[name], h.n[name] of the tables at h, h + 1 and h + 2. */
static void set_score(lua_State *L, int h, const qkv_heads *heads,
                      const request *r, int i)
{
    qkv_error err;
    qkv_tensor *mean, *sd;
    int64_t n;
    const source from = scores[i].from;
    const bool detector = from == TEXTS && r->measure != QKV_HEAD_PER_QUERY
        && (scores[i].place == QKV_HEAD_PREVIOUS
            || scores[i].place == QKV_HEAD_DUPLICATE
            || scores[i].place == QKV_HEAD_FOLLOWING);
    void **a = qkv_push_empty(L, QKV_TENSOR), **b = qkv_push_empty(L,
                                                                   QKV_TENSOR);
    if (!qkv_heads_score(&mean, &sd, &n, heads, r->from[from], r->to[from],
                         scores[i].place, detector ? r->measure
                         : scores[i].share, &err))
        qkv_raise(L, &err);
    *a = mean;
    *b = sd;
    lua_setfield(L, h + 1, scores[i].name);
    lua_setfield(L, h, scores[i].name);
    lua_pushinteger(L, n);
    lua_setfield(L, h + 2, scores[i].name);
}

QKV_DOC(qkv_heads, "qkv.heads(m [, opts]) -> h",
    "What the attention heads of a model do: tensors [layer, head] named\n"
    "induction and prefix_matching, on random tokens that are repeated, and\n"
    "previous, first, self, duplicate, following, entropy and distance, on\n"
    "texts, or else on the same random tokens. Each is a mean over sequences;\n"
    "h.sd.induction is its standard deviation over them and h.n.induction how\n"
    "many there were. Query 0, which can only see itself, is left out.\n"
    "Options: texts (inputs as for m:run, to which special belongs); n (10)\n"
    "sequences of length (50) random tokens twice, and n of 25 four times,\n"
    "fewer where the context is short, drawn with seed (0): all different, no\n"
    "special token among them, nor any of the first and last 2 % of ids; bos,\n"
    "what stands in front of them: true (the model's own, the default where\n"
    "it has one), false, or an id; measure, of previous, duplicate and\n"
    "following in texts: \"query\", the mean over queries that have a key;\n"
    "\"entry\", over pairs; \"mul\" and \"abs\", those of TransformerLens's\n"
    "detect_head. h:top(name, k) lists heads, h:plot(name) draws the map.\n"
    "> h = qkv.heads(m, {n = 2, length = 8, seed = 1})\n"
    "> h.induction:size(\"layer\") == m.config.n_layers\n"
    "> h.sd.induction:size(\"head\") == m.config.n_heads\n"
    "> h.n.induction == 2\n"
    "> h.following:near(h.induction)");
static int l_qkv_heads(lua_State *L)
{
    static const char *const options[] = {"texts", "n", "length", "seed",
                                          "bos", "special", "measure", NULL};
    qkv_check_nargs(L, 2);
    qkv_model *m = qkv_check_model(L, 1);
    lua_settop(L, 2);
    qkv_check_options(L, 2, options);
    request r;
    const bool texts = read_request(L, &r, m);
    qkv_heads *heads = qkv_push_block(L, sizeof *heads, "qkv.heads_held",
                                      heads_gc);
    qkv_error err;
    if (!qkv_heads_measure(heads, m, r.recipe->seqs, r.recipe->n_seqs, &err))
        return qkv_raise(L, &err);
    lua_createtable(L, 0, N_SCORES + 8);
    luaL_setmetatable(L, QKV_HEADS);
    const int h = lua_gettop(L);
    lua_createtable(L, 0, N_SCORES);
    lua_createtable(L, 0, N_SCORES);
    for (int i = 0; i < N_SCORES; i++)
        set_score(L, h, heads, &r, i);
    lua_setfield(L, h, "n");
    lua_setfield(L, h, "sd");
    lua_pushvalue(L, 1);
    lua_setfield(L, h, "model");
    lua_pushinteger(L, r.seed);
    lua_setfield(L, h, "seed");
    lua_pushinteger(L, r.length);
    lua_setfield(L, h, "length");
    lua_pushinteger(L, r.prefix_length);
    lua_setfield(L, h, "prefix_length");
    if (r.bos >= 0)
        lua_pushinteger(L, r.bos);
    else
        lua_pushboolean(L, false);
    lua_setfield(L, h, "bos");
    lua_pushboolean(L, texts);
    lua_setfield(L, h, "texts");
    qkv_bind_pressure(L);
    return 1;
}

/* ---- fields ---- */

#define SCORE(name, from, place, share, text) \
    QKV_DOC(heads_##name, "h." #name " -> tensor [layer, head]", text);
HEAD_SCORES(SCORE)
#undef SCORE
QKV_DOC(heads_sd, "h.sd -> {induction=, ...}",
    "Standard deviation (n - 1) of each score over sequences: tensors\n"
    "[layer, head]. Divided by the square root of h.n it is the standard\n"
    "error of the mean.\n"
    "> qkv.heads(m, {n = 2, length = 8}).sd.previous:min() >= 0");
QKV_DOC(heads_n, "h.n -> {induction=, ...}",
    "How many sequences each score is the mean of.\n"
    "> qkv.heads(m, {n = 1, length = 8, texts = {{1, 2}, {3, 4}}}).n.self == 2"
    );
QKV_DOC(heads_bos, "h.bos -> id or false",
    "What stood in front of the random tokens. h.model, h.seed, h.length,\n"
    "h.prefix_length (random tokens twice, and four times) and h.texts (were\n"
    "there any?) tell the rest of where the scores come from.\n"
    "> qkv.heads(m, {n = 1, length = 8, bos = false}).bos == false");

/* ---- tables ---- */

static const qkv_bind_row functions[] = {
    QKV_ROW("heads", qkv_heads),
    QKV_ROW_END
};

static const qkv_bind_row methods[] = {
#define SCORE(name, from, place, share, text) QKV_FIELD(#name, heads_##name),
    HEAD_SCORES(SCORE)
#undef SCORE
    QKV_FIELD("sd", heads_sd),
    QKV_FIELD("n", heads_n),
    QKV_FIELD("bos", heads_bos),
    QKV_ROW_END
};

void qkv_bind_heads(lua_State *L)
{
    qkv_bind_functions(L, "qkv", functions);
    qkv_bind_class(L, "heads", methods, NULL);
}
