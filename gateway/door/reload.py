"""A file of rules that is read again when it has changed, while what was read last goes on to hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from common.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A changed file is noticed so much later at most.
LOOK_S = 1.0


class WatchedFile(Generic[T]):
    """`read` makes the value of the path; it raises ConfigError. `changed` is called with each new value."""

    def __init__(self, path: str | Path, read: Callable[[Path], T], changed: Callable[[T], None]) -> None:
        self._path = Path(path)
        self._read = read
        self._changed = changed
        self._mark = self._marked()

    def look(self) -> None:
        """Read the file again if it is another one. A wrong one is said once, and changes nothing."""
        mark = self._marked()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            value = self._read(self._path)
        except ConfigError as error:
            log.error("the rules read before still hold: %s", error)
            return
        log.warning("%s has changed and holds from now on", self._path)
        self._changed(value)

    async def keep_looking(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def _marked(self) -> tuple[int, int, int] | None:
        """What tells one state of the file from another; None while there is none."""
        try:
            facts = self._path.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size
