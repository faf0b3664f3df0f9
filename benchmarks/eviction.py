"""(f) 20 models of 50 MB on a budget of 300 MB under random traffic: nothing fails, and memory stays bounded.

python -m benchmarks.eviction [--models N] [--size MB] [--budget MB] [--requests N] [--callers N]

Each model is a file of random weights that a request multiplies with. Popularity falls off as 1/rank, so that
some models are asked for all the time and others seldom, as in a fleet of many.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.harness import percentile, resident_mb, table, workers
from common.connect import connect
from common.embedded import EmbeddedRedis
from gateway import Client
from gateway.admin.pools import Admin

POOL = "eviction"
CODE = """
import numpy as np
from inference_worker import Model

class Product(Model):
    def load(self, context):
        self.weights = np.load(context.path("weights.npy"))

    def infer(self, batch):
        return batch["x"] @ self.weights[:, :4]
"""
MANIFEST = f"""
backend = "python"
pool = "{POOL}"

[python]
code = "model.py:Product"

[[inputs]]
name = "x"
dtype = "FP32"
shape = [1000]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--size", type=int, default=50)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--callers", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis() as server:
        write_models(Path(folder), options.models, options.size)
        told = ("--device", "cpu", "--procs", "1", "--memory-budget", f"{options.budget}MB")
        with workers(server.url, POOL, folder, options=told) as pid:
            measure(server.url, pid, options)


def write_models(folder: Path, count: int, megabytes: int) -> None:
    for number in range(count):
        version = folder / f"m{number:02}" / "1"
        version.mkdir(parents=True)
        np.save(version / "weights.npy", np.random.default_rng(number).random((1000, megabytes * 250), np.float32))
        (version / "model.py").write_text(CODE)
        (version / "model.toml").write_text(MANIFEST)


def measure(url: str, pid: int, options: argparse.Namespace) -> None:
    ranks = [1 / (rank + 1) for rank in range(options.models)]
    asked = random.Random(1).choices(range(options.models), ranks, k=options.requests)
    vector = np.ones(1000, np.float32)
    with Client(url, pool=POOL, timeout_s=300) as client, Watch(pid) as watch:

        def ask(number: int) -> float | None:
            started = time.perf_counter()
            try:
                client.infer(f"m{number:02}", vector)
            except Exception:
                return None
            return time.perf_counter() - started

        with ThreadPoolExecutor(options.callers) as callers:
            started = time.perf_counter()
            took = list(callers.map(ask, asked))
            elapsed = time.perf_counter() - started
        time.sleep(1.5)  # A worker tells its counts once a second.
        about = dict(Admin(connect(url)).snapshot([POOL]).pools[0].workers[0].about)
    answered = [seconds for seconds in took if seconds is not None]
    p50, p99 = (f"{percentile(answered, share) * 1000:.0f} ms" for share in (0.5, 0.99))
    table(
        f"(f) {options.models} models of {options.size} MB, a budget of {options.budget} MB, "
        f"{options.requests} requests by {options.callers} callers",
        ["failed", "requests/s", "p50", "p99", "loads", "evictions", "models now", "process at most", "process idle"],
        [[
            str(len(took) - len(answered)), f"{len(answered) / elapsed:.0f}", p50, p99,
            str(about["loads"]), str(about["evictions"]),
            f"{about['model_bytes'] / 1e6:.0f} MB", f"{watch.most:.0f} MB", f"{watch.least:.0f} MB",
        ]],
    )  # fmt: skip


class Watch:
    """The most and the least memory of all processes below `pid` together, looked at fifty times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most, self.least = 0.0, float("inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            now = resident_mb(self._pid)
            self.most, self.least = max(self.most, now), min(self.least, now)


if __name__ == "__main__":
    main()
