"""The batcher against fixed windows, in simulated time: the real policy, made-up devices, the same arrivals for all.

    python -m benchmarks.batcher_sim [--requests N] [--seeds N] [--plot FILE]

A fixed window waits until N requests are there or the first has waited for T, then sends them in order of arrival:
what most servers' dynamic batching does. T = 0 sends what is there as soon as the device is free. A load of 1 is what
our policy carries with 64 requests always waiting. Nothing here depends on the machine: a batch takes what the
device's formula says. A percentile is the mean of those of several runs: at high load the p99 of one run is that of its
longest rush, and differs from seed to seed by more than from policy to policy.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Protocol

import numpy as np

from benchmarks.chart import Curve, Panel, svg
from benchmarks.corpus import sentences
from benchmarks.harness import percentile, table
from common.protocol import Request
from common.scripts import Entry
from inference_worker.backends.base import Backend, Context, ModelRequest
from inference_worker.batching.batcher import Batcher
from inference_worker.item import Batch, Item, Part
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import BatchLimits, ModelSpec

ROWS = 64
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
#: T in ms and N of the fixed windows.
WINDOWS = ((0, ROWS), (0, 16), (0, 8), (1, ROWS), (5, ROWS), (20, ROWS), (50, ROWS))
#: So many requests come at once where arrivals are bursty.
BURST = 24
#: Of the requests so many come before the clock counts: how it learns is another question than what it has learned.
WARM_UP = 2_000
#: A token of an English sentence has about so many characters.
TOKEN = 4
#: Whoever lets so many wait is overloaded: his percentiles are those of the length of the run.
OVERLOAD = 2_000

Seconds = Callable[[int, int], float]
Arrivals = Callable[[float, random.Random], Iterator[float]]


@dataclass(frozen=True, slots=True)
class Device:
    """`seconds` of a batch by its rows and the length of its longest row; without `padded` the latter plays no part."""

    name: str
    padded: bool
    seconds: Seconds


#: a * n + b as of a GPU; and what MiniLM takes on two CPU cores.
DEVICES = (
    Device("8 ms + 0.1 ms a row", False, lambda rows, length: 0.008 + 0.0001 * rows),
    Device("6 ms + 0.13 ms a padded token", True, lambda rows, length: 0.006 + 0.00013 * rows * length),
)


class Nothing(Backend):
    """The simulation runs no model."""

    def load(self, context: Context) -> None:
        """There is nothing to load."""

    def infer(self, batch: object) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None:
        """There is nothing to give back."""


class Policy(Protocol):
    """Which of the waiting parts run now. A part's `order` is the moment of its arrival."""

    def add(self, part: Part) -> None: ...
    def next(self, now_s: float) -> Sequence[Part]: ...
    def wait_s(self, now_s: float) -> float | None: ...
    def ran(self, seconds: float) -> None: ...


class Ours:
    """The worker's batcher, as it is."""

    def __init__(self) -> None:
        self._batcher = Batcher()
        self._batch: Batch | None = None
        self.add = self._batcher.add
        self.wait_s = self._batcher.wait_s

    def next(self, now_s: float) -> Sequence[Part]:
        self._batch = self._batcher.next(now_s)
        return self._batch.parts if self._batch else ()

    def ran(self, seconds: float) -> None:
        if self._batch is not None:
            self._batcher.ran(self._batch, seconds)


class Window:
    """Waits for `rows` parts, or until the first has waited for `linger_s`."""

    def __init__(self, linger_s: float, rows: int) -> None:
        self._linger_s = linger_s
        self._rows = rows
        self._waiting: list[Part] = []

    def add(self, part: Part) -> None:
        self._waiting.append(part)

    def next(self, now_s: float) -> Sequence[Part]:
        if self.wait_s(now_s) != 0:
            return ()
        batch, self._waiting = self._waiting[: self._rows], self._waiting[self._rows :]
        return batch

    def wait_s(self, now_s: float) -> float | None:
        if not self._waiting:
            return None
        left_s = self._waiting[0].order + self._linger_s - now_s
        return 0.0 if len(self._waiting) >= self._rows or left_s < 1e-9 else left_s

    def ran(self, seconds: float) -> None:
        """It learns nothing."""


class Maker:
    """Parts of one model, made from a template for each length: a simulation needs many."""

    def __init__(self, padded: bool) -> None:
        limits = BatchLimits(rows=ROWS, pad={"x": 0} if padded else {})
        self._loaded = Loaded(ModelSpec("m", "1", "python", batch=limits), Nothing())
        entry, request = Entry(1, b"0-0", b"", None, b"", 0), Request("id", "m", {})
        self._item = Item(entry, request, self._loaded, ModelRequest({}, 1, {}), True, 0, None, 0.0, 0)
        self._padded = padded
        self._templates: dict[int, Part] = {}

    def part(self, length: int, at_s: float) -> Part:
        template = self._templates.get(length) or self._templates.setdefault(length, self._template(length))
        return replace(template, order=at_s)

    def _template(self, length: int) -> Part:
        arrays = {"x": np.zeros((1, length), np.int64)}
        shapes = ((length,),) if self._padded else ()
        return Part(self._item, 0, 1, arrays, (id(self._loaded),), shapes, length if shapes else 0, 0.0, inf)


