"""(g) A model that is reloaded again and again under load: how many requests failed, and what callers noticed.

python -m benchmarks.reload [--reloads N] [--procs N]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.harness import percentile, table, workers
from common.connect import connect
from common.embedded import EmbeddedRedis
from gateway import Client
from gateway.admin.manage import Manager

POOL = "reload"
CALLERS = 8
CODE = """
import numpy as np
from inference_worker import Model

class Scale(Model):
    def load(self, context):
        self.weights = np.load(context.path("weights.npy"))

    def infer(self, batch):
        return batch["x"] * self.weights[0]
"""
MANIFEST = (
    f'backend = "python"\npool = "{POOL}"\n[python]\ncode = "model.py:Scale"\n'
    '[[inputs]]\nname = "x"\ndtype = "FP32"\nshape = []\n'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--procs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis() as server:
        write(Path(folder), 0)
        told = ("--device", "cpu", "--procs", str(options.procs))
        with workers(server.url, POOL, folder, options=told):
            measure(server.url, Path(folder), options.reloads)


def write(folder: Path, factor: int) -> None:
    """Weights of 50 MB whose first number tells who answers, put in place as a whole."""
    version = folder / "scale" / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.py").write_text(CODE)
    (version / "model.toml").write_text(MANIFEST)
    np.save(version / ".new.npy", np.full(12_500_000, factor, np.float32))
    (version / ".new.npy").replace(version / "weights.npy")


def measure(url: str, folder: Path, reloads: int) -> None:
    callers = Callers(url)
    manager = Manager(connect(url))
    with callers:
        time.sleep(2)
        quiet = callers.take()
        seconds = []
        for factor in range(1, reloads + 1):
            write(folder, factor)
            reports = manager.give(POOL, "reload", "scale", "1")
            assert all(report.ok for report in reports), reports
            seconds.append(max(report.seconds for report in reports))
        busy = callers.take()
    rows = [["before", str(len(quiet)), "0", *_times(quiet)]]
    rows += [[f"{reloads} reloads", str(len(busy)), str(callers.failed), *_times(busy)]]
    table(f"(g) {CALLERS} callers; a reload of 50 MB takes {percentile(seconds, 0.5):.2f} s", HEADS, rows)


HEADS = ["", "requests", "failed", "p50", "p99", "longest"]


def _times(took: list[float]) -> list[str]:
    return [f"{value * 1000:.1f} ms" for value in (percentile(took, 0.5), percentile(took, 0.99), max(took))]


class Callers:
    """Ask without end while entered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS)
        self._took: list[float] = []
        self.failed = 0

    def __enter__(self) -> None:
        for _ in range(CALLERS):
            self._pool.submit(self._call)

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def take(self) -> list[float]:
        """Seconds of the requests since the last call."""
        took, self._took = self._took, []
        return took

    def _call(self) -> None:
        with Client(self._url, pool=POOL) as client:
            while not self._stop.is_set():
                started = time.perf_counter()
                try:
                    client.infer("scale", 1.0)
                except Exception:
                    self.failed += 1
                self._took.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()
