"""The gRPC entrance of a door: grpc.aio, the inference service, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.errors import ConfigError
from gateway.door.service import Service
from gateway.door.settings import Address, DoorSettings
from gateway.grpc.asked import Asked, Unread
from gateway.grpc.calls import HANDLERS, OPEN, REFUSED
from gateway.grpc.endpoint import Unary, Unsupported
from gateway.grpc.health import Health
from gateway.grpc.pb import inference_pb2 as pb
from gateway.grpc.reading import Arrived, reader_of
from gateway.grpc.stream import Streams

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
STREAM = "ModelStreamInfer"
#: Clients may ping so often: Triton's keep alive, and load balancers on idle connections.
_LEAST_PING_MS = 10_000
#: Calls on one connection; the next ones wait in the client.
_MOST_CALLS = 1024


class GrpcEntrance:
    """In `withdraw` health says NOT_SERVING; `close` ends streams once they have answered what they read."""

    def __init__(self, service: Service, settings: DoorSettings, address: Address) -> None:
        self._address = address
        self._drain_s = settings.drain_s
        self._server = grpc.aio.server(options=_options(settings))
        self._streams = Streams(service, settings.stream_requests)
        self._health = Health(service, SERVICE.full_name)
        self._looking: asyncio.Task[None] | None = None
        self._server.add_generic_rpc_handlers((_handlers(service, self._streams),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def open(self, ended: Callable[[], None]) -> None:
        try:
            self._server.add_insecure_port(str(self._address))
        except RuntimeError as error:
            raise ConfigError(f"the gateway cannot listen on {self._address}: {error}") from error
        await self._health.look()
        self._looking = asyncio.create_task(self._health.keep_looking(), name="health")
        await self._server.start()

    async def withdraw(self) -> None:
        await self._health.enter_graceful_shutdown()

    async def close(self) -> None:
        self._health.close()
        self._streams.drain()
        if self._looking is not None:
            self._looking.cancel()
        await self._server.stop(self._drain_s)

    async def abort(self) -> None:
        await self._server.stop(None)


def _handlers(service: Service, streams: Streams) -> grpc.GenericRpcHandler:
    """Each method of the proto file, with its messages."""
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in SERVICE.methods:
        read, write = (
            reader_of(GetMessageClass(method.input_type)),
            GetMessageClass(method.output_type).SerializeToString,
        )
        found[method.name] = _handler(service, streams, method.name, read, write)
    open = frozenset(f"/{SERVICE.full_name}/{name}" for name in (*OPEN, *REFUSED))
    return Asked(service, grpc.method_handlers_generic_handler(SERVICE.full_name, found), open)


def _handler(
    service: Service, streams: Streams, name: str, read: Callable[[bytes], Arrived], write: Callable[[Any], bytes]
) -> grpc.RpcMethodHandler[Any, Any]:
    if name == STREAM:
        return grpc.stream_stream_rpc_method_handler(streams.answer, read, write)
    if name in HANDLERS:
        return grpc.unary_unary_rpc_method_handler(Unary(service, HANDLERS[name]).answer, read, write)
    open = Unary(service, OPEN[name], open=True) if name in OPEN else Unsupported(REFUSED[name])
    return grpc.stream_stream_rpc_method_handler(Unread(open).answer, None, write)


def _options(settings: DoorSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body),
        # Results are bounded where they enter: by the wire.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", _MOST_CALLS),
        # A connection stays where it is: so clients spread over processes, and leave one that is replaced.
        ("grpc.max_connection_age_ms", int(settings.connection_age_s * 1000)),
        # A client that vanished without a word is found out, and its requests are cancelled.
        ("grpc.keepalive_time_ms", int(settings.keep_alive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.slow_s * 1000)),
        # A connection that never becomes one of HTTP/2.
        ("grpc.server_handshake_timeout_ms", int(settings.slow_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _LEAST_PING_MS),
    ]
