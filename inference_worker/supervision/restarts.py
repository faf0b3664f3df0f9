"""Whether and when a child that ended is started again. Pure: it is told times and exit codes."""

from __future__ import annotations

from common.backoff import Backoff
from inference_worker.processes.exitcodes import Exit

#: A lost device is tried again so much later: an operator may have reset it.
FENCE_S = 300.0
#: A child that ran so long was sound: its next crash counts as the first.
SETTLED_S = 60.0
#: So many crashes in a row, and never ready: something is wrong that a restart does not mend.
LOOPING_AFTER = 5


class Restarts:
    """The restarts of one place for a child. Waits are 0.5 to 1 s after the first crash, 15 to 30 s at most."""

    def __init__(self, backoff: Backoff | None = None, settled_s: float = SETTLED_S) -> None:
        self._backoff = backoff or Backoff(1.0, 30.0)
        self._settled_s = settled_s
        self.count = 0
        self._crashes_unready = 0

    @property
    def looping(self) -> bool:
        """It crashed five times in a row without ever becoming ready."""
        return self._crashes_unready >= LOOPING_AFTER

    def ended(self, code: int, ran_s: float, was_ready: bool) -> float | None:
        """Seconds until the next start; None where another start cannot help.

        An exit code of 0 that nobody asked for is a crash too: the pool would lack a worker.
        """
        if code == Exit.CONFIG and not was_ready:
            return None
        if code == Exit.UNAVAILABLE:
            self.count += 1
            return FENCE_S
        if ran_s >= self._settled_s:
            self._backoff.reset()
        self._crashes_unready = 0 if was_ready or ran_s >= self._settled_s else self._crashes_unready + 1
        self.count += 1
        return self._backoff.next()
