/*
 * bind.h - what every binding file shares: documents, checks, raising
 *
 * A binding file is, in this order: check helpers, functions, methods,
 * metamethods, tables, and one qkv_bind_<module>(L) that fills the table
 * `qkv`, which it finds on top of the stack and leaves there.
 *
 * Only code in bind/ raises Lua errors, and only when every C resource is in
 * a userdata or freed. A class's userdata is one pointer, made empty before
 * the resource is acquired; __gc and __close release it and may run twice.
 */
#ifndef QKV_BIND_H
#define QKV_BIND_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/error.h"
#include "tensor/tensor.h"

/* ---- help text beside each function ---- */
/* signature: "t:matmul(u) -> tensor". text: a sentence or more; lines that
 * begin with "> " are examples: Lua expressions or statements, run by the
 * tests; one that is a comparison must be true. In examples `qkv` is there
 * and `m` is a tiny model. */
typedef struct qkv_doc {
    const char *signature, *text;
} qkv_doc;
#define QKV_DOC(fn, sig, txt) \
    static const qkv_doc doc_##fn = {.signature = (sig), .text = (txt)}

typedef struct qkv_bind_row {
    const char *name;
    lua_CFunction fn;
    const qkv_doc *doc;
} qkv_bind_row;
/* QKV_ROW("matmul", tensor_matmul): l_tensor_matmul and its doc. */
#define QKV_ROW(name, fn) {name, l_##fn, &doc_##fn}
/* QKV_FIELD("shape", tensor_shape): a field that __index computes; only its
 * document. */
#define QKV_FIELD(name, fn) {name, NULL, &doc_##fn}
#define QKV_ROW_END {NULL, NULL, NULL}

/* Put rows' functions into the table on top; record their documents under
 * "<module>.<name>" and under the function itself. The registry's table
 * "qkv.docs" maps both to {name=, signature=, text=}, and the table on top to
 * "<module>"; Lua halves add to it with doc(name, signature, text, fn) -> fn.
 */
void qkv_bind_functions(lua_State *L, const char *module,
                        const qkv_bind_row *rows);
/* Make metatable "qkv.<name>" with __name, `methods` (a table, documented as
 * "<name>.<method>", to which Lua halves may add), __index = methods, and
 * metamethods (luaL_Reg, may be NULL). Unless metamethods has an __index, an
 * unknown method or field is an error that offers the nearest name. Called
 * again for a class that is there, it adds to it. Leaves the stack as it
 * was. */
void qkv_bind_class(lua_State *L, const char *name, const qkv_bind_row *methods,
                    const luaL_Reg *metamethods);
/* The end of an __index function of one's own: for the value at 1 and the key
 * at 2 it pushes the method of that name and returns 1, or raises
 * no_field. */
int qkv_bind_index(lua_State *L);
/* The error for t.nmae: "tensor has no 'nmae'; did you mean 'name'?" Looks in
 * what is documented of the class of value `index`. */
int qkv_bind_no_field(lua_State *L, int index, const char *field);

/* ---- the Lua halves ---- */
/* repl/lua/embed.sh OUT.c FILES... writes `const qkv_lua_half qkv_<OUT>[]`,
 * one row a file, in order, ended by a NULL name. luaopen_qkv runs those of
 * qkv_lua_halves: each file is a chunk called with (qkv, doc, class), where
 * doc(name, signature, text [, fn]) -> fn writes a document (signature "": a
 * topic of the help), and class(name) -> methods, metatable finds the class
 * "qkv.<name>", or makes it. */
typedef struct qkv_lua_half {
    const char *name;           /* "pca" of repl/lua/pca.lua */
    const unsigned char *text;
    size_t bytes;
} qkv_lua_half;
extern const qkv_lua_half qkv_lua_halves[];
/* Load row `half` as a function and push it; raises on a syntax error. */
void qkv_bind_half(lua_State *L, const qkv_lua_half *half);

/* ---- raising and checking ---- */
int qkv_raise(lua_State *L, const qkv_error *err);      /* never returns */
/* At most `most` arguments: "2 arguments at most, got 3". */
void qkv_check_nargs(lua_State *L, int most);
/* Argument `index` is a table (or nil/none, then an empty one is put there)
 * with no keys but names (NULL-terminated); an unknown key is an error with
 * the nearest name. */
