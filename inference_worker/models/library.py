"""The models that a process offers, and which of them are in memory. Decides and counts; loaders load."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf
from threading import Condition, RLock, get_ident

from common.backoff import Backoff
from common.errors import InferenceError, ModelUnavailable
from common.orders import Order
from common.scripts import Place
from common.versions import label_of
from inference_worker.models.budget import Budget, NeverFitsError, Resident
from inference_worker.models.held import Held
from inference_worker.models.jobs import Job, Jobs, Wanted
from inference_worker.models.lately import Lately
from inference_worker.models.registry import Key, Loaded, Registry, Title, key_of

#: A model that failed to load is tried again so much later, at first and at most.
RETRY_S = (1.0, 60.0)


@dataclass(slots=True)
class _Shelf:
    """A model in memory, with its bytes."""

    loaded: Loaded
    size: int
    used_s: float

    @property
    def key(self) -> Key:
        return key_of(self.loaded.spec)


class _Failure:
    """Why a model could not be loaded, and until when it is not tried again."""

    def __init__(self) -> None:
        self._backoff = Backoff(*RETRY_S)
        self._error = ModelUnavailable()
        self._until_s = 0.0

    def again(self, error: ModelUnavailable, now_s: float) -> None:
        self._error = error
        self._until_s = now_s + self._backoff.next()

    def check(self, now_s: float, waited: bool) -> None:
        """Raises it while it is too soon for another try, and at any time for one who has waited for this one."""
        left_s = self._until_s - now_s
        if waited or left_s > 0:
            waits = not isinstance(self._error, NeverFitsError)
            again = f" (tried again from {max(0.0, left_s):.1f} s on)" if waits else ""
            raise ModelUnavailable(f"{self._error.message}{again}")


class Library:
    """Thread-safe: the intake lends models from it, and a few loaders fill it.

    A model that goes, whether evicted, unloaded or replaced, is lent no more at once, and is closed when the last
    entry that uses it is finished. An entry whose model is not in memory waits (`lend` gives the key), and the first
    such has it loaded.
    """

    def __init__(self, limit: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = Registry()
        self.held = Held()
        self._budget = None if limit is None else Budget(limit)
        self._clock = clock
        # Taken by itself for each request: a Condition enters it by a call more.
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._shelves: dict[Key, _Shelf] = {}
        self._arrived: list[_Shelf] = []
        self._leaving: list[_Shelf] = []
        #: What threads are closing, by their ids: its memory is not free yet.
        self._closing: dict[int, list[_Shelf]] = {}
        #: Bytes for what is being loaded.
        self._promised = 0
        self._jobs = Jobs()
        self._wanted: set[Key] = set()
        self._failures: dict[Key, _Failure] = {}
        self._evicted = Lately()
        self.loads = self.evictions = 0
        self.held.watch(self._wake)

    # The intake's side

    def lend(self, place: Place, name: str, version: str | None) -> Loaded | Key:
        """The model for an entry, in use until that is finished; or, where it is not in memory, what to wait for.

        Raises ModelNotFound, and ModelUnavailable for one that failed to load a moment ago.
        """
        with self._lock:
            key = self.registry.get(name, version).key
            shelf = self._shelves.get(key)
            if shelf is None:
                self._want(key, waited=self.held.used_by(place) == key)
                self.held.use(place, key)
                return key
            shelf.used_s = self._clock()
            self.held.use(place, shelf.loaded)
            return shelf.loaded

    def awaits(self, key: Key) -> bool:
        """Whether who waits for `key` still has to: it is not loaded yet, nor has that failed."""
        return key in self._wanted

    def _want(self, key: Key, waited: bool) -> None:
        if key in self._wanted:
            return
        if key in self._failures:
            self._failures[key].check(self._clock(), waited)
        self._wanted.add(key)
        self._jobs.add(Wanted(key))
        self._changed.notify_all()

    # A loader's side: what to do

    def order(self, order: Order) -> None:
        """Have a loader obey, after what there is to do before."""
        with self._changed:
            self._jobs.add(order)
            self._changed.notify_all()

    def next_job(self) -> Job | None:
        """Wait for the next thing to do, which then is to be `done`. None: something can be closed (`take_free`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs.next_may_begin or self._free())
            return self._jobs.begin() if self._jobs.next_may_begin else None

    def done(self) -> None:
        """What `next_job` gave to this thread."""
        with self._changed:
            self._jobs.done()
            self._changed.notify_all()

    @property
    def at_work(self) -> bool:
        """Some loader loads or closes, and so may hold the interpreter's lock for long."""
        return bool(self._jobs.under_way or self._closing)

    def settled(self, key: Key) -> None:
        """Who waits for `key` may look again."""
        self._wanted.discard(key)

    def failed(self, key: Key, error: InferenceError) -> None:
        """Whoever waits for `key` gets this error, and so does who asks for it in the next seconds."""
        if not isinstance(error, ModelUnavailable):
            error = ModelUnavailable(f"model '{label_of(*key)}' cannot be loaded: {error.message}")
        with self._changed:
            self._failures.setdefault(key, _Failure()).again(error, self._clock())
            self._wanted.discard(key)

    # A loader's side: what is in memory

    def arrived(self, loaded: Loaded, size: int, promised: int = 0) -> None:
        """It is in memory, and lent from the next `offer` of its name on. `promised`: what room was made for it."""
        with self._changed:
            self._promised -= promised
            self._arrived.append(_Shelf(loaded, size, self._clock()))
            self._changed.notify_all()

    def forgo(self, promised: int) -> None:
        """What room was made for does not come."""
        with self._changed:
            self._promised -= promised
            self._changed.notify_all()

    def offer(self, name: str, titles: Collection[Title]) -> None:
        """In one step: offer these versions of a model and no others, with those that have arrived in memory.

        What these replace leaves, and so does what is offered no longer. Raises ConfigError, and changes nothing,
        where two versions share an alias.
        """
        with self._changed:
            self.registry.replace(name, titles)
            for shelf in [shelf for shelf in self._arrived if shelf.key[0] == name]:
                self._arrived.remove(shelf)
                self._leave(shelf.key)
                self._shelves[shelf.key] = shelf
                self._wanted.discard(shelf.key)
                self._failures.pop(shelf.key, None)
                self.loads += 1
            offered = {title.key for title in titles}
            for key in [key for key in self._shelves if key[0] == name and key not in offered]:
                self._leave(key)

    def serve(self, loaded: Loaded, size: int, promised: int) -> bool:
        """`arrived`, and in the same step it is offered in its version's place, unless that was taken away meanwhile.

        Whether that is news to others: its digest is another one than it was thought to have.
        """
        with self._changed:
            self.arrived(loaded, size, promised)
            title = Title(loaded.spec, loaded.backend.weights)
            before = self.registry.versions(title.spec.name)
            after = tuple(title if one.key == title.key else one for one in before)
            self.offer(title.spec.name, after)
            return after != before

    def abandon(self) -> None:
        """What has arrived is not offered after all, and leaves."""
        with self._changed:
            self._leaving += self._arrived
            self._arrived = []

    def make_room(self, what: str, need: int, beside: Collection[Key] = ()) -> bool:
        """Evict, and wait, until `need` bytes more are free, and keep them. False: close what is free, and try again.

        Nothing in `beside` is evicted for it. Raises ModelUnavailable with figures where it can never fit.
        """
        with self._changed:
            while self._budget is not None:
                for key in self._budget.victims(what, need, self._residents(beside)):
                    self._leave(key)
                    self._evicted.add(label_of(*key), self._clock())
                    self.evictions += 1
                if self._free():
                    return False
                if self._size() + need <= self._budget.limit:
                    break
                self._changed.wait()
            self._promised += need
            return True

    def fits(self, need: int) -> bool:
        """Whether `need` bytes more fit as things are."""
        with self._changed:
            return self._budget is None or self._size() + need <= self._budget.limit

    def retire(self, keys: Collection[Key]) -> bool:
        """Take these out of memory, and wait until they are; they stay offered. False: as for `make_room`."""
        with self._changed:
            for key in keys:
                self._leave(key)
            while any(shelf.key in keys for shelf in (*self._leaving, *self._being_closed())):
                if self._free():
                    return False
                self._changed.wait()
            return True

    def take_free(self) -> list[Loaded]:
        """Those that have left and that nobody uses any more, for this thread to close; `closed` says that it has."""
        with self._changed:
            free = self._free()
            self._leaving = [shelf for shelf in self._leaving if shelf not in free]
            if free:
                self._closing[get_ident()] = free
            return [shelf.loaded for shelf in free]

    def closed(self) -> None:
        """What this thread took is closed, and its memory free."""
        with self._changed:
            self._closing.pop(get_ident(), None)
            self._changed.notify_all()

    @property
    def budget(self) -> int | None:
        """Bytes for all models together; None: without bound."""
        return None if self._budget is None else self._budget.limit

    def in_memory(self, most: int) -> dict[str, int]:
        """What can be lent now, with its bytes; the `most` largest."""
        with self._changed:
            sizes = {label_of(*key): shelf.size for key, shelf in self._shelves.items()}
        return dict(sorted(sizes.items(), key=lambda one: -one[1])[:most])

    def evicted_lately(self, most: int) -> dict[str, int]:
        """How often what was evicted in the last ten minutes; the `most` frequent."""
        with self._changed:
            return dict([*self._evicted.counts(self._clock()).items()][:most])

    @property
    def bounded(self) -> bool:
        """Whether there is a budget, so that not all models need to be in memory at once."""
        return self._budget is not None

    @property
    def loaded(self) -> dict[Key, Loaded]:
        """What can be lent now."""
        with self._changed:
            return {key: shelf.loaded for key, shelf in self._shelves.items()}

    @property
    def size(self) -> int:
        """Bytes of all that is in memory."""
        with self._changed:
            return self._size()

    def _residents(self, beside: Collection[Key]) -> list[Resident]:
        shelves = [
            Resident(
                key, shelf.size, shelf.used_s,
                stays=shelf.loaded.spec.residence.pinned or key in beside,
                awaited=self.held.uses(key) > 0,
                busy=self.held.uses(shelf.loaded) > 0,
            )
            for key, shelf in self._shelves.items()
        ]  # fmt: skip
        # What is on its way goes in its turn: it is offered first, and whoever waited for it is served.
        coming = [Resident(("", ""), self._promised, inf, awaited=True)] if self._promised else []
        return [*shelves, *coming, *(Resident(one.key, one.size, one.used_s, stays=True) for one in self._arrived)]

    def _size(self) -> int:
        there = (*self._shelves.values(), *self._arrived, *self._leaving, *self._being_closed())
        return sum(shelf.size for shelf in there) + self._promised

    def _being_closed(self) -> list[_Shelf]:
        return [shelf for shelves in self._closing.values() for shelf in shelves]

    def _leave(self, key: Key) -> None:
        shelf = self._shelves.pop(key, None)
        if shelf is not None:
            self._leaving.append(shelf)

    def _free(self) -> list[_Shelf]:
        return [shelf for shelf in self._leaving if not self.held.uses(shelf.loaded)]

    def _wake(self) -> None:
        # Unless somebody may wait for room or for what leaves: this is called for nearly each request.
        if self._budget is None and not self._leaving:
            return
        with self._changed:
            self._changed.notify_all()
