/*
 * complete.h - what Tab offers
 *
 * Names and keywords; fields after '.'; methods after ':'; commands after a
 * ':' that begins the line. Inside a string: what the receiver offers, if its
 * metatable has a C function __complete(value, method, prefix) -> list of
 * strings (method: the one being called, nil when the value itself is called
 * or indexed), names with dots part by part; else names of files.
 *
 * Looking must not change anything: tables are read raw, and of __index and
 * __complete only C functions are called, which are our own.
 */
#ifndef QKV_COMPLETE_H
#define QKV_COMPLETE_H
#include <stddef.h>

#include <lua.h>

/* For qkv_line_helper; context is the lua_State. Never raise. */
int qkv_complete(void *context, const char *line, size_t point,
                 size_t *start);
const char *qkv_complete_word(void *context, int i);

#endif
