"""Settings, each once on a real door: CORS, keys in the broker, an adaptive limit, ensembles, many connections."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from gateway.door.settings import Address, DoorSettings
from tests.support.command import command_line
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import gateway, gateway_process
from tests.support.http import ask
from tests.support.waiting import wait_until

BODY = {"x": [1.0]}
PAGE = "https://app.example.com"


def test_pages_of_an_allowed_origin_may_ask_and_others_not(redis_url: str, worker: EchoWorker, tmp_path: Path) -> None:
    with gateway(redis_url, worker.broker.pool, tmp_path, "--cors", PAGE) as door:
        asked_first = ask(
            door.address, "OPTIONS", "/models/echo", origin=PAGE, access_control_request_method="POST",
            access_control_request_headers="content-type,if-none-match",
        )  # fmt: skip
        said = ask(door.address, "POST", "/models/echo", BODY, origin=PAGE)
        refused = ask(door.address, "POST", "/models/echo", BODY, origin="https://evil.example")

    assert (asked_first.status, asked_first.headers["access-control-allow-origin"]) == (200, PAGE)
    assert (said.status, said.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "etag" in said.headers["access-control-expose-headers"]
    assert (refused.status, "access-control-allow-origin" in refused.headers) == (403, False)


def test_keys_are_kept_in_the_broker(redis_url: str, worker: EchoWorker, tmp_path: Path, redis_client: Any) -> None:
    with command_line(tmp_path) as shell:
        made = shell.run("keys", "create", "acme", "--broker", redis_url)
        assert made.code == 0, made.err
        with gateway(redis_url, worker.broker.pool, tmp_path, "--keys", "broker") as door:

            def status(**headers: str) -> int:
                return ask(door.address, "POST", "/models/echo", BODY, **headers).status

            key = made.out.strip()
            assert (status(), status(authorization=f"Bearer {key}")) == (401, 200)
            assert shell.run("keys", "revoke", key.split("_")[1], "--broker", redis_url).code == 0
            wait_until(lambda: status(authorization=f"Bearer {key}") == 401, "the key is refused")
    redis_client.delete("iw:access")


def test_an_adaptive_limit_lets_many_in_and_refuses_over_it(redis_url: str, pool: str, tmp_path: Path) -> None:
    gate = threading.Event()
    options = ("--adaptive", "--concurrency", "4", "--queue", "4")
    with EchoWorker(redis_url, pool, gate=gate), gateway(redis_url, pool, tmp_path, *options) as door:
        statuses: list[int] = []

        def one() -> None:
            statuses.append(ask(door.address, "POST", "/models/echo", BODY).status)

        threads = [threading.Thread(target=one) for _ in range(12)]
        for thread in threads:
            thread.start()
        # At most 4 are let in and 4 wait; the others are told to come again.
        wait_until(lambda: statuses.count(429) == 4, "those over the limit are refused")
        gate.set()
        for thread in threads:
            thread.join()

    assert sorted(statuses) == [200] * 8 + [429] * 4


def test_a_job_needs_a_place_while_it_is_handed_in(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        gateway(redis_url, pool, tmp_path, "--concurrency", "1", "--queue", "0") as door,
    ):
        # A job that waits in its pool has no place any more.
        job = {"model": "echo", "inputs": BODY}
        assert [ask(door.address, "POST", "/jobs", job).status for _ in range(2)] == [202, 202]
        # Somebody who waits has one, and so no job is taken.
        first = threading.Thread(target=ask, args=(door.address, "POST", "/models/echo", BODY))
        first.start()
        wait_until(lambda: redis_client.xlen(worker.broker.keys.streams[1]) == 3, "the request is in its stream")
        assert ask(door.address, "POST", "/jobs", job).status == 429
        gate.set()
        first.join()


ENSEMBLE = """
[shout.steps.up]
model = "upper"
inputs.text = "request.words"

[shout.steps.vector]
model = "embed"
inputs.text = "up.out"

[shout.outputs]
loud = "up.out"
embedding = "vector.embedding"
"""


def test_an_ensemble_is_asked_and_described_as_a_model_is(redis_url: str, worker: EchoWorker, tmp_path: Path) -> None:
    (tmp_path / "ensembles.toml").write_text(ENSEMBLE)
    options = ("--ensembles", str(tmp_path / "ensembles.toml"))
    with gateway(redis_url, worker.broker.pool, tmp_path, *options) as door:
        told = ask(door.address, "POST", "/models/shout", {"words": ["ab"]}).json
        infer = {"inputs": [{"name": "words", "datatype": "BYTES", "shape": [1], "data": ["ab"]}]}
        outputs = ask(door.address, "POST", "/v2/models/shout/infer", infer).json["outputs"]
        embedded = ask(door.address, "POST", "/v1/embeddings", {"model": "shout", "input": "ab"}).json
        metadata = ask(door.address, "GET", "/v2/models/shout").json
        ready = ask(door.address, "GET", "/v2/models/shout/ready").status
        index = ask(door.address, "POST", "/v2/repository/index", {}).json
        job = ask(door.address, "POST", "/jobs", {"model": "shout", "inputs": {"words": "ab"}})

    assert (told["model"], told["outputs"]["loud"]) == ("shout", ["AB"])
    assert {one["name"] for one in outputs} == {"loud", "embedding"}
    assert embedded["data"][0]["embedding"][0] == 2.0
    assert metadata["inputs"] == [{"name": "words", "datatype": "BYTES", "shape": [-1]}]
    assert [(one["name"], one["shape"]) for one in metadata["outputs"]] == [("loud", [-1]), ("embedding", [-1, 3])]
    assert (ready, [one["state"] for one in index if one["name"] == "shout"]) == (200, ["READY"])
    assert (job.status, "ensemble" in job.json["error"]["message"]) == (400, True)


def test_hundreds_of_connections_are_kept_and_answered_at_once(redis_url: str, worker: EchoWorker) -> None:
    """Under a shell's limit on open files that is lower: the door raises its own."""
    settings = DoorSettings(Address("127.0.0.1", 0), redis_url, pool=worker.broker.pool)
    with gateway_process(settings, most_open_files=128) as address:
        assert asyncio.run(_kept_and_asked(address, connections=400)) == {b"HTTP/1.1 200 OK": 800}


async def _kept_and_asked(address: str, connections: int) -> dict[bytes, int]:
    """All of them idle, and then all ask at once, twice; the statuses and how often."""
    host, _, port = address.rpartition(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(connections)]
    body = json.dumps(BODY).encode()
    told = f"POST /models/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    found: dict[bytes, int] = {}

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(told)
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0]
        found[status] = found.get(status, 0) + 1
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))

    for _ in range(2):
        await asyncio.gather(*(one(*connection) for connection in opened))
    for _, writer in opened:
        writer.close()
    return found
