"""A worker's threads. A bug in one ends the process, so that no worker looks healthy and does nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from threading import Thread

from inference_worker.processes.exitcodes import Exit

log = logging.getLogger(__name__)


def start_thread(name: str, run: Callable[[], None]) -> Thread:
    """A thread whose failure ends the process."""
    thread = Thread(target=run_or_exit, args=(name, run), name=name, daemon=True)
    thread.start()
    return thread


def run_or_exit(name: str, run: Callable[[], None]) -> None:
    """`run()`, in a thread; what it lets through ends the process."""
    try:
        run()
    except BaseException:
        log.exception("the %s stage failed. This is a bug. The worker ends and is started again", name)
        os._exit(Exit.BUG)
