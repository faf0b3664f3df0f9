"""The model in this process, without Redis: one thread prepares the next chunk while another runs this one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

from common.errors import ConfigError
from common.tensor import Array
from common.versions import label_of
from inference_worker.backends.base import ModelRequest
from inference_worker.devices.cores import usable_cores
from inference_worker.devices.faults import raise_if_fatal
from inference_worker.infer import infer
from inference_worker.models.loading import Opener
from inference_worker.models.registry import Loaded
from inference_worker.models.repository import fetch_model, models_at
from inference_worker.models.spec import ModelSpec
from inference_worker.outcome import as_model_error
from inference_worker.outputs import not_finite, postprocess
from inference_worker.prepare import check_inputs, filled_up, preprocess
from inference_worker.scoring.engine import Answer
from inference_worker.scoring.facts import facts_of

#: Chunks that are prepared or run at once: one on the device, one ready, one being prepared.
AHEAD = 3


def find_spec(place: str, name: str, version: str | None) -> ModelSpec:
    """A model under a path or URL, by version or alias, else its newest. Its files are on this host then.

    Raises ConfigError that names what is there.
    """
    specs = models_at(place)
    named = [spec for spec in specs if spec.name == name]
    chosen = [spec for spec in named if version is None or version in (spec.version, *spec.aliases)]
    if not chosen:
        there = ", ".join(f"{spec.name}:{spec.version}" for spec in named or specs)
        raise ConfigError(f"there is no model '{label_of(name, version)}' in {place}; there is {there}")
    fetch_model(chosen[-1])
    return chosen[-1]


def open_local(
    place: str,
    name: str,
    version: str | None = None,
    device: str = "cpu",
    threads: int = 0,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> LocalScorer:
    """Load a model for scoring, with all of this process's cores unless `threads` says fewer. Raises ConfigError."""
    spec = find_spec(place, name, version)
    loaded, _ = Opener(device, threads or len(usable_cores().ids)).open(spec)
    return LocalScorer(loaded, device, parameters)


class LocalScorer:
    """A loaded model as a Scorer. Owns the model: `close` closes it."""

    def __init__(self, loaded: Loaded, device: str, parameters: Mapping[str, Any]) -> None:
        self.facts = facts_of(loaded.spec, loaded.backend.weights, device.partition(":")[0])
        self._loaded = loaded
        self._parameters = parameters
        self._preparing = ThreadPoolExecutor(1, "score-prepare")
        self._running = ThreadPoolExecutor(1, "score-run")

    def room(self, under_way: int) -> bool:
        return under_way < AHEAD

    def submit(self, inputs: Mapping[str, Array], rows: int) -> LocalPending:
        prepared = self._preparing.submit(self._prepare, inputs)
        return LocalPending(self._running.submit(self._run, prepared))

    def close(self) -> None:
        for threads in (self._preparing, self._running):
            threads.shutdown(wait=True, cancel_futures=True)
        self._loaded.close()

    def _prepare(self, inputs: Mapping[str, Array]) -> tuple[ModelRequest, dict[str, Array]]:
        checked = check_inputs(self._loaded.spec, inputs)
        request = ModelRequest(checked.arrays, checked.rows, self._parameters)
        return request, filled_up(self._loaded.spec, preprocess(self._loaded, request))

    def _run(self, prepared: Future[tuple[ModelRequest, dict[str, Array]]]) -> Answer:
        started = time.perf_counter()
        try:
            request, arrays = prepared.result()
            started = time.perf_counter()
            outputs = infer(self._loaded, arrays, request.rows)
            compute_s = time.perf_counter() - started
            wrong = not_finite(self._loaded, outputs) if self._loaded.spec.check_finite else None
            return Answer(postprocess(self._loaded, outputs, request), wrong, compute_s)
        except Exception as error:
            raise_if_fatal(error)
            return Answer({}, as_model_error(self._loaded, error), time.perf_counter() - started)


class LocalPending:
    """A chunk in this process's threads."""

    def __init__(self, future: Future[Answer]) -> None:
        self._future = future

    def result(self, timeout_s: float) -> Answer | None:
        try:
            return self._future.result(timeout_s)
        except TimeoutError:
            if self._future.done():
                raise
            return None
