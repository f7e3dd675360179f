#!/usr/bin/env python3
"""bench.py - qkv beside its peers, in one run: bench.py QKV

Started by `make bench`. qkv and the peer work in turn (A B A B), so that
whatever else the machine does hits both; a figure is the median of the
ratios of neighbours, with the smallest and the largest beside it. Peers are
found in $QKV_PEERS (default ~/peers): v/bin/python with torch, transformers,
transformer-lens; data/smollm2-hf and data/smollm2.gguf. Without them only
qkv's own times are printed. SAVE=1 writes results/<commit>.json beside this
file; THREADS (2), PAIRS (5) may be set. Standard library only.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
QKV = str(Path(sys.argv[1]).resolve())
THREADS = os.environ.get("THREADS", "2")
PAIRS = int(os.environ.get("PAIRS", "5"))
PEERS = Path(os.environ.get("QKV_PEERS", "~/peers")).expanduser()
PYTHON, DATA = PEERS / "v/bin/python", PEERS / "data"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": THREADS,
               "OPENBLAS_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)
PROMPT = "When Mary and John went to the store, John gave a drink to"
PROMPT_16 = "Then, when Mary and John went to the store, John gave a drink to"


def run_once(command, cwd=None):
    """A whole process: (seconds, peak resident MB, what it printed)."""
    with tempfile.TemporaryFile("w+") as out, \
            tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=out,
                                 stderr=said, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        if child.returncode != 0:
            sys.exit(f"bench: {' '.join(command)}: exit status "
                     f"{child.returncode}\n{said.read()[-2000:]}")
        return seconds, usage.ru_maxrss / 1024, out.read().strip()


class Worker:
    """A process that answers requests, one line each; we hold the clock."""

    def __init__(self, command):
        self.child = subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            bufsize=1)
        self.hear()

    def hear(self):
        line = self.child.stdout.readline()
        if not line:
            sys.exit(f"bench: {' '.join(self.child.args)} ended early")
        return line.strip()

    def ask(self, request):
        """(seconds, answer)"""
        start = time.perf_counter()
        self.child.stdin.write(request + "\n")
        answer = self.hear()
        return time.perf_counter() - start, answer

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def in_turn(pairs, ours, theirs):
    """Seconds of both, A B A B; theirs is empty when there is no peer."""
    a, b = [], []
    for _ in range(pairs):
        a.append(ours())
        if theirs is not None:
            b.append(theirs())
    return a, b


class Table:
    """The rows: printed as they come, kept for the JSON."""

    def __init__(self):
        self.rows = []
        print(f"{'what':44} {'qkv':>9} {'peer':>9} {'ratio':>7} "
              f"{'min - max':>13}  {'goal':>7}")

    def times(self, what, a, b, goal, peer):
        """Times in seconds; the ratio says how often qkv is faster."""
        ratios = [y / x for x, y in zip(a, b)]
        self.add(what, statistics.median(a), "s",
                 statistics.median(b) if b else None, ratios, goal, peer,
                 {"qkv_s": a, "peer_s": b})

    def add(self, what, own, unit, other, ratios, goal, peer, raw):
        """goal: the ratio to reach; '<x': the most that `own` may be."""
        if isinstance(goal, str):
            met = own < float(goal[1:])
        else:
            met = statistics.median(ratios) >= goal if ratios else None
        shown = f"{statistics.median(ratios):7.2f}" if ratios else f"{'-':>7}"
        spread = f"{min(ratios):.2f} - {max(ratios):.2f}" if ratios else "-"
        theirs = f"{other:8.3f}{unit}" if other is not None else f"{'-':>9}"
        print(f"{what:44} {own:8.3f}{unit} {theirs} {shown} {spread:>13}  "
              f"{goal if isinstance(goal, str) else f'>={goal:g}':>7}"
              f"{'' if met is None else '  yes' if met else '  NO'}",
              flush=True)
        self.rows.append({"what": what, "peer": peer, "qkv": own,
                          "unit": unit, "peer_value": other,
                          "ratios": ratios, "goal": goal, "met": met, **raw})


def model_path():
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    for path in (Path(data).expanduser() / "qkv/models/smollm2.gguf",
                 DATA / "smollm2.gguf"):
        if path.is_file():
            return str(path)
    sys.exit("bench: no smollm2.gguf; scripts/tools/fetch smollm2 gets it")


def cold_start(table, model, have_peers):
    """Process start to the printed shape of layer 0's pattern; memory."""
    script = (f"local m = require('qkv').open({json.dumps(model)}) "
              f"print(table.concat(m:run({json.dumps(PROMPT)})"
              "('pattern', 0).shape, ' '))")
    peaks = []

    def ours():
        seconds, peak, said = run_once([QKV, "-e", script])
        if said.split() != ["9", "14", "14"]:
            sys.exit(f"bench: the shape is 9 14 14, qkv printed {said}")
        peaks.append(peak)
        return seconds

    ours()
    for name, kind, pairs, goal in (
            ("transformers, float32 safetensors", "safetensors", PAIRS, 15),
            ("TransformerLens", "lens", PAIRS, 15),
            ("transformers, GGUF", "gguf", 1, 15)):
        def theirs(kind=kind):
            return run_once([str(PYTHON), str(HERE / "peer.py"), "cold", kind,
                             str(DATA)])[0]
        if have_peers and pairs > 1:
            theirs()
        a, b = in_turn(pairs, ours, theirs if have_peers else None)
        table.times(f"start to pattern: {name}", a, b, goal, name)
        if not have_peers:
            break
    size = os.path.getsize(model) / 1e6
    peak = statistics.median(peaks) * 1.048576
    table.add("peak memory over the file's size", peak / size, "x", None, [],
              "<1.6", None, {"peak_mb": peak, "file_mb": size})


