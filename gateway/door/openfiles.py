"""Each connection is an open file, and a shell allows 1024 of them: a door takes as many as it may."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)


def raise_open_files() -> int:
    """Raise this process's limit on open files as far as it may without asking anybody; the limit from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning("at most %d files can be open, connections among them: %s", soft, error)
        return soft
    return hard
