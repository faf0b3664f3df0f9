"""Runs ensembles for a `Client`: what a thread needs that waits for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.call import Call, Times
from gateway.catalog import Catalogs
from gateway.composer import Composer, Destination
from gateway.courier import Courier
from gateway.ensembles.ensemble import Ensemble, Ensembles
from gateway.ensembles.flow import Flow
from gateway.ensembles.run import Run, Stage
from gateway.exchange import SHORTEST_WAIT_S
from gateway.handle import Handle
from gateway.payload import Parcel

if TYPE_CHECKING:
    from gateway.tracing import RequestSpan


class ThreadRun(Run[Handle]):
    """A run whose caller is a thread. Its handle asks here what others ask of the courier."""

    def __init__(
        self,
        courier: Courier,
        stage: Stage,
        flow: Flow,
        destinations: Mapping[str, Destination],
        times: Times,
        finished: Callable[[Handle], None] | None,
        span: RequestSpan | None = None,
    ) -> None:
        super().__init__(stage, flow, destinations, times, self._follow, span)
        self._courier = courier
        self.handle = Handle(
            self, self.trace_id, "", flow.ensemble.name, times.deadline, times.timeout_s, times.patient, finished
        )

    def wait(self, handle: Handle, timeout: float | None) -> None:
        """Until `handle` has its answer; its deadline gives it one. Or for `timeout` seconds."""
        until = handle.deadline if timeout is None else min(handle.deadline, time.monotonic() + timeout)
        while handle.answer is None:
            now = time.monotonic()
            if now >= handle.deadline:
                if not self.overdue(handle):
                    handle.block(SHORTEST_WAIT_S)  # Another thread has the answer and is about to settle it.
            elif now >= until:
                return
            else:
                self._wait_for_step(until - now)

    def overdue(self, handle: Handle) -> bool:
        """Whether the deadline has passed: it is each step's too, and what settles a step settles `handle`."""
        for step in self._under_way():
            self._courier.overdue(step)
        return handle.answer is not None

    def _wait_for_step(self, seconds: float) -> None:
        steps = self._under_way()
        if len(steps) != 1:
            # The receiver reads for all: it could not be told to whom of them we listen.
            self.handle.block(seconds)
        elif steps[0].answer is None:
            # Who waits anyway reads the reply, and goes on with the ensemble, in his own thread.
            self._courier.wait(steps[0], seconds)
        else:
            self.handle.block(SHORTEST_WAIT_S)  # Another thread is about to go on with it.

    def _under_way(self) -> list[Handle]:
        with self._lock:
            return list(self._running.values())

    def _follow(self, parcel: Parcel, model: str, times: Times, settled: Callable[[Handle], None]) -> Handle:
        handle = Handle(
            self._courier, parcel.submission.request_id, parcel.pool, model,
            times.deadline, times.timeout_s, times.patient, settled,
        )  # fmt: skip
        self._courier.follow(handle, parcel)
        return handle


class Runner:
    """Starts runs for a `Client`."""

    def __init__(self, ensembles: Ensembles, composer: Composer, catalogs: Catalogs, courier: Courier) -> None:
        self._stage = Stage(ensembles, composer, catalogs)
        self._courier = courier

    def find(self, name: str) -> Ensemble | None:
        return self._stage.find(name)

    def start(
        self,
        ensemble: Ensemble,
        call: Call,
        inputs: object,
        times: Times,
        finished: Callable[[Handle], None] | None,
        span: RequestSpan | None = None,
    ) -> Handle:
        """The handle of an ensemble whose first steps are sent. Raises InferenceError."""
        flow = Flow(ensemble, call, inputs)
        destinations = self._stage.destinations(flow, call.tenant)
        for to in destinations.values():
            self._courier.catalog(to.model, to.keys.pool, times.deadline, times.timeout_s)
        self._stage.check(ensemble, destinations)
        run = ThreadRun(self._courier, self._stage, flow, destinations, times, finished, span)
        self._courier.wait_for_room(run.handle)
        run.start()
        return run.handle
