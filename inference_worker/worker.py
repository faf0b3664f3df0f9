"""One worker: its three stages and the threads that they run in."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from common.broker import Broker
from common.errors import BrokerUnavailable
from inference_worker.admission import Admission
from inference_worker.clock import RedisClock
from inference_worker.holding import Holding
from inference_worker.intake import Intake, give_back
from inference_worker.marks import Marks
from inference_worker.outbox import Held, Outbox
from inference_worker.registry import Registry
from inference_worker.runner import Runner

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

#: Rows held beside the running batch: enough to find like lengths among, few enough to hoard nothing.
HOLD_ROWS = 64
#: A bug in a stage's thread ends the process, so that no worker looks healthy and does nothing.
EXIT_BUG = 70


@dataclass(frozen=True, slots=True)
class Counts:
    """What a worker has done since its start. `failed` are error replies; `busy_ms` is the age of the running batch."""

    batches: int
    rows: int
    finished: int
    failed: int
    busy_ms: int


class Worker:
    """intake -> holding -> runner -> outbox. `run` ends once `drain` was called and all is handed on."""

    def __init__(
        self,
        broker: Broker,
        blocking: redis.Redis,
        consumer: str,
        registry: Registry,
        max_deliveries: int,
        reply_ttl_s: float,
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._held: Held = set()
        reply_ttl_ms = int(reply_ttl_s * 1000)
        most_rows = max((loaded.spec.batch.rows for loaded in registry.list()), default=1)
        clock = RedisClock()
        marks = Marks(clock)
        self._holding = Holding(max(HOLD_ROWS, 2 * most_rows))
        self._outbox = Outbox(broker, reply_ttl_ms, self._held)
        admission = Admission(broker.keys, registry, broker.fetch, max_deliveries, reply_ttl_ms)
        self._intake = Intake(
            broker, blocking, consumer, admission, self._holding, self._outbox, marks, clock, self._held
        )
        self._runner = Runner(self._holding, marks, self._intake, self._outbox.deliver)

    def run(self) -> None:
        """In this thread the runner, since some devices want the main one; beside it intake and outbox, under load."""
        intake = _start("intake", self._intake.run)
        outbox = _start("outbox", self._outbox.run)
        self._runner.run()
        self._intake.end()
        intake.join()
        self._outbox.close()
        outbox.join()
        self._intake.give_back_rest()

    def drain(self) -> None:
        """Take nothing more, finish what runs, and hand the rest back."""
        waiting = self._holding.close()
        log.info("draining: %d waiting requests go back to pool '%s'", len(waiting), self._broker.pool)
        try:
            give_back(self._broker, self._consumer, self._held, (item.entry for item in waiting))
        except BrokerUnavailable as error:
            log.warning("they are taken over when the lease has run out: %s", error)

    def counts(self) -> Counts:
        runner, outbox = self._runner, self._outbox
        return Counts(runner.batches, runner.rows, outbox.finished, outbox.failed, runner.busy_ms)


def _start(name: str, run: Callable[[], None]) -> Thread:
    thread = Thread(target=_or_exit, args=(name, run), name=name, daemon=True)
    thread.start()
    return thread


def _or_exit(name: str, run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:
        log.exception("the %s stage failed. This is a bug. The worker ends and is started again", name)
        os._exit(EXIT_BUG)
