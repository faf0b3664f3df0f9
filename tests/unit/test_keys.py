"""Key names: one slot for each pool, and inboxes that cannot point elsewhere."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from common.errors import InvalidRequest
from common.keys import PRIORITIES, PoolKeys, is_bulk, priority_of

KEYS = PoolKeys("gpu")


def all_keys(keys: PoolKeys) -> list[str]:
    single = [
        getattr(keys, name)
        for name in (
            "leases",
            "workers",
            "models",
            "tenants",
            "lanes",
            "limits",
            "rates",
            "traffic",
            "unloaded",
            "cancelled",
            "dead",
            "control",
        )
    ]
    made = [keys.reply("id"), keys.waiters("id"), keys.payload("id"), keys.inbox("client")]
    return [*keys.streams, *single, *made]


@pytest.mark.parametrize("pool", ["gpu", "gpu/3", "default-pool"])
def test_all_keys_of_a_pool_share_its_hash_slot(pool):
    assert {key_slot(key.encode()) for key in all_keys(PoolKeys(pool))} == {key_slot(pool.encode())}


def test_no_two_keys_are_the_same():
    keys = all_keys(KEYS)

    assert len(set(keys)) == len(keys)


def test_a_pools_bookkeeping_is_every_key_that_is_neither_work_nor_of_one_request():
    one_request = {KEYS.reply("id"), KEYS.waiters("id"), KEYS.payload("id"), KEYS.inbox("client")}

    assert set(KEYS.bookkeeping) == {*all_keys(KEYS)} - {*KEYS.streams, KEYS.dead, KEYS.leases} - one_request


def test_the_streams_are_the_priorities_from_high_to_low_and_then_their_bulk_lanes():
    names = [stream.removeprefix("iw:{gpu}:") for stream in KEYS.streams]

    assert names[:7] == ["high", "normal", "low", "high:bulk", "normal:bulk", "low:bulk", "high:bulk:2"]
    assert names[-1] == "low:bulk:4"
    assert [PRIORITIES[priority_of(stream)] for stream in range(15)] == ["high", "normal", "low"] * 5
    assert [is_bulk(stream) for stream in range(15)] == [False] * 3 + [True] * 12
    assert [KEYS.number_of(stream.encode()) for stream in KEYS.streams] == [*range(15)]


def test_a_pool_with_a_wrong_name_has_no_keys():
    with pytest.raises(InvalidRequest, match=r"^pool must be"):
        PoolKeys("a}b")


def test_an_inbox_of_the_pool_passes():
    assert KEYS.check_inbox("iw:{gpu}:inbox:client-1") == "iw:{gpu}:inbox:client-1"


@pytest.mark.parametrize(
    "key",
    [
        "iw:{cpu}:inbox:client",  # another slot
        "iw:{gpu}:leases",
        "iw:{gpu}:inbox:",
        "iw:{gpu}:inbox:a b",  # would end the waiters' entry
        "iw:{gpu}:inbox:{cpu}",
        "mylist",
        "",
    ],
)
def test_complete_pushes_to_no_key_but_an_inbox_of_the_pool(key):
    with pytest.raises(InvalidRequest, match=r"^reply_to"):
        KEYS.check_inbox(key)


def test_a_payload_key_tells_the_request_it_was_made_for():
    assert KEYS.id_of_payload(KEYS.payload("b2:0f")) == "b2:0f"
    assert KEYS.id_of_payload("iw:{cpu}:payload:b2:0f") is None
