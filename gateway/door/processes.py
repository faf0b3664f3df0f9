"""Keeps the processes of a door running, which share one port, until it is told to stop. Serves nothing itself."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum

from common.backoff import Backoff
from common.errors import ConfigError, from_code
from gateway.door.settings import DoorSettings

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "gateway.door.child")
#: Beyond its own time for a drain a child is given so long to end.
GRACE_S = 5.0


class Wish(IntEnum):
    RUN = 0
    DRAIN = 1
    KILL = 2


@dataclass(eq=False)
class _Slot:
    """A child's place. `due_s` is when one is to be started, None while one runs."""

    backoff: Backoff = field(default_factory=Backoff)
    due_s: float | None = 0.0
    process: subprocess.Popen[bytes] | None = None
    said: bytes = b""


class Processes:
    """`on_ready` is called once, when each process takes requests."""

    def __init__(
        self,
        settings: DoorSettings,
        count: int,
        on_ready: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._slots = [_Slot() for _ in range(count)]
        self._on_ready: Callable[[], None] | None = on_ready
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._wakeup, self.wakeup_fd = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self.wakeup_fd, False)
        self._wish = Wish.RUN
        self._told = Wish.RUN
        self._kill_s = float("inf")

    def stop(self) -> None:
        """Drain. From any thread, or a signal's handler."""
        self._want(Wish.DRAIN)

    def kill(self) -> None:
        """End at once. From any thread, or a signal's handler."""
        self._want(Wish.KILL)

    def run(self) -> None:
        """Until all have ended after `stop`. Raises what a child that never was ready told: ConfigError and others."""
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)
        try:
            while self._wish is Wish.RUN or any(slot.process for slot in self._slots):
                self._step()
        finally:
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
                    slot.process.wait()

    def close(self) -> None:
        """Once `run` has returned, and nobody calls `stop` or `kill` any more."""
        self._selector.close()
        os.close(self._wakeup)
        os.close(self.wakeup_fd)

    def _want(self, wish: Wish) -> None:
        self._wish = max(self._wish, wish)
        with suppress(BlockingIOError):
            os.write(self.wakeup_fd, b"\0")

    def _step(self) -> None:
        if self._wish is Wish.RUN:
            for slot in self._slots:
                if slot.due_s is not None and self._clock() >= slot.due_s:
                    self._start(slot)
        elif self._told < self._wish:
            self._tell()
        elif self._clock() >= self._kill_s:
            self.kill()
        for key, _ in self._selector.select(self._patience_s()):
            if key.data is None:
                os.read(self._wakeup, 4096)
            else:
                self._hear(key.data)

    def _patience_s(self) -> float | None:
        due = [slot.due_s for slot in self._slots if slot.due_s is not None] if self._wish is Wish.RUN else []
        until = min([*due, self._kill_s])
        return None if until == float("inf") else max(0.0, until - self._clock())

    def _start(self, slot: _Slot) -> None:
        # A session of its own: Ctrl-C is ours to pass on.
        process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        assert process.stdout is not None
        slot.process, slot.due_s, slot.said = process, None, b""
        self._selector.register(process.stdout, selectors.EVENT_READ, slot)
        with suppress(BrokenPipeError):
            settings = self._settings.in_place(self._slots.index(slot))
            process.stdin.write(settings.to_json().encode() + b"\n")
            process.stdin.flush()

    def _hear(self, slot: _Slot) -> None:
        assert slot.process is not None
        assert slot.process.stdout is not None
        data = os.read(slot.process.stdout.fileno(), 65_536)
        slot.said += data
        if not data:
            self._bury(slot, slot.process)
        elif self._on_ready is not None and all(b"ready" in one.said for one in self._slots):
            on_ready, self._on_ready = self._on_ready, None
            on_ready()

    def _bury(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        self._selector.unregister(process.stdout)  # type: ignore[arg-type]  # it is a pipe
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]  # both are pipes
        slot.process = None
        if self._wish is not Wish.RUN:
            return
        if self._on_ready is not None:
            raise _reason(slot.said, code)
        slot.due_s = self._clock() + (pause_s := slot.backoff.next())
        log.error("a gateway process ended with %d; the next one starts in %.1f s", code, pause_s)

    def _tell(self) -> None:
        """Pass the wish on to the children."""
        self._told = self._wish
        self._kill_s = self._clock() + self._settings.notice_s + self._settings.drain_s + GRACE_S
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send_signal(signal.SIGTERM if self._wish is Wish.DRAIN else signal.SIGKILL)


def _reason(said: bytes, code: int) -> Exception:
    """Why a child ended before it was ready, in its own words."""
    try:
        message = json.loads(said.splitlines()[-1])
        if message["code"] == ConfigError.code:
            return ConfigError(message["error"])
        return from_code(message["code"], message["error"])
    except (ValueError, LookupError, TypeError):
        return ConfigError(f"a gateway process ended with {code} before it was ready; its log says why")