def simulate(policy: Policy, device: Device, arrivals: Sequence[Part]) -> list[float] | None:
    """The latency in seconds of each part after the warm-up; None where it is overloaded."""
    coming = iter(arrivals)
    upcoming = next(coming, None)
    waiting, now_s, latencies = 0, 0.0, list[float]()
    while waiting or upcoming is not None:
        while upcoming is not None and upcoming.order <= now_s:
            policy.add(upcoming)
            waiting, upcoming = waiting + 1, next(coming, None)
        if waiting > OVERLOAD:
            return None
        if batch := policy.next(now_s):
            seconds = device.seconds(len(batch), max(part.length for part in batch))
            now_s += seconds
            policy.ran(seconds)
            waiting -= len(batch)
            latencies += [now_s - part.order for part in batch]
        else:
            wait_s = policy.wait_s(now_s)
            until_s = inf if wait_s is None else now_s + wait_s
            now_s = min(until_s, upcoming.order if upcoming else inf)
    return latencies[WARM_UP:]


def saturated(policy: Policy, device: Device, lengths: Sequence[int], requests: int) -> tuple[float, list[float]]:
    """Requests per second with ROWS of them always waiting, and the latency in seconds of each."""
    maker, draw = Maker(device.padded), random.Random(1)
    for _ in range(ROWS):
        policy.add(maker.part(draw.choice(lengths), 0.0))
    now_s, counted_s, latencies = 0.0, 0.0, list[float]()
    while len(latencies) < WARM_UP + requests:
        batch = policy.next(now_s)
        seconds = device.seconds(len(batch), max(part.length for part in batch))
        policy.ran(seconds)
        now_s += seconds
        counted_s += seconds if len(latencies) >= WARM_UP else 0.0
        latencies += [now_s - part.order for part in batch]
        for _ in batch:
            policy.add(maker.part(draw.choice(lengths), now_s))
    return (len(latencies) - WARM_UP) / counted_s, latencies[WARM_UP:]


def show_saturated(device: Device, lengths: Sequence[int], requests: int) -> float:
    """Print what each policy carries with ROWS callers, and how long they wait; the rate of ours."""
    found = {name: saturated(make(), device, lengths, requests) for name, make in POLICIES.items()}
    rows = [
        ["requests/s", *(f"{rate:.0f}" for rate, _ in found.values())],
        ["p50 / p99", *(str(Outcome.of([latencies])) for _, latencies in found.values())],
    ]
    table(f"{device.name}, {ROWS} callers who ask again when they are answered", ["", *found], rows)
    return found["ours"][0]


def poisson(rate: float, draw: random.Random) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += draw.expovariate(rate)
        yield at_s


def bursty(rate: float, draw: random.Random) -> Iterator[float]:
    for at_s in poisson(rate / BURST, draw):
        yield from [at_s] * BURST


ARRIVALS: dict[str, Arrivals] = {"Poisson": poisson, f"bursts of {BURST}": bursty}
POLICIES: dict[str, Callable[[], Policy]] = {
    "ours": Ours,
    **{f"{wait_ms} ms, {rows}": partial(Window, wait_ms / 1000, rows) for wait_ms, rows in WINDOWS},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Percentiles in ms; infinite where the policy is overloaded."""

    p50: float
    p99: float

    @classmethod
    def of(cls, runs: Sequence[Sequence[float]]) -> Outcome:
        """The means over runs, of whose requests these are the latencies in seconds."""
        p50, p99 = (fmean(percentile(one, share) * 1e3 for one in runs) for share in (0.5, 0.99))
        return cls(p50, p99)

    def __str__(self) -> str:
        return "overloaded" if self.p50 == inf else f"{self.p50:.0f} / {self.p99:.0f}"


@dataclass(frozen=True, slots=True)
class Runs:
    """How often is simulated, and for how many requests each time."""

    seeds: int
    requests: int


def outcome(
    make: Callable[[], Policy], device: Device, rate: float, arrivals: Arrivals, lengths: Sequence[int], runs: Runs
) -> Outcome:
    """The same requests at the same moments for every policy; the mean of the runs."""
    maker, found = Maker(device.padded), list[list[float]]()
    for seed in range(runs.seeds):
        draw = random.Random(seed)
        moments = islice(arrivals(rate, draw), WARM_UP + runs.requests)
        latencies = simulate(make(), device, [maker.part(draw.choice(lengths), at_s) for at_s in moments])
        if latencies is None:
            return Outcome(inf, inf)
        found.append(latencies)
    return Outcome.of(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="for each run, after its warm-up")
    parser.add_argument("--seeds", type=int, default=4, help="runs for each figure")
    parser.add_argument("--plot", type=Path, help="write an SVG here")
    options = parser.parse_args()
    lengths = [max(1, len(text) // TOKEN) for text in sentences(1500)]
    runs, panels = Runs(options.seeds, options.requests), []
    for device in DEVICES:
        full = show_saturated(device, lengths, options.requests)
        for kind, arrivals in ARRIVALS.items():
            found = {
                name: [outcome(make, device, load * full, arrivals, lengths, runs) for load in LOADS]
                for name, make in POLICIES.items()
            }
            title = f"{device.name}, {kind}"
            table(
                f"{title}; load 1 is {full:.0f} requests/s; p50 / p99 in ms",
                ["load", *found],
                [[f"{load:.0%}", *(str(rows[n]) for rows in found.values())] for n, load in enumerate(LOADS)],
            )
            curves = [Curve(name, [one.p99 for one in rows]) for name, rows in found.items()]
            panels.append(Panel(f"{title}: p99 in ms", curves))
    if options.plot:
        options.plot.write_text(svg(panels, LOADS, "load"), "utf-8")


if __name__ == "__main__":
    main()
