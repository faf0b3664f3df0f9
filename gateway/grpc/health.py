"""grpc.health.v1: whether this process wants requests, for load balancers and Kubernetes. Asks for no key."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2

from gateway.door.service import Service
from gateway.grpc.endpoint import Context

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
#: A broker that went away, or came back, is told so much later at most.
LOOK_S = 2.0


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """The library's servicer; follows the service's readiness, and lets go of who watches when it ends."""

    def __init__(self, service: Service, *names: str) -> None:
        super().__init__()
        self._service = service
        self._names = ("", *names)
        self._ending = asyncio.Event()

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802
        """As the library's, but that it ends with `close`: a watcher would hold up a drain to its very end."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((watching, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
        if watching.done():
            watching.result()  # what it raised is gRPC's to tell, as it would be without us
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the gateway is going away")

    async def look(self) -> None:
        status = _SERVING if await self._service.ready() else _NOT_SERVING
        for name in self._names:
            await self.set(name, status)

    async def keep_looking(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        self._ending.set()
