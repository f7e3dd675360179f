"""turns.py - processes that take turns, and what else the machine did

A ratio is made of two neighbours in time, ours and the peer's (A B A B), so
that whatever slows the machine hits both. A pair during which processes that
are not ours took more than NOISY of the machine is disturbed: more pairs are
run for PATIENCE seconds, and the quietest are kept.
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NOISY = 0.1             # share of the machine
PATIENCE = float(os.environ.get("PATIENCE", 60))     # seconds a comparison
SPAN = 0.2              # seconds: shorter work is repeated until it lasts so
TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()

workers = []            # those that run


def environment(threads):
    """What children see: no fixed kernels, no compiling at each start."""
    without = ("PYTHONDONTWRITEBYTECODE", "OPENBLAS_CORETYPE",
               "OPENBLAS_L2_SIZE")
    return {**{k: v for k, v in os.environ.items() if k not in without},
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads)}


def machine_cpu():
    """CPU seconds that the whole machine has spent, stolen ones included."""
    words = Path("/proc/stat").read_text().split(maxsplit=9)
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_cpu():
    """CPU seconds of this process and its children, living and gone."""
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (time.process_time() + gone.ru_utime + gone.ru_stime
            + sum(worker.cpu() for worker in workers))


def run_once(command, threads, cwd=None):
    """A whole process: (seconds, peak resident bytes, what it printed)."""
    with tempfile.TemporaryFile("w+") as out, \
            tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=cwd, env=environment(threads),
                                 stdout=out, stderr=said,
                                 stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        if child.returncode != 0:
            sys.exit(f"bench: {' '.join(command)}: exit status "
                     f"{child.returncode}\n{said.read()[-2000:]}")
        return seconds, usage.ru_maxrss * 1024, out.read().strip()


class Worker:
    """A process that answers requests, one line each; we hold the clock."""

    def __init__(self, command, threads, **variables):
        self.said = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(
            command, env={**environment(threads), **variables}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
            bufsize=1)
        workers.append(self)
        self.greeting = self.hear()

    def hear(self):
        line = self.child.stdout.readline()
        if not line:
            self.said.seek(0)
            sys.exit(f"bench: {' '.join(self.child.args)} ended early\n"
                     f"{self.said.read()[-2000:]}")
        return line.strip()

    def ask(self, request):
        """The answer, from JSON."""
        self.child.stdin.write(request + "\n")
        answer = json.loads(self.hear())
        if isinstance(answer, dict) and "error" in answer:
            sys.exit(f"bench: {' '.join(self.child.args)} was asked "
                     f"'{request[:60]}': {answer['error']}")
        return answer

    def time(self, request):
        """(seconds, answer); what the request before left is let go first."""
        self.ask("rest")
        start = time.perf_counter()
        answer = self.ask(request)
        return time.perf_counter() - start, answer

    def cpu(self):
        fields = Path(f"/proc/{self.child.pid}/stat").read_text()
        words = fields.rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS    # utime, stime

    def close(self):
        workers.remove(self)
        self.child.stdin.close()
        self.child.wait()


def lasting(work, seconds):
    """work(), whose one call takes `seconds`, repeated for SPAN; the mean."""
    n = max(1, round(SPAN / max(seconds, 1e-6)))
    return lambda: sum(work() for _ in range(n)) / n


def in_turn(ours, theirs, pairs):
    """The quietest `pairs` of [seconds, seconds, share of others], as they
    came; theirs is None where there is no peer. Waits a moment before each
    side, so that threads of the other have gone to sleep."""
    taken, deadline = [], time.monotonic() + PATIENCE
    while len(taken) < pairs or (
            sum(pair[2] <= NOISY for pair in taken) < pairs
            and time.monotonic() < deadline):
        start, others = time.monotonic(), machine_cpu() - own_cpu()
        seconds = []
        for side in (ours, theirs):
            time.sleep(0.02)
            seconds.append(side() if side else None)
        others = machine_cpu() - own_cpu() - others
        share = others / (CORES * (time.monotonic() - start))
        taken.append([*seconds, max(0.0, share)])
    quiet = sorted(range(len(taken)), key=lambda i: taken[i][2])[:pairs]
    return [taken[i] for i in sorted(quiet)]
