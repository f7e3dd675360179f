#!/bin/sh
# readmes.sh - each folder's README.md lists each of its files, and Makefile.am
# knows each test
#
# README.md is at most 30 lines; a file is listed when its name stands in it.
set -u
cd "$srcdir" || exit 1
passed=0 failed=0

check()
{
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

# listed FOLDER: its README.md is short and names every file and folder in it.
listed()
{
    readme=$1/README.md
    if ! [ -f "$readme" ]; then
        echo "$readme: there is none"
        return 1
    fi
    missing=
    for path in "$1"/*; do
        file=${path##*/}
        test "$file" != README.md || continue
        test -f "$path" || test -n "$(ls "$path")" || continue
        grep -qF -- "$file" "$readme" || missing="$missing $file"
    done
    test -z "$missing" || echo "$readme does not mention:$missing"
    test "$(wc -l <"$readme")" -le 30 ||
        { echo "$readme is longer than 30 lines"; missing=long; }
    test -z "$missing"
}

for folder in core core/* probes repl repl/bind repl/lua scripts scripts/* \
    notebooks data tests tests/c tests/lua tests/repl tests/bench; do
    if [ -n "$(ls "$folder" 2>/dev/null)" ] && [ -d "$folder" ]; then
        check listed "$folder"
    fi
done

known()
{
    grep -qF -- "${1%.c}" Makefile.am || {
        echo "Makefile.am does not know $1"
        return 1
    }
}

for file in tests/c/test_*.c tests/lua/test_*.lua; do
    if [ -f "$file" ]; then
        check known "$file"
    fi
done

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
