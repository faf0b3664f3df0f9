"""The backlog by model, on a stand-in for Redis: only plain commands, no script."""

from __future__ import annotations

import fakeredis
import msgpack

from common.keys import PoolKeys
from gateway.admin.backlog import OLDEST, by_model
from gateway.admin.pools import PoolStatus
from inference_worker.cli.status import lines

KEYS = PoolKeys("p")


def request(model: str, **more: object) -> bytes:
    return msgpack.packb({"v": 1, "id": "x", "model": model, **more})


def test_the_oldest_requests_of_each_stream_are_counted_by_model_the_most_first() -> None:
    redis = fakeredis.FakeRedis(version=(7,))
    # Given a stream with more than are looked at, whose newest are of another model, and one in a bulk lane
    for number in range(OLDEST + 50):
        redis.xadd(KEYS.streams[1], {"d": request("flood" if number < OLDEST else "late")})
    redis.xadd(KEYS.streams[5], {"d": request("few"), "t": "acme"})

    assert list(by_model(redis, "p").items()) == [("flood", OLDEST), ("few", 1)]


def test_a_large_request_is_looked_up_by_its_head_and_what_cannot_be_read_is_counted_too() -> None:
    redis = fakeredis.FakeRedis(version=(7,))
    redis.set(KEYS.payload("x"), request("large", inputs=b"x" * 100_000))
    redis.xadd(KEYS.streams[0], {"r": KEYS.payload("x")})
    redis.xadd(KEYS.streams[0], {"r": KEYS.payload("expired")})
    redis.xadd(KEYS.streams[0], {"d": b"\xc1"})

    assert by_model(redis, "p") == {"?": 2, "large": 1}


def test_a_pool_without_work_has_no_backlog_of_any_model() -> None:
    assert by_model(fakeredis.FakeRedis(version=(7,)), "p") == {}


def test_status_shows_it_without_what_steers_a_terminal() -> None:
    pool = PoolStatus("p", {"normal": 2}, 0, None, {}, 0, (), (), {}, 0, unloaded=("calc:2",))

    printed = list(lines(pool, None, {"a\x1b[2J": 97, "b": 3}))

    assert "            by model (of the oldest 100 of each stream): a[2J 97, b 3" in printed
    assert any("unloaded  calc:2 (held back until `models load`)" in line for line in printed)
