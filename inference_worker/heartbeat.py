"""The thread that keeps leases: it tells Redis of all pools at once and each second.

A thread of its own, because a Redis that hangs answers after seconds: the supervisor hears signals meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Condition, Thread

from inference_worker.events import Event, Ready, Warned
from inference_worker.presence import Link, Presence


class Heartbeat:
    """Tells all pools' presence at once when its names change, and again every `every_s` seconds.

    `post` gets the events, and the exception that ended the thread, from this thread.
    """

    def __init__(self, links: Mapping[str, Link], every_s: float, post: Callable[[Event | Exception], None]) -> None:
        self._links = links
        self._every_s = every_s
        self._post = post
        self._changed = Condition()
        self._presences: Mapping[str, Presence] = {pool: Presence() for pool in links}
        self._unannounced: list[Ready] = []
        self._urgent = self._closing = False
        self._warned: set[str] = set()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, presences: Mapping[str, Presence], ready: Sequence[Ready] = ()) -> None:
        """From now on this is true. `ready` is posted once Redis knows it: who then asks for a model finds it."""
        with self._changed:
            same = all(presences[pool].same_names(old) for pool, old in self._presences.items())
            self._presences = presences
            self._unannounced += ready
            if ready or not same:
                self._urgent = True
                self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Tell Redis once more what is true now, and end. A Redis that hangs is not waited for any longer."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._beat():
                pass
        except Exception as error:
            self._post(error)
        finally:
            for link in self._links.values():
                link.close()

    def _beat(self) -> bool:
        """Wait for news or the next second, and tell it. False when it was the last time."""
        with self._changed:
            if not self._urgent and not self._closing:
                self._changed.wait(self._every_s)
            self._urgent = False
            presences, ready, last = self._presences, self._unannounced, self._closing
            self._unannounced = []
        for pool, link in self._links.items():
            self._announce(link.beat(presences[pool]))
        self._later([one for one in ready if self._links[one.pool].lost])
        self._announce([one for one in ready if not self._links[one.pool].lost])
        return not last

    def _later(self, ready: list[Ready]) -> None:
        with self._changed:
            self._unannounced = ready + self._unannounced

    def _announce(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Warned):
                if event.text in self._warned:
                    continue
                self._warned.add(event.text)
            self._post(event)
