/*
 * plot.c - what repl/lua/plot.lua needs from C
 *
 * Private to that file, which has the public functions and their documents:
 * drawing through the gnuplot child, spelling, measuring and placing labels,
 * what the terminal can show, and files written whole or not at all. They go
 * into the table `plot` of the registry's "qkv.half". A failure is returned
 * as nil, message, kind, so that plot.lua can raise it at its caller's line.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "repl/bind/bind.h"
#include "repl/fonts.h"
#include "repl/labels.h"
#include "repl/plot.h"
#include "repl/terminal.h"

#define TEXT "qkv.plot.text"
#define BLOCK "qkv.plot.block"
#define STATE "qkv.plot.state"

/* ---- helpers ---- */

/* Bytes that the collector frees, whatever is raised meanwhile. */
static qkv_text *new_text(lua_State *L)
{
    qkv_text *t = lua_newuserdatauv(L, sizeof *t, 0);
    *t = (qkv_text){0};
    luaL_setmetatable(L, TEXT);
    return t;
}

static int text_gc(lua_State *L)
{
    qkv_text *t = luaL_checkudata(L, 1, TEXT);
    qkv_text_free(t);
    *t = (qkv_text){0};
    return 0;
}

static void push_text(lua_State *L, const qkv_text *t)
{
    lua_pushlstring(L, t->bytes > 0 ? t->data : "", t->bytes);
}

static void *new_block(lua_State *L, size_t count, size_t size)
{
    qkv_error err;
    void **slot = qkv_push_empty(L, BLOCK);
    *slot = qkv_alloc_zero(count, size, &err);
    if (*slot == NULL)
        qkv_raise(L, &err);
    return *slot;
}

static int block_gc(lua_State *L)
{
    void **slot = luaL_checkudata(L, 1, BLOCK);
    qkv_free(*slot);
    *slot = NULL;
    return 0;
}

/* The child and the fonts, of this Lua state. */
typedef struct state {
    qkv_plot *plot;
    qkv_fonts *fonts;
} state;

