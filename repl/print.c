/*
 * print.c - what the prompt shows of a value: see print.h
 *
 * Every part is a Lua string, so that nothing is lost when a __tostring or an
 * allocation raises half-way. A table is rendered into a list of items; they
 * go on one line if they fit, else sequences of scalars are filled like text
 * and all else gets a line an item.
 */
#include "config.h"

#include "repl/print.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include <lauxlib.h>

enum {
    WHOLE_ITEMS = 30,           /* of a sequence that is shown whole */
    MOST_ITEMS = 20,            /* of a longer one */
    MOST_KEYS = 60,
    MOST_ROWS = 50,             /* of a table of records */
    MOST_COLUMNS = 12,
    MOST_DEPTH = 4,
    MOST_BYTES = 200,           /* of a string inside a table */
    INDENT = 2
};

typedef struct layout {
    int width;                  /* columns left for this value */
    int depth;
    int path;                   /* stack index: table -> true while inside */
} layout;

/* ---- text ---- */

/* Columns that n bytes of UTF-8 take; what does not print counts as one. */
static int columns(const char *s, size_t n)
{
    mbstate_t state = {0};
    int sum = 0;
    while (n > 0) {
        wchar_t c;
        size_t used = mbrtowc(&c, s, n, &state);
        int width = 1;
        if (used == 0 || used > n) {
            used = 1;
            memset(&state, 0, sizeof state);
        } else {
            width = wcwidth(c) < 0 ? 1 : wcwidth(c);
        }
        sum += width;
        s += used;
        n -= used;
    }
    return sum;
}

/* Length of the well-formed UTF-8 sequence at s; 0 if there is none. */
static size_t utf8_bytes(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    const size_t need = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2
                      : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    if (need == 0 || need > n)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f)
        || (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
        return 0;
    return need;
}

/* Append one character as Lua source would have it, and pass over it. */
static void put_escaped(luaL_Buffer *b, const char **s, size_t *n)
{
    static const char from[] = "\n\t\r\"\\", to[] = "ntr\"\\";
    const unsigned char c = (unsigned char)**s;
    size_t used = utf8_bytes(*s, *n);
    const char *found = c == '\0' ? NULL : strchr(from, c);
    if (found != NULL) {
        luaL_addchar(b, '\\');
        luaL_addchar(b, to[found - from]);
    } else if (used == 0 || c < 0x20 || c == 0x7f) {
        char hex[8];
        snprintf(hex, sizeof hex, "\\x%02x", c);
        luaL_addstring(b, hex);
        used = 1;
    } else {
        luaL_addlstring(b, *s, used);
    }
    *s += used;
    *n -= used;
}

/* Push the string at `index` in quotes, cut after about `most` bytes. */
static void push_quoted(lua_State *L, int index, size_t most)
{
    size_t n;
    const char *s = lua_tolstring(L, index, &n), *start = s;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addchar(&b, '"');
    while (n > 0 && (size_t)(s - start) < most)
        put_escaped(&b, &s, &n);
    luaL_addstring(&b, n > 0 ? "...\"" : "\"");
    luaL_pushresult(&b);
}

static void push_function(lua_State *L, int index)
{
    const int top = lua_gettop(L);
    if (lua_getfield(L, LUA_REGISTRYINDEX, "qkv.docs") == LUA_TTABLE) {
        lua_pushvalue(L, index);
        if (lua_rawget(L, -2) == LUA_TTABLE
            && lua_getfield(L, -1, "signature") == LUA_TSTRING) {
            lua_pushfstring(L, "function %s", lua_tostring(L, -1));
            lua_replace(L, top + 1);
            lua_settop(L, top + 1);
            return;
        }
    }
    lua_settop(L, top);
    luaL_tolstring(L, index, NULL);
}

/* ---- lists on the stack: a table and its length, kept in C ---- */

/* Append the value on top to the table at `list`; pops it. */
static void append(lua_State *L, int list, int *n)
{
    lua_rawseti(L, list, ++*n);
}

