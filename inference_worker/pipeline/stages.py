"""One stage of one loaded model on threads of its own. Knows nothing of items: they are counted in aside.py."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count
from threading import Lock

from inference_worker.processes.threads import run_or_exit


class Stage:
    """Up to `workers` jobs at once, of those that wait the one of the lowest order first. Thread-safe.

    How many may wait is for the caller to bound. A job answers for what goes wrong in it: what it raises is a bug.
    """

    def __init__(self, name: str, workers: int) -> None:
        self._name = name
        self._lock = Lock()
        self._numbers = count()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._threads = ThreadPoolExecutor(workers, name)

    def put(self, order: float, job: Callable[[], None]) -> None:
        with self._lock:
            heappush(self._waiting, (order, next(self._numbers), job))
        self._threads.submit(run_or_exit, self._name, self._run_next)

    def close(self) -> None:
        """Returns when all that was put is done. May be called twice."""
        self._threads.shutdown()

    def _run_next(self) -> None:
        with self._lock:
            _, _, job = heappop(self._waiting)
        job()
