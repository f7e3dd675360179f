#!/bin/sh
# program.sh - the arguments of qkv, what it prints where, its exit status
set -u
passed=0 failed=0

# row WHAT STATUS OUT ERR COMMAND...: the command's exit status, and patterns
# (of case) for all of its stdout and stderr.
row()
{
    what=$1 status=$2 out=$3 err=$4
    shift 4
    "$@" >out 2>err
    got=$?
    ok=yes
    test "$got" = "$status" || ok="exit status $got, not $status"
    # shellcheck disable=SC2254 # they are patterns
    case $(cat out) in $out) ;; *) ok="stdout: $(cat out)" ;; esac
    # shellcheck disable=SC2254
    case $(cat err) in $err) ;; *) ok="stderr: $(cat err)" ;; esac
    if [ "$ok" = yes ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$what: $ok"
    fi
}

with_input()
{
    printf '%s\n' "$1" >in
    shift
    "$@" <in
}

# Send a signal to a script that runs; its status.
signalled()
{
    "$QKV" "$2" <in &
    sleep 2
    kill -s "$1" $!
    wait $!
}

cat >args.lua <<'END'
print(arg[0], #arg, arg[1], arg[2], ...)
END
cat >'#!script' <<'END'
#!/usr/bin/env qkv
print "by its first line"
END
echo 'local function f() error("deep") end f() return 1' >fails.lua
echo 'print(undefned) undefined = 1' >reads.lua
echo 'local function f() leaked = 1 end f()' >leaks.lua
echo 'x = nil print(x) y = 1 print(y)' >strict.lua
echo 'while true do pcall(string.rep, "x", 10) end' >loops.lua
echo 'local t <close> = setmetatable({}, {__close = function()
  io.open("closed", "w"):close() end}) while true do print "y" end' >prints.lua
echo 'error({code = 7})' >object.lua
echo 'x = = 1' >syntax.lua
echo 'io.stderr:write(io.read("a"))' >reads-stdin.lua
echo "local m = qkv.open(arg[1])
m:hidden()" >inside.lua

row version 0 "qkv *Lua 5.4*Readline*GPL*" '' "$QKV" --version
row help 0 'usage: qkv *--no-init*' '' "$QKV" --help
row 'unknown option' 2 '' '*--nosuch*see qkv --help' "$QKV" --nosuch
row 'option without its argument' 2 '' '*see qkv --help' "$QKV" -e
row 'two models' 2 '' 'qkv: one model at a time, got a and b' "$QKV" a b
row 'expression' 0 2 '' "$QKV" -e '1 + 1'
row 'statement' 0 '' '' "$QKV" -e 'x = 1'
row 'statements in order' 0 '4
"s"' '' "$QKV" -e 'x = 3' -e 'x + 1' -e '"s"'
row 'lines each show their value' 0 '2
4
"A"
1' '' "$QKV" -e '1 + 1

-- a comment
math.floor(4.5)
s = ("a")
  :upper()
s
print
(1)'
row 'lines up to a wrong one' 1 '"A"' "*unexpected symbol near '='" \
    "$QKV" -e 's = ("a")
  :upper()
s
x = = 1
2'
row 'failed statement ends' 1 '1' 'qkv: bad' \
    "$QKV" -e 1 -e 'error("bad", 0)' -e 2
row 'strict statement' 1 '' "qkv: no global 'prnit'; did you mean 'print'?" \
    "$QKV" -e 'prnit(1)'
row 'script' 0 'args.lua	2	-e	1 +	-e	1 +' '' "$QKV" args.lua -e '1 +'
row 'script by its first line' 0 'by its first line' '' "$QKV" './#!script'
row '-e before script' 0 '7
args.lua	0	nil	nil' '' "$QKV" -e 'print(7)' args.lua
row 'missing script' 1 '' 'qkv: cannot open nosuch.lua*' "$QKV" nosuch.lua
row 'script fails' 1 '' 'qkv: fails.lua:1: deep
stack traceback:
	*in function '\''error'\''
	fails.lua:1: in *f*
	fails.lua:1: in main chunk' "$QKV" fails.lua
row 'error object' 1 '' 'qkv: (error object is a table value)' \
    "$QKV" object.lua
row 'syntax' 1 '' "qkv: syntax.lua:1: unexpected symbol near '='" \
    "$QKV" syntax.lua
row 'an error inside of a Lua half is where that was called' 1 '' \
    'qkv: inside.lua:2: input is a nil: *' \
    "$QKV" inside.lua "$srcdir/data/tiny.gguf"
row 'undefined global' 1 '' "qkv: reads.lua:1: no global 'undefned'*" \
    "$QKV" reads.lua
row 'global in a function' 1 '' \
    "qkv: leaks.lua:1: new global 'leaked' inside a function*" "$QKV" leaks.lua
row 'globals at the top level' 0 'nil
1' '' "$QKV" strict.lua
row 'script on stdin' 0 '3' '' with_input 'print(1 + 2)' "$QKV" -
row 'arguments of stdin' 0 '-	x' '' \
    with_input 'print(arg[0], arg[1])' "$QKV" - x
row 'inputs on stdin' 0 '3
"a"' '' with_input '1 + 2
"a"' "$QKV"
row 'inputs go on, status says' 1 '3' 'qkv: oops' with_input 'error("oops", 0)
1 + 2' "$QKV"
row 'a last line without its newline' 0 '5' '' \
    sh -c 'printf "2 + 3" | "$0"' "$QKV"
row 'stdin is the script'\''s' 0 '' 'some text' \
    with_input 'some text' "$QKV" reads-stdin.lua
row '-i on a pipe' 0 '9
4' '' with_input '4' "$QKV" -i -e 9
row 'no such model' 1 '' 'qkv: *nosuchmodel*' "$QKV" nosuchmodel
row 'exit' 3 '' '' "$QKV" -e 'os.exit(3)'
row 'interrupted script' 130 '' 'qkv: interrupted' signalled INT loops.lua
row 'closed pipe' 141 '' '' sh -c '
    { "$0" prints.lua; echo $? >status; } | head -n 1 >/dev/null
    exit "$(cat status)"' "$QKV"
row 'closed pipe, but all is closed' 0 '' '' test -f closed
row 'full disk' 1 '' 'qkv: writing to stdout: *' \
    sh -c '"$0" -e "print(1)" >/dev/full' "$QKV"
row 'no history without a terminal' 1 '' '' test -e "$XDG_STATE_HOME/qkv"

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
