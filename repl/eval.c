/*
 * eval.c - what a person typed becomes Lua and runs: see eval.h
 *
 * Whether text is incomplete is known from Lua's own message: a syntax error
 * at "<eof>". To keep locals, `\n;(...)()` is put behind the text and a C
 * function is passed to the chunk, which reads its caller's live locals with
 * lua_getlocal: no debug hook, no change of line numbers. `<const>` is blanked
 * out for that, since the compiler folds such locals away. (Not kept: locals of
 * a text that ends in `return`, and those of an input that failed.)
 */
#include "config.h"

#include "repl/eval.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "repl/bind/bind.h"
#include "repl/stop.h"

/* ---- compiling ---- */

/* A text between a prefix and a suffix, for lua_load. */
typedef struct source {
    const char *part[3];
    size_t bytes[3];
    int next;
} source;

static const char *read_part(lua_State *L, void *data, size_t *n)
{
    source *s = data;
    (void)L;
    while (s->next < 3 && s->bytes[s->next] == 0)
        s->next++;
    if (s->next == 3)
        return NULL;
    *n = s->bytes[s->next];
    return s->part[s->next++];
}

static int load(lua_State *L, const char *prefix, const char *text, size_t n,
                const char *suffix, const char *chunk)
{
    source s = {.part = {prefix, text, suffix},
                .bytes = {strlen(prefix), n, strlen(suffix)}};
    return lua_load(L, read_part, &s, chunk, "t");
}

/* `=x` stood for `return x` up to Lua 5.2; fingers remember. */
static void skip_equals(const char **text, size_t *n)
{
    if (*n > 0 && **text == '=') {
        ++*text;
        --*n;
    }
}

static bool is_at_end(lua_State *L)
{
    static const char end[] = "<eof>";
    size_t n;
    const char *message = lua_tolstring(L, -1, &n);
    return n >= sizeof end - 1
        && strcmp(message + n - (sizeof end - 1), end) == 0;
}

/* Push the function or the message of one input as it stands. */
static qkv_eval_state load_input(lua_State *L, const char *text, size_t n,
                                 const char *chunk)
{
    skip_equals(&text, &n);
    if (load(L, "return ", text, n, "\n", chunk) == LUA_OK)
        return QKV_EVAL_COMPLETE;
    const bool is_begun = is_at_end(L);         /* as in `1 +` */
    lua_pop(L, 1);
    if (load(L, "", text, n, "\n", chunk) == LUA_OK)
        return QKV_EVAL_COMPLETE;
    return is_begun || is_at_end(L) ? QKV_EVAL_INCOMPLETE : QKV_EVAL_WRONG;
}

/* The state of text taken as one input. Leaves nothing. */
static qkv_eval_state check_one(lua_State *L, const char *text, size_t n)
{
    const qkv_eval_state state = load_input(L, text, n, "=input");
    lua_pop(L, 1);
    return state;
}

/* Bytes of the first line, with its newline. */
static size_t line_bytes(const char *text, size_t n)
{
    const char *end = memchr(text, '\n', n);
    return end == NULL ? n : (size_t)(end - text) + 1;
}

/* Bytes of the shortest run of whole lines that is not incomplete; n, and
 * INCOMPLETE, if there is none. */
static qkv_eval_state shortest(lua_State *L, const char *text, size_t n,
                               size_t *bytes)
{
    qkv_eval_state state = QKV_EVAL_INCOMPLETE;
    *bytes = 0;
    while (*bytes < n && state == QKV_EVAL_INCOMPLETE) {
        *bytes += line_bytes(text + *bytes, n - *bytes);
        state = check_one(L, text, *bytes);
    }
    return state;
}

qkv_eval_state qkv_eval_check(lua_State *L, const char *text, size_t n)
{
    qkv_eval_state state = check_one(L, text, n);
    if (state != QKV_EVAL_WRONG)
        return state;
    state = QKV_EVAL_COMPLETE;
    while (n > 0 && state == QKV_EVAL_COMPLETE) {
        size_t bytes;
        state = shortest(L, text, n, &bytes);
        text += bytes;
        n -= bytes;
    }
    return state;
}

/* Could a line that begins so also go on with the one before: a call's
 * arguments, an index, an operator that has an operand in front? */
static bool could_go_on(const char *s, size_t n)
{
    const bool is_comment = n > 1 && s[0] == '-' && s[1] == '-';
    return n > 0 && strchr("({[\"'-~", *s) != NULL && !is_comment;
}

/* May an input end after the first `bytes` of text, which are complete? Not
 * where what follows is none (a line that begins with `:` or `and`), nor where
 * Lua reads on. */
static bool may_end(lua_State *L, const char *text, size_t bytes, size_t n)
{
    size_t at = bytes, more;
    while (at < n && isspace((unsigned char)text[at]))
        at++;
    if (at == n)
        return true;
    if (shortest(L, text + at, n - at, &more) == QKV_EVAL_WRONG)
        return false;
    return !could_go_on(text + at, n - at)
        || check_one(L, text, at + more) != QKV_EVAL_COMPLETE;
}

