"""One call: who asks, the handler's message, or an error as a status with what goes beside it."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Never

import grpc.aio
from grpc import StatusCode

from common.errors import InferenceError, InternalError
from common.protocol import MAX_TIMEOUT_MS
from common.text import describe
from gateway.access.bearer import bearer_of
from gateway.access.tenant import ANYBODY, Tenant
from gateway.door.service import Service
from gateway.grpc.reading import Arrived
from gateway.grpc.status import STATUS, details_of, trailing_of

log = logging.getLogger(__name__)

#: What the metrics call it.
DOOR = "grpc"
#: gRPC's own context of one call, whatever its messages are.
Context = grpc.aio.ServicerContext[Any, Any]


class Request:
    """One call while it is handled. `tenant` once it is known."""

    __slots__ = ("_arrived", "_context", "_metadata", "service", "tenant")

    def __init__(self, service: Service, arrived: Arrived, context: Context) -> None:
        self._arrived = arrived
        self._context = context
        self._metadata = dict(context.invocation_metadata() or ())
        self.service = service
        self.tenant: Tenant = ANYBODY

    @property
    def message(self) -> Any:
        """Raises InvalidRequest."""
        return self._arrived.message()

    @property
    def size(self) -> int:
        """Bytes that the message came as."""
        return self._arrived.size

    def identify(self) -> None:
        """Raises Unauthenticated."""
        self.tenant = self.service.guard.identify(bearer_of(self._text("authorization").encode()))

    @property
    def cacheable(self) -> bool:
        """False where the client wants it computed anew."""
        wish = self._text("cache-control")
        return "no-cache" not in wish and "no-store" not in wish

    @property
    def time_left_s(self) -> float | None:
        """Until the client's deadline, within what a request can have; None where it has set none."""
        left_s: float | None = self._context.time_remaining()
        return None if left_s is None else min(max(left_s, 0.001), MAX_TIMEOUT_MS / 1000)

    def metadata(self, *names: str) -> dict[str, str]:
        """What the client sent under these names."""
        return {name: self._text(name) for name in names if name in self._metadata}

    def tell(self, *metadata: tuple[str, str]) -> None:
        """Beside the answer, when it is complete."""
        self._context.set_trailing_metadata(metadata)

    def _text(self, name: str) -> str:
        value = self._metadata.get(name, "")
        return value if isinstance(value, str) else value.decode("latin-1")


Handler = Callable[[Request], Awaitable[Any]]


class Unary:
    """A call with one answer. `open` ones ask for no key."""

    def __init__(self, service: Service, handler: Handler, open: bool = False) -> None:
        self._service = service
        self._handler = handler
        self._open = open

    async def answer(self, arrived: Arrived, context: Context) -> Any:
        """A task that is cancelled, as the client went away or its deadline passed, cancels the request."""
        began_s, status = time.monotonic(), StatusCode.CANCELLED
        try:
            request = Request(self._service, arrived, context)
            if not self._open:
                request.identify()
            answer = await self._handler(request)
            status = StatusCode.OK
            return answer
        except Exception as error:
            told = told_of(error)
            status = STATUS[told.code]
            await refuse(context, told)
        finally:
            arrived.drop()
            count(self._service, status, began_s)


class Unsupported:
    """A call of Triton's that there is nothing for, answered with the reason."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def answer(self, arrived: Arrived, context: Context) -> Any:
        await context.abort(StatusCode.UNIMPLEMENTED, self._why)


async def refuse(context: Context, error: InferenceError) -> Never:
    """End the call with an error. Raises gRPC's AbortError.

    gRPC's context keeps what it raises, and so a cycle: what the frames of the error held would wait for the collector.
    """
    traceback.clear_frames(error.__traceback__)
    await context.abort(STATUS[error.code], details_of(error), trailing_of(error))


def count(service: Service, status: StatusCode, began_s: float) -> None:
    """One request that has been answered, where requests are measured. CANCELLED: its client went away."""
    if service.meter is not None:
        service.meter.request(DOOR, status.name, time.monotonic() - began_s)


def told_of(error: Exception) -> InferenceError:
    """What the caller is told; of an exception that nobody meant the trace goes to the log."""
    if isinstance(error, InferenceError):
        return error
    log.error("a gRPC call failed", exc_info=error)
    return InternalError(f"the gateway failed: {describe(error)}. This is a bug.")
