"""(k) One tenant has a backlog of 100,000; another sends a request every 20 ms: what the second notices of the first.
Then two tenants have backlogs, with weights 3 and 1: what of the results each of them has, and what the light one sees.

python -m benchmarks.fairness [--backlog N] [--seconds S] [--cost MS] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
from gateway.admin.limits import Limits

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


@dataclass(frozen=True)
class Shared:
    """Seconds of the light tenant's requests, and the results per second of those with weights 1 and 3."""

    flooded: list[float]
    one: float
    three: float


class Bench:
    """One pool, one worker, whose model takes as long for 16 rows as for one."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._redis = connect(url)
        self._broker = Broker(self._redis, POOL)

    def run(self, backlog: int) -> Round:
        quiet, _ = self._light()
        self._flood(backlog, "heavy")
        flooded, beside = self._light()
        before, started = self._waiting(), time.perf_counter()
        time.sleep(self._seconds / 2)
        alone = (before - self._waiting()) / (time.perf_counter() - started)
        if self._waiting() == 0:
            raise SystemExit("the backlog was over before the measurement: raise --backlog or --cost")
        return Round(quiet, flooded, alone, beside)

    def share(self, backlog: int) -> Shared:
        Limits(self._redis, POOL).set_tenant("three", weight=3)
        for tenant in ("one", "three"):
            self._flood(backlog, tenant)
        before, started = self._unfinished(), time.perf_counter()
        flooded, _ = self._light()
        seconds, after = time.perf_counter() - started, self._unfinished()
        one, three = ((before[tenant] - after.get(tenant, 0)) / seconds for tenant in ("one", "three"))
        if not after.get("three"):
            raise SystemExit("a backlog was over before the measurement: raise --backlog or --cost")
        return Shared(flooded, one, three)

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

    def _flood(self, backlog: int, tenant: str) -> None:
        self._broker.set_limits(backlog=4 * backlog, tenant=2 * backlog)
        inputs = {"x": from_numpy(np.float32(1))}
        for start in range(0, backlog, 256):
            names = [f"{tenant}-{number}" for number in range(start, min(start + 256, backlog))]
            flood = [Submission(one, 1, tenant, "d", encode_request(Request(one, "slow", inputs))) for one in names]
            self._broker.submit(flood, "", LONG_MS)

    def _waiting(self) -> int:
        return sum(int(self._redis.xlen(stream)) for stream in self._broker.keys.streams)

    def _unfinished(self) -> dict[str, int]:
        counts: dict[bytes, bytes] = self._redis.execute_command("HGETALL", self._broker.keys.tenants)
        return {name.decode(): int(count) for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--cost", type=float, default=8.0, help="ms of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds, shared = [], []
    for _ in range(options.rounds):
        with bench(options.cost, options.seconds) as one:
            rounds.append(one.run(options.backlog))
        with bench(options.cost, options.seconds) as one:
            shared.append(one.share(options.backlog // 2))
    report(rounds, options.backlog, options.cost)
    report_shares(rounds, shared)


@contextmanager
def bench(cost_ms: float, seconds: float) -> Iterator[Bench]:
    """A worker on a Redis of its own."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis() as server:
        code = Path(folder) / "slow.py"
        code.write_text(CODE.format(seconds=cost_ms / 1000))
        with workers(server.url, POOL, str(code)):
            yield Bench(server.url, seconds)


def report_shares(rounds: list[Round], shared: list[Shared]) -> None:
    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    ratio = median(one.three / one.one for one in shared)
    light = median(percentile(one.flooded, 0.99) for one in shared) * 1e3
    alone = median(percentile(one.quiet, 0.99) for one in rounds) * 1e3
    table(
        f"two backlogs, weights 3 and 1: {ratio:.2f} results of the one for each of the other",
        ["tenant", "results/s", "p99 ms"],
        [
            ["weight 3", f"{median(one.three for one in shared):,.0f}", "-"],
            ["weight 1", f"{median(one.one for one in shared):,.0f}", "-"],
            ["a request every 20 ms", "-", f"{light:.1f} ({light / alone:.2f} of {alone:.1f} alone)"],
        ],
    )


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
