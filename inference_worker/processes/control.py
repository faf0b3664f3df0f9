"""What a supervisor tells a worker process: control lines, and by their end that it is gone itself."""

from __future__ import annotations

import json
import logging
import os
import select
from dataclasses import asdict
from io import FileIO
from threading import Lock, Thread
from typing import TYPE_CHECKING

from common.orders import ERRANDS, Order
from inference_worker.processes.errands import Errands
from inference_worker.processes.exitcodes import Exit
from inference_worker.processes.status import Status

if TYPE_CHECKING:
    from inference_worker.models.library import Library
    from inference_worker.worker import Worker

log = logging.getLogger(__name__)


def control_stream() -> FileIO:
    """Standard input, moved away: a program that a model starts must not read the supervisor's lines.

    Unbuffered: of two lines that come at once, a buffer would hide the second one from `select`.
    """
    stream = FileIO(os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    return stream


class Control(Thread):
    """Obeys the supervisor's lines, and tells it once a second what was done and what runs: one that is silent hangs.

    It starts before the models load: a child that loads must notice too that its supervisor is gone.
    """

    def __init__(self, lines: FileIO, status: Status, consumer: str = "") -> None:
        super().__init__(name="control", daemon=True)
        self._lines = lines
        self._status = status
        self._errands = Errands(consumer, self._told)
        self._lock = Lock()
        self._worker: Worker | None = None
        self._library: Library | None = None
        self._early: list[Order] = []

    def rule(self, worker: Worker, library: Library) -> None:
        """From now on there is work to hand back, and a library that obeys: also what was ordered before."""
        with self._lock:
            self._worker, self._library = worker, library
            for order in self._early:
                library.order(order)

    def run(self) -> None:
        try:
            while True:
                readable, _, _ = select.select([self._lines], [], [], 1.0)
                if readable:
                    self._obey(self._lines.readline())
                self.tell()
        except BrokenPipeError:
            os._exit(Exit.ORPHANED)
        except Exception:
            log.exception("the control thread failed. This is a bug. The worker ends and is started again")
            os._exit(Exit.BUG)

    def _obey(self, line: bytes) -> None:
        if not line:
            os._exit(Exit.ORPHANED)
        match json.loads(line):
            case {"do": "drain"}:
                self._drain()
            case {"do": "obey", "order": order}:
                self._order(Order(**order))

    def _drain(self) -> None:
        if self._worker is None:
            os._exit(0)
        self._worker.drain()

    def _order(self, order: Order) -> None:
        if order.do in ERRANDS:
            self._errands.obey(order)
            return
        with self._lock:
            if self._library is None:
                self._early.append(order)
            else:
                self._library.order(order)

    def _told(self, order: Order, ok: bool, what: str, seconds: float, memory: int) -> None:
        said = {"error": "", "note": what} if ok else {"error": what, "note": ""}
        self._status.send("obeyed", order=order.id, ok=ok, models=(), seconds=seconds, memory=memory, **said)

    def tell(self) -> None:
        if self._worker is not None:
            self._status.send("stats", **asdict(self._worker.counts()))
