"""Pre- and postprocess beside the model against one after the other, over the whole path.

python -m benchmarks.stages [--requests N] [--sentences N] [--rounds N]

(a) each request is a batch and takes MS of preprocess and MS of compute: once as native code does it, without the
interpreter's lock, and once in Python that holds it; (b) MiniLM with its tokenizer in line and as a stage.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.corpus import sentences
from benchmarks.harness import ROOT, table, workers
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from gateway import Client

MS = 5
ROWS = 8
IN_FLIGHT = 64
MINILM = ROOT / "examples" / "models" / "minilm"

CODE = f"""
import time

def released():
    time.sleep({MS} / 1000)

def holding():
    until = time.thread_time() + {MS} / 1000
    while time.thread_time() < until:
        pass

class Stages:
    def load(self, context):
        self.work = globals()[context.spec.processing["work"]]

    def preprocess(self, request):
        self.work()
        return {{"x": request.inputs["x"]}}

def alone(x):
    released()
    return {{"y": x}}

def in_turn_released(x):
    released()
    released()
    return {{"y": x}}

def in_turn_holding(x):
    holding()
    released()
    return {{"y": x}}
"""
TENSORS = """
[[inputs]]
name = "x"
dtype = "FP32"
shape = [384]

[[outputs]]
name = "y"
dtype = "FP32"
shape = [384]
"""
#: What stands in model.toml beside [processing].
IN_LINE = ""
THREADS = "[stages.preprocess]\nworkers = {workers}\n"
PROCESSES = "[stages.preprocess]\nworkers = {workers}\nprocesses = true\n"


def write(folder: Path, function: str, more: str) -> Path:
    model = folder / function / "1"
    model.mkdir(parents=True)
    (model / "code.py").write_text(CODE)
    manifest = f'backend = "python"\n[python]\ncode = "code.py:{function}"\n[batch]\nrows = {ROWS}\n{more}{TENSORS}'
    (model / "model.toml").write_text(manifest)
    return folder


def rate(url: str, folder: Path, name: str, inputs: Sequence[object]) -> float:
    """Requests per second through client, Redis and worker."""
    with workers(url, DEFAULT_POOL, str(folder)), Client(url, pool=DEFAULT_POOL) as client:
        list(client.map(name, inputs[:IN_FLIGHT], window=IN_FLIGHT, cache=False))
        started = time.perf_counter()
        list(client.map(name, inputs, window=IN_FLIGHT, cache=False))
        return len(inputs) / (time.perf_counter() - started)


def made_up(work: str) -> dict[str, tuple[str, str]]:
    """what is compared -> (function, what is declared around it)"""
    processing = f'[processing]\ncode = "code.py:Stages"\nwork = "{work}"\n'
    return {
        "in turn, in one call": (f"in_turn_{work}", ""),
        "preprocess in line": ("alone", processing),
        "preprocess in 1 thread": ("alone", processing + THREADS.format(workers=1)),
        "preprocess in 2 threads": ("alone", processing + THREADS.format(workers=2)),
        "preprocess in 1 process": ("alone", processing + PROCESSES.format(workers=1)),
    }


def compare_made_up(url: str, folder: Path, work: str, requests: int, rounds: int) -> None:
    inputs = [np.zeros((ROWS, 384), np.float32)] * requests
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        for what, (function, more) in made_up(work).items():
            place = write(folder / f"{work}{number}" / what.replace(" ", "_"), function, more)
            rates.setdefault(what, []).append(rate(url, place, function, inputs))
    lock = "without" if work == "released" else "holding"
    show(f"(a) {MS} ms of preprocess, {lock} the interpreter's lock, and {MS} ms of compute", "batches/s", rates)


def compare_minilm(url: str, folder: Path, count: int, rounds: int) -> None:
    texts = sentences(count)
    rates: dict[str, list[float]] = {}
    declared = {
        "tokenizer in line": IN_LINE,
        "tokenizer in 1 thread": THREADS.format(workers=1),
        "tokenizer in 2 threads": THREADS.format(workers=2),
        "tokenizer in 1 process": PROCESSES.format(workers=1),
    }
    for number in range(rounds):
        for what, more in declared.items():
            place = folder / f"minilm{number}" / what.replace(" ", "_")
            shutil.copytree(MINILM, place / "minilm")
            manifest = place / "minilm" / "1" / "model.toml"
            manifest.write_text(f"{manifest.read_text()}\n{more}")
            rates.setdefault(what, []).append(rate(url, place, "minilm", texts))
    show(f"(b) MiniLM, {count} sentences, {IN_FLIGHT} in flight", "sentences/s", rates)


def show(title: str, unit: str, rates: dict[str, list[float]]) -> None:
    first = next(iter(rates))
    rows = [
        [what, f"{statistics.median(values):.0f}", f"{_ratio(values, rates[first]):.2f}"]
        for what, values in rates.items()
    ]
    table(f"{title}; medians of {len(rates[first])} interleaved rounds", ["", unit, "times the first"], rows)


def _ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(values, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        for work in ("released", "holding"):
            compare_made_up(server.url, Path(folder), work, options.requests, options.rounds)
        compare_minilm(server.url, Path(folder), options.sentences, options.rounds)


if __name__ == "__main__":
    main()
