"""The asyncio twin of runner.py: a step's answer sends the next ones in the same turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.aiocourier import AsyncCourier
from gateway.call import Call, Times
from gateway.catalog import Catalogs
from gateway.composer import Composer, Destination
from gateway.ensembles.ensemble import Ensemble, Ensembles
from gateway.ensembles.flow import Flow
from gateway.ensembles.run import Run, Stage
from gateway.handle import AsyncHandle
from gateway.payload import Parcel

if TYPE_CHECKING:
    from gateway.tracing import RequestSpan


class TaskRun(Run[AsyncHandle]):
    """A run whose caller is a task. Its handle asks here what others ask of the courier."""

    def __init__(
        self,
        courier: AsyncCourier,
        stage: Stage,
        flow: Flow,
        destinations: Mapping[str, Destination],
        times: Times,
        finished: Callable[[AsyncHandle], None] | None,
        span: RequestSpan | None = None,
    ) -> None:
        super().__init__(stage, flow, destinations, times, self._follow, span)
        self._courier = courier
        self.handle = AsyncHandle(
            self, self.trace_id, "", flow.ensemble.name, times.deadline, times.timeout_s, times.patient, finished
        )

    async def wait(self, waiters: list[asyncio.Future[None]], timeout: float | None) -> None:
        """As for any handle: the deadline is each step's too, and what settles a step settles the whole."""
        await self._courier.wait(waiters, timeout)

    def _follow(self, parcel: Parcel, model: str, times: Times, settled: Callable[[AsyncHandle], None]) -> AsyncHandle:
        handle = AsyncHandle(
            self._courier, parcel.submission.request_id, parcel.pool, model,
            times.deadline, times.timeout_s, times.patient, settled,
        )  # fmt: skip
        self._courier.follow(handle, parcel)
        return handle


class AsyncRunner:
    """Starts runs for an `AsyncClient`."""

    def __init__(self, ensembles: Ensembles, composer: Composer, catalogs: Catalogs, courier: AsyncCourier) -> None:
        self._stage = Stage(ensembles, composer, catalogs)
        self._courier = courier

    def find(self, name: str) -> Ensemble | None:
        return self._stage.find(name)

    async def start(
        self,
        ensemble: Ensemble,
        call: Call,
        inputs: object,
        times: Times,
        finished: Callable[[AsyncHandle], None] | None,
        span: RequestSpan | None = None,
    ) -> AsyncHandle:
        """The handle of an ensemble whose first steps are sent. Raises InferenceError."""
        flow = Flow(ensemble, call, inputs)
        destinations = self._stage.destinations(flow, call.tenant)
        for to in destinations.values():
            await self._courier.catalog(to.model, to.keys.pool, times.deadline, times.timeout_s)
        self._stage.check(ensemble, destinations)
        run = TaskRun(self._courier, self._stage, flow, destinations, times, finished, span)
        await self._courier.wait_for_room(run.handle)
        run.start()
        return run.handle
