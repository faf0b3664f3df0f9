"""How fast a model's sample runs, by runtime option and batch size, and which of them to choose."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.errors import ConfigError, InferenceError
from common.tensor import Array
from inference_worker.backends import open_model
from inference_worker.devices.faults import is_out_of_memory
from inference_worker.infer import infer
from inference_worker.models.registry import Loaded
from inference_worker.models.sample import sample_batch
from inference_worker.models.spec import ModelSpec

#: What is tried of a torch model made by code, and of an exported program, beside the model as it is declared.
_OF_CODE: tuple[dict[str, Any], ...] = (
    {"dtype": "bf16"},
    {"dtype": "fp16"},
    {"dtype": "int8"},
    {"channels_last": True},
    {"compile": True},
)
_OF_FILE: tuple[dict[str, Any], ...] = ({"compile": True},)
_RUNTIME = ("dtype", "compile", "channels_last")
#: A batch size is large enough when it gives this share of the best throughput: what is larger only waits longer.
_ENOUGH = 0.95
#: A median of fewer runs says little; of a batch that takes seconds one must do.
_LEAST_RUNS, _SLOW_S = 3, 1.0

Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Variant:
    """The model with these runtime options in place of its own."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians for batches of `rows` equal rows. `difference`: the largest from float32, None without float outputs."""

    variant: str
    rows: int
    latency_ms: float
    rows_per_s: float
    difference: float | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """The fastest variant, and for it the limits of model.toml's table [batch]; `padded` where sizes are filled up."""

    variant: str
    rows: int
    padded: int | None
    speedup: float
    difference: float | None


@dataclass(frozen=True, slots=True)
class Tuned:
    """`impossible` says why of each variant that does not load or run here."""

    model: str
    measured: tuple[Measured, ...]
    impossible: Mapping[str, str]
    proposal: Proposal | None


def tune(
    spec: ModelSpec,
    device: str,
    threads: int,
    sizes: Sequence[int],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Measure each variant at each batch size, in about `seconds` without what loading and compiling take.

    Raises ConfigError or ModelError where not even the first variant, float32, runs, or the model has no sample.
    """
    every = variants(spec)
    measured: list[Measured] = []
    impossible: dict[str, str] = {}
    exact: Outputs | None = None
    length = None
    for variant in every:
        try:
            with _Opened(replace(spec, options=variant.options), device, threads) as one:
                length = _length(spec, one.batch)
                outputs = one.run(1)
                exact = outputs if exact is None else exact
                difference = largest_difference(outputs, exact)
                share_s = seconds / (len(every) * len(sizes))
                measured += [
                    Measured(variant.name, rows, took_s * 1000, rows / took_s, difference)
                    for rows, took_s in _times(one, sizes, share_s, clock)
                ]
        except InferenceError as error:
            if variant is every[0]:
                raise
            impossible[variant.name] = error.message
    return Tuned(f"{spec.name}:{spec.version}", tuple(measured), impossible, propose(measured, length))


def variants(spec: ModelSpec) -> list[Variant]:
    """Float32 as it is, then one option at a time: each effect is to be seen alone."""
    plain = {name: value for name, value in spec.options.items() if name not in _RUNTIME}
    found = [Variant("fp32" if spec.backend == "torch" else spec.backend, plain)]
    if spec.backend == "torch":
        tried = _OF_CODE if "code" in plain else _OF_FILE
        found += [Variant(_named(options), {**plain, **options}) for options in tried]
    return found


def propose(measured: Sequence[Measured], length: int | None) -> Proposal | None:
    """What to choose. `length` is the sample's, in elements, where rows are filled up to the longest. Pure."""
    if not measured:
        return None
    best = max(measured, key=lambda one: one.rows_per_s)
    same = [one for one in measured if one.variant == best.variant]
    chosen = min((one for one in same if one.rows_per_s >= _ENOUGH * best.rows_per_s), key=lambda one: one.rows)
    plain = max(one.rows_per_s for one in measured if one.variant == measured[0].variant)
    padded = None if length is None else chosen.rows * length
    return Proposal(chosen.variant, chosen.rows, padded, best.rows_per_s / plain, chosen.difference)


def largest_difference(outputs: Outputs, exact: Outputs) -> float | None:
    """Between the float outputs of both; None where there are none."""
    names = [name for name, array in exact.items() if array.dtype.kind == "f" and array.size]
    return max((float(np.abs(outputs[name] - exact[name]).max()) for name in names), default=None)


class _Opened:
    """A loaded model and its sample's one row, closed at the end of the block."""

    def __init__(self, spec: ModelSpec, device: str, threads: int) -> None:
        _seed(spec)
        self._loaded = Loaded(spec, open_model(spec, device, threads))
        self.batch = sample_batch(self._loaded)

    def __enter__(self) -> _Opened:
        if not self.batch:
            spec = self._loaded.spec
            raise ConfigError(
                f"model '{spec.name}:{spec.version}' declares neither inputs nor a sample to run; add one"
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loaded.close()

    def run(self, rows: int) -> Outputs:
        return infer(self._loaded, {name: np.repeat(array, rows, axis=0) for name, array in self.batch.items()}, rows)


def _seed(spec: ModelSpec) -> None:
    """A module without weights of its own makes some up: the same in each variant, so that their outputs compare."""
    if spec.backend == "torch":
        import torch

        torch.manual_seed(0)


def _times(
    one: _Opened, sizes: Sequence[int], share_s: float, clock: Callable[[], float]
) -> Iterator[tuple[int, float]]:
    """(rows, median seconds), up to the first size that the device's memory does not hold"""
    for rows in sizes:
        try:
            one.run(rows)
        except Exception as error:
            if is_out_of_memory(error):
                return
            raise
        yield rows, _median_s(lambda rows=rows: one.run(rows), share_s, clock)  # type: ignore[misc]


def _median_s(run: Callable[[], object], share_s: float, clock: Callable[[], float]) -> float:
    times: list[float] = []
    began = clock()
    while clock() - began < share_s or (len(times) < _LEAST_RUNS and clock() - began < _SLOW_S) or not times:
        started = clock()
        run()
        times.append(clock() - started)
    return statistics.median(times)


def _length(spec: ModelSpec, batch: Mapping[str, Array]) -> int | None:
    """Elements of the sample's longest array among those that are filled up; None where none is."""
    return max((array[0].size for name, array in batch.items() if name in spec.batch.pad), default=None)


def _named(options: Mapping[str, Any]) -> str:
    return next(str(value) if name == "dtype" else name for name, value in options.items())
