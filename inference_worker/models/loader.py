"""The threads that load, replace and unload models beside the runner. What goes for what, the library decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from common.errors import ConfigError, InferenceError, ModelUnavailable
from common.orders import UNLOAD, Order
from common.text import describe
from common.versions import label_of
from inference_worker.devices.faults import Fault, fault_of, raise_if_fatal
from inference_worker.models.carrier import Carrier
from inference_worker.models.jobs import Wanted
from inference_worker.models.library import Library
from inference_worker.models.loading import LoadTimes, Opener
from inference_worker.models.registry import Key, Title, key_of
from inference_worker.models.residency import resident_bytes
from inference_worker.models.rollout import Done, Rollout
from inference_worker.models.scope import Scope, everything, is_in
from inference_worker.models.spec import ModelSpec

log = logging.getLogger(__name__)

#: So many threads load: beside a model that comes over a network another one can be read from the disk.
LOADERS = 2

#: (name:version of the model that is loading, models done, models in all)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Obeyed:
    """What became of an order here: `models` were changed, as `name:version`; `memory` is the process's, in bytes.

    `note`: what an operator should know though it went well.
    """

    order: str
    do: str
    ok: bool
    error: str
    models: tuple[str, ...]
    seconds: float
    memory: int
    note: str


class Loader:
    """`find` looks which models are declared now; `changed` hears, from any loader, when others are offered."""

    def __init__(
        self,
        library: Library,
        opener: Opener,
        find: Callable[[Scope], list[ModelSpec]],
        changed: Callable[[], None],
        obeyed: Callable[[Obeyed], None],
    ) -> None:
        self._library = library
        self._opener = opener
        self._find = find
        self._carrier = Carrier(library, opener)
        self._rollout = Rollout(library, self._carrier, find)
        self._changed = changed
        self._obeyed = obeyed

    def begin(
        self, lazy: bool, serves: Collection[str] | None, progress: Progress, unloaded: Collection[str] = ()
    ) -> LoadTimes:
        """Offer what is declared and load it: with `lazy` only what is pinned, within a budget only what fits.

        `serves` is what a process before this one offered (`name:version`): nothing else is, and what of it does not
        load now is told to who asks for it. Else such a failure is raised, as ConfigError or ModelError.
        What an operator has `unloaded` is neither offered nor loaded.
        """
        found = self._find(everything) if serves is None else self._found_again(serves)
        specs = [spec for spec in found if label_of(*key_of(spec)) not in unloaded]
        for name in dict.fromkeys(spec.name for spec in specs):
            titles = [Title(spec, self._opener.weights(spec)) for spec in specs if spec.name == name]
            self._library.offer(name, titles)
        if serves is None and not lazy and not self._library.bounded:
            self._opener.check(specs)
        pinned = [spec for spec in specs if spec.residence.pinned]
        others = [] if lazy else [spec for spec in specs if not spec.residence.pinned]
        return self._load_all(pinned + others, serves is None, progress)

    def hold_back(self, unloaded: Collection[str]) -> None:
        """Offer these no more: an operator unloaded them. To be called before `run`, which then closes them."""
        for name in {title.spec.name for title in self._library.registry.list()}:
            titles = self._library.registry.versions(name)
            kept = [title for title in titles if label_of(*title.key) not in unloaded]
            if len(kept) < len(titles):
                self._library.offer(name, kept)

    def run(self) -> None:
        """A thread; there may be several."""
        while True:
            job = self._library.next_job()
            if isinstance(job, Order):
                self._obey(job)
            elif isinstance(job, Wanted):
                self._fetch(job.key)
            self._carrier.close_free()
            if job is not None:
                self._library.done()

    def _found_again(self, serves: Collection[str]) -> list[ModelSpec]:
        """Raises ModelUnavailable where they are broken now: they were sound, and somebody is at work there.

        A ConfigError would end the worker for good.
        """

        def served(name: str, version: str, aliases: Collection[str]) -> bool:
            return label_of(name, version) in serves

        try:
            return [spec for spec in self._find(served) if is_in(served, spec)]
        except ConfigError as error:
            raise ModelUnavailable(f"the models that were served cannot be found again: {error}") from error

    def _load_all(self, specs: Sequence[ModelSpec], strict: bool, progress: Progress) -> LoadTimes:
        """Those that fit, and those that are pinned in any case."""
        times = LoadTimes()
        for done, spec in enumerate(specs):
            if not spec.residence.pinned and not self._carrier.fits(spec):
                continue
            progress(label_of(*key_of(spec)), done, len(specs))
            try:
                times += self._load(spec)
            except InferenceError as error:
                if strict or fault_of(error) is Fault.LOST:
                    # Known at the start: it is the configuration that does not fit.
                    raise ConfigError(error.message) if isinstance(error, ModelUnavailable) else error from None
                self._failed(key_of(spec), error)
        return times

    def _fetch(self, key: Key) -> None:
        """Load what was asked for, if it is still offered and waited for."""
        title = self._title(key)
        if title is None or not self._library.awaits(key):
            self._library.settled(key)
            return
        try:
            self._load(title.spec)
        except InferenceError as error:
            raise_if_fatal(error)
            self._failed(key, error)

    def _load(self, spec: ModelSpec) -> LoadTimes:
        """Load a version that is offered. Its files may have changed since: then its digest is another one."""
        news, times = self._carrier.serve(spec)
        if news:
            self._changed()
        return times

    def _failed(self, key: Key, error: InferenceError) -> None:
        log.error("model '%s' is offered, but cannot be loaded: %s", label_of(*key), error)
        self._library.failed(key, error)

    def _obey(self, order: Order) -> None:
        began = time.monotonic()
        before = self._library.registry.list()
        done, error = self._attempt(order)
        self._carrier.close_free()
        if self._library.registry.list() != before:
            self._changed()
        seconds = time.monotonic() - began
        models = tuple(label_of(*key) for key in done.keys)
        self._obeyed(Obeyed(order.id, order.do, not error, error, models, seconds, resident_bytes(), done.note))

    def _attempt(self, order: Order) -> tuple[Done, str]:
        """What it changed, or why nothing."""
        try:
            return self._rollout.obey(order), ""
        except InferenceError as failure:
            error = failure.message
        except Exception as failure:
            log.exception("an order failed. This is a bug")
            error = f"{describe(failure)}. This is a bug."
        if order.do != UNLOAD and self._library.registry.versions(order.model):
            old = "was unloaded for it" if order.swap else "is served as it was"
            error = f"{error}; what was served before {old}"
        log.error("%s of '%s' failed: %s", order.do, label_of(order.model, order.version), error)
        return Done([]), error

    def _title(self, key: Key) -> Title | None:
        return next((title for title in self._library.registry.versions(key[0]) if title.key == key), None)
