/*
 * tokenizer.c - text and tokens in Lua
 *
 * The methods stand on tokenizers and on models alike.
 */
#include "config.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "repl/bind/model_impl.h"

/* ---- checks ---- */

const qkv_tokenizer *qkv_bind_model_tokenizer(lua_State *L, qkv_model *m)
{
    qkv_error err;
    const qkv_tokenizer *t = qkv_model_tokenizer(m, &err);
    if (t == NULL) {
        qkv_fail_in(&err, "%s has no tokenizer that can be used", m->name);
        qkv_raise(L, &err);
    }
    return t;
}

const qkv_tokenizer *qkv_bind_tokenizer_at(lua_State *L, int index)
{
    qkv_model *m = qkv_test_class(L, index, QKV_MODEL);
    if (m != NULL)
        return qkv_bind_model_tokenizer(L, m);
    return qkv_check_class(L, index, QKV_TOKENIZER);
}

static qkv_slice check_text(lua_State *L, int index)
{
    qkv_slice s;
    luaL_checktype(L, index, LUA_TSTRING);
    s.data = lua_tolstring(L, index, &s.bytes);
    return s;
}

/* A buffer of ids in a userdata, so that an error frees it. */
static int tokens_gc(lua_State *L)
{
    qkv_tokens_free(lua_touserdata(L, 1));
    return 0;
}

static qkv_tokens *push_tokens(lua_State *L)
{
    return qkv_push_block(L, sizeof(qkv_tokens), "qkv.tokens", tokens_gc);
}

static int text_gc(lua_State *L)
{
    qkv_text_free(lua_touserdata(L, 1));
    return 0;
}

static qkv_text *push_text(lua_State *L)
{
    return qkv_push_block(L, sizeof(qkv_text), "qkv.text", text_gc);
}

/* Ids at `index`, a number, a list or a tensor, as a userdata's (pushed). */
static const qkv_tokens *check_ids(lua_State *L, int index)
{
    int64_t n;
    const int64_t *ids = qkv_check_integers(L, index, &n, "token id");
    qkv_tokens *t = push_tokens(L);
    qkv_error err;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] > INT32_MAX)
            luaL_error(L, "token id %I: 0 or more was expected",
                       (LUAI_UACINT)ids[i]);
        if (!qkv_tokens_put(t, (int32_t)ids[i], &err))
            qkv_raise(L, &err);
    }
    return t;
}

/* ---- shared with the other files ---- */

void qkv_push_text(lua_State *L, const qkv_tokenizer *t, const int32_t *ids,
                   int64_t n)
{
    qkv_error err;
    qkv_text *text = push_text(L);
    if (!qkv_tokenizer_decode(text, t, ids, n, &err))
        qkv_raise(L, &err);
    lua_pushlstring(L, text->data != NULL ? text->data : "", text->bytes);
    lua_remove(L, -2);
}

void qkv_push_piece(lua_State *L, qkv_model *m, int32_t id)
{
    qkv_error err;
    const qkv_tokenizer *t = qkv_model_tokenizer(m, &err);
    if (t != NULL && id < qkv_tokenizer_size(t))
        qkv_push_text(L, t, &id, 1);
    else
        lua_pushfstring(L, "<%d>", (int)id);
}

/* Words in running text carry the space before them: a word that is one token
 * with it (or without, if it has one) is offered. */
static void push_other_space(lua_State *L, const qkv_tokenizer *t,
                             qkv_slice text)
{
    const bool has = text.bytes > 0 && text.data[0] == ' ';
    lua_pushfstring(L, has ? "%s" : " %s",
                    lua_pushlstring(L, text.data + has, text.bytes - has));
    lua_remove(L, -2);
    qkv_slice other;
    other.data = lua_tolstring(L, -1, &other.bytes);
    if (qkv_tokenizer_token(t, other) >= 0)
        lua_pushfstring(L, "; '%s' is one token", other.data);
    else
        lua_pushliteral(L, "");
    lua_remove(L, -2);
}

