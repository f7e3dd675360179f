#!/bin/sh
# embed.sh OUT.c FILES... - Lua files as bytes in a C file
#
# Writes `const qkv_lua_half qkv_<OUT>[]`: one row a file, in the order given,
# ended by a NULL name (see repl/bind/bind.h). POSIX sh, od and sed only; a
# string literal would be cut at the compiler's limit, so bytes it is.
set -eu
out=$1
shift
table=qkv_$(basename "$out" .c)
trap 'rm -f "$out.tmp"' EXIT

{
    printf '/* made by repl/lua/embed.sh: edit the .lua files instead */\n'
    printf '#include "config.h"\n\n#include "repl/bind/bind.h"\n'
    for file
    do
        printf '\nstatic const unsigned char text_%s[] = {\n' \
            "$(basename "$file" .lua)"
        od -An -v -tu1 "$file" | sed 's/[0-9][0-9]*/&,/g'
        printf '0};\n'
    done
    printf '\nconst qkv_lua_half %s[] = {\n' "$table"
    for file
    do
        name=$(basename "$file" .lua)
        printf '    {"%s", text_%s, sizeof text_%s - 1},\n' \
            "$name" "$name" "$name"
    done
    printf '    {NULL, NULL, 0}};\n'
} >"$out.tmp"
mv "$out.tmp" "$out"
