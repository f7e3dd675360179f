#!/usr/bin/env python3
"""bench.py - qkv beside its peers and the machine: bench.py QKV LIMITS

Started by `make bench`; README.md says how to read the table. Both sides do
the same work and their answers are compared: where counts, ids or numbers
differ by more than float noise explains, the run ends with a sentence and
nothing is reported. In the environment: ROWS (words of rows and peers, all of
which must fit; alternatives after commas; all rows), PAIRS (7; fewer for long
work), PATIENCE (60: seconds in which a disturbed comparison may be repeated),
THREADS (2), MODEL (a GGUF file; smollm2), QKV_PEERS (what `peers` made),
SAVE=1 (keep the table in results/<commit>.json). Standard library only.
"""
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True      # nothing of ours beside the sources
from turns import NOISY, Worker, in_turn, lasting, run_once

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
QKV, LIMITS = (str(Path(path).resolve()) for path in sys.argv[1:])
THREADS = int(os.environ.get("THREADS", "2"))
PAIRS = int(os.environ.get("PAIRS", "7"))
ROWS = [part.lower().split() for part in os.environ.get("ROWS", "").split(",")
        if part.strip()]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
PEERS = Path(os.environ.get("QKV_PEERS") or CACHE / "qkv/peers").expanduser()
PYTHON, DATA = PEERS / "v/bin/python", PEERS / "data"
PEER = [str(PYTHON), str(HERE / "peer.py")]

LONG = 20               # seconds: such work is not tried more than it must be
PROMPT = "When Mary and John went to the store, John gave a drink to"
CLEAN = "Then, when Mary and John went to the store, John gave a drink to"
CORRUPT = "Then, when Mary and John went to the store, Mary gave a drink to"

# Peers: how they are shown, the package that must be there, and how far their
# numbers may be from ours, relative above 1. Float32 sums in another order:
# logits of SmolLM2 came within 1e-6, and layers may add up. llama.cpp rounds
# activations to 8 bits: 0.6 to 2 %, and its texts part where a lead is small.
KINDS = {
    "transformers": ("transformers", "transformers", 5e-4),
    "safetensors": ("transformers safetensors", "transformers", 0),
    "gguf": ("transformers GGUF", "gguf", 0),
    "lens": ("TransformerLens", "transformer-lens", 5e-4),
    "llama": ("llama.cpp", "llama-cpp-python", 5e-2),
}
# The machine as a peer: the ratio is the share of the limit that is reached.
MACHINE = {"fma": "of FMA peak", "sgemm": "of sgemm", "read": "of reading"}

# What is run in processes that stay: {name} is filled in from the texts.
# Goals by peer; None: shown without one.
INSIDE = (
    ("forward 16 tokens", "forward {t16}", {"transformers": 4}),
    ("forward 64 tokens", "forward {t64}", {"transformers": 2.4}),
    ("forward 256 tokens", "forward {t256}", {"transformers": 1.7}),
    ("forward 1024 tokens", "forward {t1024}", {"transformers": 1.6}),
    ("forward 8 x 64 tokens", "forward {t8x64}", {"transformers": 1.6}),
    ("record every site 16 tokens", "record every {t16}", {"lens": 6}),
    ("record every site 64 tokens", "record every {t64}", {"lens": 3.5}),
    ("record every site 1024 tokens", "record every {t1024}", {"lens": 2}),
    ("record patterns 1024 tokens", "record pattern {t1024}", {"lens": 3}),
    ("prompt of 512 tokens", "forward {t512}",
     {"transformers": 1.7, "llama": 3, "fma": None, "sgemm": None}),
    ("generate 128 after 16 tokens", "generate 128 {clean}",
     {"llama": 1.5, "transformers": 11, "read": None}),
    ("sweep resid_pre layer x 16 pos", "patch resid_pre",
     {"lens": 22, "transformers": 2.6}),
    ("sweep z layer x head", "patch z", {"lens": 12, "transformers": None}),
    ("logit lens 64 tokens top 5", "lens {t64}",
     {"transformers": 1.8, "lens": 3}),
)
START = "start to layer 0's pattern"
COLD = {"safetensors": 28, "gguf": 100, "lens": 15, "llama": 2}
MEMORY = {"memory: peak / file, 14 tokens": (14, 1.3),
          "memory: peak / file, 1000 tokens": (1000, 1.6)}
