#!/bin/sh
# installed.sh - what `make install` left works: the program, the library with
# its headers and pkg-config file, the Lua module. Run by `make installcheck`,
# which sets bindir, libdir, luadir, CC, PKG_CONFIG, LUA.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bindir/qkv" --version
"$bindir/qkv" -e 'assert(require("qkv").zeros(2, 3).shape[2] == 3)'

cat >"$work/use.c" <<'END'
#include <stdio.h>
#include <tensor/tensor.h>

int main(void)
{
    const int64_t shape[2] = {2, 3};
    qkv_error err;
    qkv_tensor *t = qkv_tensor_new(QKV_F32, 2, shape, NULL, &err);
    if (t == NULL) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    qkv_tensor_release(t);
    return 0;
}
END
PKG_CONFIG_PATH=$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export PKG_CONFIG_PATH
# shellcheck disable=SC2046,SC2086 # lists of words
$CC $("$PKG_CONFIG" --cflags libqkv) -o "$work/use" "$work/use.c" \
    $("$PKG_CONFIG" --libs libqkv)
LD_LIBRARY_PATH=$libdir "$work/use"

if [ -n "$LUA" ]; then
    LUA_CPATH="$luadir/?.so" "$LUA" -e 'local before = {}
        for name in pairs(_G) do before[name] = true end
        assert(require("qkv").zeros(2, 3).shape[2] == 3)
        for name in pairs(_G) do assert(before[name], name) end'
fi
echo "what was installed works"