/* ---- keys in order ---- */

/* Numbers before strings before the rest. */
static int key_rank(lua_State *L, int index)
{
    const int type = lua_type(L, index);
    return type == LUA_TNUMBER ? 0 : type == LUA_TSTRING ? 1 : 2 + type;
}

static bool key_before(lua_State *L, int a, int b)
{
    const int rank = key_rank(L, a), other = key_rank(L, b);
    if (rank != other)
        return rank < other;
    return rank <= 1 && lua_compare(L, a, b, LUA_OPLT);
}

/* Put a copy of the key on top where it belongs among the n of `list`, of
 * which the first `most` are kept. */
static void insert_key(lua_State *L, int list, int *n, int most)
{
    const int key = lua_gettop(L);
    int at = *n;
    for (; at > 0; at--) {
        lua_rawgeti(L, list, at);
        const bool is_before = key_before(L, key, key + 1);
        if (!is_before || at == most) {
            lua_pop(L, 1);
            if (!is_before)
                break;
            continue;           /* the last one falls off */
        }
        lua_rawseti(L, list, at + 1);
    }
    if (at >= most)
        return;
    lua_pushvalue(L, key);
    lua_rawseti(L, list, at + 1);
    *n += *n < most;
}

static bool is_in_sequence(lua_State *L, int index, lua_Integer length)
{
    return lua_isinteger(L, index) && lua_tointeger(L, index) >= 1
        && lua_tointeger(L, index) <= length;
}

/* Push a list of the keys of table t outside 1..length, in order, at most
 * MOST_KEYS; all of them are counted in *total. Returns how many it has. */
static int push_keys(lua_State *L, int t, lua_Integer length, int *total)
{
    int n = 0;
    *total = 0;
    lua_newtable(L);
    const int list = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, t) != 0;) {
        lua_pop(L, 1);
        if (is_in_sequence(L, -1, length))
            continue;
        ++*total;
        insert_key(L, list, &n, MOST_KEYS);
    }
    return n;
}