static state *get_state(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static int state_gc(lua_State *L)
{
    state *s = luaL_checkudata(L, 1, STATE);
    qkv_plot_free(s->plot);
    qkv_fonts_free(s->fonts);
    *s = (state){0};
    return 0;
}

static int failure(lua_State *L, const qkv_error *err)
{
    luaL_pushfail(L);
    lua_pushstring(L, err->msg);
    lua_pushstring(L, qkv_code_word(err->code));
    return 3;
}

/* ---- drawing ---- */

/* draw(terminal, script) -> picture, warnings */
static int plot_draw(lua_State *L)
{
    state *s = get_state(L);
    const char *terminal = luaL_checkstring(L, 1);
    size_t bytes;
    const char *script = luaL_checklstring(L, 2, &bytes);
    qkv_error err;
    qkv_text *picture = new_text(L), *heard = new_text(L);
    if (s->plot == NULL)
        s->plot = qkv_plot_new(NULL, &err);
    if (s->plot == NULL || !qkv_plot_draw(picture, heard, s->plot, terminal,
                                          script, bytes, &err))
        return failure(L, &err);
    push_text(L, picture);
    push_text(L, heard);
    return 2;
}

/* installed() -> is there a gnuplot? */
static int plot_installed(lua_State *L)
{
    lua_pushboolean(L, qkv_plot_is_installed(NULL));
    return 1;
}

/* ---- words ---- */

/* spell(token [, dots]) -> as a reader should see it */
static int plot_spell(lua_State *L)
{
    state *s = get_state(L);
    size_t bytes;
    const char *token = luaL_checklstring(L, 1, &bytes);
    qkv_error err;
    qkv_text *out = new_text(L);
    if (s->fonts == NULL)
        s->fonts = qkv_fonts_new(&err);
    if (s->fonts == NULL
        || !qkv_label_spell(out, token, bytes, lua_toboolean(L, 2),
                            qkv_fonts_cover, s->fonts, &err))
        return qkv_raise(L, &err);
    push_text(L, out);
    return 1;
}

/* width(text) -> em */
static int plot_width(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    lua_pushnumber(L, qkv_label_width(text, bytes));
    return 1;
}

/* columns(text) -> characters' cells on a terminal */
static int plot_columns(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    lua_pushinteger(L, qkv_label_columns(text, bytes));
    return 1;
}

/* cut(text, em) -> the longest beginning that is no wider */
static int plot_cut(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    lua_pushlstring(L, text,
                    qkv_label_cut(text, bytes, luaL_checknumber(L, 2)));
    return 1;
}

static double field(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    const double value = luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static void set_number(lua_State *L, const char *name, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

/* place(labels, frame, segments): labels {{x=, y=, width=, height=}, ...} get
 * ax, ay, align, leader, shown; frame {left=, top=, right=, bottom=, radius=};
 * segments {{x0, y0, x1, y1}, ...}. All in pixels. */
static int plot_place(lua_State *L)
{
    for (int i = 1; i <= 3; i++)
        luaL_checktype(L, i, LUA_TTABLE);
    const lua_Integer n = luaL_len(L, 1), n_segments = luaL_len(L, 3);
    qkv_label *labels = new_block(L, (size_t)n, sizeof *labels);
    double (*segments)[4] = new_block(L, (size_t)n_segments, sizeof *segments);
    for (lua_Integer i = 0; i < n; i++, lua_pop(L, 1)) {
        lua_geti(L, 1, i + 1);
        const int top = lua_gettop(L);
        labels[i] = (qkv_label){.x = field(L, top, "x"),
                                .y = field(L, top, "y"),
                                .width = field(L, top, "width"),
                                .height = field(L, top, "height")};
    }
    for (lua_Integer i = 0; i < n_segments; i++, lua_pop(L, 1)) {
        lua_geti(L, 3, i + 1);
        for (int k = 0; k < 4; k++, lua_pop(L, 1)) {
            lua_geti(L, -1, k + 1);
            segments[i][k] = luaL_checknumber(L, -1);
        }
    }
    const qkv_label_frame frame = {
        .left = field(L, 2, "left"), .top = field(L, 2, "top"),
        .right = field(L, 2, "right"), .bottom = field(L, 2, "bottom"),
        .radius = field(L, 2, "radius"),
        .segments = (const double (*)[4])segments,
        .n_segments = (size_t)n_segments};
    qkv_error err;
    if (!qkv_labels_place(labels, (size_t)n, &frame, &err))
        return failure(L, &err);
    for (lua_Integer i = 0; i < n; i++, lua_pop(L, 1)) {
        lua_geti(L, 1, i + 1);
        set_number(L, "ax", labels[i].anchor_x);
        set_number(L, "ay", labels[i].anchor_y);
        lua_pushinteger(L, labels[i].align);
        lua_setfield(L, -2, "align");
        lua_pushboolean(L, labels[i].leader);
        lua_setfield(L, -2, "leader");
        lua_pushboolean(L, labels[i].shown);
        lua_setfield(L, -2, "shown");
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* nearest(word, names) -> the name that was meant, or nil */
static int plot_nearest(lua_State *L)
{
    const char *word = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    const lua_Integer n = luaL_len(L, 2);
    const char **names = new_block(L, (size_t)n, sizeof *names);
    for (lua_Integer i = 0; i < n; i++, lua_pop(L, 1)) {
        lua_geti(L, 2, i + 1);
        names[i] = luaL_checkstring(L, -1);     /* the table keeps it */
    }
    lua_pushstring(L, qkv_text_nearest(word, names, (size_t)n));
    return 1;
}

/* ---- the terminal ---- */

/* terminal() -> {graphics=, columns=, rows=, width=, height=, colours=} */
static int plot_terminal(lua_State *L)
{
    static const char *const names[] = {"none", "text", "kitty", "iterm",
                                        "sixel"};
    qkv_terminal t;
    qkv_terminal_detect(&t);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, names[t.graphics]);
    lua_setfield(L, -2, "graphics");
    const struct {
        const char *name;
        int value;
    } sizes[] = {{"columns", t.columns}, {"rows", t.rows}, {"width", t.width},
                 {"height", t.height}, {"colours", t.colours}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        lua_pushinteger(L, sizes[i].value);
        lua_setfield(L, -2, sizes[i].name);
    }
    return 1;
}

/* encode(graphics, picture) -> bytes for the terminal */
static int plot_encode(lua_State *L)
{
    static const char *const names[] = {"kitty", "iterm", "sixel", NULL};
    static const qkv_graphics kinds[] = {QKV_KITTY, QKV_ITERM, QKV_SIXEL};
    const qkv_graphics graphics = kinds[luaL_checkoption(L, 1, NULL, names)];
    size_t bytes;
    const char *picture = luaL_checklstring(L, 2, &bytes);
    qkv_error err;
    qkv_text *out = new_text(L);
    if (!qkv_terminal_encode(out, graphics, picture, bytes, &err))
        return qkv_raise(L, &err);
    push_text(L, out);
    return 1;
}

/* blocks(rgb, width, height, colours) -> lines of half-blocks */
static int plot_blocks(lua_State *L)
{
    size_t bytes;
    const char *rgb = luaL_checklstring(L, 1, &bytes);
    const lua_Integer width = luaL_checkinteger(L, 2),
                      height = luaL_checkinteger(L, 3);
    luaL_argcheck(L, width >= 0 && height >= 0 && width < 10000
                  && height < 10000
                  && bytes == (size_t)width * (size_t)height * 3, 1,
                  "bytes are not width * height * 3");
    qkv_error err;
    qkv_text *out = new_text(L);
    if (!qkv_terminal_blocks(out, (const unsigned char *)rgb, (int)width,
                             (int)height, (int)luaL_checkinteger(L, 4), &err))
        return qkv_raise(L, &err);
    push_text(L, out);
    return 1;
}

/* ---- files ---- */

static bool write_whole(const char *path, const char *data, size_t bytes,
                        qkv_error *err)
{
    qkv_writer w;
    if (!qkv_writer_open(&w, path, err))
        return false;
    if (!qkv_writer_put(&w, data, bytes, err)) {
        qkv_writer_abandon(&w);
        return false;
    }
    return qkv_writer_commit(&w, err);
}

/* write(path, bytes) -> true */
static int plot_write(lua_State *L)
{
    size_t bytes, length;
    const char *path = luaL_checklstring(L, 1, &length);
    const char *data = luaL_checklstring(L, 2, &bytes);
    qkv_error err;
    const bool ok = strlen(path) == length
        ? write_whole(path, data, bytes, &err)
        : qkv_fail(&err, QKV_EINVAL, "a file's name cannot hold a zero byte");
    if (!ok)
        return failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* The largest number that a file's name in `dir` begins with; 0: none. */
static long last_number(const char *dir)
{
    long last = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char *end;
        const long n = strtol(e->d_name, &end, 10);
        if (end != e->d_name && *end == '-' && n > last && n < 1000000)
            last = n;
    }
    if (d != NULL)
        closedir(d);
    return last;
}

/* Take a name that nobody has: O_EXCL decides between two of us. The empty
 * file is then replaced by the whole one, or removed. */
static bool reserve(char *path, size_t room, const char *dir,
                    const char *stem, const char *extension, qkv_error *err)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return qkv_fail_errno(err, "cannot make the folder %s", dir);
    for (long n = last_number(dir) + 1, tries = 0; tries < 1000; n++, tries++) {
        const int length = snprintf(path, room, "%s/%03ld-%s.%s", dir, n,
                                    stem, extension);
        if (length < 0 || (size_t)length >= room)
            return qkv_fail(err, QKV_EINVAL, "the name of the picture is too "
                            "long");
        const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                            0666);
        if (fd >= 0) {
            close(fd);
            return true;
        }
        if (errno != EEXIST)
            return qkv_fail_errno(err, "cannot write %s", path);
    }
    return qkv_fail(err, QKV_EIO, "no free name for a picture in %s", dir);
}

/* write_new(dir, stem, extension, bytes) -> "dir/NNN-stem.extension" */
static int plot_write_new(lua_State *L)
{
    size_t bytes;
    const char *data = luaL_checklstring(L, 4, &bytes);
    char path[PATH_MAX];
    qkv_error err;
    if (!reserve(path, sizeof path, luaL_checkstring(L, 1),
                 luaL_checkstring(L, 2), luaL_checkstring(L, 3), &err))
        return failure(L, &err);
    if (!write_whole(path, data, bytes, &err)) {
        unlink(path);
        return failure(L, &err);
    }
    lua_pushstring(L, path);
    return 1;
}

/* ---- tables ---- */

static void new_class(lua_State *L, const char *name, lua_CFunction gc)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

void qkv_bind_plot(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"draw", plot_draw}, {"installed", plot_installed},
        {"spell", plot_spell}, {"width", plot_width}, {"cut", plot_cut},
        {"columns", plot_columns}, {"place", plot_place},
        {"nearest", plot_nearest},
        {"terminal", plot_terminal}, {"encode", plot_encode},
        {"blocks", plot_blocks}, {"write", plot_write},
        {"write_new", plot_write_new}, {NULL, NULL}};
    new_class(L, TEXT, text_gc);
    new_class(L, BLOCK, block_gc);
    new_class(L, STATE, state_gc);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "qkv.half");
    luaL_newlibtable(L, functions);
    state *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = (state){0};
    luaL_setmetatable(L, STATE);
    luaL_setfuncs(L, functions, 1);
    lua_setfield(L, -2, "plot");
    lua_pop(L, 1);
}
