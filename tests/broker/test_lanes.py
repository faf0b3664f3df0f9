"""The two lanes of a priority: a tenant's backlog waits in the bulk lane, and nobody else waits behind it."""

from __future__ import annotations

from collections import Counter

import pytest

from common.broker import Broker, read_entries
from common.scripts import DEFAULT_LIGHT, Admitted
from gateway.admin.dead import DeadLetters, Filter
from gateway.admin.limits import Limits
from tests.support.operations import (
    HIGH,
    HIGH_BULK,
    LOW,
    LOW_BULK,
    NORMAL,
    NORMAL_BULK,
    add_raw,
    end_lease,
    finish,
    inbox,
    lease,
    letters,
    pending,
    replies,
    request,
    submit,
    take,
    tenants,
    unfinished,
)

QUEUED, JOINED = Admitted.QUEUED, Admitted.JOINED


def flood(broker: Broker, count: int, stream: int = NORMAL, tenant: str = "heavy") -> None:
    """So many requests beyond those that a tenant may have before it has a backlog."""
    name = f"{tenant}-{stream}-{{}}"
    for start in range(0, count + DEFAULT_LIGHT, 64):
        numbers = range(start, min(start + 64, count + DEFAULT_LIGHT))
        submit(broker, *(request(name.format(number), stream, tenant) for number in numbers), client="heavy")


def lanes(client, broker) -> list[int]:
    return [client.xlen(stream) for stream in broker.keys.streams]


def drain_ordinary(broker: Broker) -> None:
    """Finish what the flooding tenant could put into the ordinary lane before it had a backlog."""
    lease(broker, "drainer")
    entries = broker.take("drainer", (1000, 1000, 1000), bulk=False).entries
    broker.complete([finish(entry, f"drained-{number}", keep_ms=0) for number, entry in enumerate(entries)])


# -- submit -----------------------------------------------------------------------------------------------------------


def test_a_tenant_goes_on_in_the_bulk_lane_from_its_bound_of_unfinished_requests_on(broker, redis_client):
    flood(broker, 10)

    assert lanes(redis_client, broker) == [0, DEFAULT_LIGHT, 0, 0, 10, 0]
    assert tenants(redis_client, broker) == {"heavy": DEFAULT_LIGHT + 10}


def test_each_priority_has_its_bulk_lane(broker, redis_client):
    for stream in (HIGH, NORMAL, LOW):
        flood(broker, 1, stream, tenant=f"heavy-{stream}")

    assert lanes(redis_client, broker)[HIGH_BULK:] == [1, 1, 1]


def test_other_tenants_and_those_without_one_stay_in_the_ordinary_lane(broker, redis_client):
    flood(broker, 10)

    submit(broker, request("a", tenant="light"), request("b"))
    add_raw(redis_client, broker)

    assert lanes(redis_client, broker)[NORMAL] == DEFAULT_LIGHT + 3


def test_a_tenant_whose_backlog_is_over_is_in_the_ordinary_lane_again(broker, redis_client):
    flood(broker, 10)
    entries = take(broker, shares=(0, 100, 0))
    broker.complete([finish(entry, f"done-{number}", keep_ms=0) for number, entry in enumerate(entries)])

    submit(broker, request("again", tenant="heavy"))

    assert lanes(redis_client, broker)[NORMAL] == 1


def test_a_tenants_weight_and_the_pools_bound_move_where_a_backlog_begins(broker, redis_client, pool):
    limits = Limits(redis_client, pool)
    limits.set_pool(light=2)
    limits.set_tenant("acme", weight=3)

    submit(broker, *(request(f"a{number}", tenant="acme") for number in range(8)))
    submit(broker, *(request(f"b{number}", HIGH, "other") for number in range(8)))

    assert lanes(redis_client, broker) == [2, 6, 0, 6, 2, 0]


def test_a_request_in_the_bulk_lane_is_joined_answered_and_counted_like_any_other(broker, redis_client):
    flood(broker, 1)
    drain_ordinary(broker)
    last = f"heavy-{NORMAL}-{DEFAULT_LIGHT}"
    assert submit(broker, request(last, tenant="heavy")) == [JOINED]

    [entry] = take(broker)
    assert entry.stream == NORMAL_BULK
    broker.complete([finish(entry, last)])

    assert replies(redis_client, broker) == [b"reply"]
    assert replies(redis_client, broker, "heavy") == [b"reply"]
    assert tenants(redis_client, broker) == {}
    assert submit(broker, request(last, tenant="heavy")) == [b"reply"]


