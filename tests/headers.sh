#!/bin/sh
# headers.sh - every header compiles alone
#
# `make check` sets CC and CPPFLAGS (where Lua's headers are).
set -u
passed=0 failed=0
cd "$srcdir" || exit 1

for header in core/*/*.h probes/*.h repl/*.h repl/bind/*.h; do
    test -f "$header" || continue
    # shellcheck disable=SC2086 # lists of words
    if printf '#include "%s"\n' "${header#core/}" |
        ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -fsyntax-only -Werror -I. -Icore \
            ${CPPFLAGS-} -x c -; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$header does not compile alone"
    fi
done

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