RECORDED = "memory: every site / recorded"
TOUR = "the tour, with its pictures"


def chosen(*names):
    text = " ".join(names).lower()
    return not ROWS or any(all(word in text for word in part)
                           for part in ROWS)


def all_rows():
    """(what, beside) of each."""
    shown = {**MACHINE, **{kind: peer[0] for kind, peer in KINDS.items()}}
    return ([(START, shown[kind]) for kind in COLD]
            + [(what, shown[kind]) for what, _, goals in INSIDE
               for kind in goals]
            + [(what, "") for what in (*MEMORY, RECORDED, TOUR)])


class Table:
    """The rows: printed as they come, kept for the JSON."""

    def __init__(self):
        self.rows = []

    def show(self, what, beside, own, other, ratio, spread, others, goal):
        if len(self.rows) == 1:
            self.show_head()
        print(f"{what:31}{beside:26}{own:>9}{other:>9}{ratio:>8}{spread:>15}"
              f"{others:>7}  {goal}".rstrip(), flush=True)

    @staticmethod
    def show_head():
        print(f"{'what':31}{'beside':26}{'qkv':>9}{'peer':>9}{'ratio':>8}"
              f"{'min - max':>15}{'others':>7}  goal")

    def times(self, what, beside, taken, goal, threads=None):
        """taken: [ours, theirs, share of others] by pair, in seconds."""
        own = statistics.median(pair[0] for pair in taken)
        others = max(pair[2] for pair in taken)
        row = {"what": what, "peer": beside, "peer_threads": threads,
               "pairs": taken, "qkv_s": own, "disturbed": others > NOISY,
               "goal": goal, "date": time.strftime("%Y-%m-%d %H:%M")}
        other = ratio = spread = "-"
        if taken[0][1] is not None:
            ratios = [pair[1] / pair[0] for pair in taken]
            middle = statistics.median(ratios)
            row.update(peer_s=statistics.median(pair[1] for pair in taken),
                       ratio=middle, met=goal and middle >= goal)
            other, ratio = f"{row['peer_s']:.4g} s", f"{middle:.3g}"
            spread = f"{min(ratios):.3g} - {max(ratios):.3g}"
        if threads and threads != THREADS:
            beside += f" ({threads} thread{'s' * (threads > 1)})"
        self.rows.append(row)
        self.show(what, beside, f"{own:.4g} s", other, ratio, spread,
                  f"{100 * others:.0f} %", self.verdict(row, ">= "))

    def bound(self, what, value, unit, most, **raw):
        row = {"what": what, "value": value, "goal": most,
               "met": value < most, **raw}
        self.rows.append(row)
        self.show(what, "", f"{value:.4g} {unit}", "", "", "", "",
                  self.verdict(row, "< "))

    def missing(self, what, beside, name, goal):
        self.rows.append({"what": what, "peer": beside, "missing": name,
                          "goal": goal})
        self.show(what, beside, "-", "-", "-", "-", "-",
                  f"not there yet: {name}")

    @staticmethod
    def verdict(row, sign):
        goal = f"{sign}{row['goal']:g}" if row["goal"] else ""
        met = row.get("met")
        return (goal + ("" if met is None else "  yes" if met else "  NO")
                + ("  disturbed" if row.get("disturbed") else ""))

    def sum_up(self):
        met = [row["met"] for row in self.rows if row.get("met") is not None]
        shares = [pair[2] for row in self.rows for pair in row.get("pairs", ())]
        print(f"{sum(met)} of {len(met)} goals reached; "
              f"{sum('missing' in row for row in self.rows)} not there yet; "
              "other processes took "
              f"{100 * statistics.median(shares or [0]):.1f} % of the machine, "
              f"{100 * max(shares, default=0):.1f} % at most; "
              f"{sum(bool(row.get('disturbed')) for row in self.rows)} rows "
              "disturbed")


def how_many(seconds):
    """Pairs of work that takes so long: about a minute, three at least."""
    return min(PAIRS, max(3, int(60 / seconds)))


def better_threads(run):
    """(seconds, threads, answer) of a peer at its better number of threads:
    PyTorch with 2 can be slower than with 1. run(n) -> (seconds, answer)."""
    seconds, answer = run(THREADS)          # the first is the warm-up
    found = [(seconds, THREADS, answer)] if seconds > LONG else []
    for n in sorted({1, THREADS}):
        for _ in range(1 if seconds > 1 else 3):
            if not (n == THREADS and seconds > LONG):
                again, answer = run(n)
                found.append((again, n, answer))
    return min(found, key=lambda one: one[0])


