"""What is measured of models: how long they take to load, and the stages of their own around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import ParamSpec, TypeVar
from weakref import WeakMethod

from common.metrics import declared as metrics
from common.metrics.recording import Histogram, Recorder
from inference_worker.models.loading import LoadTimes, Opener
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import POSTPROCESS, PREPROCESS, ModelSpec

_STAGES = {PREPROCESS: metrics.PREPROCESS, POSTPROCESS: metrics.POSTPROCESS}

P = ParamSpec("P")
T = TypeVar("T")


class MeteredOpener(Opener):
    """Measures what it opens. Only a model that has stages of its own is measured for each request."""

    def __init__(self, recorder: Recorder, pool: str, device: str, threads: int) -> None:
        super().__init__(device, threads)
        self._recorder = recorder
        self._pool = pool
        self._lock = Lock()

    def open(self, spec: ModelSpec) -> tuple[Loaded, LoadTimes]:
        loaded, times = super().open(spec)
        # Two models may load at once.
        with self._lock:
            for step, seconds in (("import", times.import_s), ("load", times.load_s), ("warm", times.warm_s)):
                self._recorder.histogram(metrics.MODEL_LOAD, self._pool, spec.name, step).add([seconds])
        for stage, metric in _STAGES.items():
            if loaded.backend.has_stage(stage):
                histogram = self._recorder.histogram(metric, self._pool, spec.name)
                # On this one backend: a wrapper around it would hide what else backends can do.
                setattr(loaded.backend, stage, _timed(getattr(loaded.backend, stage), histogram, self._lock))
        return loaded, times


def _timed(stage: Callable[P, T], histogram: Histogram, lock: Lock) -> Callable[P, T]:
    """A method, timed where it succeeds, in whichever threads it runs: also an old and a new model's at once."""
    # Weakly, as it becomes its object's own attribute: a model that is closed must go with its memory, and at once.
    method = WeakMethod(stage)

    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        began_s = time.monotonic()
        bound = method()
        assert bound is not None
        result = bound(*args, **kwargs)
        with lock:
            histogram.add([time.monotonic() - began_s])
        return result

    return timed
