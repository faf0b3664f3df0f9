"""Single keys from a terminal, without waiting for a line."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """While it lasts, the terminal hands over each key at once and shows none. Where input is no terminal: no keys."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Keyboard:
    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float) -> str:
        """The keys that were pressed, as soon as there is one; "" when the time is over."""
        readable, _, _ = select.select(
            [] if self._descriptor is None else [self._descriptor], [], [], max(0.0, seconds)
        )
        if not readable or self._descriptor is None:
            return ""
        keys = os.read(self._descriptor, 64)
        if not keys:
            self._descriptor = None  # It was closed: nobody is there to press one.
        return keys.decode(errors="replace")
