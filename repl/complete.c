/*
 * complete.c - what Tab offers: see complete.h
 *
 * The line is not parsed, only looked at from the cursor backwards: the word
 * there, whether a string is open, and the call that string is in. Words that
 * match are collected in a list in the registry.
 */
#include "config.h"

#include "repl/complete.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>

#include "repl/command.h"

#define MATCHES "qkv.matches"

enum { FILES = -1, MOST_CHAIN = 16 };   /* MOST_CHAIN: __index of __index ... */

typedef struct question {
    const char *line;
    size_t point;
    size_t start;               /* answer: where the words begin */
    bool wants_files;           /* answer */
} question;

/* ---- the line ---- */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static size_t skip_spaces_back(const char *line, size_t at)
{
    while (at > 0 && isspace((unsigned char)line[at - 1]))
        at--;
    return at;
}

/* Where the word chain (a.b:c) before `at` begins. */
static size_t chain_start(const char *line, size_t at)
{
    while (at > 0 && (is_word(line[at - 1]) || line[at - 1] == '.'
                      || line[at - 1] == ':'))
        at--;
    return at;
}

/* Index of the quote of the string that is open at `point`, or -1. */
static long open_quote(const char *line, size_t point)
{
    long open = -1;
    for (size_t i = 0; i < point; i++) {
        if (open >= 0 && line[i] == '\\')
            i++;
        else if (open >= 0 && line[i] == line[open])
            open = -1;
        else if (open < 0 && (line[i] == '"' || line[i] == '\''))
            open = (long)i;
    }
    return open;
}

/* Going back from `at`: the index of the bracket that is open there, or -1.
 * Strings on the way are stepped over. */
static long open_bracket(const char *line, size_t at)
{
    int depth = 0;
    while (at-- > 0) {
        const char c = line[at];
        if (c == '"' || c == '\'')
            while (at > 0 && line[--at] != c)
                continue;
        else if (c == ')' || c == ']' || c == '}')
            depth++;
        else if ((c == '(' || c == '[' || c == '{') && depth-- == 0)
            return (long)at;
    }
    return -1;
}

/* ---- values, without side effects ---- */

/* Replace the table on top by its field's value, read raw, or through the
 * tables and C functions of __index; nil if there is none. */
static void push_field(lua_State *L, const char *name, size_t n)
{
    for (int i = 0; i < MOST_CHAIN; i++) {
        if (lua_istable(L, -1)) {
            lua_pushlstring(L, name, n);
            if (lua_rawget(L, -2) != LUA_TNIL) {
                lua_remove(L, -2);
                return;
            }
            lua_pop(L, 1);
        }
        if (lua_type(L, -1) == LUA_TSTRING
            || luaL_getmetafield(L, -1, "__index") == LUA_TNIL)
            break;
        if (lua_iscfunction(L, -1)) {
            lua_insert(L, -2);
            lua_pushlstring(L, name, n);
            if (lua_pcall(L, 2, 1, 0) == LUA_OK)
                return;
            break;
        }
        lua_remove(L, -2);
    }
    lua_pop(L, 1);
    lua_pushnil(L);
}

/* Push the value of the chain of names s (a.b.c); nil if it is not simple. */
static void push_chain(lua_State *L, const char *s, size_t n)
{
    lua_pushglobaltable(L);
    for (size_t used; n > 0; s += used, n -= used) {
        if (*s == '.' || *s == ':') {
            s++;
            n--;
        }
        for (used = 0; used < n && is_word(s[used]);)
            used++;
        if (used == 0) {
            lua_pop(L, 1);
            lua_pushnil(L);
            return;
        }
        push_field(L, s, used);
    }
}

/* ---- words ---- */

/* Add prefix .. name to the list of matches, with "(" behind a function. */
static void add(lua_State *L, const char *prefix, size_t n_prefix,
                const char *name, bool is_function)
{
    lua_getfield(L, LUA_REGISTRYINDEX, MATCHES);
    lua_pushlstring(L, prefix, n_prefix);
    lua_pushstring(L, name);
    lua_pushstring(L, is_function ? "(" : "");
    lua_concat(L, 3);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 1);
}

static bool begins(const char *name, const char *part, size_t n)
{
    if (strncmp(name, part, n) != 0)
        return false;
    return name[0] != '_' || (n > 0 && part[0] == '_');
}

