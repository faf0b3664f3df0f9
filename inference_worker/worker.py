"""One worker: its three stages and the threads that they run in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.broker import Broker
from common.errors import BrokerUnavailable
from inference_worker.admission import Admission
from inference_worker.clock import RedisClock
from inference_worker.devices.faults import DeviceFailed
from inference_worker.holding import Holding
from inference_worker.intake import Intake, give_back
from inference_worker.marks import Marks
from inference_worker.models.library import Library
from inference_worker.models.spec import BATCH_LIMIT_S, POSTPROCESS, PREPROCESS
from inference_worker.models.traffic import Traffic
from inference_worker.outbox import Outbox
from inference_worker.parked import Parked
from inference_worker.pipeline.aside import Aside
from inference_worker.processes.threads import start_thread
from inference_worker.runner import Runner

if TYPE_CHECKING:
    import redis

    from inference_worker.metrics.meter import Meter
    from inference_worker.tracing import WorkerSpans

log = logging.getLogger(__name__)

#: So many models are told of: each supervisor says it all again every second.
MOST_TOLD = 20
#: Rows held beside the running batch: enough to find like lengths among, few enough to hoard nothing.
HOLD_ROWS = 64


@dataclass(frozen=True, slots=True)
class Counts:
    """What a worker has done since its start, and what its supervisor must know of it.

    `useful` and `padded` are the elements of padded arrays without and with their padding, `busy_s` the seconds in
    which models ran and `waited_s` those for which each batch's first request had waited, `reasons` how many batches
    went out for which reason (item.Reason). `failed` are error replies. `busy_ms` is the age of the batch that the
    model `running` ("" for none) computes and that may take `limit_s`; `longest_s` is the longest such limit of all
    models, and so how long nothing may be heard: None while one is loaded, which has no limit. `waiting` are requests
    whose model is not in memory yet, `stages` how many wait for which stage of which model; `loads` and `evictions` of
    models, which take `model_bytes` now, of a memory `budget` if there is one: `in_memory` the largest of them, and
    `evicted` how often which have gone in the last ten minutes.
    """

    batches: int
    rows: int
    useful: int
    padded: int
    busy_s: float
    waited_s: float
    reasons: dict[str, int]
    finished: int
    failed: int
    running: str
    busy_ms: int
    limit_s: float
    longest_s: float | None
    waiting: int
    stages: dict[str, int]
    loads: int
    evictions: int
    model_bytes: int
    budget: int | None
    in_memory: dict[str, int]
    evicted: dict[str, int]


class Worker:
    """intake -> holding -> runner -> outbox. `run` ends once `drain` was called and all is handed on."""

    def __init__(
        self,
        broker: Broker,
        blocking: redis.Redis,
        consumer: str,
        library: Library,
        max_deliveries: int,
        reply_ttl_s: float,
        spans: WorkerSpans | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._library = library
        self._held = library.held
        self._parked = Parked(library.awaits)
        reply_ttl_ms = int(reply_ttl_s * 1000)
        most_rows = max((title.spec.batch.rows for title in library.registry.list()), default=1)
        clock = RedisClock()
        marks = Marks(clock)
        self._holding = Holding(max(HOLD_ROWS, 2 * most_rows))
        self._preparing = Aside(PREPROCESS, self._holding)
        self._finishing = Aside(POSTPROCESS, self._holding)
        on_error = None if meter is None else meter.failed
        self._outbox = Outbox(broker, reply_ttl_ms, self._held, marks, self._finishing, spans, on_error)
        traffic = Traffic(broker.traffic, library.registry)
        admission = Admission(broker.keys, library, traffic, broker.fetch, max_deliveries, reply_ttl_ms)
        self._intake = Intake(
            broker, blocking, consumer, admission, self._holding, self._outbox, marks, clock, self._held, self._parked,
            self._preparing,
        )  # fmt: skip
        tally = None if meter is None else meter.tally()
        self._runner = Runner(self._holding, marks, self._intake, self._outbox.deliver, tally, self._outbox.settle)

    def run(self) -> None:
        """In this thread the runner, since some devices want the main one; beside it intake and outbox, under load.

        Raises DeviceFailed, with everything handed on that did not run, where the device fails for good.
        """
        intake = start_thread("intake", self._intake.run)
        outbox = start_thread("outbox", self._outbox.run)
        failure: DeviceFailed | None = None
        try:
            self._runner.run()
        except DeviceFailed as error:
            # What has not begun goes back as it was. What ran stays ours: taken over, it counts as a delivery.
            log.error("the worker ends: %s", error)
            failure = error
            self.drain()
        self._intake.end()
        intake.join()
        self._preparing.join()
        self._outbox.close()
        outbox.join()
        self._intake.give_back_rest()
        if failure is not None:
            raise failure

    def drain(self) -> None:
        """Take nothing more, finish what runs, and hand the rest back."""
        waiting = self._holding.close() + self._preparing.take_back()
        log.info("draining: %d waiting requests go back to pool '%s'", len(waiting), self._broker.pool)
        try:
            give_back(self._broker, self._consumer, self._held, (item.entry for item in waiting))
        except BrokerUnavailable as error:
            log.warning("they are taken over when the lease has run out: %s", error)

    def counts(self) -> Counts:
        tally, outbox, running = self._runner.tally, self._outbox, self._runner.running
        return Counts(
            batches=tally.batches,
            rows=tally.rows,
            useful=tally.useful,
            padded=tally.padded,
            busy_s=tally.busy_s,
            waited_s=tally.waited_s,
            reasons=tally.reasons(),
            finished=outbox.finished,
            failed=outbox.failed,
            running=f"{running[0].spec.name}:{running[0].spec.version}" if running else "",
            busy_ms=running[1] if running else 0,
            limit_s=running[0].spec.limit_s if running else 0.0,
            longest_s=None if self._library.at_work else self._longest_s(),
            waiting=len(self._parked),
            stages=self._preparing.counts() | self._finishing.counts(),
            loads=self._library.loads,
            evictions=self._library.evictions,
            model_bytes=self._library.size,
            budget=self._library.budget,
            in_memory=self._library.in_memory(MOST_TOLD),
            evicted=self._library.evicted_lately(MOST_TOLD),
        )

    def _longest_s(self) -> float:
        return max((title.spec.limit_s for title in self._library.registry.list()), default=BATCH_LIMIT_S)
