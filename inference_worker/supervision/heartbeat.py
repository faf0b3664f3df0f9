"""The threads that keep leases, one for each pool: they tell Redis of it at once and each second.

Threads of their own, because a Redis that hangs answers after seconds: the supervisor hears signals meanwhile,
and the pools on a cluster's other shards keep their leases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Condition, Lock, Thread

from common.orders import Order, Report
from inference_worker.supervision.events import Event, Ready, Warned
from inference_worker.supervision.link import Answer, Link
from inference_worker.supervision.presence import Presence

Post = Callable[[Event | Exception], None]


class Heartbeat:
    """Tells each pool's presence at once when its names change, and again every `every_s` seconds.

    `post` gets the events, and the exception that ended a thread, from these threads.
    """

    def __init__(self, links: Mapping[str, Link], every_s: float, post: Post) -> None:
        once = _Once(post)
        self._pulses = {pool: Pulse(pool, link, every_s, once) for pool, link in links.items()}

    def start(self) -> None:
        for pulse in self._pulses.values():
            pulse.start()

    def tell(self, presences: Mapping[str, Presence], ready: Sequence[Ready] = ()) -> None:
        """From now on this is true. `ready` is posted once Redis knows it: who then asks for a model finds it."""
        for pool, presence in presences.items():
            self._pulses[pool].tell(presence, [one for one in ready if one.pool == pool])

    def answer(self, pool: str, order: Order, report: Report) -> None:
        """Tell an operator, after what has changed by his order is known to all."""
        self._pulses[pool].answer((order, report))

    def close(self, timeout_s: float) -> None:
        """Tell Redis once more what is true now, and end. A Redis that hangs is not waited for any longer."""
        for pulse in self._pulses.values():
            pulse.close()
        until_s = time.monotonic() + timeout_s
        for pulse in self._pulses.values():
            pulse.join(max(0.0, until_s - time.monotonic()))


class Pulse(Thread):
    """One pool's thread."""

    def __init__(self, pool: str, link: Link, every_s: float, post: Post) -> None:
        super().__init__(name=f"heartbeat {pool}", daemon=True)
        self._link = link
        self._every_s = every_s
        self._post = post
        self._changed = Condition()
        self._presence = Presence()
        self._unannounced: list[Ready] = []
        self._answers: list[Answer] = []
        self._urgent = self._closing = False

    def tell(self, presence: Presence, ready: Sequence[Ready]) -> None:
        with self._changed:
            same = presence.same_names(self._presence)
            self._presence = presence
            self._unannounced += ready
            if ready or not same:
                self._urgent = True
                self._changed.notify()

    def answer(self, answer: Answer) -> None:
        with self._changed:
            self._answers.append(answer)
            self._urgent = True
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def run(self) -> None:
        try:
            while self._beat():
                pass
        except Exception as error:
            self._post(error)
        finally:
            self._link.close()

    def _beat(self) -> bool:
        """Wait for news or the next second, and tell it. False when it was the last time."""
        with self._changed:
            if not self._urgent and not self._closing:
                self._changed.wait(self._every_s)
            self._urgent = False
            presence, ready, last = self._presence, self._unannounced, self._closing
            answers, self._unannounced, self._answers = self._answers, [], []
        events = self._link.beat(presence, answers)
        if self._link.lost:
            self._later(ready, answers)
        else:
            events += ready
        for event in events:
            self._post(event)
        return not last

    def _later(self, ready: list[Ready], answers: list[Answer]) -> None:
        with self._changed:
            self._unannounced = ready + self._unannounced
            self._answers = answers + self._answers


class _Once:
    """Posts a warning only the first time: all pools of one server would say the same."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._lock = Lock()
        self._warned: set[str] = set()

    def __call__(self, event: Event | Exception) -> None:
        if isinstance(event, Warned) and not self._is_new(event):
            return
        self._post(event)

    def _is_new(self, warning: Warned) -> bool:
        with self._lock:
            known = warning.text in self._warned
            self._warned.add(warning.text)
            return not known
