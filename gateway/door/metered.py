"""A service whose requests are counted, by tenant, by model and by what refused them."""

from __future__ import annotations

from typing import Any

from common.errors import InferenceError
from gateway.access.tenant import Tenant
from gateway.call import Call
from gateway.door.jobs import Job
from gateway.door.meter import DoorMeter
from gateway.door.service import Service
from gateway.result import Result


class MeteredService(Service):
    """In a plain one's place."""

    def __init__(self, meter: DoorMeter, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meter = self._meter = meter

    async def infer(self, tenant: Tenant, call: Call, inputs: object) -> Result:
        meter = self._meter
        meter.asked(tenant.name)
        try:
            result = await super().infer(tenant, call, inputs)
        except InferenceError as error:
            meter.failed(error)
            raise
        meter.answered(result)
        return result

    async def submit(self, tenant: Tenant, call: Call, inputs: object) -> Job:
        self._meter.asked(tenant.name)
        try:
            return await super().submit(tenant, call, inputs)
        except InferenceError as error:
            self._meter.failed(error)
            raise
