"""ModelStreamInfer: the order of answers, errors among them, backpressure, and its end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.door.settings import DoorSettings
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway, gateway
from tests.support.grpc import infer, request
from tests.support.waiting import wait_until

MOST = DoorSettings.__dataclass_fields__["stream_requests"].default


class Stream:
    """A client's stream: what is `put` is sent, None ends the client's side."""

    def __init__(self, channel: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(self._requests.get, None))

    def put(self, *messages: Any) -> None:
        for one in messages:
            self._requests.put(one)

    def ids(self, count: int) -> list[str]:
        return [next(self.call).infer_response.id for _ in range(count)]


@contextmanager
def opened(url: str, pool: str, folder: Path, *options: str) -> Iterator[tuple[Gateway, Any]]:
    with gateway(url, pool, folder, *options, doors=("grpc",)) as door, grpc.insecure_channel(door.address) as channel:
        yield door, channel


def test_answers_come_in_the_order_in_which_they_finish(
    redis_url: str, pool: str, worker: EchoWorker, tmp_path: Path
) -> None:
    gate = threading.Event()
    (tmp_path / "routes.toml").write_text(
        f'default = "{worker.broker.pool}"\n[[route]]\nmodel = "slow"\npool = "{pool}"\n'
    )
    with EchoWorker(redis_url, pool, gate=gate), opened(redis_url, pool, tmp_path) as (_, channel):
        stream = Stream(channel)
        stream.put(request("slow", id="first"), request(id="second"), request(id="third"))

        assert sorted(stream.ids(2)) == ["second", "third"]
        gate.set()
        stream.put(None)
        assert [one.infer_response.id for one in stream.call] == ["first"]
        assert stream.call.code() is grpc.StatusCode.OK


def test_an_error_is_one_of_the_answers_and_names_its_request_and_code(channel: Any) -> None:
    stream = Stream(channel)
    stream.put(request("fails", id="a"), request(id="b"), request(inputs=[], id="c"), None)

    found = {one.infer_response.id: one for one in stream.call}

    assert found["b"].error_message == ""
    assert found["a"].error_message == "a negative number has no real root"
    assert found["a"].infer_response.parameters["error_code"].string_param == "model_error"
    assert found["c"].error_message.startswith("inputs must hold 1 to")


def test_no_more_than_its_bound_is_under_way_on_a_stream_and_no_more_is_read(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        opened(redis_url, pool, tmp_path) as (_, channel),
    ):
        lane, urgent = worker.broker.keys.streams[1], worker.broker.keys.streams[0]
        stream = Stream(channel)
        stream.put(*(request(id=str(index)) for index in range(MOST + 50)), None)
        wait_until(lambda: redis_client.xlen(lane) == MOST, "as many as may be are in their stream")

        # When another call has gone all the way, Then still no more of this stream have
        another = GRPCInferenceServiceStub(channel).ModelInfer.future(
            request(parameters={"priority": {"uint64_param": 1}})
        )
        wait_until(lambda: redis_client.xlen(urgent) == 1, "the other call is in its stream")
        assert redis_client.xlen(lane) == MOST
        gate.set()
        assert another.result(20).outputs
        assert len(list(stream.call)) == MOST + 50


def test_a_stream_that_is_cancelled_cancels_all_that_is_under_way(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        opened(redis_url, pool, tmp_path) as (door, channel),
    ):
        keys = worker.broker.keys
        stream = Stream(channel)
        stream.put(*(request() for _ in range(5)))
        wait_until(lambda: redis_client.xlen(keys.streams[1]) == 5, "all are in their stream")

        stream.call.cancel()

        wait_until(lambda: redis_client.scard(keys.cancelled) == 5, "all are marked as cancelled")
        stream.put(None)
        gate.set()
        wait_until(lambda: not redis_client.xlen(keys.streams[1]), "the worker has passed them over")
        assert worker.seen == []
        assert "ERROR" not in door.printed


def test_a_drain_answers_what_a_stream_has_sent_and_then_ends_it(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        opened(redis_url, pool, tmp_path) as (door, channel),
    ):
        stream, idle = Stream(channel), Stream(channel)
        stream.put(request(id="a"), request(id="b"))
        wait_until(lambda: redis_client.xlen(worker.broker.keys.streams[1]) == 2, "both are in their stream")
        door.terminate()
        # The stream that has nothing to wait for ends first, and both say why.
        assert list_until_error(idle) == ([], grpc.StatusCode.UNAVAILABLE)
        gate.set()
        ids, code = list_until_error(stream)

        assert (sorted(ids), code) == (["a", "b"], grpc.StatusCode.UNAVAILABLE)
        assert stream.call.details().startswith("the gateway is going away")
        stream.put(None)
        idle.put(None)


def test_a_reader_who_stops_holds_up_nobody_and_his_going_is_no_error(door: Gateway, channel: Any) -> None:
    with grpc.insecure_channel(door.address) as his:
        stream = Stream(his)
        large = {"name": "x", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a" * 1_000_000]}}
        stream.put(*(request(inputs=[large]) for _ in range(40)))

        assert infer(channel, request()).code is grpc.StatusCode.OK
        stream.call.cancel()
        stream.put(None)

    assert infer(channel, request()).code is grpc.StatusCode.OK
    assert "ERROR" not in door.printed


def list_until_error(stream: Stream) -> tuple[list[str], Any]:
    """The ids of the answers, and how the stream ended."""
    ids: list[str] = []
    try:
        ids.extend(one.infer_response.id for one in stream.call)
    except grpc.RpcError as error:
        return ids, error.code()
    return ids, None
