#!/bin/sh
# transcripts.sh - each .in, typed into qkv through a pipe, prints its .out
#
# What goes to stderr stands in the .out where it was printed. Addresses are
# shown as 0xADDRESS. A session in which an input failed ends with status 1.
set -u
here=$srcdir/tests/repl
passed=0 failed=0

for in in "$here"/*.in; do
    name=$(basename "$in" .in)
    { "$QKV" <"$in" 2>&1; echo "status $?"; } |
        sed 's/0x[0-9a-f]\{6,\}/0xADDRESS/g' >"$name.got"
    if diff -u "$here/$name.out" "$name.got"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
