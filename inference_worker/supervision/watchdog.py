"""Whether a child hangs: by its own word, or because it says nothing. Pure: it is told lines, sights and times.

A child says once a second how long its batch has run and how long it may. Where it says nothing, its process is looked
at. One that is stopped does nothing; one that ran no model and uses no processor waits for what does not come. In any
other native code holds the interpreter's lock: that is one call, in one batch, and may take as long as any of its
models may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What a busy machine, or a library that is just being imported, may add to the second between two words.
SILENT_S = 30.0
#: After so long a silence its process is looked at, and then so often.
LOOK_AFTER_S, LOOK_EVERY_S = 2.0, 1.0
#: Stopped for so long, it is no shell's or operator's short pause. A debugger's stop is another one, and may last.
STOPPED_S = 5.0
#: A process that waits for a disk that is slow to answer uses no processor either.
STILL_S = 15.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What the system says of a process: whether a signal has stopped it, and the processor time that it has used.

    `ticks` are the system's, of about 10 ms.
    """

    stopped: bool
    ticks: int


class Watchdog:
    """Watches one life of one child, from the first line that says how long it may be silent. Times in seconds."""

    def __init__(self) -> None:
        self._heard_s = 0.0
        self._longest_s: float | None = None
        self._running = ""
        self._busy_s = self._limit_s = 0.0
        self._looked_s = 0.0
        self._stopped_s: float | None = None  # since when
        self._still_s: float | None = None
        self._ticks = 0

    def heard(self, message: Mapping[str, Any], now_s: float) -> None:
        """Any line is a sign of life; one with `longest_s` says how long none may come, None without end."""
        self._heard_s = now_s
        self._stopped_s = self._still_s = None
        if "longest_s" in message:
            self._longest_s = message["longest_s"]
        if "running" in message:
            self._running, self._busy_s, self._limit_s = (
                message["running"], message["busy_ms"] / 1000, message["limit_s"],
            )  # fmt: skip

    def forgive(self, now_s: float) -> None:
        """The watcher itself was stopped, and perhaps the whole machine: the silence meanwhile counts for nothing."""
        self._heard_s = max(self._heard_s, now_s)
        self._stopped_s = self._still_s = None

    @property
    def look_at_s(self) -> float:
        """When its process is to be looked at, if it says nothing until then."""
        return max(self._heard_s + LOOK_AFTER_S, self._looked_s + LOOK_EVERY_S)

    def saw(self, sight: Sight | None, now_s: float) -> None:
        """Its process, at a time when it was silent; None where the system does not tell."""
        self._looked_s = now_s
        if sight is None or not sight.stopped:
            self._stopped_s = None
        elif self._stopped_s is None:
            self._stopped_s = now_s
        if sight is None or self._still_s is None or sight.ticks != self._ticks:
            self._still_s = None if sight is None else now_s
        self._ticks = sight.ticks if sight else 0

    @property
    def bites_at_s(self) -> float | None:
        """When its silence is too long, or None where it may last."""
        return None if self._longest_s is None else self._heard_s + self._longest_s + SILENT_S

    def bites(self, now_s: float) -> str:
        """Why the child hangs, or an empty string."""
        if self._running and self._busy_s > self._limit_s:
            return (
                f"model '{self._running}' had run one batch for {self._busy_s:.0f} s, and its timeout is "
                f"{self._limit_s:g} s; what it ran is tried again, one request at a time"
            )
        if self._stopped_s is not None and now_s - self._stopped_s >= STOPPED_S:
            return f"a signal had stopped it for {now_s - self._heard_s:.0f} s; others take over what it held"
        if self._stands_still(now_s):
            return (
                f"it has said nothing for {now_s - self._heard_s:.0f} s, ran no model and used no processor; others "
                "take over what it held"
            )
        bites_at_s = self.bites_at_s
        if bites_at_s is not None and now_s >= bites_at_s:
            ran = f", when it ran model '{self._running}'" if self._running else ""
            return (
                f"it has said nothing for {now_s - self._heard_s:.0f} s{ran}, and no model of it may take longer than "
                f"{self._longest_s:g} s; what it ran is tried again, one request at a time"
            )
        return ""

    def _stands_still(self, now_s: float) -> bool:
        waits = self._longest_s is not None and not self._running
        return waits and self._still_s is not None and now_s - self._still_s >= STILL_S
