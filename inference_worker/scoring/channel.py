"""Work that goes on beside its consumer, a bounded way ahead: the reader's and the encoder's threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S, _CLOSE_S = 0.1, 5.0


class Ahead(Generic[T]):
    """Iterates in a thread, at most `most` items ahead; gives None as often as there is nothing for now, as its items
    may do, too.

    An error comes out where its item would have. `close` ends it. Where nothing is there it waits `poll_s`.
    """

    def __init__(self, items: Iterable[T | None], most: int, name: str, poll_s: float = _POLL_S) -> None:
        self._items, self._poll_s = items, poll_s
        self._queue: Queue[tuple[T | None, BaseException | None]] = Queue(most)
        self._ended = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T | None]:
        while not self._ended.is_set():
            try:
                item, error = self._queue.get(self._poll_s > 0, self._poll_s)
            except Empty:
                yield None
                continue
            if error is not None:
                self._thread.join()
                if isinstance(error, _End):
                    return
                raise error
            yield item

    def close(self) -> None:
        self._ended.set()
        # A read that hangs, such as of a terminal, ends with the process.
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            for item in self._items:
                if self._ended.is_set() or (item is not None and not self._put(item, None)):
                    break
            else:
                self._put(None, _End())
        except BaseException as error:
            self._put(None, error)

    def _put(self, item: T | None, error: BaseException | None) -> bool:
        while not self._ended.is_set():
            try:
                self._queue.put((item, error), timeout=_POLL_S)
            except Full:
                continue
            return True
        return False


class _End(Exception):
    """Nothing more comes."""
