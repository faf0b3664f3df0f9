"""The door itself: who may come in, how slowly, how much; going away, and closing."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import CommandLine
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway, gateway, new_key
from tests.support.http import Said, ask
from tests.support.waiting import wait_until

INFER = "/v2/models/echo/infer"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}


def raw(address: str, *pieces: bytes) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    for piece in pieces:
        connection.sendall(piece)
    return connection


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(65_536):
        found += data
    return found


def request(body: Any = BODY, path: str = INFER) -> bytes:
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


# What HTTP itself refuses


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nothing", None, {}, 404),
        ("PUT", INFER, BODY, {}, 405),
        ("POST", INFER, b"x=1", {"content_type": "application/x-www-form-urlencoded"}, 415),
        ("POST", INFER, BODY, {"content_encoding": "br"}, 415),
        ("POST", INFER, b"{}", {"content_encoding": "gzip"}, 400),
        ("POST", INFER, b"[]", {}, 400),
        ("POST", INFER, BODY, {"inference_header_content_length": "999"}, 400),
        ("POST", INFER, BODY, {"origin": "https://evil.example"}, 403),
        ("GET", "/v2", None, {"host": "evil.example"}, 421),
    ],
)
def test_what_is_wrong_has_its_own_status_and_says_so(
    door: Gateway, method: str, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    said = ask(door.address, method, path, body, **headers)

    assert said.status == status
    assert said.json["error"]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"datatype": "FP32", "shape": [2], "data": [1]}, "inputs.x.data must hold 2 values"),
        ({"datatype": "FP32", "shape": [1], "data": ["1"]}, "inputs.x.data must hold numbers for FP32"),
        ({"datatype": "FP32", "shape": [1], "data": [None]}, "inputs.x.data must hold numbers for FP32"),
        ({"datatype": "FP32", "shape": [1], "data": [1e39]}, "inputs.x.data holds a number that is too large"),
        ({"datatype": "INT8", "shape": [1], "data": [128]}, "inputs.x.data must hold integers from -128 to 127"),
        ({"datatype": "INT8", "shape": [1], "data": [1.5]}, "inputs.x.data must hold integers for INT8"),
        ({"datatype": "BYTES", "shape": [1], "data": [1]}, "inputs.x.data must hold strings"),
        ({"datatype": "FP31", "shape": [1], "data": [1]}, "inputs.x.datatype must be one of"),
        ({"datatype": "FP32", "shape": [-1], "data": [1]}, "inputs.x.shape must hold integers"),
    ],
)
def test_a_wrong_tensor_is_named(door: Gateway, tensor: Any, message: str) -> None:
    said = ask(door.address, "POST", INFER, {"inputs": [{"name": "x", **tensor}]})

    assert said.status == 400
    assert said.json["error"].startswith(message)


def test_a_bomb_is_not_unpacked(redis_url: str, worker: EchoWorker, tmp_path: Path) -> None:
    with gateway(redis_url, worker.broker.pool, tmp_path, "--max-body", "1MB") as door:
        said = ask(door.address, "POST", INFER, gzip.compress(b" " * 10_000_000), content_encoding="gzip")
        large = ask(door.address, "POST", INFER, b" " * 1_100_000)

    assert (said.status, large.status) == (413, 413)
    assert large.headers["connection"] == "close"


# Slow, half-closed and gone


def test_a_head_that_is_too_large_is_refused(door: Gateway) -> None:
    with raw(door.address, b"GET /v2 HTTP/1.1\r\nx: ", b"a" * 70_000) as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_goes_away_cancels_its_work(redis_url: str, pool: str, tmp_path: Path, redis_client: Any) -> None:
    gate = threading.Event()
    with EchoWorker(redis_url, pool, gate=gate) as worker, gateway(redis_url, pool, tmp_path) as door:
        with raw(door.address, request()):
            wait_until(lambda: redis_client.xlen(worker.broker.keys.streams[1]), "the request is in its stream")

        wait_until(lambda: redis_client.scard(worker.broker.keys.cancelled), "it is marked as cancelled")
        gate.set()
        wait_until(lambda: not redis_client.xlen(worker.broker.keys.streams[1]), "the worker has passed it over")
        assert worker.seen == []


def test_a_half_closed_connection_ends_and_others_go_on(door: Gateway) -> None:
    with raw(door.address, request()[:-5]) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""

    assert ask(door.address, "POST", INFER, BODY).status == 200


def test_a_slow_reader_gets_all_of_a_long_answer_and_holds_up_nobody(door: Gateway) -> None:
    body = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a" * 8_000_000]}]}
    with raw(door.address, request(body)) as connection:
        first = connection.recv(100)
        assert ask(door.address, "POST", INFER, BODY).status == 200
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        whole = first + read_all(connection)

    assert whole.count(b"a" * 8_000_000) == 1


# Keys


def with_key(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_keys_are_asked_for_made_and_revoked_while_the_door_is_open(
    redis_url: str, worker: EchoWorker, shell: CommandLine
) -> None:
    acme = new_key(shell, "acme", "--model", "echo", "--priority", "low")
    keys = str(shell.folder / "keys.json")
    with gateway(redis_url, worker.broker.pool, shell.folder, "--keys", keys) as door:

        def infer(model: str, text: str) -> Said:
            return ask(door.address, "POST", f"/v2/models/{model}/infer", BODY, **with_key(text))

        # Given a key: its tenant may use one model, at its priority
        assert ask(door.address, "GET", "/v2/health/ready").status == 200
        refused = ask(door.address, "POST", INFER, BODY)
        assert (refused.status, refused.headers["www-authenticate"][:6]) == (401, "Bearer")
        assert infer("echo", acme).status == 200
        assert worker.seen[-1].tenant == "acme"
        assert infer("upper", acme).status == 403
        load = ask(door.address, "POST", "/v2/repository/models/echo/load", {}, **with_key(acme))
        assert load.status == 403
        # When another is made, and the first revoked, Then the door follows
        other = new_key(shell, "other")
        wait_until(lambda: infer("upper", other).status != 401, "the new key is known")
        assert shell.run("keys", "revoke", acme.split("_")[1], "--keys", keys).code == 0
        wait_until(lambda: infer("echo", acme).status == 401, "the old key is refused")
        assert other not in door.printed


def test_a_job_is_its_tenants_alone(redis_url: str, worker: EchoWorker, shell: CommandLine) -> None:
    acme, other = new_key(shell, "acme"), new_key(shell, "other")
    keys = str(shell.folder / "keys.json")
    with gateway(redis_url, worker.broker.pool, shell.folder, "--keys", keys) as door:
        said = ask(door.address, "POST", "/jobs", {"model": "echo", "inputs": {"x": 1}}, **with_key(acme))

        path = said.headers["location"]
        assert ask(door.address, "GET", path, **with_key(acme)).status == 200
        assert ask(door.address, "GET", path, **with_key(other)).status == 404


def test_without_keys_it_refuses_to_listen_for_others(shell: CommandLine) -> None:
    done = shell.run("gateway", "--http", "0.0.0.0:0", "--broker", "redis://127.0.0.1:1")

    assert done.code == 78
    assert "--insecure" in done.error


# Limits, rules and the end


def test_over_its_limit_the_door_says_when_to_come_again(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    options = ("--concurrency", "1", "--queue", "0")
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        gateway(redis_url, pool, tmp_path, *options) as door,
        raw(door.address, request()) as first,
    ):
        # The first one, once it is in its stream, has the only place.
        wait_until(lambda: redis_client.xlen(worker.broker.keys.streams[1]), "the first is in its stream")
        refused = ask(door.address, "POST", INFER, BODY)
        gate.set()
        assert first.recv(15) == b"HTTP/1.1 200 OK"
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert worker.seen


def test_changed_rules_hold_without_a_restart(redis_url: str, pool: str, worker: EchoWorker, tmp_path: Path) -> None:
    with EchoWorker(redis_url, pool) as mine, gateway(redis_url, worker.broker.pool, tmp_path) as door:
        (tmp_path / "routes.toml").write_text(f'default = "{pool}"\n')

        def led_here() -> bool:
            return ask(door.address, "POST", INFER, BODY).status == 200 and bool(mine.seen)

        wait_until(led_here, "requests go to the other pool")


def test_a_drain_answers_every_request_and_several_processes_share_a_port(
    redis_url: str, worker: EchoWorker, tmp_path: Path
) -> None:
    with gateway(redis_url, worker.broker.pool, tmp_path, "--workers", "2", "--notice", "1") as door:
        statuses: list[int] = []
        threads = [threading.Thread(target=_ask_until_told_to_go, args=(door.address, statuses)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(statuses) > 50, "requests are under way")
        door.terminate()
        for thread in threads:
            thread.join()

    assert set(statuses) == {200}


def _ask_until_told_to_go(address: str, statuses: list[int]) -> None:
    """On one connection, as a load balancer does, until an answer asks for it to be closed."""
    connection = http.client.HTTPConnection(address, timeout=20)
    closing = False
    while not closing:
        connection.request("POST", INFER, json.dumps(BODY), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
        closing = response.getheader("connection") == "close"
    connection.close()