/* Can it stand before `=` in a table as it is? */
static bool is_name(const char *s)
{
    static const char reserved[] = " and break do else elseif end false for "
        "function goto if in local nil not or repeat return then true until "
        "while ";
    const char *found = strstr(reserved, s);
    const bool is_word = found != NULL && found > reserved
        && found[-1] == ' ' && found[strlen(s)] == ' ';
    if (is_word || strspn(s, "0123456789") > 0 || *s == '\0')
        return false;
    return s[strspn(s, "abcdefghijklmnopqrstuvwxyz"
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")] == '\0';
}

/* ---- any value ---- */

static void render(lua_State *L, int index, const layout *at);

/* Push `key = ` or `[key] = ` of the key at index. */
static void push_key(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TSTRING
        && is_name(lua_tostring(L, index))) {
        lua_pushfstring(L, "%s = ", lua_tostring(L, index));
        return;
    }
    if (lua_type(L, index) == LUA_TSTRING)
        push_quoted(L, index, MOST_BYTES);
    else
        luaL_tolstring(L, index, NULL);
    lua_pushfstring(L, "[%s] = ", lua_tostring(L, -1));
    lua_remove(L, -2);
}

static void append_more(lua_State *L, int list, int *n, lua_Integer more)
{
    if (more <= 0)
        return;
    lua_pushfstring(L, "... %I more", (LUAI_UACINT)more);
    append(L, list, n);
}

/* Push a list of the rendered items of table t; returns how many. */
static int push_items(lua_State *L, int t, const layout *at)
{
    const layout inner = {.width = at->width - INDENT - 1,
                          .depth = at->depth + 1, .path = at->path};
    const lua_Integer length = (lua_Integer)lua_rawlen(L, t),
        shown = length <= WHOLE_ITEMS ? length : MOST_ITEMS;
    int n = 0, total;
    lua_newtable(L);
    const int items = lua_gettop(L);
    for (lua_Integer i = 1; i <= shown; i++) {
        lua_rawgeti(L, t, i);
        render(L, items + 1, &inner);
        append(L, items, &n);
        lua_settop(L, items);
    }
    append_more(L, items, &n, length - shown);
    const int n_keys = push_keys(L, t, length, &total);
    for (int i = 1; i <= n_keys; i++) {
        lua_rawgeti(L, items + 1, i);
        push_key(L, -1);
        layout value = inner;
        value.width -= (int)lua_rawlen(L, -1);
        lua_pushvalue(L, -2);
        lua_rawget(L, t);
        render(L, lua_gettop(L), &value);
        lua_remove(L, -2);
        lua_concat(L, 2);
        append(L, items, &n);
        lua_settop(L, items + 1);
    }
    lua_settop(L, items);
    append_more(L, items, &n, total - n_keys);
    return n;
}

/* Columns of all n items on one line; very many if one has several lines. */
static int joined_columns(lua_State *L, int items, int n)
{
    int sum = 0;
    for (int i = 1; i <= n && sum < 10000; i++) {
        size_t bytes;
        lua_rawgeti(L, items, i);
        const char *s = lua_tolstring(L, -1, &bytes);
        sum += memchr(s, '\n', bytes) ? 10000 : 2 + columns(s, bytes);
        lua_pop(L, 1);
    }
    return sum;
}

/* Push "{a, b, ...}": on one line, filled, or with a line for each item. */
static void push_joined(lua_State *L, int items, int n, bool is_filled,
                        int width)
{
    const bool fits = joined_columns(L, items, n) <= width;
    int column = width;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addchar(&b, '{');
    for (int i = 1; i <= n; i++) {
        size_t bytes;
        lua_rawgeti(L, items, i);
        const char *s = luaL_gsub(L, lua_tostring(L, -1), "\n", "\n  ");
        lua_replace(L, -2);
        s = lua_tolstring(L, -1, &bytes);
        const int wide = columns(s, bytes) + 2;
        const char *between = i == 1 ? "" : " ";
        if (!fits && (!is_filled || column + wide > width)) {
            between = "\n  ";
            column = INDENT;
        }
        column += wide;
        lua_pushfstring(L, "%s%s%s", between, s, i < n ? "," : "");
        lua_replace(L, -2);
        luaL_addvalue(&b);
    }
    luaL_addstring(&b, fits ? "}" : "\n}");
    luaL_pushresult(&b);
}

static bool is_table_at(lua_State *L, int t, lua_Integer i)
{
    const bool yes = lua_rawgeti(L, t, i) == LUA_TTABLE;
    lua_pop(L, 1);
    return yes;
}

static void render_table(lua_State *L, int t, const layout *at)
{
    lua_pushvalue(L, t);
    const bool is_cycle = lua_rawget(L, at->path) != LUA_TNIL;
    lua_pushnil(L);
    const bool is_empty = lua_next(L, t) == 0;
    lua_settop(L, t);
    if (is_cycle || is_empty || at->depth >= MOST_DEPTH) {
        lua_pushstring(L, is_cycle ? "<cycle>" : is_empty ? "{}" : "{...}");
        return;
    }
    lua_pushvalue(L, t);
    lua_pushboolean(L, 1);
    lua_rawset(L, at->path);
    const int n = push_items(L, t, at);
    push_joined(L, t + 1, n, lua_rawlen(L, t) > 0 && !is_table_at(L, t, 1),
                at->width);
    lua_pushvalue(L, t);
    lua_pushnil(L);
    lua_rawset(L, at->path);
    lua_replace(L, t + 1);
}

/* Push the text of the value at the top, which is at `index`. */
static void render(lua_State *L, int index, const layout *at)
{
    luaL_checkstack(L, 24, "too deep to print");
    const int type = lua_type(L, index);
    if (type == LUA_TNUMBER && isnan(lua_tonumber(L, index)))
        lua_pushliteral(L, "nan");          /* not the system's "-nan" */
    else if (type == LUA_TSTRING)
        push_quoted(L, index, at->depth > 0 ? MOST_BYTES : (size_t)-1);
    else if (type == LUA_TFUNCTION)
        push_function(L, index);
    else if (type == LUA_TTABLE && luaL_getmetafield(L, index, "__tostring")
                                   == LUA_TNIL)
        render_table(L, index, at);
    else
        luaL_tolstring(L, index, NULL);
    lua_insert(L, index + 1);
    lua_settop(L, index + 1);
}

/* ---- lists of records ---- */

typedef struct column {
    bool is_text;               /* has a string: on the left */
    bool is_quoted;             /* a string that needs it */
    bool is_float;
    double largest;             /* of the finite absolute values */
    int width;
} column;

/* Columns that come first, in this order; all others by name. */
static const char *const column_order[] = {
    "site", "layer", "head", "seq", "pos", "query", "key", "neuron", "index",
    "word", "piece", "id", "score", "value", "logit", "logprob", "prob"
};

static size_t column_rank(const char *name)
{
    const size_t n = sizeof column_order / sizeof *column_order;
    for (size_t i = 0; i < n; i++)
        if (strcmp(column_order[i], name) == 0)
            return i;
    return n;
}

/* Is the table at t a record: names to plain values, and not too many? */
static bool is_record(lua_State *L, int t)
{
    int n = 0;
    if (!lua_istable(L, t) || lua_getmetatable(L, t) != 0)
        return false;
    const int top = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, t) != 0; lua_pop(L, 1)) {
        const int type = lua_type(L, -1);
        n++;
        if (lua_type(L, -2) != LUA_TSTRING || n > MOST_COLUMNS
            || (type != LUA_TSTRING && type != LUA_TNUMBER
                && type != LUA_TBOOLEAN)) {
            lua_settop(L, top);
            return false;
        }
    }
    return n > 0;
}

