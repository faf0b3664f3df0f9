"""`trace ID` tells one request's life as Redis still knows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from common.broker import Broker
from common.errors import InvalidRequest
from common.protocol import Request, encode_request
from common.tensor import to_tensor
from gateway import Client
from gateway.admin.life import Lives
from inference_worker.cli.trace import lines
from inference_worker.processes.exitcodes import Exit
from tests.support.command import MODELS, CommandLine
from tests.support.running import workers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def told(client: redis.Redis, wanted: str, pool: str) -> str:
    return "\n".join(line for life in Lives(client).find(wanted, pool) for line in lines(life))


def raw(id: str, **fields: Any) -> bytes:
    return encode_request(Request(id, "shout", {"text": to_tensor("x" * 100)}, **fields))


def test_a_request_that_waits_shows_its_entry_and_its_deadline(
    redis_url: str, redis_client: redis.Redis, broker: Broker, pool: str
) -> None:
    with Client(redis_url, pool=pool, timeout_s=30, tenant="acme") as client:
        handle = client.submit("shout", "hello")
        wait_until(lambda: broker.fetch(broker.keys.waiters(handle.request_id)), "it is in its stream")
        found = told(redis_client, handle.request_id, pool)

    assert f"request {handle.request_id} in pool {pool}: waits in its stream\n" in found
    assert "model shout, " in found
    assert ", tenant acme\n" in found
    assert "  deadline  in " in found
    assert "  held      by nobody yet\n" in found
    assert "  waiting   1 client" in found


def test_a_raw_producers_request_is_found_by_its_trace_too(
    redis_client: redis.Redis, broker: Broker, pool: str
) -> None:
    parent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    for number in range(40):
        redis_client.xadd(broker.keys.streams[0], {"d": raw(f"other-{number}")})
    redis_client.xadd(broker.keys.streams[0], {"d": raw("mine", trace=parent, timeout_ms=1)})

    found = told(redis_client, TRACE, pool)
    assert told(redis_client, "mine", pool).startswith("request mine in pool ")
    assert f"request mine in pool {pool}: waits in its stream" in found
    assert f", trace {TRACE}\n" in found
    assert " of high\n" in found
    wait_until(lambda: " ago: what has not begun is refused" in told(redis_client, "mine", pool), "its time is over")


def test_one_that_is_held_shows_by_whom_and_who_died_with_it(
    redis_client: redis.Redis, broker: Broker, pool: str
) -> None:
    broker.renew(60_000, [("host-1-0-0", msgpack.packb({"state": "ready", "device": "cuda:0", "host": "host"}))])
    redis_client.xadd(broker.keys.streams[1], {"d": raw("r")})
    [entry] = broker.take("host-1-0-0", (8, 8, 8)).entries
    alive = told(redis_client, "r", pool)
    broker.renew(0, [("host-1-0-0", b"")])
    broker.renew(60_000, [("host-2-0-0", msgpack.packb({}))])
    broker.reclaim("host-2-0-0", 10)
    broker.release("host-2-0-0", [entry.place])
    handed_back = told(redis_client, "r", pool)

    assert "  held      by host-1-0-0 for " in alive
    assert "  worker    ready on cuda:0 of host" in alive
    assert "by nobody: a worker that drained handed it back" in handed_back


def test_an_answered_one_shows_its_worker_times_and_how_long_it_is_kept(
    shell: CommandLine, redis_url: str, redis_client: redis.Redis, pool: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with workers(redis_url, pool, MODELS), Client(redis_url, pool=pool) as client:
        handle = client.submit("waits", {"gate": str(gate)})
        wait_until(lambda: Path(f"{gate}.entered").exists(), "it runs")
        running = wait_until(
            lambda: found if "runs waits:1" in (found := told(redis_client, handle.request_id, pool)) else "",
            "it is told",
        )
        gate.touch()
        handle.result()
        answered = told(redis_client, handle.request_id, pool)
        failed = client.submit("root", -1.0)
        wait_until(failed.done, "it fails")
        errors = told(redis_client, failed.request_id, pool)
        done = shell.run("trace", handle.request_id, "--json", INFERENCE_WORKER_BROKER=redis_url)

    assert ": in a worker's hands\n" in running
    assert ": answered\n" in answered
    assert "  reply     by waits:1: " in answered
    assert " in a batch of 1 row\n" in answered
    assert "  kept      for another " in answered
    assert ": failed\n" in errors
    assert "  reply     by root:1: model_error: " in errors
    [life] = json.loads(done.out)
    assert (life["state"], life["reply"]["model"], life["entry"]) == ("answered", "waits", None)


def test_one_that_was_given_up_leads_to_its_letter(redis_client: redis.Redis, broker: Broker, pool: str) -> None:
    fields = {"d": raw("mine"), "stream": 2, "deliveries": 3, "reason": "3 workers died", "entry": "1-1"}
    letter = redis_client.xadd(broker.keys.dead, fields).decode()

    found = told(redis_client, "mine", pool)
    assert f"request mine in pool {pool}: given up\n" in found
    assert " after 3 deliveries: 3 workers died\n" in found
    assert f"`dead retry {letter}`" in found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" * 10_000,
        b"\x81\xa5trace\xdf\xff\xff\xff\xff",
        raw("x")[:-50],
    ],
)
def test_what_cannot_be_read_is_passed_over(redis_client: redis.Redis, broker: Broker, pool: str, data: bytes) -> None:
    redis_client.xadd(broker.keys.streams[1], {"d": data})
    redis_client.set(broker.keys.reply("mine"), data, ex=60)
    redis_client.xadd(broker.keys.streams[1], {"d": raw("mine")})

    assert f"request mine in pool {pool}: waits in its stream" in told(redis_client, "mine", pool)


def test_one_that_is_gone_is_said_to_be(shell: CommandLine, redis_url: str) -> None:
    done = shell.run("trace", "no-such-request", INFERENCE_WORKER_BROKER=redis_url)

    assert done.code == Exit.NOT_FOUND
    assert "no pool on this broker knows 'no-such-request': it was never sent here, or it was answered and" in done.err


def test_what_is_no_id_is_refused(redis_client: redis.Redis) -> None:
    with pytest.raises(InvalidRequest):
        Lives(redis_client).find("a b")
