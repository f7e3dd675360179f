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

# room ALLOWED FILE...: these files include from these rooms only; ALLOWED is
# a list of folders, and of files without their .h.
room()
{
    allowed=$1
    shift
    check "may include only from $allowed" "$(
        grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' "$@" \
            2>/dev/null | grep -vE "\"(config\.h|($(echo "$allowed" |
            tr ' ' '|'))(/[^/\"]+)?\.(h|def|inc))\"")"
}

core=base
room "$core" core/base/*.[ch]
core="$core tensor"
room "$core" core/tensor/*.[ch]
core="$core op"
room "$core" core/op/*.[ch]
room "$core format" core/format/*.[ch]
room "$core text format" core/text/*.[ch]
core="$core format text model"
room "$core" core/model/*.[ch]
core="$core train"
room "$core" core/train/*.[ch]
core="$core probes"
room "$core" probes/*.[ch]
# The pictures know no Lua; bindings draw them, and see nothing else of repl.
pictures="repl/plot repl/labels repl/fonts repl/terminal"
# shellcheck disable=SC2046,SC2086 # lists of words
room "$core $pictures" $(printf '%s.[ch] ' $pictures)
room "$core repl/bind $pictures" repl/bind/*.[ch]
room "$core repl/bind repl" repl/*.[ch]

# owner PATTERN FILE...: only these files include that header.
owner()
{
    pattern=$1
    shift
    check "<$pattern> belongs to $*" "$(
        grep -rslE "^[[:space:]]*#[[:space:]]*include[[:space:]]+<$pattern" \
            core probes repl | grep -vxF "$(printf '%s\n' "$@")")"
}

owner 'cblas' core/tensor/blas.c
owner 'readline/' repl/line.c
check "mmap belongs to core/base" "$(
    grep -rsnE '[^_a-z]mmap *\(' core probes repl | grep -v '^core/base/')"
owner 'pcre2' core/text/pretokenize.c core/text/split.c
owner 'zlib' core/format/npy.c core/format/npz.c core/format/zip.c
check "core and probes know no Lua" "$(
    grep -rsnE '#[[:space:]]*include[[:space:]]+[<"](lua|lauxlib|lualib)' \
        core probes)"

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
