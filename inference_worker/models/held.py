"""The entries that a worker has taken and not finished, and the models that they keep in use. Thread-safe."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from threading import Lock

from common.scripts import Place


class Held:
    """Counts by hand what is in use: a weak reference would also count an idle thread's last batch, and a traceback.

    An entry uses a loaded model, or waits for one that is named by its key, or (not yet looked at) neither.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._used: dict[Place, Hashable] = {}
        self._uses: dict[Hashable, int] = {}
        self._tell: Callable[[], None] | None = None

    def watch(self, tell: Callable[[], None]) -> None:
        """`tell` is called, from any thread, whenever something is used no longer."""
        self._tell = tell

    def take(self, places: Iterable[Place]) -> None:
        with self._lock:
            for place in places:
                self._used.setdefault(place, None)

    def use(self, place: Place, what: Hashable) -> None:
        """From now on, and until it is finished, `place` uses `what` and nothing else."""
        with self._lock:
            freed = self._used.get(place) is not None and self._drop(place)
            self._used[place] = what
            self._uses[what] = self._uses.get(what, 0) + 1
        self._told(freed)

    def finish(self, places: Iterable[Place]) -> None:
        """They are answered, or handed back."""
        with self._lock:
            freed = sum(map(self._drop, places)) > 0
        self._told(freed)

    def used_by(self, place: Place) -> Hashable:
        """What it uses or waits for; None for neither."""
        return self._used.get(place)

    def uses(self, what: Hashable) -> int:
        with self._lock:
            return self._uses.get(what, 0)

    def __contains__(self, place: object) -> bool:
        return place in self._used

    def __len__(self) -> int:
        return len(self._used)

    def _drop(self, place: Place) -> bool:
        """Whether it was the last to use what it used."""
        what = self._used.pop(place, None)
        if what is None:
            return False
        left = self._uses[what] - 1
        if left:
            self._uses[what] = left
            return False
        del self._uses[what]
        return True

    def _told(self, freed: bool) -> None:
        if freed and self._tell is not None:
            self._tell()
