"""Redis's clock as seen from this process: deadlines need no agreement between hosts."""

from __future__ import annotations

import time


class RedisClock:
    """Redis's last TIME plus what this process's monotonic clock has counted since."""

    def __init__(self) -> None:
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    def set(self, now_ms: int) -> None:
        self._offset_ms = now_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        return int(time.monotonic() * 1000 + self._offset_ms)