# -- take -------------------------------------------------------------------------------------------------------------


def test_a_take_reads_what_is_new_before_a_tenants_backlog(broker):
    flood(broker, 100)
    drain_ordinary(broker)
    submit(broker, request("light", tenant="light"))

    entries = take(broker, shares=(11, 4, 1))

    assert [entry.stream for entry in entries] == [NORMAL] + [NORMAL_BULK] * 15


def test_the_bulk_lane_has_an_eighth_of_its_priority_for_certain(broker):
    flood(broker, 100)
    drain_ordinary(broker)
    submit(broker, *(f"id{number}" for number in range(100)))

    taken = Counter(entry.stream for entry in take(broker, shares=(0, 64, 0)))

    assert taken == {NORMAL: 56, NORMAL_BULK: 8}


def test_where_all_takes_are_small_the_bulk_lane_has_its_share_by_lot(broker):
    flood(broker, 300)
    drain_ordinary(broker)
    found = Counter()
    for number in range(2_000):
        submit(broker, f"id{number}")
        [entry] = take(broker, shares=(0, 1, 0))
        found[entry.stream] += 1
        broker.complete([finish(entry, f"done-{number}", keep_ms=0)])
        if found[NORMAL_BULK] >= 10:
            break

    assert found[NORMAL_BULK] == 10
    assert found[NORMAL] > found[NORMAL_BULK]


def test_what_a_priority_leaves_over_stays_in_it_before_it_goes_to_others(broker):
    flood(broker, 100, NORMAL)
    drain_ordinary(broker)
    submit(broker, *(request(f"high-{number}", HIGH) for number in range(100)))

    taken = Counter(entry.stream for entry in take(broker, shares=(11, 4, 1)))

    assert taken == {HIGH: 12, NORMAL_BULK: 4}


def test_an_ordinary_lane_alone_can_be_taken_and_read(broker, redis_client):
    flood(broker, 10)
    lease(broker, "worker")

    read = read_entries(redis_client, broker.keys, "worker", 1, bulk=False)
    taken = broker.take("worker", (0, 100, 0), bulk=False).entries

    assert [entry.stream for entry in read] == [NORMAL]
    assert [entry.stream for entry in taken] == [NORMAL] * (DEFAULT_LIGHT - 1)


def test_a_blocking_read_gets_both_lanes(broker, redis_client):
    flood(broker, 10)

    entries = read_entries(redis_client, broker.keys, "worker", 2)

    assert Counter(entry.stream for entry in entries) == {NORMAL: 2, NORMAL_BULK: 2}
    assert broker.held("worker") == [entry.place for entry in entries]


# -- what else knows streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream", "bulk"), [(HIGH, HIGH_BULK), (LOW, LOW_BULK)])
def test_a_crash_a_release_and_a_cancellation_work_in_the_bulk_lane(stream, bulk, broker, redis_client):
    flood(broker, 1, stream)
    drain_ordinary(broker)
    [entry] = take(broker, "first")
    assert entry.stream == bulk

    assert broker.release("first", [entry.place]) == 1
    lease(broker, "second")
    assert broker.reclaim("second", 10)[1] == [entry]
    end_lease(broker, "second")
    lease(broker, "third")
    [again] = broker.reclaim("third", 10)[1]
    assert again.deliveries == 1

    assert broker.cancel(inbox(broker, "heavy"), [f"heavy-{stream}-{DEFAULT_LIGHT}"]) == 1
    assert broker.take("third", (0, 0, 0)).cancelled == {entry.place}
    assert pending(redis_client, broker, bulk) == {"third": [entry.id]}


def test_a_dead_letter_of_the_bulk_lane_goes_back_into_its_priority(broker, redis_client, pool):
    flood(broker, 1, HIGH)
    drain_ordinary(broker)
    [entry] = take(broker)
    broker.complete([finish(entry, "poison", dead="it killed workers")])

    assert letters(redis_client, broker)[0][b"stream"] == b"4"
    [letter] = DeadLetters(redis_client, pool).find(Filter())
    assert (letter.priority, letter.tenant) == ("high", "heavy")


def test_an_operator_sees_both_lanes_as_one_priority(broker, redis_client):
    flood(broker, 5)

    assert unfinished(redis_client, broker) == [0, DEFAULT_LIGHT + 5, 0]
