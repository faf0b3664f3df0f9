"""Before anybody has said who he is, no message of his is taken.

gRPC reads the message of a call with one answer as a whole before its handler is called: 64 MB for each call of whoever
finds the port. Of a stream nothing is read that the handler does not ask for, and to a client both are the same.
"""

from __future__ import annotations

import time
from typing import Any

import grpc

from common.errors import InferenceError
from gateway.access.bearer import bearer_of
from gateway.door.service import Service
from gateway.grpc.endpoint import Context, Unary, Unsupported, count, refuse
from gateway.grpc.reading import NOTHING
from gateway.grpc.status import STATUS


class Asked(grpc.GenericRpcHandler):
    """In front of a service's `handlers`; those of the methods in `open` ask for no key."""

    def __init__(self, service: Service, handlers: grpc.GenericRpcHandler, open: frozenset[str]) -> None:
        self._service = service
        self._handlers = handlers
        self._open = open

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        found = self._handlers.service(details)
        guard = self._service.guard
        if found is None or not guard.asks_for_keys or details.method in self._open:
            return found
        told = dict(details.invocation_metadata).get("authorization", "")
        try:
            guard.identify(bearer_of(told if isinstance(told, bytes) else told.encode()))
        except InferenceError as error:
            return grpc.stream_stream_rpc_method_handler(_Refused(self._service, error).answer)
        return found


class Unread:
    """A call that asks for no key, and whose message says nothing."""

    def __init__(self, call: Unary | Unsupported) -> None:
        self._call = call

    async def answer(self, requests: object, context: Context) -> None:
        await context.write(await self._call.answer(NOTHING, context))


class _Refused:
    def __init__(self, service: Service, error: InferenceError) -> None:
        self._service = service
        self._error = error

    async def answer(self, requests: object, context: Context) -> None:
        count(self._service, STATUS[self._error.code], time.monotonic())
        await refuse(context, self._error)
