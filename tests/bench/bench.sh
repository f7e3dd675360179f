#!/bin/sh
# bench.sh - make bench compares like with like, or says what differs
#
# The peer is qkv itself, answering as peer.py would, spoilt in one way or
# another; the model is tiny. What is tested is the judgement, not the speed.
set -u
command -v python3 >/dev/null || {
    echo "skip: python3 is not installed"
    exit 77
}
passed=0 failed=0
MODEL=$srcdir/data/tiny.gguf QKV_PEERS=$PWD/peers PAIRS=1 PATIENCE=0 THREADS=1
export MODEL QKV_PEERS PAIRS PATIENCE THREADS
mkdir -p peers/v/bin peers/data
cat >peers/v/bin/python <<'EOF'
#!/bin/sh
case $1 in
-c) echo '{"transformers": "like qkv", "transformer-lens": "like qkv"}' ;;
*) sed -u 's/^threads.*/rest/' | "$QKV" "$srcdir/tests/bench/worker.lua" \
    "$MODEL" | sed -u "$SPOIL" ;;
esac
EOF
chmod +x peers/v/bin/python

# row WHAT STATUS PATTERN ROWS SPOIL: the exit status, a pattern (of case) for
# what is printed, the rows, and what sed does to the peer's answers.
row()
{
    ROWS=$4 SPOIL=$5 python3 "$srcdir/tests/bench/bench.py" "$QKV" \
        "$builddir/tests/bench/limits" >out 2>&1
    status=$?
    # shellcheck disable=SC2254 # a pattern
    case $status:$(cat out) in
    $2:$3)
        passed=$((passed + 1)) ;;
    *)
        failed=$((failed + 1))
        echo "$1: exit status $status"
        cat out ;;
    esac
}

row 'the same answers' 0 '*generate 128*transformers*of 1 goals reached*' \
    'generate transformers' ''
row 'one id fewer' 1 '*not the same*qkv gives 128 ids, the peer 127' \
    'generate transformers' 's/"ids":\[[0-9]*,/"ids":[/'
row 'another id' 1 '*not the same*id 1 is * in qkv, 0 in the peer, and *' \
    'generate transformers' 's/"ids":\[\([0-9]*\),[0-9]*/"ids":[\1,0/'
row 'another logit' 1 '*not the same*value 0 is * in qkv, 7 in the peer' \
    'forward 16 transformers' 's/"values":\[[^]]*/"values":[7/'
row 'not a number' 1 '*not the same*value 0 is * in qkv, nan in the peer' \
    'forward 16 transformers' 's/"values":\[[^]]*/"values":[NaN/'
row 'sites recorded' 0 '*record every*TransformerLens*' 'every 16' ''
row 'a site less' 1 '*the peer does not record hook_embed' 'every 16' \
    's/"hook_embed",*//'
row 'a peer that fails' 1 '*was asked *: out of order' 'forward 16 tran' \
    's/.*"ids".*/{"error": "out of order"}/'
row 'the machine' 0 '*limits: *multiply-add *of reading*' 'of reading' ''
row 'no such row' 1 'bench: ROWS fits none of: start *forward 16*' 'forwart' ''

echo "$passed passed, $failed failed, 0 skipped"
test "$failed" = 0
