"""From paths to declared models, and from one of these to a model that is loaded, warm, and known by its digest."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from inference_worker.backends import BACKENDS, backend_class, open_model
from inference_worker.backends.pipeline import files_of
from inference_worker.devices.memory import Memory, host_memory
from inference_worker.models.registry import Loaded
from inference_worker.models.repository import fetch_model, models_at
from inference_worker.models.sample import warm_up
from inference_worker.models.scope import Scope, everything, is_in
from inference_worker.models.spec import ModelSpec
from inference_worker.models.weights import digest, file_state
from inference_worker.supervision.placement import check_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Seconds spent on the backends' libraries, on code and weights, and on the first runs."""

    import_s: float = 0.0
    load_s: float = 0.0
    warm_s: float = 0.0

    def __add__(self, other: LoadTimes) -> LoadTimes:
        return LoadTimes(self.import_s + other.import_s, self.load_s + other.load_s, self.warm_s + other.warm_s)


def find_models(paths: Iterable[str], pool: str | None, scope: Scope = everything) -> list[ModelSpec]:
    """The models under `paths`; with `pool` only that pool's. Raises ConfigError where there are none.

    A model in a Python file that names no pool belongs to whichever it is started for. Only the files of those in
    `scope` are sure to be on this host. Which models a broken Python file declares nobody knows: it is passed over, and
    is the error where none in `scope` is found without it.
    """
    paths = list(paths)
    specs: list[ModelSpec] = []
    broken: ConfigError | None = None
    for path in paths:
        try:
            specs += [_placed(spec, path, pool) for spec in models_at(path, scope=scope)]
        except ConfigError as error:
            if scope is everything or not path.endswith(".py"):
                raise
            log.warning("%s; this file is passed over", error)
            broken = broken or error
    if broken is not None and not any(is_in(scope, spec) for spec in specs):
        raise broken
    chosen = [spec for spec in specs if pool is None or spec.pool == pool]
    for spec in specs:
        if spec not in chosen:
            log.info("model '%s:%s' is for pool '%s' and not served in '%s'", spec.name, spec.version, spec.pool, pool)
    if specs and not chosen:
        others = ", ".join(sorted({spec.pool for spec in specs}))
        raise ConfigError(f"no model in {', '.join(paths)} is for pool '{pool}'; those there are for {others}")
    for spec in chosen:
        if is_in(scope, spec):
            fetch_model(spec)
    return chosen


def _placed(spec: ModelSpec, path: str, pool: str | None) -> ModelSpec:
    if pool is None or spec.pool != DEFAULT_POOL or not path.endswith(".py"):
        return spec
    return replace(spec, pool=pool)


class Opener:
    """Opens models on one device ("cpu", "cuda:0"), each with up to `threads` CPU threads."""

    def __init__(self, device: str, threads: int) -> None:
        self._device = device
        self._threads = threads

    def open(self, spec: ModelSpec) -> tuple[Loaded, LoadTimes]:
        """A model that is loaded and has run its sample.

        Raises ConfigError or ModelError where it does not load, does not run, or changed under our hands: half old and
        half new, its results would be kept under a digest that is not theirs.
        """
        began = time.monotonic()
        backend_class(BACKENDS[spec.backend])
        started, before = time.monotonic(), _states(spec)
        loaded = Loaded(spec, open_model(spec, self._device, self._threads))
        opened = time.monotonic()
        try:
            warm_up(loaded)
            _check_unchanged(spec, before)
        except BaseException:
            loaded.close()
            raise
        return loaded, LoadTimes(started - began, opened - started, time.monotonic() - opened)

    def size(self, spec: ModelSpec) -> int:
        """Bytes that the model needs: what it declares, else those of its files."""
        return spec.residence.memory or sum(path.stat().st_size for _, path in files_of(spec))

    def weights(self, spec: ModelSpec) -> str:
        """The digest that the model will have when it is loaded."""
        return digest(files_of(spec))

    def check(self, specs: Iterable[ModelSpec]) -> None:
        """Raises ConfigError where what they declare to need, all together, is more than the device has free."""
        check_memory(specs, self._device, self.memory())

    def memory(self) -> Memory:
        """What the device has free now."""
        if self._device == "cpu":
            return host_memory()
        from inference_worker.devices.accelerator import open_accelerator

        return open_accelerator(self._device).memory()


def _states(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {label: file_state(path) for label, path in files_of(spec)}


def _check_unchanged(spec: ModelSpec, before: dict[str, tuple[int, ...]]) -> None:
    after = _states(spec)
    # One that it imports only now was not there before.
    changed = [label for label, state in before.items() if after.get(label) != state]
    if changed:
        raise ConfigError(
            f"model '{spec.name}:{spec.version}' changed while it was loaded ({', '.join(sorted(changed)[:3])}); "
            "load it again when its files are complete, or put each version into a folder of its own"
        )
