#!/bin/sh
# layering.sh - arrows between rooms point one way
#
# A file includes only from its own room or from rooms to its left; each
# foreign thing has one owner. STYLE 2.1. The linker says the same of Lua.
set -u
cd "$srcdir" || exit 1
passed=0 failed=0

# check WHAT FOUND: FOUND lists the offences, empty if there are none.
check()
{
    if [ -z "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf '%s:\n%s\n' "$1" "$2"
    fi
}

# room FOLDER ALLOWED...: its files include from these rooms only.
room()
{
    folder=$1
    shift
    test -d "$folder" || return 0
    allowed=$(echo "$*" | tr ' ' '|')
    check "$folder may include from: $*" "$(
        grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' \
            "$folder"/*.[ch] /dev/null |
        grep -vE "\"(config\.h|(${allowed})/[^/\"]+)\"")"
}

room core/base base
room core/tensor base tensor
room core/op base tensor op
room core/format base tensor op format
room core/text base tensor op format text
room core/model base tensor op format text model
room core/train base tensor op format text model train
room probes base tensor op format text model train probes
room repl/bind base tensor op format text model train probes repl/bind
room repl base tensor op format text model train probes repl/bind repl

# owner PATTERN FILE...: only these files include that header.
owner()
{
    pattern=$1
    shift
    check "<$pattern> belongs to $*" "$(
        grep -rlE "^[[:space:]]*#[[:space:]]*include[[:space:]]+<$pattern" \
            core probes repl | grep -vxF "$(printf '%s\n' "$@")")"
}

owner 'cblas' core/tensor/blas.c
owner 'readline/' repl/line.c
owner 'sys/mman\.h' core/base/file.c core/base/alloc.c
owner 'pcre2' core/text/pretokenize.c core/text/split.c
owner 'zlib' core/format/npy.c core/format/npz.c core/format/zip.c
check "core and probes know no Lua" "$(
    grep -rnE '#[[:space:]]*include[[:space:]]+[<"](lua|lauxlib|lualib)' \
        core probes)"

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
