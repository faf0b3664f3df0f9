"""A mark that a live process uses a snapshot: a shared lock on a file, which the system drops when the process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from weakref import finalize


class Lease:
    """Held for as long as this object lives. Children that are forked hold it too."""

    def __init__(self, descriptor: int) -> None:
        self._end = finalize(self, os.close, descriptor)

    def end(self) -> None:
        self._end()


def lease(file: Path) -> Lease:
    """Mark `file`, made where it is missing, and count this as its last use. Raises OSError."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # Whoever clears the cache may have removed it between the two calls.
        if os.fstat(descriptor).st_nlink:
            os.utime(descriptor)
            return Lease(descriptor)
        os.close(descriptor)


def is_leased(file: Path) -> bool:
    """Whether some process, this one included, marks it now."""
    lock = try_exclusive(file)
    if lock is None:
        return file.exists()
    lock.end()
    return False


def try_exclusive(file: Path) -> Lease | None:
    """The lock that keeps everybody from marking `file`; None where somebody does, or it is gone."""
    with suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return Lease(descriptor)
    return None
