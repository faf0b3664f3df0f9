"""This process's own memory: how much it takes, and how to give back what a closed model leaves."""

from __future__ import annotations

import ctypes
import gc
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """What the process takes of the host's memory, shared pages too; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def give_back() -> None:
    """Find what is only held by cycles, and hand freed memory to the system.

    What was loaded at the start is frozen (see process.py): it has to be looked at again to be found.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    """glibc keeps freed memory for itself, weights of some megabytes too. None where there is no such function."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