def inside(table, model, have_peers):
    """Forward and generation in processes that stay."""
    ours = Worker([QKV, str(HERE / "worker.lua"), model])
    peer = (Worker([str(PYTHON), str(HERE / "peer.py"), "serve", str(DATA)])
            if have_peers else None)
    text = " ".join((TOP / "COPYING").read_text().split())[:4000]

    def compare(what, request, pairs, goal, same):
        answers = [w.ask(request)[1] for w in (ours, peer) if w]     # warm-up
        if len(set(map(same, answers))) != 1:
            print(f"bench: {what}: the answers differ: {answers}",
                  file=sys.stderr)
        a, b = in_turn(pairs, lambda: ours.ask(request)[0],
                       (lambda: peer.ask(request)[0]) if peer else None)
        table.times(what, a, b, goal, "transformers float32, sdpa")
        return a

    for n in (64, 256):
        ids = ours.ask(f"tokens {n} {text}")[1]
        compare(f"forward, {n} tokens, last logits", f"forward {ids}",
                2 * PAIRS + 1, 1, str)
    ids = ours.ask(f"tokens 16 {PROMPT_16}")[1]
    a = compare("generate 128 tokens after 16", f"generate 128 {ids}",
                max(3, PAIRS // 2), 3, lambda answer: answer.split()[:8] and
                " ".join(answer.split()[:8]))
    print(f"{'':44} {128 / statistics.median(a):8.1f} tokens/s")
    ours.close()
    if peer:
        peer.close()


def tour(table, model):
    script = TOP / "scripts/examples/tour.lua"
    if not script.is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        times = [run_once([QKV, str(script), model], cwd=folder)[0]
                 for _ in range(3)]
    table.add("the tour, with its pictures", statistics.median(times), "s",
              None, [], "<10", None, {"qkv_s": times})


def output_of(*command):
    done = subprocess.run(command, cwd=TOP, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.strip()


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in
                Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown processor")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    versions = ""
    if PYTHON.exists():
        versions = output_of(str(PYTHON), "-c", (
            "from importlib.metadata import version as v; print(', '.join("
            "f'{p} {v(p)}' for p in "
            "('torch', 'transformers', 'transformer-lens')))"))
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": memory,
            "threads": int(THREADS), "kernel": os.uname().release,
            "qkv": output_of(QKV, "--version").splitlines()[:1],
            "commit": output_of("git", "rev-parse", "--short", "HEAD")
            + ("+" if output_of("git", "status", "--porcelain", "-uno")
               else ""),
            "peers": versions, "date": time.strftime("%Y-%m-%d")}


def main():
    model, have_peers, info = model_path(), PYTHON.exists(), machine()
    print(f"{info['cpu']}, {info['cores']} cores, {info['memory_gb']} GB, "
          f"{THREADS} threads; qkv {info['commit']}; "
          f"{info['peers'] or f'no peers in {PEERS} (QKV_PEERS)'}")
    table = Table()
    cold_start(table, model, have_peers)
    inside(table, model, have_peers)
    tour(table, model)
    if os.environ.get("SAVE") == "1":
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        path = results / f"{info['commit'] or 'unknown'}.json"
        path.write_text(json.dumps({"machine": info, "rows": table.rows},
                                   indent=1) + "\n")
        print(f"saved in {path}")


main()
