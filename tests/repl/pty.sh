#!/bin/sh
# pty.sh - what needs a terminal: test_pty.py types into a pseudo-terminal
set -u
if ! command -v python3 >/dev/null 2>&1; then
    echo "skip: no python3 to open a pseudo-terminal with"
    exit 77
fi
exec python3 -B "$srcdir/tests/repl/test_pty.py"
