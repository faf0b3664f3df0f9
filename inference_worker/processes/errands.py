"""Orders that are none of the models' business: what a process logs, and what it is doing just now.

They are obeyed at once, also by a process that still loads, and never in the thread that runs models.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock

from common.errors import InferenceError
from common.logs import set_level
from common.orders import LOG, Order
from common.text import describe
from inference_worker.models.residency import resident_bytes
from inference_worker.processes.profiling import record
from inference_worker.processes.threads import start_thread

log = logging.getLogger(__name__)

#: (order, whether it was done, the error or what to know, seconds, bytes of the process)
Told = Callable[[Order, bool, str, float, int], None]


class Errands:
    """`told` hears of each, from any thread."""

    def __init__(self, consumer: str, told: Told) -> None:
        self._consumer = consumer
        self._told = told
        self._profiling = Lock()

    def obey(self, order: Order) -> None:
        """One of ERRANDS; without waiting for what takes longer."""
        if order.do == LOG:
            before = set_level(order.level, order.logger)
            log.warning("%s (was: %s)", order.what, before)
            self._told(order, True, f"was {before}", 0.0, resident_bytes())
        elif self._profiling.acquire(blocking=False):
            start_thread("profile", lambda: self._profile(order))
        else:
            self._told(order, False, "this worker is being profiled already", 0.0, resident_bytes())

    def _profile(self, order: Order) -> None:
        started_s = time.monotonic()
        try:
            path = record(self._consumer, order.seconds)
            ok, what = True, str(path)
        except InferenceError as error:
            ok, what = False, error.message
        except Exception as error:
            log.exception("%s failed", order.what)
            ok, what = False, f"the profiler failed: {describe(error)}"
        finally:
            self._profiling.release()
        self._told(order, ok, what, time.monotonic() - started_s, resident_bytes())