size_t qkv_eval_first(lua_State *L, const char *text, size_t n)
{
    size_t bytes = 0, last = 0;
    while (bytes < n) {
        bytes += line_bytes(text + bytes, n - bytes);
        if (check_one(L, text, bytes) != QKV_EVAL_COMPLETE)
            continue;
        if (may_end(L, text, bytes, n))
            return bytes;
        last = bytes;
    }
    if (last == 0)
        shortest(L, text, n, &last);
    return last;
}

bool qkv_eval_is_quiet(const char *text, size_t n)
{
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL)
        n--;
    return n > 0 && text[n - 1] == ';';
}

/* ---- locals that live on ---- */

/* Called at the end of an input: its locals become globals. */
static int keep_locals(lua_State *L)
{
    lua_Debug ar;
    const char *name;
    if (lua_getstack(L, 1, &ar) == 0)
        return 0;
    lua_pushglobaltable(L);
    for (int i = 1; (name = lua_getlocal(L, &ar, i)) != NULL; i++) {
        if (name[0] == '(') {           /* a temporary of the virtual machine */
            lua_pop(L, 1);
            continue;
        }
        lua_pushstring(L, name);
        lua_insert(L, -2);
        lua_rawset(L, -3);
    }
    return 0;
}

static const char *find(const char *text, size_t n, const char *word)
{
    return memmem(text, n, word, strlen(word));
}

static bool is_letter(char c)
{
    return c == '_' || isalnum((unsigned char)c);
}

/* Is what stands in text[0..at) `local name `, or `, name `? */
static bool is_declared(const char *text, size_t at)
{
    while (at > 0 && text[at - 1] == ' ')
        at--;
    while (at > 0 && is_letter(text[at - 1]))
        at--;
    while (at > 0 && text[at - 1] == ' ')
        at--;
    return at > 0 && (text[at - 1] == ','
                      || (at >= 5 && memcmp(text + at - 5, "local", 5) == 0));
}

/* Push the text with `<const>` of its locals blanked out. */
static const char *push_without_const(lua_State *L, const char *text, size_t n)
{
    static const char attribute[] = "<const>";
    const size_t bytes = sizeof attribute - 1;
    luaL_Buffer b;
    char *copy = luaL_buffinitsize(L, &b, n);
    memcpy(copy, text, n);
    for (size_t at = 0; at + bytes <= n; at++)
        if (memcmp(copy + at, attribute, bytes) == 0 && is_declared(copy, at))
            memset(copy + at, ' ', bytes);
    luaL_pushresultsize(&b, n);
    return lua_tostring(L, -1);
}

/* With the function of a text on top: put in its place the one that keeps the
 * text's locals; false when there is none. */
static bool replace_by_keeping(lua_State *L, const char *text, size_t n,
                               const char *chunk)
{
    const int top = lua_gettop(L);
    if (find(text, n, "local") == NULL)
        return false;
    const char *kept = push_without_const(L, text, n);
    const bool done = load(L, "", kept, n, "\n;(...)()", chunk) == LUA_OK;
    if (done)
        lua_replace(L, top);
    lua_settop(L, top);
    return done;
}

bool qkv_eval_compile(lua_State *L, const char *text, size_t n,
                      const char *chunk)
{
    if (load_input(L, text, n, chunk) != QKV_EVAL_COMPLETE)
        return false;
    if (replace_by_keeping(L, text, n, chunk))
        lua_pushcfunction(L, keep_locals);
    else
        lua_pushnil(L);
    return true;
}

/* ---- running ---- */

static int stack_depth(lua_State *L)
{
    lua_Debug ar;
    int n = 0;
    while (lua_getstack(L, n, &ar) != 0)
        n++;
    return n;
}

static bool begins(const char *s, const char *part)
{
    return strncmp(s, part, strlen(part)) == 0;
}

/* Bytes of "qkv/plot.lua:", the name of a Lua half, that s begins with; 0 when
 * it begins with something else. */
static size_t half_bytes(const char *s)
{
    static const char folder[] = "qkv/", end[] = ".lua:";
    if (!begins(s, folder))
        return 0;
    const char *name = s + sizeof folder - 1;
    for (const qkv_lua_half *h = qkv_lua_halves; h->name != NULL; h++)
        if (begins(name, h->name) && begins(name + strlen(h->name), end))
            return sizeof folder - 1 + strlen(h->name) + sizeof end - 1;
    return 0;
}

/* Is this line of a traceback, "\n\tqkv/plot.lua:32: in", inside a half? */
static bool is_half(const char *line)
{
    return begins(line, "\n\t") && half_bytes(line + 2) > 0;
}