static bool is_plain_name(const char *s)
{
    if (isdigit((unsigned char)*s) || *s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if (!is_word(*s))
            return false;
    return true;
}

/* Add the matching names of the table on top. */
static void add_names(lua_State *L, const char *prefix, size_t n_prefix,
                      const char *part, size_t n, bool only_functions)
{
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        const bool is_function = lua_isfunction(L, -1);
        if (lua_type(L, -2) != LUA_TSTRING || (only_functions && !is_function))
            continue;
        const char *name = lua_tostring(L, -2);
        if (is_plain_name(name) && begins(name, part, n))
            add(L, prefix, n_prefix, name, is_function);
    }
}

/* Add what the list on top, of names, has; pops it. Like the path of a file a
 * name is offered up to its next dot, or Tab would show 800 names of blocks.
 * (What is offered twice Readline shows once.) */
static void add_list(lua_State *L, const char *part, size_t n)
{
    const lua_Integer length = lua_istable(L, -1)
        ? (lua_Integer)lua_rawlen(L, -1) : 0;
    for (lua_Integer i = 1; i <= length; i++) {
        if (lua_rawgeti(L, -1, i) == LUA_TSTRING
            && strncmp(lua_tostring(L, -1), part, n) == 0) {
            const char *name = lua_tostring(L, -1);
            const char *dot = strchr(name + n, '.');
            add(L, name, dot != NULL ? (size_t)(dot + 1 - name) : strlen(name),
                "", false);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Push what __complete(value, method, part) of the value at `index` returns;
 * nil if it has none that is a C function. method may be NULL. */
static void push_offer(lua_State *L, int index, const char *method,
                       size_t n_method, const char *part, size_t n)
{
    if (luaL_getmetafield(L, index, "__complete") == LUA_TNIL) {
        lua_pushnil(L);
        return;
    }
    if (lua_iscfunction(L, -1)) {
        lua_pushvalue(L, index);
        if (method == NULL)
            lua_pushnil(L);
        else
            lua_pushlstring(L, method, n_method);
        lua_pushlstring(L, part, n);
        if (lua_pcall(L, 3, 1, 0) == LUA_OK)
            return;
    }
    lua_pop(L, 1);
    lua_pushnil(L);
}

/* Add what is documented as "<class>.<name>" of the userdata at `value` and
 * is no method: its fields. */
static void add_fields(lua_State *L, int value, const char *prefix,
                       size_t n_prefix, const char *part, size_t n)
{
    if (luaL_getmetafield(L, value, "__name") == LUA_TSTRING
        && luaL_getmetafield(L, value, "methods") == LUA_TTABLE
        && lua_getfield(L, LUA_REGISTRYINDEX, "qkv.docs") == LUA_TTABLE) {
        const char *class = lua_tostring(L, value + 1);
        class += strncmp(class, "qkv.", 4) == 0 ? 4 : 0;
        const size_t skip = strlen(class);
        for (lua_pushnil(L); lua_next(L, value + 3) != 0; lua_pop(L, 1)) {
            const char *name = lua_type(L, -2) == LUA_TSTRING
                ? lua_tostring(L, -2) : "";
            if (strncmp(name, class, skip) != 0 || name[skip] != '.')
                continue;
            name += skip + 1;
            lua_pushstring(L, name);
            const bool is_method = lua_rawget(L, value + 2) != LUA_TNIL;
            lua_pop(L, 1);
            if (!is_method && is_plain_name(name) && begins(name, part, n))
                add(L, prefix, n_prefix, name, false);
        }
    }
    lua_settop(L, value);
}

/* Add the fields or methods of the value on top that begin with part. */
static void add_members(lua_State *L, const char *prefix, size_t n_prefix,
                        const char *part, size_t n, bool only_functions)
{
    const int value = lua_gettop(L);
    if (!only_functions)
        add_fields(L, value, prefix, n_prefix, part, n);
    lua_pushvalue(L, value);
    for (int i = 0; i < MOST_CHAIN; i++) {
        if (lua_istable(L, -1))
            add_names(L, prefix, n_prefix, part, n, only_functions);
        if (luaL_getmetafield(L, -1, "methods") == LUA_TTABLE) {
            add_names(L, prefix, n_prefix, part, n, only_functions);
            break;
        }
        lua_settop(L, value + 1);
        if (luaL_getmetafield(L, -1, "__index") != LUA_TTABLE)
            break;
        lua_replace(L, value + 1);
    }
    lua_settop(L, value);
}

static void add_keywords(lua_State *L, const char *part, size_t n)
{
    static const char *const words[] = {
        "and", "break", "do", "else", "elseif", "end", "false", "for",
        "function", "goto", "if", "in", "local", "nil", "not", "or", "repeat",
        "return", "then", "true", "until", "while"
    };
    for (size_t i = 0; n > 0 && i < sizeof words / sizeof *words; i++)
        if (begins(words[i], part, n))
            add(L, "", 0, words[i], false);
}

/* ---- the three places ---- */

/* In a string that begins behind `quote`. */
static void complete_string(lua_State *L, question *q, size_t quote)
{
    const char *line = q->line, *part = line + quote + 1;
    const size_t n = q->point - quote - 1;
    q->start = quote + 1;
    q->wants_files = true;
    /* f "text" and f("text") and f(..., {name = "text": the chain before */
    size_t end = skip_spaces_back(line, quote);
    size_t begin = chain_start(line, end);
    while (begin == end || line[end - 1] == '=') {
        const long bracket = open_bracket(line, end);
        if (bracket < 0)
            return;
        end = skip_spaces_back(line, (size_t)bracket);
        begin = chain_start(line, end);
    }
    const char *colon = memchr(line + begin, ':', end - begin);
    const size_t value_end = colon == NULL ? end : (size_t)(colon - line);
    push_chain(L, line + begin, value_end - begin);
    push_offer(L, lua_gettop(L), colon == NULL ? NULL : colon + 1,
               colon == NULL ? 0 : end - value_end - 1, part, n);
    q->wants_files = !lua_istable(L, -1);
    add_list(L, part, n);
}

static void complete_name(lua_State *L, question *q)
{
    const char *s = q->line + q->start;
    const size_t n = q->point - q->start;
    size_t base = n;
    while (base > 0 && is_word(s[base - 1]))
        base--;
    if (base == 0) {
        lua_pushglobaltable(L);
        add_names(L, "", 0, s, n, false);
        add_keywords(L, s, n);
        return;
    }
    push_chain(L, s, base - 1);
    add_members(L, s, base, s + base, n - base, s[base - 1] == ':');
}

/* `:run fi`, `!ls fi` and `:ti`: true when the line is a command. */
static bool complete_command(lua_State *L, question *q)
{
    const char *line = q->line;
    const bool is_shell = line[0] == '!';
    if (!is_shell && (line[0] != ':' || line[1] == ':'))
        return false;
    q->start = q->point;
    while (q->start > 0 && !isspace((unsigned char)line[q->start - 1]))
        q->start--;
    if (q->start == 0 && !is_shell) {
        const char *name;
        for (int i = 0; (name = qkv_command_name(i)) != NULL; i++)
            if (strncmp(name, line + 1, q->point - 1) == 0)
                add(L, ":", 1, name, false);
        return true;
    }
    q->wants_files = is_shell || strncmp(line, ":run", 4) == 0;
    if (is_shell && q->start == 0)
        q->start = 1;
    return q->wants_files;
}

static int l_complete(lua_State *L)
{
    question *q = lua_touserdata(L, 1);
    lua_newtable(L);
    lua_setfield(L, LUA_REGISTRYINDEX, MATCHES);
    const long quote = open_quote(q->line, q->point);
    if (complete_command(L, q))
        return 0;
    if (quote >= 0) {
        complete_string(L, q, (size_t)quote);
        return 0;
    }
    q->start = chain_start(q->line, q->point);
    complete_name(L, q);
    return 0;
}

int qkv_complete(void *context, const char *line, size_t point, size_t *start)
{
    lua_State *L = context;
    question q = {.line = line, .point = point, .start = point};
    const int top = lua_gettop(L);
    int n = 0;
    lua_pushcfunction(L, l_complete);
    lua_pushlightuserdata(L, &q);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK
        && lua_getfield(L, LUA_REGISTRYINDEX, MATCHES) == LUA_TTABLE)
        n = q.wants_files ? FILES : (int)lua_rawlen(L, -1);
    lua_settop(L, top);
    *start = q.start;
    return n;
}

const char *qkv_complete_word(void *context, int i)
{
    lua_State *L = context;
    const int top = lua_gettop(L);
    lua_getfield(L, LUA_REGISTRYINDEX, MATCHES);
    lua_rawgeti(L, -1, i + 1);
    const char *word = lua_tostring(L, -1);     /* the registry holds it */
    lua_settop(L, top);
    return word;
}
