"""The exit codes of the command and of the worker processes, spelled once."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """2 is click's, for a wrong command line; 64 and up follow sysexits.h, 128 and up are signals."""

    #: The model or a worker did something wrong.
    FAILED = 1
    #: A worker process whose supervisor is gone.
    ORPHANED = 3
    #: The request is wrong.
    DATA = 65
    NOT_FOUND = 66
    #: No broker; of a worker process: its device is lost, and whoever starts on it meets the same.
    UNAVAILABLE = 69
    BUG = 70
    FILE = 74
    #: Later it may go well.
    LATER = 75
    #: A file, a flag or a model folder is wrong, and will be the next time too.
    CONFIG = 78
    INTERRUPTED = 130
