"""What docs/protocol.md says of raw producers, with nothing but a Redis client and msgpack."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgpack
import pytest

from tests.support.running import ROOT, workers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

    from common.broker import Broker

MODELS = ROOT / "tests" / "support" / "models" / "interop.py"
WAIT_S = 20


class RawProducer:
    """An inbox and the four commands of the page."""

    def __init__(self, client: redis.Redis, pool: str) -> None:
        self.redis = client
        self.prefix = f"iw:{{{pool}}}:"
        self.inbox = f"{self.prefix}inbox:raw-{uuid4().hex}"

    def request(self, **fields: Any) -> dict[str, Any]:
        """A sound request for `double`, but for `fields`."""
        sound = {"v": 1, "id": uuid4().hex, "model": "double", "inputs": {"x": fp32(1, -2)}, "reply_to": self.inbox}
        return {**sound, **fields}

    def add(self, fields: Mapping[str, bytes | str], priority: str = "normal") -> bytes | None:
        """XADD; the entry's id, or None where the pool was never started."""
        entry: bytes | None = self.redis.execute_command(
            "XADD", self.prefix + priority, "NOMKSTREAM", "*", *(part for pair in fields.items() for part in pair)
        )
        return entry

    def ask(self, **fields: Any) -> dict[str, Any]:
        assert self.add({"d": msgpack.packb(self.request(**fields))})
        return self.receive()

    def receive(self) -> dict[str, Any]:
        popped = self.redis.blpop([self.inbox], WAIT_S)
        assert popped is not None, f"no reply within {WAIT_S} s"
        reply: dict[str, Any] = msgpack.unpackb(popped[1])
        return reply

    def dead_letter(self, entry: bytes) -> dict[bytes, bytes]:
        """The letter that the entry became."""

        def letters() -> list[dict[bytes, bytes]]:
            found: Any = self.redis.xrange(self.prefix + "dead")
            return [one for _, one in found if one[b"entry"] == entry]

        return wait_until(letters, f"entry {entry.decode()} is a dead letter")[0]


def fp32(*values: float) -> dict[str, Any]:
    return {"dtype": "FP32", "shape": [len(values)], "data": struct.pack(f"<{len(values)}f", *values)}


@pytest.fixture
def raw(redis_client: redis.Redis, served_pool: str) -> RawProducer:
    return RawProducer(redis_client, served_pool)


def test_a_pool_that_was_never_started_takes_nothing(redis_client: redis.Redis) -> None:
    nowhere = RawProducer(redis_client, f"nowhere-{uuid4().hex}")

    assert nowhere.add({"d": msgpack.packb(nowhere.request())}) is None


def test_a_finished_request_leaves_its_reply_for_a_minute_and_nothing_else(raw: RawProducer) -> None:
    request = raw.request()
    payload_key = f"{raw.prefix}payload:{request['id']}"
    raw.redis.set(payload_key, msgpack.packb(request), px=60_000)

    raw.add({"r": payload_key})
    reply = raw.receive()

    assert reply["outputs"]["y"]["data"] == struct.pack("<2f", 2, -4)
    assert 50 < raw.redis.ttl(f"{raw.prefix}reply:{request['id']}") <= 60
    assert raw.redis.exists(payload_key) == 0
    assert raw.redis.xlen(raw.prefix + "normal") == 0


def test_an_inbox_that_nobody_empties_lives_for_a_minute(raw: RawProducer) -> None:
    raw.add({"d": msgpack.packb(raw.request())})

    wait_until(lambda: raw.redis.llen(raw.inbox) == 1, "the reply is in the inbox")

    assert 50 < raw.redis.ttl(raw.inbox) <= 60


def test_a_request_whose_time_is_over_is_not_run(redis_url: str, redis_client: redis.Redis, broker: Broker) -> None:
    raw = RawProducer(redis_client, broker.pool)
    entry = raw.add({"d": msgpack.packb(raw.request(timeout_ms=1))})
    assert entry is not None
    added_ms = int(entry.partition(b"-")[0])
    wait_until(lambda: time_ms(redis_client) > added_ms + 1, "a millisecond has passed")

    with workers(redis_url, broker.pool, MODELS):
        error = raw.receive()["error"]

    assert (error["code"], error["retryable"]) == ("deadline_exceeded", True)
    assert "1 ms passed" in error["message"]


def test_what_cannot_be_read_becomes_a_dead_letter_and_harms_nobody(raw: RawProducer) -> None:
    too_large = b"\xc6" + struct.pack(">I", 64 * 1024 * 1024) + bytes(64 * 1024 * 1024)
    for message, reason in (
        (b"\x81\xa1v", b"is truncated"),
        (msgpack.packb([1, 2]), b"must be a msgpack map; got list"),
        (msgpack.packb({"v": 1}), b"no one to tell: id is missing"),
        (too_large, b"must have at most 67108864 bytes"),
    ):
        entry = raw.add({"d": message})
        assert entry is not None
        letter = raw.dead_letter(entry)

        assert reason in letter[b"reason"]
        assert letter[b"d"] == message
        assert letter[b"deliveries"] == b"0"
    assert "outputs" in raw.ask()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"parameters": {str(number): number for number in range(1025)}}, "no map of more than 1024 entries; got 1025"),
        ({"parameters": {"all": [[0] * 4096] * 300}}, "at most 1114112 names and values in all"),
        ({"trace": msgpack.ExtType(5, b"not ours")}, "a msgpack type (0xd7) that the protocol does not use"),
    ],
    ids=["map", "values", "type"],
)
def test_a_message_over_a_limit_of_the_wire_is_answered_and_is_no_dead_letter(
    raw: RawProducer, broken: dict[str, Any], says: str
) -> None:
    letters = raw.redis.xlen(raw.prefix + "dead")

    reply = raw.ask(id="over-a-limit", **broken)

    assert (reply["id"], reply["model"], reply["error"]["code"]) == ("over-a-limit", "double", "invalid_request")
    assert says in reply["error"]["message"]
    assert raw.redis.xlen(raw.prefix + "dead") == letters


def test_an_entry_without_a_request_becomes_a_dead_letter(raw: RawProducer) -> None:
    entry = raw.add({"data": "?"})
    assert entry is not None

    assert b"neither the field d" in raw.dead_letter(entry)[b"reason"]


@pytest.mark.parametrize("model", ["double", "remembered"])
def test_a_result_under_a_digest_that_is_not_its_own_is_not_stored(raw: RawProducer, model: str) -> None:
    forged = "b2:" + "0" * 40

    reply = raw.ask(id=forged, model=model)

    assert reply["id"] == forged
    assert "outputs" in reply
    assert raw.redis.exists(f"{raw.prefix}reply:{forged}") == 0


def test_rows_without_elements_are_refused_before_they_cost_anything(raw: RawProducer) -> None:
    started = time.monotonic()

    error = raw.ask(inputs={"x": {"dtype": "FP32", "shape": [2**31 - 1, 0], "data": b""}})["error"]

    assert error["message"] == "a request must have 1 to 65536 rows; got 2147483647"
    assert time.monotonic() - started < 2


def test_unknown_fields_of_an_entry_are_passed_over(raw: RawProducer) -> None:
    raw.add({"d": msgpack.packb(raw.request()), "note": "mine", "t": ""}, "low")

    assert "outputs" in raw.receive()


def time_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000
