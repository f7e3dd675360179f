/*
 * tensor_impl.h - what the files of the tensor binding share
 *
 * The class is one; each file adds its part. Only tensor*.c include this.
 */
#ifndef QKV_TENSOR_IMPL_H
#define QKV_TENSOR_IMPL_H
#include "repl/bind/bind.h"

/* Each finds the table `qkv` on top and leaves it there. */
void qkv_bind_tensor_make(lua_State *L);    /* constructors */
void qkv_bind_tensor_index(lua_State *L);   /* elements and parts */
void qkv_bind_tensor_math(lua_State *L);    /* element by element, products */
void qkv_bind_tensor_reduce(lua_State *L);  /* along an axis, or over all */
void qkv_bind_tensor_file(lua_State *L);    /* save, load */
void qkv_bind_tensor_text(lua_State *L);    /* tostring, print */

/* Sizes and axis names of a new tensor, from the arguments. */
typedef struct qkv_making {
    int n_dims;
    int64_t shape[QKV_MAX_DIMS];
    const char *names[QKV_MAX_DIMS];
    const char *const *axes;        /* names, or NULL */
    int options;                    /* stack slot of the options table */
} qkv_making;
/* From argument `first` on: sizes as numbers, or one list of them, then a
 * table of options, of which "axes" must be one. m is filled; nothing of the
 * stack is lost. */
void qkv_check_making(lua_State *L, int first, qkv_making *m,
                      const char *const *options);

#endif
