"""From paths to a registry of models that are loaded and warm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from inference_worker.backends import BACKENDS, backend_class, open_model
from inference_worker.registry import Loaded, Registry
from inference_worker.repository import discover
from inference_worker.sample import warm_up
from inference_worker.spec import ModelSpec

log = logging.getLogger(__name__)

#: (name:version of the model that is loading, models done, models in all)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Seconds spent on the backends' libraries, on code and weights, and on the first runs."""

    import_s: float
    load_s: float
    warm_s: float


def find_models(paths: Iterable[str], pool: str | None) -> list[ModelSpec]:
    """The models under `paths`; with `pool` only that pool's. Raises ConfigError where there are none.

    A model in a Python file that names no pool belongs to whichever it is started for.
    """
    paths = list(paths)
    specs = [_placed(spec, path, pool) for path in paths for spec in discover(Path(path))]
    chosen = [spec for spec in specs if pool is None or spec.pool == pool]
    for spec in specs:
        if spec not in chosen:
            log.info("model '%s:%s' is for pool '%s' and not served in '%s'", spec.name, spec.version, spec.pool, pool)
    if not chosen:
        others = ", ".join(sorted({spec.pool for spec in specs}))
        raise ConfigError(f"no model in {', '.join(paths)} is for pool '{pool}'; those there are for {others}")
    return chosen


def _placed(spec: ModelSpec, path: str, pool: str | None) -> ModelSpec:
    if pool is None or spec.pool != DEFAULT_POOL or not path.endswith(".py"):
        return spec
    return replace(spec, pool=pool)


def load_models(specs: list[ModelSpec], registry: Registry, device: str, threads: int, progress: Progress) -> LoadTimes:
    """Load each model, run its sample, and only then register it."""
    import_s = load_s = warm_s = 0.0
    for done, spec in enumerate(specs):
        progress(f"{spec.name}:{spec.version}", done, len(specs))
        began = time.monotonic()
        backend_class(BACKENDS[spec.backend])
        started = time.monotonic()
        loaded = Loaded(spec, open_model(spec, device, threads))
        opened = time.monotonic()
        warm_up(loaded)
        import_s += started - began
        load_s += opened - started
        warm_s += time.monotonic() - opened
        registry.register(spec, loaded.backend)
    return LoadTimes(import_s, load_s, warm_s)