/* Is t a list of records, and nothing else? */
static bool is_records(lua_State *L, int t)
{
    const int top = lua_gettop(L);
    const lua_Integer length = (lua_Integer)lua_rawlen(L, t);
    lua_Integer n = 0;
    bool yes = lua_istable(L, t) && length > 0
        && luaL_getmetafield(L, t, "__tostring") == LUA_TNIL;
    lua_settop(L, top);
    for (lua_pushnil(L); yes && lua_next(L, t) != 0; lua_settop(L, top + 1)) {
        n++;
        yes = is_in_sequence(L, top + 1, length) && is_record(L, top + 2);
    }
    lua_settop(L, top);
    return yes && n == length;
}

static void set_key(lua_State *L, int from, int names, int *n, int at)
{
    for (int i = ++*n; i > at; i--) {
        lua_rawgeti(L, names, i - 1);
        lua_rawseti(L, names, i);
    }
    lua_pushvalue(L, from);
    lua_rawseti(L, names, at);
}

/* Put the name at `from` among the n names in their order, once. */
static void insert_name(lua_State *L, int from, int names, int *n)
{
    const char *name = lua_tostring(L, from);
    int at = 1;
    for (; at <= *n; at++) {
        lua_rawgeti(L, names, at);
        const char *other = lua_tostring(L, -1);
        lua_pop(L, 1);          /* the list holds it */
        const size_t a = column_rank(name), b = column_rank(other);
        const int order = a != b ? (a < b ? -1 : 1) : strcmp(name, other);
        if (order == 0)
            return;
        if (order < 0)
            break;
    }
    if (*n < MOST_COLUMNS)
        set_key(L, from, names, n, at);
}

