"""Whether a child hangs: by its own word, or because it says nothing. Pure: it is told lines and times.

A child says once a second how long its batch has run and how long it may. Where it says nothing, it is stopped, or
native code holds the interpreter's lock: that is one call, in one batch, and may take as long as any of its models may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What a busy machine, or a library that is just being imported, may add to the second between two words.
SILENT_S = 30.0


class Watchdog:
    """Watches one life of one child, from the first line that says how long it may be silent. Times in seconds."""

    def __init__(self) -> None:
        self._heard_s = 0.0
        self._longest_s: float | None = None
        self._running = ""
        self._busy_s = self._limit_s = 0.0

    def heard(self, message: Mapping[str, Any], now_s: float) -> None:
        """Any line is a sign of life; one with `longest_s` says how long none may come, None without end."""
        self._heard_s = now_s
        if "longest_s" in message:
            self._longest_s = message["longest_s"]
        if "running" in message:
            self._running, self._busy_s, self._limit_s = (
                message["running"], message["busy_ms"] / 1000, message["limit_s"],
            )  # fmt: skip

    def forgive(self, now_s: float) -> None:
        """The watcher itself was stopped, and perhaps the whole machine: the silence meanwhile counts for nothing."""
        self._heard_s = max(self._heard_s, now_s)

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
        bites_at_s = self.bites_at_s
        if bites_at_s is not None and now_s >= bites_at_s:
            ran = f", when it ran model '{self._running}'" if self._running else ""
            return (
                f"it has said nothing for {now_s - self._heard_s:.0f} s{ran}, and no model of it may take longer than "
                f"{self._longest_s:g} s; what it ran is tried again, one request at a time"
            )
        return ""
