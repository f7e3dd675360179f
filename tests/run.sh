#!/bin/sh
# run.sh - run one test and count its checks
#
#     run.sh c PROGRAM | lua SCRIPT | sh SCRIPT
#
# Started by `make check`, which sets srcdir, builddir, QKV (the program) and
# LUA (plain Lua; empty: there is none that could load our module). A test
# runs in an empty folder of its own and finds its data through $srcdir.
# cmocka's programs are counted by the lines they close with, scripts by their
# line `N passed, N failed, N skipped`; that line, for the whole test, ends the
# output. A test that made no check fails. One that cannot run exits 77 and
# says why in a line that begins with "skip".
# Exit status: 0 passed, 1 failed, 77 skipped.
set -u
kind=$1
test=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
name=$(basename "$2")
srcdir=$(cd "$srcdir" && pwd)
builddir=$(cd "$builddir" && pwd)
work=$builddir/tests/work/$kind-${name%.*}
rm -rf "$work"
mkdir -p "$work" && cd "$work" || exit 1
# Fetched models are the user's; history and settings must not be.
XDG_DATA_HOME=${XDG_DATA_HOME:-$HOME/.local/share}
XDG_STATE_HOME=$work/state XDG_CONFIG_HOME=$work/config
export srcdir builddir XDG_DATA_HOME XDG_STATE_HOME XDG_CONFIG_HOME

passed=0 failed=0 skipped=0

# count COMMAND...: run it, show what it says, add what it counted.
count()
{
    { "$@"; echo $? >"$work.status"; } </dev/null 2>&1 | tee "$work.out"
    status=$(cat "$work.status")
    # shellcheck disable=SC2046 # three words
    set -- $(awk '
        /^\[  PASSED  \] [0-9]+ test/ { p += $4 }
        /^\[  FAILED  \] [0-9]+ test/ { f += $4 }
        /^\[  SKIPPED \] [0-9]+ test/ { s += $4 }
        /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {
            p = $1; f = $3; s = $5
        }
        END { print p + 0, f + 0, s + 0 }' "$work.out")
    if [ "$status" = 77 ] && [ "$1$2$3" = 000 ]; then
        set -- 0 0 1
    elif [ "$1$2$3" = 000 ]; then
        echo "$name made no check (exit status $status)"
        set -- 0 1 0
    elif [ "$2" = 0 ] && [ "$status" != 0 ] && [ "$status" != 77 ]; then
        echo "$name ended with status $status"
        set -- "$1" 1 "$3"
    fi
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    rm -f "$work.status" "$work.out"
}

case $kind in
c)
    count "$test" ;;
lua)
    count "$QKV" "$test"
    if [ -n "$LUA" ]; then
        LUA_CPATH="$builddir/.libs/?.so;;" count "$LUA" "$test"
    fi ;;
sh)
    count sh "$test" ;;
esac

echo "$passed passed, $failed failed, $skipped skipped"
if [ "$failed" -gt 0 ]; then
    exit 1              # its folder stays, to be looked at
fi
cd "$builddir" && chmod -R u+w "$work" && rm -rf "$work"
test "$passed" -gt 0 || exit 77