/* Push the list of the columns of the first `rows` records; how many. */
static int push_columns(lua_State *L, int t, int rows)
{
    int n = 0;
    lua_newtable(L);
    const int names = lua_gettop(L);
    for (int i = 1; i <= rows; i++) {
        lua_rawgeti(L, t, i);
        for (lua_pushnil(L); lua_next(L, names + 1) != 0; lua_pop(L, 1))
            insert_name(L, names + 2, names, &n);
        lua_settop(L, names);
    }
    return n;
}

/* Does a string need quotes, for its ends or its bytes to be seen? */
static bool needs_quotes(lua_State *L, int index)
{
    size_t n;
    const char *s = lua_tolstring(L, index, &n);
    bool yes = n == 0 || s[0] == ' ' || s[n - 1] == ' ' || s[0] == '"';
    for (size_t used; n > 0 && !yes; s += used, n -= used) {
        used = utf8_bytes(s, n);
        yes = used == 0 || (unsigned char)*s < 0x20 || *s == 0x7f;
    }
    return yes;
}

/* Push row i's value of column `name` (an index); what it is. */
static int push_cell(lua_State *L, int t, int i, int name)
{
    lua_rawgeti(L, t, i);
    lua_pushvalue(L, name);
    const int type = lua_rawget(L, -2);
    lua_remove(L, -2);
    return type;
}

static void format_float(char *text, size_t room, const column *c, double x)
{
    const int digits = c->largest < 1.0 ? 1 : 1 + (int)log10(c->largest);
    const int decimals = digits > 3 ? 2 : 5 - digits;
    if (isnan(x))
        snprintf(text, room, "nan");
    else if (c->largest >= 1e7 || (c->largest > 0.0 && c->largest < 1e-3))
        snprintf(text, room, "%.3e", x);
    else
        snprintf(text, room, "%.*f", decimals, x);
}

/* Replace the cell on top by its text. */
static void format_cell(lua_State *L, const column *c)
{
    char text[64];
    const int type = lua_type(L, -1);
    if (type == LUA_TNIL)
        lua_pushliteral(L, "");
    else if (type == LUA_TSTRING && c->is_quoted)
        push_quoted(L, lua_gettop(L), MOST_BYTES);
    else if (type == LUA_TNUMBER && c->is_float) {
        format_float(text, sizeof text, c, lua_tonumber(L, -1));
        lua_pushstring(L, text);
    } else {
        luaL_tolstring(L, -1, NULL);
    }
    lua_replace(L, -2);
}

/* What the cells of one column have in common, and its width. */
static void measure(lua_State *L, int t, int rows, int name, column *c)
{
    size_t bytes;
    *c = (column){0};
    for (int i = 1; i <= rows; i++, lua_pop(L, 1)) {
        const int type = push_cell(L, t, i, name);
        if (type == LUA_TSTRING) {
            c->is_text = true;
            c->is_quoted = c->is_quoted || needs_quotes(L, -1);
        } else if (type == LUA_TNUMBER && !lua_isinteger(L, -1)) {
            const double x = fabs(lua_tonumber(L, -1));
            c->is_float = true;
            if (isfinite(x) && x > c->largest)
                c->largest = x;
        }
    }
    const char *s = lua_tolstring(L, name, &bytes);
    c->width = columns(s, bytes);
    for (int i = 1; i <= rows; i++, lua_pop(L, 1)) {
        push_cell(L, t, i, name);
        format_cell(L, c);
        s = lua_tolstring(L, -1, &bytes);
        const int width = columns(s, bytes);
        c->width = width > c->width ? width : c->width;
    }
}

/* Append the text on top, padded, to the text below it; pops it. */
static void add_padded(lua_State *L, const column *c)
{
    size_t bytes;
    const char *s = lua_tolstring(L, -1, &bytes);
    luaL_Buffer b;
    int pad = c->width - columns(s, bytes);
    const int cell = lua_gettop(L);
    luaL_buffinit(L, &b);
    for (; !c->is_text && pad > 0; pad--)
        luaL_addchar(&b, ' ');
    luaL_addlstring(&b, s, bytes);
    for (; pad > 0; pad--)
        luaL_addchar(&b, ' ');
    luaL_addstring(&b, "  ");
    luaL_pushresult(&b);
    lua_remove(L, cell);
    lua_concat(L, 2);
}

