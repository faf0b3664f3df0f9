"""What a door does with a request, whichever protocol it speaks: who may, how many at a time, ask, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.connect import connect, disconnect
from common.errors import ConfigError, InferenceError, InvalidRequest, ModelNotFound, ModelUnavailable, Overloaded
from common.orders import RELOAD, Report
from common.tracing import Tracing
from gateway.access.guard import Guard
from gateway.access.tenant import Tenant
from gateway.admin.manage import Manager
from gateway.aioclient import AsyncClient
from gateway.call import Call
from gateway.door.directory import Directory, Served, View
from gateway.door.gate import Gate
from gateway.door.jobs import Job, Jobs
from gateway.door.memory import Memory
from gateway.door.statistics import Statistics
from gateway.result import Result

if TYPE_CHECKING:
    from gateway.door.meter import DoorMeter


class Service:
    """Parts that are open already (see `deployment.py`). `broker_url` is for orders to workers, which block.

    Methods raise the errors of common/errors.py, and PermissionDenied for what the tenant may not do.
    """

    #: Where requests are counted (metered.py); None: nowhere.
    meter: DoorMeter | None = None

    def __init__(
        self,
        broker_url: str,
        client: AsyncClient,
        directory: Directory,
        jobs: Jobs,
        gate: Gate,
        guard: Guard,
        memory: Memory,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing | None = None,
    ) -> None:
        self._broker_url = broker_url
        self._client = client
        self._directory = directory
        self._jobs = jobs
        self._gate = gate
        self._timeout_s = timeout_s
        self._clock = clock
        self.guard = guard
        #: For each door: `with tracing.serve(...)` around a request, where it is not None.
        self.tracing = tracing
        self.memory = memory
        self.statistics = Statistics()
        #: Set when the process is about to end: it answers what comes, and wants no more of it.
        self.draining = False

    async def infer(self, tenant: Tenant, call: Call, inputs: object) -> Result:
        """Ask a model and wait. A task that is cancelled meanwhile cancels the request."""
        tenant.check_model(call.model)
        patience_s = self._timeout_s if call.timeout is None else call.timeout
        place = await self._gate.enter(call.model, tenant.name or "", tenant.concurrency, patience_s)
        began_s, took_s = self._clock(), None
        try:
            result = await self._client.infer(
                call.model, inputs, version=call.version, parameters=call.parameters, outputs=call.outputs,
                priority=tenant.priority_of(call.priority), timeout=call.timeout, tenant=tenant.name,
                cache=call.cache, affinity=call.affinity,
            )  # fmt: skip
            took_s = self._clock() - began_s
            self.statistics.answered(result, took_s, time.time())
            return result
        except InferenceError as error:
            if isinstance(error, Overloaded):
                self._gate.refused()
            if not isinstance(error, ModelNotFound):
                self.statistics.failed(call.model, call.version, self._clock() - began_s)
            raise
        finally:
            self._gate.leave(place, took_s)

    # Models

    async def ready(self) -> bool:
        """Whether a request that comes now would reach the broker."""
        if self.draining:
            return False
        try:
            await self._directory.look()
        except InferenceError:
            return False
        return True

    async def find(self, tenant: Tenant, model: str, version: str | None = None) -> Served:
        """Raises ModelNotFound."""
        tenant.check_model(model)
        return (await self._directory.look()).find(model, version, tenant.name)

    async def models(self, tenant: Tenant) -> list[Served]:
        """All that this tenant may ask, by name and version."""
        return [one for one in (await self._look()).models(tenant.name) if tenant.may_use(one.info.name)]

    async def order(
        self, tenant: Tenant, do: str, model: str, version: str | None, pool: str | None
    ) -> Sequence[Report]:
        """Load, unload or reload a model in all workers of its pool. Raises ModelUnavailable where one cannot."""
        tenant.check_operator(f"{do} models")
        tenant.check_model(model)
        led_to = pool or (await self._look()).routes.pool(model, version, tenant.name)
        reports = await asyncio.to_thread(self._give, do, model, version, led_to)
        self._directory.forget()
        failed = next((one for one in reports if not one.ok), None)
        if failed is not None:
            raise ModelUnavailable(f"{failed.host} worker {failed.index}: {failed.error}")
        return reports

    # Jobs

    async def submit(self, tenant: Tenant, call: Call, inputs: object) -> Job:
        tenant.check_model(call.model)
        if self._directory.is_ensemble(call.model):
            raise InvalidRequest(f"'{call.model}' is an ensemble, which runs while its caller waits: it can be no job")
        call = call._replace(tenant=tenant.name, priority=tenant.priority_of(call.priority))
        timeout_s = self._timeout_s if call.timeout is None else call.timeout
        # It holds its place while it is handed in. From then on it waits in its pool, and the pool's bounds hold.
        place = await self._gate.enter(call.model, tenant.name or "", tenant.concurrency, timeout_s)
        try:
            return await self._hand_in(tenant, call, inputs, timeout_s)
        finally:
            self._gate.leave(place)

    async def _hand_in(self, tenant: Tenant, call: Call, inputs: object, timeout_s: float) -> Job:
        view = await self._look()
        seen = view.pools.get(view.routes.pool(call.model, call.version, tenant.name))
        if seen is None:
            raise ModelUnavailable(f"the pool of model '{call.model}' is not known yet; try again in a second")
        return await self._jobs.submit(call, inputs, seen.catalog, timeout_s)

    @property
    def jobs(self) -> Jobs:
        return self._jobs

    async def _look(self) -> View:
        return await self._directory.look()

    def _give(self, do: str, model: str, version: str | None, pool: str) -> list[Report]:
        """In a thread, on a connection of its own: it blocks until each worker has answered."""
        client = connect(self._broker_url)
        try:
            return Manager(client).give(pool, do, model, version, swap=do == RELOAD)
        except ConfigError as error:
            raise ModelUnavailable(error.message) from error
        finally:
            disconnect(client)
