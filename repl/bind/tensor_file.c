/*
 * tensor_file.c - tensors to and from files
 *
 * The ending of the name says the format: .npy and .csv, .tsv hold one
 * tensor, .npz and .safetensors several by name. Files are written whole or
 * not at all.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "format/csv.h"
#include "format/npy.h"
#include "format/safetensors.h"
#include "repl/bind/tensor_impl.h"

typedef enum file_kind { NPY, NPZ, SAFETENSORS, CSV, TSV, N_KINDS } file_kind;

static const struct {
    const char *ending;
    const char *alone;          /* the name of a tensor saved by itself; NULL:
                                 * such a file has no names */
} kinds[N_KINDS] = {
    [NPY] = {".npy", NULL},
    [NPZ] = {".npz", "arr_0"},
    [SAFETENSORS] = {".safetensors", "tensor"},
    [CSV] = {".csv", NULL},
    [TSV] = {".tsv", NULL},
};

/* ---- check helpers ---- */

static bool ends_in(const char *path, const char *ending)
{
    const size_t n = strlen(path), m = strlen(ending);
    return n > m && strcmp(path + n - m, ending) == 0;
}

/* A path that C can take: no NUL inside. */
static const char *check_path(lua_State *L, int index)
{
    size_t n;
    const char *path = luaL_checklstring(L, index, &n);
    luaL_argcheck(L, strlen(path) == n, index, "a file name without NUL");
    return path;
}

static file_kind check_kind(lua_State *L, const char *path)
{
    for (int i = 0; i < N_KINDS; i++)
        if (ends_in(path, kinds[i].ending))
            return (file_kind)i;
    if (ends_in(path, ".safetensors.index.json"))
        return SAFETENSORS;
    luaL_error(L, "'%s': a name that ends in .npy .npz .safetensors .csv or "
               ".tsv expected", path);
    return N_KINDS;
}

/* ---- writing ---- */

static bool write_one(file_kind kind, const char *path, const qkv_tensor *t,
                      qkv_error *err)
{
    return kind == NPY ? qkv_npy_save(path, t, err)
                       : qkv_csv_save(path, t, kind == CSV ? ',' : '\t', err);
}

static bool write_named(file_kind kind, const char *path, int64_t n,
                        const char *const *names, qkv_tensor *const *tensors,
                        qkv_error *err)
{
    return kind == NPZ ? qkv_npz_save(path, n, names, tensors, err)
                       : qkv_safetensors_save(path, n, names, tensors, err);
}

static void save_one(lua_State *L, const char *path, qkv_tensor *t)
{
    const file_kind kind = check_kind(L, path);
    const char *name = kinds[kind].alone;
    qkv_error err;
    const bool good = name == NULL ? write_one(kind, path, t, &err)
                                   : write_named(kind, path, 1, &name, &t,
                                                 &err);
    if (!good)
        qkv_raise(L, &err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names in the table at `index`, in order, in memory that is pushed. */
static const char **collect_names(lua_State *L, int index, int64_t *n)
{
    *n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        ++*n;
    const char **names = lua_newuserdatauv(L, (size_t)(*n + 1)
                                           * sizeof *names, 0);
    int64_t i = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "tensors are saved by name, {a = t, ...}; got [%s]",
                       luaL_tolstring(L, -2, NULL));
        size_t bytes;
        names[i] = lua_tolstring(L, -2, &bytes);
        if (strlen(names[i]) != bytes)
            luaL_error(L, "a name without NUL expected, got '%s...'", names[i]);
        i++;
    }
    qsort(names, (size_t)*n, sizeof *names, by_name);
    return names;
}

static void save_table(lua_State *L, const char *path, int index)
{
    const file_kind kind = check_kind(L, path);
    if (kinds[kind].alone == NULL)
        luaL_error(L, "'%s' holds one tensor; .npz and .safetensors hold "
                   "several", path);
    int64_t n;
    const char **names = collect_names(L, index, &n);
    qkv_tensor **tensors = lua_newuserdatauv(L, (size_t)(n + 1)
                                             * sizeof *tensors, 0);
    for (int64_t i = 0; i < n; i++) {
        lua_getfield(L, index, names[i]);
        tensors[i] = qkv_test_class(L, -1, QKV_TENSOR);
        if (tensors[i] == NULL)
            luaL_error(L, "'%s': a tensor expected, got %s", names[i],
                       luaL_typename(L, -1));
        lua_pop(L, 1);              /* the table keeps it alive */
    }
    qkv_error err;
    if (!write_named(kind, path, n, names, tensors, &err))
        qkv_raise(L, &err);
}

QKV_DOC(tensor_save, "t:save(path)",
    "Write to a file: .npy, .csv or .tsv; in .npz the name is \"arr_0\", in\n"
    ".safetensors \"tensor\".\n"
    "> qkv.eye(2):save(\"help-example.npy\")\n"
    "> qkv.load(\"help-example.npy\"):sum() == 2\n"
    "> os.remove(\"help-example.npy\")");