/* Take the spaces off the end of the text on top. */
static void trim(lua_State *L)
{
    size_t n;
    const char *s = lua_tolstring(L, -1, &n);
    while (n > 0 && s[n - 1] == ' ')
        n--;
    lua_pushlstring(L, s, n);
    lua_remove(L, -2);
}

/* Push a list of the lines of a table with n columns, whose names begin at
 * index `names`: a heading, then the records of t. */
static void push_lines(lua_State *L, int t, int rows, int names,
                       const column *cs, int n)
{
    lua_newtable(L);
    const int lines = lua_gettop(L);
    for (int i = 0; i <= rows; i++) {
        lua_pushliteral(L, "");
        for (int j = 0; j < n; j++) {
            if (i == 0) {
                lua_pushvalue(L, names + j);
            } else {
                push_cell(L, t, i, names + j);
                format_cell(L, &cs[j]);
            }
            add_padded(L, &cs[j]);
        }
        trim(L);
        lua_rawseti(L, lines, i + 1);
    }
}

/* Push the table with columns of the list of records t. */
static void push_records(lua_State *L, int t)
{
    column cs[MOST_COLUMNS];
    const lua_Integer length = (lua_Integer)lua_rawlen(L, t);
    const int rows = length > MOST_ROWS ? MOST_ROWS : (int)length;
    const int n = push_columns(L, t, rows), names = lua_gettop(L);
    luaL_checkstack(L, MOST_COLUMNS + 16, "too many columns");
    for (int j = 0; j < n; j++) {
        lua_rawgeti(L, names, j + 1);
        measure(L, t, rows, names + 1 + j, &cs[j]);
    }
    push_lines(L, t, rows, names + 1, cs, n);
    const int lines = lua_gettop(L);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int i = 0; i <= rows; i++) {
        lua_rawgeti(L, lines, i + 1);
        luaL_addvalue(&b);
        luaL_addstring(&b, i < rows ? "\n" : "");
    }
    if (length > rows) {
        lua_pushfstring(L, "\n... %I more", (LUAI_UACINT)(length - rows));
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
}

/* ---- what others call ---- */

void qkv_print_text(lua_State *L, int index, int width)
{
    lua_newtable(L);
    const int path = lua_gettop(L);
    lua_pushvalue(L, index);
    const int value = lua_gettop(L);
    const layout at = {.width = width, .path = path};
    if (is_records(L, value))
        push_records(L, value);
    else
        render(L, value, &at);
    lua_replace(L, path);
    lua_settop(L, path);
}

static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        return size.ws_col;
    return 80;
}

/* Replace the value at index by its text, or let it show itself: then the
 * text is nil. */
static void replace_by_text(lua_State *L, int index, int width)
{
    if (luaL_getmetafield(L, index, "__show") == LUA_TFUNCTION) {
        lua_pushvalue(L, index);
        lua_call(L, 1, 0);
        lua_pushnil(L);
    } else {
        qkv_print_text(L, index, width);
    }
    lua_replace(L, index);
}

void qkv_print_values(lua_State *L, int first)
{
    const int top = lua_gettop(L), width = terminal_width();
    bool is_short = true;
    luaL_checkstack(L, 24, "too many values to print");
    for (int i = first; i <= top; i++) {
        replace_by_text(L, i, width);
        lua_settop(L, top);
        is_short = is_short && !lua_isnil(L, i)
            && strchr(lua_tostring(L, i), '\n') == NULL
            && lua_rawlen(L, i) < 40;
    }
    for (int i = first; i <= top; i++) {
        if (lua_isnil(L, i))
            continue;
        fwrite(lua_tostring(L, i), 1, lua_rawlen(L, i), stdout);
        putchar(is_short && i < top ? '\t' : '\n');
    }
}