void qkv_check_options(lua_State *L, int index, const char *const *names);
/* One field of that table, with its type checked; the error names the field.
 * Absent or nil: the default. */
lua_Integer qkv_option_integer(lua_State *L, int index, const char *name,
                               lua_Integer otherwise);
lua_Number qkv_option_number(lua_State *L, int index, const char *name,
                             lua_Number otherwise);
bool qkv_option_boolean(lua_State *L, int index, const char *name,
                        bool otherwise);
/* The string lives as long as the table keeps it; NULL stands for absent. */
const char *qkv_option_string(lua_State *L, int index, const char *name,
                              const char *otherwise);

/* ---- classes ---- */
/* A new userdata of that metatable holding NULL, on top of the stack. */
void **qkv_push_empty(lua_State *L, const char *metatable);
/* The same over `it`, which is there already and must not be lost: making the
 * userdata may raise, and then `it` is released first. Returns 1. Tells the
 * collector what is held. */
int qkv_push_owned(lua_State *L, const char *metatable, void *it,
                   void (*release)(void *it));
/* The pointer inside; an error when it is another thing or closed. */
void *qkv_check_class(lua_State *L, int index, const char *metatable);
/* The pointer inside, or NULL when it is another thing. */
void *qkv_test_class(lua_State *L, int index, const char *metatable);

/* Enter the value on top in the registry's weak table "qkv.live", which knows
 * what is large and rare: models and runs. */
void qkv_bind_remember(lua_State *L);

/* A new userdata of `bytes` zeros, on top of the stack, whose metatable of that
 * name has __gc = gc: for what C holds while Lua may raise. */
void *qkv_push_block(lua_State *L, size_t bytes, const char *metatable,
                     lua_CFunction gc);

/* ---- tensors ---- */
#define QKV_TENSOR "qkv.tensor"
qkv_tensor *qkv_check_tensor(lua_State *L, int index);
/* A userdata over t, whose reference it takes, as qkv_push_owned does. NULL
 * raises err. Returns 1. */
int qkv_push_tensor(lua_State *L, qkv_tensor *t, const qkv_error *err);
/* The same, but a tensor without dimensions becomes a number. */
int qkv_push_value(lua_State *L, qkv_tensor *t, const qkv_error *err);
/* A tensor, or a number or (nested) table of numbers made into one (f32);
 * pushes the userdata and returns what it holds. */
qkv_tensor *qkv_to_tensor(lua_State *L, int index);
/* Options "axes" and "dtype" of the table at `index`: false when there is no
 * such field. axes: as many names as n_dims, into room of the caller; they
 * live as long as the table. */
bool qkv_option_axes(lua_State *L, int index, const char **axes, int n_dims);
bool qkv_option_dtype(lua_State *L, int index, qkv_dtype *dtype);
void qkv_check_dtype(lua_State *L, const char *name, qkv_dtype *dtype);
/* One element (index [n_dims], in range) of a plain tensor: an integer for
 * integer types. */
void qkv_push_element(lua_State *L, const qkv_tensor *t, const int64_t *index);
/* An axis by name or by number at `index`, -1 when absent. */
int qkv_bind_axis(lua_State *L, int index, const qkv_tensor *t);
/* Integers of a table or a tensor at `index` into memory of a new userdata
 * (pushed): n of them. A single integer: one. `what` names them in errors. */
const int64_t *qkv_check_integers(lua_State *L, int index, int64_t *n,
                                  const char *what);
/* Let the collector run when the bytes held outside Lua doubled. */
void qkv_bind_pressure(lua_State *L);

/* ---- modules, in the order luaopen_qkv calls them ---- */
void qkv_bind_help(lua_State *L);
void qkv_bind_tensor(lua_State *L);
void qkv_bind_linalg(lua_State *L);
void qkv_bind_geometry(lua_State *L);
void qkv_bind_tokenizer(lua_State *L);
void qkv_bind_model(lua_State *L);
void qkv_bind_run(lua_State *L);
void qkv_bind_heads(lua_State *L);
void qkv_bind_plot(lua_State *L);
void qkv_bind_sweep(lua_State *L);
void qkv_bind_memory(lua_State *L);
int luaopen_qkv(lua_State *L);

#endif