class Bench:
    def __init__(self, model, versions):
        self.model, self.versions = model, versions
        self.size = os.path.getsize(model)
        self.table, self.workers = Table(), {}
        ours = self.qkv()
        ids = self.ids((TOP / "COPYING").read_text()[:8000])
        self.texts = {f"t{n}": " ".join(ids[:n])
                      for n in (14, 16, 64, 256, 512, 1000, 1024)}
        self.texts["t8x64"] = " / ".join(
            " ".join(ids[at:at + 64]) for at in range(0, 512, 64))
        self.texts["clean"] = " ".join(self.ids(CLEAN))
        self.facts = ours.ask("model")

    def qkv(self):
        return self.worker("qkv", [QKV, str(HERE / "worker.lua"), self.model])

    def ids(self, text):
        answer = self.qkv().ask("tokens " + re.sub(r"\s+", " ", text))
        return list(map(str, answer["ids"]))

    def have(self, kind):
        return KINDS[kind][1] in self.versions

    def worker(self, name, command=None, **variables):
        if name not in self.workers:
            command = command or PEER + ["serve", name, str(DATA)]
            self.workers[name] = Worker(command, THREADS, **variables)
        return self.workers[name]

    def close(self, *names):
        for name in names or list(self.workers):
            if name in self.workers:
                self.workers.pop(name).close()

    # ---- the machine ----

    def limit(self, request):
        """GFLOP/s or GB/s, now. OpenBLAS that does not know a processor takes
        kernels for the oldest: sgemm is also asked for those that fit."""
        plain = self.worker("limits", [LIMITS])
        found = plain.ask(request)
        kernels = {"AVX-512": "SkylakeX", "AVX2": "Haswell"}.get(
            plain.greeting.partition(",")[0])
        if request.startswith("sgemm") and kernels:
            told = self.worker("limits, told", [LIMITS],
                               OPENBLAS_CORETYPE=kernels)
            return max(found, told.ask(request))
        return found

    def limits(self):
        """Measured and shown once, for the head of the table."""
        found = {request: self.limit(request) for request in
                 ("fma", "sgemm 512 1536 576", f"read {self.size}",
                  "read 1000000000")}
        as_found = self.workers["limits"].ask("sgemm 512 1536 576")
        fma, sgemm, near, far = found.values()
        print(f"limits: {self.workers['limits'].greeting}; multiply-add "
              f"{fma:.0f} GFLOP/s; sgemm 512 x 1536 x 576 {sgemm:.0f} GFLOP/s "
              f"(OpenBLAS left alone: {as_found:.0f}); reading the model "
              f"{near:.1f}, 1 GB {far:.1f} GB/s")
        return {**found, "sgemm left alone": as_found}

    def machine_seconds(self, kind, request):
        """A function: what the machine needs for this work at its limit."""
        if kind == "read":      # the file, once for each token
            work = self.size * int(request.split()[1])
            return lambda: work / 1e9 / self.limit(f"read {self.size}")
        n = len(request.split()) - 1
        facts = self.facts
        work = 2 * (n * facts["block_products"] + facts["unembed"]
                    + n * (n + 1) // 2 * facts["attention"])
        limit = "fma" if kind == "fma" else "sgemm 512 1536 576"
        return lambda: work / 1e9 / self.limit(limit)

    # ---- whether both did the same ----

    def disagreement(self, request, a, b, noise):
        """A sentence, or None. Ids may differ where our lead over the
        runner-up is within noise; from there on generated texts part."""
        for key in ("ids", "values"):
            ours, theirs = a.get(key, []), b.get(key, [])
            if len(ours) != len(theirs):
                return f"qkv gives {len(ours)} {key}, the peer {len(theirs)}"
        for i, (x, y) in enumerate(zip(a.get("values", []),
                                       b.get("values", []))):
            if not abs(x - y) <= noise * max(1, abs(y)):
                return f"value {i} is {x:.6g} in qkv, {y:.6g} in the peer"
        verb, *prompt = request.split()
        for i, (x, y) in enumerate(zip(a.get("ids", []), b.get("ids", []))):
            if x == y:
                continue
            if verb == "generate":
                at = self.qkv().ask(" ".join(
                    ["forward", *prompt[1:], *map(str, a["ids"][:i])]))
                lead, value = at["leads"][0], at["values"][0]
            else:
                lead, value = a["leads"][i], a["values"][i]
            if not lead <= 2 * noise * max(1, abs(value)):
                return (f"id {i} is {x} in qkv, {y} in the peer, and leads "
                        f"by {lead:.4g} of {value:.4g}")
            if verb == "generate":
                print(f"  (texts part at id {i}, where the lead is "
                      f"{lead:.3g} of {value:.3g})")
                return None
        return None

    def unlike(self, theirs):
        """The same of the sites that `record every` keeps."""
        own, other = (set(w.ask("sites")["names"]) - {"logits"}
                      for w in (self.qkv(), theirs))
        if own - other:
            return f"the peer does not record {', '.join(sorted(own - other))}"
        return None

    # ---- rows ----

    def prepare(self, name):
        """Give a worker the two runs of the sweeps."""
        clean, corrupt = (" ".join(self.ids(t)) for t in (CLEAN, CORRUPT))
        answers = " ".join(self.ids(" Mary") + self.ids(" John"))
        self.workers[name].ask(f"pair {clean}/{corrupt}/{answers}")

    def inside(self, what, request, goals):
        request = request.format(**self.texts)
        alone = False
        for kind, goal in goals.items():
            shown = MACHINE.get(kind) or KINDS[kind][0]
            if not chosen(what, shown):
                continue
            ours = self.qkv()
            if request.startswith("patch"):
                self.prepare("qkv")
            ours.time(request)
            own, answer = ours.time(request)
            work = lasting(lambda: ours.time(request)[0], own)
            if "missing" in answer:
                self.table.missing(what, shown, answer["missing"], goal)
            elif kind in MACHINE:
                theirs = self.machine_seconds(kind, request)
                self.table.times(what, shown,
                                 in_turn(work, theirs, how_many(own)), goal)
            elif self.have(kind):
                self.beside(what, request, kind, goal, work, own, answer)
            elif not alone:
                alone = True
                self.table.times(what, "", in_turn(work, None, how_many(own)),
                                 None)

    def beside(self, what, request, kind, goal, work, own, answer):
        shown, _, noise = KINDS[kind]
        theirs = self.worker(kind)
        if request.startswith("patch"):
            self.prepare(kind)

        def run(threads):
            theirs.ask(f"threads {threads}")
            return theirs.time(request)

        seconds, threads, other = better_threads(run)
        wrong = self.disagreement(request, answer, other, noise)
        if not wrong and request.startswith("record every"):
            wrong = self.unlike(theirs)
        if wrong:
            sys.exit(f"bench: {what}: not the same as {shown}: {wrong}")
        theirs.ask(f"threads {threads}")
        taken = in_turn(work, lasting(lambda: theirs.time(request)[0],
                                      seconds), how_many(own + seconds))
        self.table.times(what, shown, taken, goal, threads)
        theirs.ask("rest")
        self.qkv().ask("rest")

    def cold(self):
        """Process start to the printed shape of layer 0's pattern."""
        script = (f"local m = require('qkv').open({json.dumps(self.model)}) "
                  f"print(table.concat(m:run({json.dumps(PROMPT)})"
                  "('pattern', 0).shape, ' '))")
        said = run_once([QKV, "-e", script], THREADS)[2]

        def ours():
            return run_once([QKV, "-e", script], THREADS)[0]

        if not any(map(self.have, COLD)) and chosen(START):
            self.table.times(START, "", in_turn(ours, None, PAIRS), None)
        for kind, goal in COLD.items():
            shown = KINDS[kind][0]
            if not self.have(kind) or not chosen(START, shown):
                continue
            command = PEER + ["cold", kind, str(DATA)]

            def run(threads):
                seconds, _, printed = run_once(command, threads)
                return seconds, printed

            seconds, threads, printed = better_threads(run)
            # llama.cpp shows no pattern: as many rows of logits as tokens.
            if printed != said and (kind != "llama" or
                                    printed.split()[0] != said.split()[-1]):
                sys.exit(f"bench: {START}: not the same as {shown}: the shape "
                         f"is {said} in qkv, {printed} in the peer")
            taken = in_turn(ours, lambda: run(threads)[0], how_many(seconds))
            self.table.times(START, shown, taken, goal, threads)

    def memory(self):
        """Of a fresh process each, in bytes, mapped pages included."""
        for what, (n, most) in MEMORY.items():
            if chosen(what):
                self.close()
                self.qkv().ask("forward " + self.texts[f"t{n}"])
                self.peak(what, 0, self.size, most)
        if chosen(RECORDED):
            self.close()
            self.qkv().ask("forward " + self.texts["t14"])
            before = self.qkv().ask("memory")["now"]
            self.qkv().ask("record every " + self.texts["t1024"])
            kept = self.qkv().ask("recorded")["bytes"]
            self.peak(RECORDED, before, kept, 1.1)
        self.close()

    def peak(self, what, before, whole, most):
        peak = self.qkv().ask("memory")["peak"]
        self.table.bound(what, (peak - before) / whole, "x", most,
                         peak_bytes=peak, before_bytes=before,
                         whole_bytes=whole)

    def tour(self):
        script = TOP / "scripts/examples/tour.lua"
        if chosen(TOUR):
            with tempfile.TemporaryDirectory() as folder:
                times = [run_once([QKV, str(script), self.model], THREADS,
                                  cwd=folder)[0] for _ in range(3)]
            self.table.bound(TOUR, statistics.median(times), "s", 10,
                             qkv_s=times)


def output_of(*command):
    done = subprocess.run(command, cwd=TOP, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.strip()


def versions():
    """Of the peers' packages; empty without peers."""
    if not PYTHON.exists():
        return {}
    return json.loads(output_of(str(PYTHON), "-c", (
        "import importlib.metadata as m, json; "
        "have = {d.metadata['Name'].lower().replace('_', '-'): d.version "
        "for d in m.distributions()}; "
        "print(json.dumps({p: have[p] for p in ('torch', 'transformers', "
        "'gguf', 'transformer-lens', 'llama-cpp-python') if p in have}))")))


def model_path():
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    for path in (Path(os.environ.get("MODEL", "")),
                 Path(data).expanduser() / "qkv/models/smollm2.gguf",
                 DATA / "smollm2.gguf"):
        if path.is_file():
            return str(path)
    sys.exit("bench: no smollm2.gguf; scripts/tools/fetch smollm2 gets it")


def machine(found):
    cpu = next((line.split(":", 1)[1].strip() for line in
                Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown processor")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    changed = output_of("git", "status", "--porcelain", "-uno")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": memory,
            "threads": THREADS, "kernel": os.uname().release,
            "commit": output_of("git", "rev-parse", "--short", "HEAD")
            + ("+" if changed else ""), "peers": found,
            "date": time.strftime("%Y-%m-%d %H:%M")}


def save(info, rows):
    """Into the commit's table; rows measured again take the others' place."""
    path = HERE / "results" / f"{info['commit'] or 'unknown'}.json"
    path.parent.mkdir(exist_ok=True)
    was = json.loads(path.read_text()) if path.exists() else {"rows": []}
    new = {(row["what"], row.get("peer")) for row in rows}
    rows = [row for row in was["rows"]
            if (row["what"], row.get("peer")) not in new] + rows
    info.setdefault("limits", was.get("machine", {}).get("limits"))
    path.write_text(json.dumps({"machine": info, "rows": rows}, indent=1)
                    + "\n")
    print(f"saved in {path}")


def main():
    if not any(chosen(*row) for row in all_rows()):
        sys.exit("bench: ROWS fits none of: "
                 + ", ".join(dict.fromkeys(what for what, _ in all_rows())))
    found, model = versions(), model_path()
    info = machine(found)
    print(f"{info['cpu']}, {info['cores']} cores, {info['memory_gb']} GB, "
          f"{THREADS} threads; qkv {info['commit']}, {info['date']}; "
          + (", ".join(f"{p} {v}" for p, v in found.items())
             or f"no peers in {PEERS}: tests/bench/peers sets them up"))
    bench = Bench(model, found)
    if any(chosen(what, shown) for what, _, goals in INSIDE
           for kind, shown in MACHINE.items() if kind in goals):
        info["limits"] = bench.limits()
    bench.cold()
    for row in INSIDE:
        bench.inside(*row)
    bench.memory()
    bench.tour()
    bench.table.sum_up()
    if os.environ.get("SAVE") == "1":
        save(info, bench.table.rows)


main()