/* "' Mary' is 2 tokens: ' M', 'ary'" */
static int not_one(lua_State *L, const qkv_tokenizer *t, qkv_slice text)
{
    qkv_error err;
    qkv_tokens *ids = push_tokens(L);
    if (!qkv_tokenizer_encode(ids, t, text, false, &err))
        return qkv_raise(L, &err);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int64_t i = 0; i < ids->count && i < 8; i++) {
        luaL_addstring(&b, i > 0 ? ", '" : "'");
        qkv_push_text(L, t, &ids->ids[i], 1);
        luaL_addvalue(&b);
        luaL_addstring(&b, "'");
    }
    luaL_pushresult(&b);
    lua_pushlstring(L, text.data, text.bytes);
    push_other_space(L, t, text);
    return luaL_error(L, "'%s' is %d tokens, one was expected: %s%s",
                      lua_tostring(L, -2), (int)ids->count,
                      lua_tostring(L, -3), lua_tostring(L, -1));
}

static int32_t one_token(lua_State *L, const qkv_tokenizer *t, int index)
{
    const qkv_slice text = check_text(L, index);
    const int32_t id = qkv_tokenizer_token(t, text);
    return id >= 0 ? id : not_one(L, t, text);
}

int32_t qkv_check_token(lua_State *L, int index, qkv_model *m)
{
    const int64_t size = m->stacks[0].config.d_vocab;
    if (lua_type(L, index) == LUA_TSTRING)
        return one_token(L, qkv_bind_model_tokenizer(L, m), index);
    const lua_Integer id = luaL_checkinteger(L, index);
    if (id < 0 || id >= size)
        luaL_error(L, "token id %I: ids run 0..%I", (LUAI_UACINT)id,
                   (LUAI_UACINT)(size - 1));
    return (int32_t)id;
}

const int32_t *qkv_check_tokens(lua_State *L, int index, qkv_model *m,
                                int64_t *n)
{
    index = lua_absindex(L, index);
    const qkv_tokens *ids;
    if (lua_type(L, index) == LUA_TSTRING) {
        const qkv_tokenizer *t = qkv_bind_model_tokenizer(L, m);
        qkv_tokens *own = push_tokens(L);
        qkv_error err;
        if (!qkv_tokenizer_encode(own, t, check_text(L, index), false, &err))
            qkv_raise(L, &err);
        ids = own;
    } else {
        ids = check_ids(L, index);
    }
    *n = ids->count;
    return ids->ids;
}

/* ---- functions ---- */

QKV_DOC(tokenizer_open, "qkv.tokenizer(path) -> t",
    "The tokenizer of a .gguf, a tokenizer.json or a folder that holds one,\n"
    "without the model. Models have the same methods, and m.tokenizer.");
static int l_tokenizer_open(lua_State *L)
{
    qkv_check_nargs(L, 1);
    const char *path = luaL_checkstring(L, 1);
    void **slot = qkv_push_empty(L, QKV_TOKENIZER);
    qkv_error err;
    *slot = qkv_tokenizer_open(path, &err);
    return *slot != NULL ? 1 : qkv_raise(L, &err);
}

/* ---- methods ---- */

QKV_DOC(token_tokens, "t:tokens(text [, {special=}]) -> ids",
    "The token ids of a text. special = true adds what the model's own\n"
    "tokenizer puts around a text (m:run does so unless told otherwise).\n"
    "> m:text(m:tokens(\"a word\")) == \"a word\"");
