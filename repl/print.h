/*
 * print.h - what the prompt shows of a value
 *
 * Strings are quoted, so that "1" and 1 differ. Tables show what is in them:
 * sequence first, then other keys in order, cut where they are long or deep.
 * A list of records ({piece=, id=, prob=}, ...) is a table with columns. A
 * value whose metatable has a function __show (a plot) shows itself. All else
 * is what tostring says, and functions that are documented their signature.
 */
#ifndef QKV_PRINT_H
#define QKV_PRINT_H
#include <lua.h>

/* Push the text of the value at `index`, without a newline at its end, laid
 * out for lines of `width` columns. May raise (a __tostring that does). */
void qkv_print_text(lua_State *L, int index, int width);

/* Print the values from `first` to the top to stdout: short ones on one line
 * with tabs between, else one below the other. */
void qkv_print_values(lua_State *L, int first);

#endif
