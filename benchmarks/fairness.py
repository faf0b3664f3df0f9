"""(k) One tenant has a backlog of 100,000; another sends a request every 20 ms: what the second notices of the first.

python -m benchmarks.fairness [--backlog N] [--seconds S] [--cost MS] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import percentile, table, workers
from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.protocol import Request, encode_request
from common.scripts import Submission
from common.tensor import from_numpy
from gateway import Client

POOL = "fairness"
EVERY_S = 0.02
#: Longer than any run.
LONG_MS = 600_000
CODE = """
import time
from inference_worker import model

@model(inputs={{"x": "FP32[]"}}, outputs={{"x": "FP32[]"}}, rows=16)
def slow(x):
    time.sleep({seconds})
    return x
"""


@dataclass(frozen=True)
class Round:
    """Seconds of the light tenant's requests, and how many of the heavy one's were finished per second."""

    quiet: list[float]
    flooded: list[float]
    rate_alone: float
    rate_beside: float


class Bench:
    """One pool, one worker, whose model takes as long for 16 rows as for one."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._redis = connect(url)
        self._broker = Broker(self._redis, POOL)

    def run(self, backlog: int) -> Round:
        quiet, _ = self._light()
        self._flood(backlog)
        flooded, beside = self._light()
        before, started = self._waiting(), time.perf_counter()
        time.sleep(self._seconds / 2)
        alone = (before - self._waiting()) / (time.perf_counter() - started)
        if self._waiting() == 0:
            raise SystemExit("the backlog was over before the measurement: raise --backlog or --cost")
        return Round(quiet, flooded, alone, beside)

    def _light(self) -> tuple[list[float], float]:
        """(seconds of each request, one every 20 ms; how many others were finished per second meanwhile)"""
        found = []
        with Client(self._url, pool=POOL, tenant="light") as client:
            for _ in range(20):
                client.infer("slow", np.float32(1))
            before, began = self._waiting(), time.perf_counter()
            due = began
            while (started := time.perf_counter()) < began + self._seconds:
                client.infer("slow", np.float32(1))
                found.append(time.perf_counter() - started)
                due = max(due + EVERY_S, started)
                time.sleep(max(0.0, due - time.perf_counter()))
            return found, (before - self._waiting()) / (time.perf_counter() - began)

    def _flood(self, backlog: int) -> None:
        self._broker.set_limits(backlog=2 * backlog, tenant=2 * backlog)
        inputs = {"x": from_numpy(np.float32(1))}
        for start in range(0, backlog, 256):
            names = [f"flood-{number}" for number in range(start, min(start + 256, backlog))]
            flood = [Submission(one, 1, "heavy", "d", encode_request(Request(one, "slow", inputs))) for one in names]
            self._broker.submit(flood, "", LONG_MS)

    def _waiting(self) -> int:
        return sum(int(self._redis.xlen(stream)) for stream in self._broker.keys.streams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--cost", type=float, default=8.0, help="ms of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder, EmbeddedRedis() as server:
            code = Path(folder) / "slow.py"
            code.write_text(CODE.format(seconds=options.cost / 1000))
            with workers(server.url, POOL, str(code)):
                rounds.append(Bench(server.url, options.seconds).run(options.backlog))
    report(rounds, options.backlog, options.cost)


def report(rounds: list[Round], backlog: int, cost: float) -> None:
    def row(name: str, seconds: list[list[float]], rate: str) -> list[str]:
        marks = [statistics.median(percentile(one, share) for one in seconds) * 1e3 for share in (0.5, 0.99)]
        return [name, *(f"{mark:.1f}" for mark in marks), rate]

    quiet, flooded = [one.quiet for one in rounds], [one.flooded for one in rounds]
    alone = statistics.median(one.rate_alone for one in rounds)
    beside = statistics.median(one.rate_beside for one in rounds)
    ratio = statistics.median(percentile(one.flooded, 0.99) / percentile(one.quiet, 0.99) for one in rounds)
    table(
        f"(k) medians of {len(rounds)} rounds, {backlog:,} waiting, {cost:g} ms for 16 rows; p99 rises {ratio:.2f} x",
        ["a request every 20 ms", "p50 ms", "p99 ms", "the other tenant's results/s"],
        [
            row("alone", quiet, "-"),
            row("beside the backlog", flooded, f"{beside:,.0f} ({beside / alone:.2f} of {alone:,.0f} alone)"),
        ],
    )


if __name__ == "__main__":
    main()