static int l_token_tokens(lua_State *L)
{
    static const char *const options[] = {"special", NULL};
    qkv_check_nargs(L, 3);
    const qkv_tokenizer *t = qkv_bind_tokenizer_at(L, 1);
    const qkv_slice text = check_text(L, 2);
    qkv_check_options(L, 3, options);
    const bool special = qkv_option_boolean(L, 3, "special", false);
    qkv_error err;
    qkv_tokens *ids = push_tokens(L);
    if (!qkv_tokenizer_encode(ids, t, text, special, &err))
        return qkv_raise(L, &err);
    lua_createtable(L, (int)ids->count, 0);
    for (int64_t i = 0; i < ids->count; i++) {
        lua_pushinteger(L, ids->ids[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

QKV_DOC(token_text, "t:text(ids) -> text",
    "The text that ids (a number, a list or a tensor) stand for. Cut\n"
    "characters come as the bytes they are.\n"
    "> m:text(m:tokens(\"two words\")) == \"two words\"");
static int l_token_text(lua_State *L)
{
    qkv_check_nargs(L, 2);
    const qkv_tokenizer *t = qkv_bind_tokenizer_at(L, 1);
    const qkv_tokens *ids = check_ids(L, 2);
    qkv_push_text(L, t, ids->ids, ids->count);
    return 1;
}

QKV_DOC(token_pieces, "t:pieces(text_or_ids) -> list",
    "The text of each token: what a text is cut into.\n"
    "> table.concat(m:pieces(\"two words\")) == \"two words\"");
static int l_token_pieces(lua_State *L)
{
    qkv_check_nargs(L, 2);
    const qkv_tokenizer *t = qkv_bind_tokenizer_at(L, 1);
    const qkv_tokens *ids;
    if (lua_type(L, 2) == LUA_TSTRING) {
        qkv_error err;
        qkv_tokens *own = push_tokens(L);
        if (!qkv_tokenizer_encode(own, t, check_text(L, 2), false, &err))
            return qkv_raise(L, &err);
        ids = own;
    } else {
        ids = check_ids(L, 2);
    }
    lua_createtable(L, (int)ids->count, 0);
    for (int64_t i = 0; i < ids->count; i++) {
        qkv_push_text(L, t, &ids->ids[i], 1);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

QKV_DOC(token_token, "t:token(text) -> id",
    "The id of a text that is one token; otherwise an error that shows the\n"
    "tokens it is. Mind the space: \" Mary\" and \"Mary\" differ.\n"
    "> m:text(m:token(\"a\")) == \"a\"");
static int l_token_token(lua_State *L)
{
    qkv_check_nargs(L, 2);
    lua_pushinteger(L, one_token(L, qkv_bind_tokenizer_at(L, 1), 2));
    return 1;
}

const qkv_bind_row qkv_token_methods[] = {
    QKV_ROW("tokens", token_tokens),
    QKV_ROW("text", token_text),
    QKV_ROW("pieces", token_pieces),
    QKV_ROW("token", token_token),
    QKV_ROW_END
};

/* ---- metamethods ---- */

QKV_DOC(tokenizer_bos, "t.bos -> id",
    "The token that begins a text; nil when there is none.");
QKV_DOC(tokenizer_eos, "t.eos -> id",
    "The token that ends a text; nil when there is none.");
QKV_DOC(tokenizer_kind, "t.kind -> string",
    "The algorithm, such as \"byte-level BPE\".");

static int tokenizer_index(lua_State *L)
{
    const qkv_tokenizer *t = qkv_check_class(L, 1, QKV_TOKENIZER);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    int32_t id = -1;
    if (strcmp(key, "kind") == 0) {
        lua_pushstring(L, qkv_tokenizer_kind(t));
        return 1;
    }
    if (strcmp(key, "bos") == 0)
        id = qkv_tokenizer_bos(t);
    else if (strcmp(key, "eos") == 0)
        id = qkv_tokenizer_eos(t);
    else
        return qkv_bind_index(L);
    if (id < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, id);
    return 1;
}

static int tokenizer_len(lua_State *L)
{
    const qkv_tokenizer *t = qkv_check_class(L, 1, QKV_TOKENIZER);
    lua_pushinteger(L, qkv_tokenizer_size(t));
    return 1;
}

static int tokenizer_tostring(lua_State *L)
{
    const qkv_tokenizer *t = qkv_test_class(L, 1, QKV_TOKENIZER);
    if (t == NULL)
        lua_pushliteral(L, "tokenizer (closed)");
    else
        lua_pushfstring(L, "tokenizer  %s  %I tokens", qkv_tokenizer_kind(t),
                        (LUAI_UACINT)qkv_tokenizer_size(t));
    return 1;
}

static int tokenizer_gc(lua_State *L)
{
    void **slot = luaL_checkudata(L, 1, QKV_TOKENIZER);
    qkv_tokenizer_release(*slot);
    *slot = NULL;
    return 0;
}

/* ---- tables ---- */

static const qkv_bind_row functions[] = {
    QKV_ROW("tokenizer", tokenizer_open),
    QKV_ROW_END
};

static const qkv_bind_row fields[] = {
    QKV_FIELD("bos", tokenizer_bos),
    QKV_FIELD("eos", tokenizer_eos),
    QKV_FIELD("kind", tokenizer_kind),
    QKV_ROW_END
};

static const luaL_Reg metamethods[] = {
    {"__index", tokenizer_index},
    {"__len", tokenizer_len},
    {"__tostring", tokenizer_tostring},
    {"__gc", tokenizer_gc},
    {"__close", tokenizer_gc},
    {NULL, NULL}
};

void qkv_bind_tokenizer(lua_State *L)
{
    qkv_bind_functions(L, "qkv", functions);
    qkv_bind_class(L, "tokenizer", qkv_token_methods, metamethods);
    qkv_bind_class(L, "tokenizer", fields, NULL);
}