static int l_tensor_save(lua_State *L)
{
    qkv_tensor *t = qkv_check_tensor(L, 1);
    const char *path = check_path(L, 2);
    qkv_check_nargs(L, 2);
    save_one(L, path, t);
    return 0;
}

QKV_DOC(qkv_save, "qkv.save(path, {name = tensor, ...})",
    "Write tensors by name to a .npz or .safetensors file; or one tensor, as\n"
    "t:save does.\n"
    "> qkv.save(\"help-example.npz\", {a = qkv.eye(2), b = qkv.ones(3)})\n"
    "> qkv.load(\"help-example.npz\").b:sum() == 3\n"
    "> os.remove(\"help-example.npz\")");
static int l_qkv_save(lua_State *L)
{
    const char *path = check_path(L, 1);
    qkv_check_nargs(L, 2);
    qkv_tensor *t = qkv_test_class(L, 2, QKV_TENSOR);
    if (t != NULL) {
        save_one(L, path, t);
        return 0;
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    save_table(L, path, 2);
    return 0;
}

/* ---- reading ---- */

/* Several tensors, of a .npz or an open .safetensors, on their way into a Lua
 * table, which is made under lua_pcall: what is here is freed either way. */
typedef struct load {
    int64_t n;
    char **names;
    qkv_tensor **tensors;
    qkv_safetensors *file;
} load;

static int push_npz(lua_State *L)
{
    const load *from = lua_touserdata(L, 1);
    qkv_error err;
    lua_newtable(L);
    for (int64_t i = 0; i < from->n; i++) {
        qkv_push_tensor(L, qkv_tensor_retain(from->tensors[i]), &err);
        lua_setfield(L, -2, from->names[i]);
    }
    return 1;
}

static int push_safetensors(lua_State *L)
{
    const load *from = lua_touserdata(L, 1);
    const int64_t n = qkv_safetensors_count(from->file);
    qkv_error err;
    lua_newtable(L);
    for (int64_t i = 0; i < n; i++) {
        const char *name = qkv_safetensors_name(from->file, i);
        qkv_push_tensor(L, qkv_safetensors_tensor(from->file, name, &err),
                        &err);
        lua_setfield(L, -2, name);
    }
    return 1;
}

static void free_load(load *from)
{
    for (int64_t i = 0; i < from->n; i++) {
        qkv_free(from->names[i]);
        qkv_tensor_release(from->tensors[i]);
    }
    qkv_free(from->names);
    qkv_free(from->tensors);
    qkv_safetensors_close(from->file);
}

static int load_several(lua_State *L, file_kind kind, const char *path)
{
    load from = {0};
    qkv_error err;
    luaL_checkstack(L, 4, NULL);
    const bool good = kind == NPZ
        ? qkv_npz_load(path, &from.n, &from.names, &from.tensors, &err)
        : (from.file = qkv_safetensors_open(path, &err)) != NULL;
    if (!good)
        return qkv_raise(L, &err);
    lua_pushcfunction(L, kind == NPZ ? push_npz : push_safetensors);
    lua_pushlightuserdata(L, &from);
    const int status = lua_pcall(L, 1, 1, 0);
    free_load(&from);
    return status == LUA_OK ? 1 : lua_error(L);
}

QKV_DOC(qkv_load, "qkv.load(path) -> tensor or table",
    "Read a file: .npy, .csv and .tsv give a tensor, .npz and .safetensors a\n"
    "table of tensors by name. Those of .safetensors are read from the file\n"
    "as they are used, and are read-only.\n"
    "> qkv.eye(3):save(\"help-example.csv\")\n"
    "> qkv.load(\"help-example.csv\"):near(qkv.eye(3))\n"
    "> os.remove(\"help-example.csv\")");
static int l_qkv_load(lua_State *L)
{
    const char *path = check_path(L, 1);
    qkv_check_nargs(L, 1);
    const file_kind kind = check_kind(L, path);
    qkv_error err;
    if (kind == NPZ || kind == SAFETENSORS)
        return load_several(L, kind, path);
    return qkv_push_tensor(L, kind == NPY
                           ? qkv_npy_load(path, &err)
                           : qkv_csv_load(path, kind == CSV ? ',' : '\t',
                                          &err), &err);
}

/* ---- tables ---- */

static const qkv_bind_row methods[] = {
    QKV_ROW("save", tensor_save),
    QKV_ROW_END};

static const qkv_bind_row functions[] = {
    QKV_ROW("save", qkv_save),
    QKV_ROW("load", qkv_load),
    QKV_ROW_END};

void qkv_bind_tensor_file(lua_State *L)
{
    qkv_bind_class(L, "tensor", methods, NULL);
    qkv_bind_functions(L, "qkv", functions);
}