/* Take the Lua halves, and the C functions that they called, out of the string
 * on top, whose traceback is at `from`: to its reader they are as good as C. */
static void cut_halves(lua_State *L, size_t from)
{
    const char *s = lua_tostring(L, -1), *next;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addlstring(&b, s, from);
    for (s += from; *s != '\0'; s = next) {
        next = s + 1 + strcspn(s + 1, "\n");
        const bool is_callee = begins(s, "\n\t[C]:") && is_half(next);
        if (!is_callee && !is_half(s))
            luaL_addlstring(&b, s, (size_t)(next - s));
    }
    luaL_pushresult(&b);
    lua_remove(L, -2);
}

/* Does the traceback at `s`, behind its heading, tell more than the message:
 * a function that is neither C nor the main chunk? */
static bool is_telling(const char *s)
{
    for (; s != NULL && *s != '\0'; s = strchr(s + 1, '\n')) {
        const char *next = strchr(s + 1, '\n'), *main = strstr(s, "in main ");
        const bool is_main = main != NULL && (next == NULL || main < next);
        if (!is_main && !begins(s, "\n\t[C]:") && !begins(s, "\n\t(..."))
            return true;
    }
    return false;
}

/* Cut `lines` lines off the end of the string on top, and what is ours from the
 * rest; the whole traceback if it then tells nothing. */
static void cut_traceback(lua_State *L, int lines)
{
    static const char heading[] = "\nstack traceback:",
        tail[] = "\n\t(...tail calls...)";    /* `return` before an input */
    const size_t tail_bytes = sizeof tail - 1;
    size_t n;
    const char *s = lua_tolstring(L, -1, &n);
    while (n > 0 && lines > 0)
        if (s[--n] == '\n')
            lines--;
    if (n > tail_bytes && begins(s + n - tail_bytes, tail))
        n -= tail_bytes;
    s = lua_pushlstring(L, s, n);
    lua_remove(L, -2);
    const char *head = strstr(s, heading);
    if (head == NULL)
        return;
    const size_t message = (size_t)(head - s), from = message
        + sizeof heading - 1;
    cut_halves(L, from);
    if (!is_telling(lua_tostring(L, -1) + from)) {
        lua_pushlstring(L, lua_tostring(L, -1), message);
        lua_remove(L, -2);
    }
}

/* Is the function of level `at` C, or one of a Lua half? */
static bool is_inside(lua_State *L, lua_Debug *at)
{
    char name[LUA_IDSIZE + 1];
    lua_getinfo(L, "S", at);
    snprintf(name, sizeof name, "%s:", at->short_src);
    return *at->what == 'C' || half_bytes(name) > 0;
}

/* C functions put the line that called them before their message. When that
 * is in a Lua half, put there where the half was called: as the halves do in
 * their own errors. The message is on top. */
static void move_position(lua_State *L)
{
    const char *s = lua_tostring(L, -1);
    size_t skip = half_bytes(s);
    if (skip == 0)
        return;
    skip += strspn(s + skip, "0123456789");
    skip += begins(s + skip, ": ") ? 2 : 0;
    lua_Debug at;
    int level = 1;
    while (lua_getstack(L, level, &at) != 0 && is_inside(L, &at))
        level++;
    luaL_where(L, level);
    lua_pushstring(L, s + skip);
    lua_concat(L, 2);
    lua_remove(L, -2);
}

/* The message handler: upvalue 1 is how many frames are ours. */
static int add_traceback(lua_State *L)
{
    const int ours = (int)lua_tointeger(L, lua_upvalueindex(1));
    if (lua_type(L, 1) != LUA_TSTRING
        && luaL_callmeta(L, 1, "__tostring") == 0)
        lua_pushfstring(L, "(error object is a %s value)",
                        luaL_typename(L, 1));
    luaL_tolstring(L, -1, NULL);
    if (qkv_stop_asked() || qkv_stop_pipe_closed())
        return 1;               /* where it was stopped is of no interest */
    move_position(L);
    luaL_traceback(L, L, lua_tostring(L, -1), 1);
    cut_traceback(L, ours);
    return 1;
}

int qkv_eval_call(lua_State *L, int nargs, int nresults)
{
    const int base = lua_gettop(L) - nargs;
    lua_pushinteger(L, stack_depth(L));
    lua_pushcclosure(L, add_traceback, 1);
    lua_insert(L, base);
    const int status = lua_pcall(L, nargs, nresults, base);
    lua_remove(L, base);
    return status;
}

void qkv_eval_report(lua_State *L)
{
    fflush(stdout);
    const char *message = lua_tostring(L, -1);
    if (message == NULL)
        message = "(error object is not a string)";
    if (qkv_stop_asked() && strstr(message, "interrupted") != NULL)
        message = "interrupted";
    if (!qkv_stop_pipe_closed())
        fprintf(stderr, "qkv: %s\n", message);
    fflush(stderr);
    lua_pop(L, 1);
}
