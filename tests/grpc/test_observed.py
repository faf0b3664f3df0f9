"""What is seen of a call from outside: its span, and its place in the metrics."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.support.collector import Collector, collector
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway, gateway
from tests.support.grpc import infer, request
from tests.support.waiting import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
SERVED = "inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def seen() -> Iterator[Collector]:
    with collector() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture
def watched(redis_url: str, worker: EchoWorker, seen: Collector, tmp_path: Path) -> Iterator[Gateway]:
    options = ("--tracing", "--metrics", "127.0.0.1:0")
    with gateway(redis_url, worker.broker.pool, tmp_path, *options, doors=("grpc",)) as it:
        yield it


def test_calls_and_a_streams_requests_are_spans_of_their_callers_trace_and_counted(
    watched: Gateway, seen: Collector
) -> None:
    with grpc.insecure_channel(watched.address) as channel:
        infer(channel, request(), traceparent=PARENT)
        infer(channel, request(inputs=[]), traceparent=PARENT)
        infer(channel, request("fails"), traceparent=PARENT)
        stub = GRPCInferenceServiceStub(channel)
        assert len(list(stub.ModelStreamInfer(iter([request()]), metadata=[("traceparent", PARENT)]))) == 1

        seen.wait(lambda _: len(seen.named(SERVED)) == 4 and len(seen.named("infer echo")) == 2, "all spans come")
        served = seen.named(SERVED)
        assert {(one.trace, one.parent, one.kind) for one in served} == {(TRACE, CALLER, "SERVER")}
        # Of the two that fail only one is the fault of this side.
        assert sorted(one.attributes["rpc.grpc.status_code"] for one in served) == [0, 0, 2, 3]
        assert [one.attributes["rpc.grpc.status_code"] for one in served if one.failed] == [2]
        assert {one.parent for one in seen.named("infer echo")} <= {one.id for one in served}
        wait_until(lambda: counted(watched) == {"OK": 2.0, "INVALID_ARGUMENT": 1.0, "UNKNOWN": 1.0}, "all are counted")


def counted(door: Gateway) -> dict[str, float]:
    """Requests at the door by their codes."""
    address = re.search(r"http://\S+/metrics", door.printed)
    assert address is not None
    with urllib.request.urlopen(address[0], timeout=20) as response:
        text = response.read().decode()
    found: Any = re.findall(r'inference_gateway_requests_total\{[^}]*code="(\w+)",door="grpc"[^}]*\} (\S+)', text)
    return {code: float(count) for code, count in found}
