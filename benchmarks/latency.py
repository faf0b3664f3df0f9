"""(g) MiniLM's latency under open load: the worker's batches beside batches in order of arrival, in the same run.

python -m benchmarks.latency [--seconds N] [--rounds N] [--rows N ...] [--plot FILE]

Requests come at random moments (Poisson), whether or not earlier ones are answered; a latency counts from the moment
at which its request was due. A load of 1 is what our policy carries with 64 callers. The peers are the same worker with
another batcher: as soon as the device is free it sends what has waited longest, up to N rows. All workers are there all
the time and take turns; each has one thread for its model.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

from benchmarks.chart import Curve, Panel, svg
from benchmarks.corpus import sentences
from benchmarks.harness import percentile, table
from benchmarks.minilm import IN_FLIGHT, MINILM
from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from gateway import AsyncClient
from inference_worker import holding, process
from inference_worker.batching.batcher import Batcher
from inference_worker.item import Batch, Part, batch_of
from inference_worker.supervision.child import COMMAND
from inference_worker.supervision.placement import Placement
from inference_worker.supervision.slot import ChildPlan
from inference_worker.supervision.supervisor import Supervisor

LOADS = (0.3, 0.6, 0.8, 0.9)
OURS = "ours"
#: Requests that still wait when a round ends are given up: who is overloaded has no other end.
WAIT_S = 10.0


class InOrder(Batcher):
    """A batch is what has waited longest, up to so many rows, whatever its lengths."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._most = rows
        self._waiting: list[Part] = []

    def add(self, part: Part) -> None:
        self._waiting.append(part)
        self.rows += part.rows

    def next(self, now_s: float) -> Batch | None:
        chosen, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        self.rows -= sum(part.rows for part in chosen)
        return batch_of(chosen) if chosen else None

    def wait_s(self, now_s: float) -> float | None:
        return 0.0 if self._waiting else None

    def __iter__(self) -> Iterator[Part]:
        return iter(self._waiting)

    def drop(self, unwanted: object) -> list[Part]:
        """Nobody cancels here, and no request has a deadline that passes."""
        return []


def name_of(rows: int) -> str:
    return f"in order, {rows}"


@contextmanager
def serving(url: str, pool: str, command: Sequence[str]) -> Iterator[None]:
    """One worker process of `command`, ready."""
    placement = Placement(0, "cpu", "", 1, (), ("cpu",), 0)
    fleet = Supervisor(url, [ChildPlan(pool, (str(MINILM),), placement)], lambda event: None, command=command)
    thread = Thread(target=fleet.run)
    thread.start()
    broker = Broker(connect(url), pool)
    try:
        while not broker.models():
            if not thread.is_alive():
                raise RuntimeError("the worker ended before it was ready")
            time.sleep(0.05)
        yield
    finally:
        fleet.kill()
        thread.join()


class Caller:
    """Asks one pool, in an event loop of its own; latencies are seconds."""

    def __init__(self, url: str, pool: str, texts: Sequence[str]) -> None:
        self._url = url
        self._pool = pool
        self._texts = texts

    def closed(self, seconds: float) -> tuple[float, list[float]]:
        """(answers per second, their latencies) with 64 callers, each of whom asks again when he is answered."""
        return asyncio.run(self._closed(seconds))

    def open(self, rate: float, seconds: float, seed: int) -> list[float]:
        """Latencies under `rate` requests per second; one that is not answered in time counts with that time."""
        return asyncio.run(self._open(rate, seconds, random.Random(seed)))

    async def _closed(self, seconds: float) -> tuple[float, list[float]]:
        took: list[float] = []
        draw = random.Random(1)
        async with AsyncClient(self._url, pool=self._pool) as client:
            began = time.monotonic()

            async def call() -> None:
                while time.monotonic() - began < seconds:
                    took.append(await self._ask(client, draw.choice(self._texts), time.monotonic()))

            await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
            return len(took) / (time.monotonic() - began), took

    async def _open(self, rate: float, seconds: float, draw: random.Random) -> list[float]:
        async with AsyncClient(self._url, pool=self._pool, timeout_s=seconds + WAIT_S) as client:
            tasks = []
            began = due = time.monotonic()
            while due - began < seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.append(asyncio.create_task(self._ask(client, draw.choice(self._texts), due)))
                due += draw.expovariate(rate)
            await asyncio.wait(tasks, timeout=WAIT_S)
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            return [task.result() for task in tasks if task not in late] + [WAIT_S] * len(late)

    async def _ask(self, client: AsyncClient, text: str, due: float) -> float:
        await client.infer("minilm", text, cache=False)
        return time.monotonic() - due


def measure(callers: dict[str, Caller], seconds: float, rounds: int) -> dict[str, list[tuple[str, list[float]]]]:
    """Of each policy, for each load: its name, and all latencies. The policies take turns at the same moments."""
    for caller in callers.values():
        caller.closed(seconds)
    saturated: dict[str, list[float]] = {name: [] for name in callers}
    rates: dict[str, list[float]] = {name: [] for name in callers}
    for _ in range(rounds):
        for name, caller in callers.items():
            rate, took = caller.closed(seconds)
            rates[name].append(rate)
            saturated[name] += took
    full = {name: sum(values) / rounds for name, values in rates.items()}
    print("requests/s with 64 callers: " + ", ".join(f"{name} {rate:.0f}" for name, rate in full.items()))
    found: dict[str, list[tuple[str, list[float]]]] = {name: [] for name in callers}
    for load in LOADS:
        took_at: dict[str, list[float]] = {name: [] for name in callers}
        for seed in range(rounds):
            for name, caller in callers.items():
                took_at[name] += caller.open(load * full[OURS], seconds, seed)
        for name, took in took_at.items():
            found[name].append((f"{load:.0%}", took))
    for name, took in saturated.items():
        found[name].append((f"{IN_FLIGHT} callers", took))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of one round of one policy at one load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 8], help="the peers' most rows of a batch")
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--plot", type=Path, help="write an SVG here")
    parser.add_argument("--worker", type=int, metavar="ROWS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        holding.Batcher = partial(InOrder, options.worker)  # type: ignore[misc,assignment]
        process.run()
    texts = sentences(options.sentences)
    commands = {OURS: COMMAND}
    for rows in options.rows:
        commands[name_of(rows)] = (sys.executable, "-m", "benchmarks.latency", "--worker", str(rows))
    with EmbeddedRedis() as server, ExitStack() as fleets:
        callers = {}
        for number, (name, command) in enumerate(commands.items()):
            fleets.enter_context(serving(server.url, f"pool-{number}", command))
            callers[name] = Caller(server.url, f"pool-{number}", texts)
        found = measure(callers, options.seconds, options.rounds)
    _print(found, options.plot)


def _print(found: dict[str, list[tuple[str, list[float]]]], plot: Path | None) -> None:
    loads = [load for load, _ in found[OURS]]
    shown = [
        [load, *(f"{percentile(took, 0.5) * 1e3:.0f} / {percentile(took, 0.99) * 1e3:.0f}" for took in at)]
        for load, *at in zip(loads, *([took for _, took in one] for one in found.values()), strict=True)
    ]
    table("(g) MiniLM, sentences of mixed length, Poisson; p50 / p99 in ms", ["load", *found], shown)
    if plot is not None:
        curves = [Curve(name, [percentile(took, 0.99) * 1e3 for _, took in one[:-1]]) for name, one in found.items()]
        plot.write_text(svg([Panel("MiniLM: p99 in ms", curves)], LOADS, "load"), "utf-8")


if __name__ == "__main__":
    main()
