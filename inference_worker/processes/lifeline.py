"""A child's promise to end with its parent, whatever the parent dies of, and whatever the child is doing."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends; elsewhere nothing.

    Standard input's end says the same on every system, but a process that is stopped, or holds the
    interpreter's lock in a library, does not read it.
    """
    if sys.platform != "linux":
        return
    # A parent that died before this call sends no signal; standard input's end covers that moment.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
