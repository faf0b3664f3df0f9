"""The door itself: keys, health, reflection, several processes, closing, and both protocols in one."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.support.command import MODELS, ROOT, CommandLine
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import gateway, new_key
from tests.support.grpc import ask, infer, request
from tests.support.http import ask as ask_http
from tests.support.redis_server import redis_server
from tests.support.waiting import wait_until

pytest.importorskip("grpc_health", reason="needs grpcio-health-checking")
pytest.importorskip("grpc_reflection", reason="needs grpcio-reflection")

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

Code = grpc.StatusCode
SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: Any, service: str = "") -> int:
    found = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
    return int(found.status)


# Health and reflection


def test_health_is_told_of_the_server_and_of_the_service(channel: Any) -> None:
    assert health(channel) == health(channel, SERVICE) == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health(channel, "nothing")
    assert caught.value.code() is Code.NOT_FOUND


def test_health_follows_the_broker(tmp_path: Path) -> None:
    with ExitStack() as broker:
        url = broker.enter_context(redis_server())
        with (
            gateway(url, "anywhere", tmp_path, doors=("grpc",)) as door,
            grpc.insecure_channel(door.address) as channel,
        ):
            assert health(channel) == SERVING
            broker.close()
            wait_until(lambda: health(channel) == NOT_SERVING, "health says that the broker is away")


def test_whoever_watches_health_sees_the_drain_begin_and_is_let_go(
    redis_url: str, worker: EchoWorker, tmp_path: Path
) -> None:
    with (
        gateway(redis_url, worker.broker.pool, tmp_path, doors=("grpc",)) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        door.terminate()
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is Code.UNAVAILABLE


def test_reflection_shows_the_services_and_the_proto_file(channel: Any) -> None:
    shown = ProtoReflectionDescriptorDatabase(channel)

    assert {SERVICE, "grpc.health.v1.Health"} <= set(shown.get_services())
    file = shown.FindFileContainingSymbol(SERVICE)
    assert "ModelInferRequest" in {one.name for one in file.message_type}


# Keys


def test_keys_are_asked_for_and_a_tenant_has_its_models_and_priority(
    redis_url: str, worker: EchoWorker, shell: CommandLine
) -> None:
    acme = new_key(shell, "acme", "--model", "echo", "--priority", "low")
    keys = str(shell.folder / "keys.json")
    with (
        gateway(redis_url, worker.broker.pool, shell.folder, "--keys", keys, doors=("grpc",)) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        mine = {"authorization": f"Bearer {acme}"}

        # Whoever watches the process needs none
        assert health(channel) == SERVING
        assert ask(channel, "ServerLive", pb.ServerLiveRequest()).response.live
        # Whoever asks does
        assert infer(channel, request()).code is Code.UNAUTHENTICATED
        assert infer(channel, request(), authorization="Bearer iw_0_0").code is Code.UNAUTHENTICATED
        assert infer(channel, request(), **mine).code is Code.OK
        assert worker.seen[-1].tenant == "acme"
        assert infer(channel, request("fails"), **mine).code is Code.PERMISSION_DENIED
        order = pb.RepositoryModelLoadRequest(model_name="echo")
        assert ask(channel, "RepositoryModelLoad", order, **mine).code is Code.PERMISSION_DENIED
        index = ask(channel, "RepositoryIndex", pb.RepositoryIndexRequest(), **mine).response
        assert [one.name for one in index.models] == ["echo"]
        # On a stream, too, and there each request anew: the key may be revoked meanwhile
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ModelStreamInfer(iter([request()])))
        assert caught.value.code() is Code.UNAUTHENTICATED
        told = threading.Event()

        def requests() -> Any:
            yield request()
            told.wait()
            yield request()

        stream = stub.ModelStreamInfer(requests(), metadata=[("authorization", f"Bearer {acme}")])
        assert next(stream).error_message == ""
        assert shell.run("keys", "revoke", acme.split("_")[1], "--keys", keys).code == 0
        wait_until(lambda: infer(channel, request(), **mine).code is Code.UNAUTHENTICATED, "the key is refused")
        told.set()
        assert next(stream).infer_response.parameters["error_code"].string_param == "unauthenticated"


def test_without_keys_it_refuses_to_listen_for_others(shell: CommandLine) -> None:
    done = shell.run("gateway", "--grpc", "0.0.0.0:0", "--broker", "redis://127.0.0.1:1")

    assert done.code == 78
    assert "--insecure" in done.error


def test_it_wants_to_know_where_to_listen(shell: CommandLine) -> None:
    done = shell.run("gateway", "--broker", "redis://127.0.0.1:1")

    assert done.code == 2
    assert "--grpc" in done.error


def test_a_port_is_shared_neither_with_another_gateway_nor_by_two_protocols(
    redis_url: str, pool: str, tmp_path: Path, shell: CommandLine
) -> None:
    with gateway(redis_url, pool, tmp_path, "--workers", "2") as first:
        second = shell.run("gateway", "--grpc", first.address, "--broker", redis_url)
        both = shell.run("gateway", "--http", "127.0.0.1:1", "--grpc", "127.0.0.1:1", "--broker", redis_url)

    assert (second.code, both.code) == (78, 78)
    assert f"{first.address}: Address already in use" in second.error
    assert "a port of its own" in both.error


def test_up_opens_it_beside_its_workers(shell: CommandLine) -> None:
    with shell.running("up", MODELS, "--device", "cpu", "--grpc", "127.0.0.1:0") as up:
        up.wait_for(" takes requests")
        address = re.search(r"grpc://(\S+) takes requests", up.printed)
        assert address is not None
        with grpc.insecure_channel(address[1]) as channel:
            text = {"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"hello"]}}
            # The workers may still be starting: the request waits for them.
            assert infer(channel, request("shout", inputs=[text])).response.raw_output_contents == [b"\5\0\0\0HELLO"]
        assert up.stop() == 0


# Processes


def test_both_doors_are_one_process_with_one_limiter_and_one_count(
    redis_url: str, worker: EchoWorker, tmp_path: Path
) -> None:
    with (
        gateway(redis_url, worker.broker.pool, tmp_path, doors=("grpc", "http")) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        http = door.printed.partition("http://")[2].partition(" ")[0]

        infer(channel, request())
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
        assert ask_http(http, "POST", "/v2/models/echo/infer", body).status == 200

        [counts] = ask(channel, "ModelStatistics", pb.ModelStatisticsRequest(name="echo")).response.model_stats
        assert counts.inference_stats.success.count == 2


def test_a_drain_answers_every_request_and_several_processes_share_a_port(
    redis_url: str, worker: EchoWorker, tmp_path: Path
) -> None:
    options = ("--workers", "2", "--notice", "2")
    with gateway(redis_url, worker.broker.pool, tmp_path, *options, doors=("grpc",)) as door:
        codes: list[Any] = []
        threads = [threading.Thread(target=_ask_until_told_to_go, args=(door.address, codes)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(codes) > 100, "requests are under way")
        door.terminate()
        for thread in threads:
            thread.join()

    assert set(codes) == {Code.OK}


def _ask_until_told_to_go(address: str, codes: list[Any]) -> None:
    """On a connection of its own, as a load balancer does, until health says that no more are wanted."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        while health(channel) == SERVING:
            codes.extend(infer(channel, request()).code for _ in range(2))


def test_clients_are_asked_to_connect_anew_and_no_request_notices(
    redis_url: str, worker: EchoWorker, tmp_path: Path
) -> None:
    states: list[Any] = []
    with (
        gateway(redis_url, worker.broker.pool, tmp_path, "--connection-age", "0.2", doors=("grpc",)) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        channel.subscribe(states.append)
        sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(sent.get, None))

        def connected_again() -> bool:
            assert infer(channel, request()).code is Code.OK
            return states.count(grpc.ChannelConnectivity.READY) > 2

        wait_until(connected_again, "the client has connected three times")
        # A stream stays on its connection for as long as it is open.
        sent.put(request())
        assert next(stream).error_message == ""
        sent.put(None)


def test_the_client_side_is_importable_without_loading_grpc() -> None:
    code = "import sys, gateway, gateway.door.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert {"grpc", "google.protobuf", "starlette", "uvicorn"} & set(done.stdout.split()) == set()
