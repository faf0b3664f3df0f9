"""SIGTERM and SIGINT as two wishes: stop, and stop now."""

from __future__ import annotations

import signal
from collections.abc import Callable
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While entered, the first signal calls `stop`, each further one `kill`.

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
        wish, self._came = self._kill if self._came else self._stop, True
        wish()
