#!/bin/sh
# sum.sh - the last lines of `make check`: what was skipped and why, what
# failed, and the sum over all tests
#
#     sum.sh LOG...
#
# Exit status 1 if anything failed, or if nothing passed.
exec awk '
function read_log(log_name,    line, total, why, n) {
    while ((getline line < log_name) > 0) {
        if (line ~ /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/)
            total = line
        else if (line ~ /^skip/)
            why = why line "\n"
    }
    close(log_name)
    if (total == "")
        total = "0 passed, 1 failed, 0 skipped"
    split(total, n, " ")
    passed += n[1]; failed += n[3]; skipped += n[5]
    sub(/\.log$/, "", log_name)
    if (n[3] > 0)
        printf "FAILED %s: see %s.log\n", log_name, log_name
    if (n[5] > 0)
        printf "%s: %s", log_name, why == "" ? "skipped\n" : why
}
BEGIN {
    for (i = 1; i < ARGC; i++)
        read_log(ARGV[i])
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    exit failed > 0 || passed == 0
}' "$@"
