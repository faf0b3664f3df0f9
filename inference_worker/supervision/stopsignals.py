"""SIGTERM and SIGINT as two wishes: stop, and stop now."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: One wish may come as several signals: `timeout` and some init systems signal a process and then its group.
ECHO_S = 0.5


class Wishes:
    """Tells a signal that is a wish of its own from the echo of the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s = float("-inf")

    def is_new(self) -> bool:
        """Whether the signal that comes now is a wish of its own. An echo begins no new half second."""
        now_s = self._clock()
        if now_s - self._last_s < ECHO_S:
            return False
        self._last_s = now_s
        return True


#: One for the process, as its signals are: an echo may meet another handler than the signal did.
WISHES = Wishes()


class StopSignals:
    """While entered, the first wish calls `stop`, each further one `kill`.

    `wakeup_fd` is written to at the very moment of a signal: one that comes just before the loop begins to
    wait would else be handled only when something else wakes it.

    Python lets only the main thread handle signals: entered elsewhere it does nothing.
    """

    def __init__(self, stop: Callable[[], None], kill: Callable[[], None], wakeup_fd: int) -> None:
        self._stop = stop
        self._kill = kill
        self._wakeup_fd = wakeup_fd
        self._wakeup_before = -1
        self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if current_thread() is main_thread():
            self._wakeup_before = signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            signal.set_wakeup_fd(self._wakeup_before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if WISHES.is_new():
            wish, self._came = self._kill if self._came else self._stop, True
            wish()
