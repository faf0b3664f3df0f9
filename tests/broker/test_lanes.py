"""The lanes of a priority: a tenant's backlog waits in a bulk lane, and nobody else waits behind it."""

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
    NORMAL_LANES,
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
    """The lengths of high, normal and low, and then of each its bulk lanes together."""
    lengths = [client.xlen(stream) for stream in broker.keys.streams]
    return lengths[:3] + [sum(lengths[3 + priority :: 3]) for priority in range(3)]


def bulk_lanes(client, broker) -> list[int]:
    """The lengths of normal's bulk lanes, from the first to the last."""
    return [client.xlen(broker.keys.streams[stream]) for stream in NORMAL_LANES]


def shares(broker: Broker, takes: int, each: int) -> Counter[bytes]:
    """Take and finish so often so many of what lies in the bulk lanes; how many came of each tenant."""
    found = Counter[bytes]()
    for number in range(takes):
        entries = take(broker, shares=(0, each, 0))
        found.update(entry.counted for entry in entries)
        broker.complete([finish(entry, f"shared-{number}-{at}", keep_ms=0) for at, entry in enumerate(entries)])
    return found


def drain_ordinary(broker: Broker) -> None:
    """Finish what the flooding tenant could put into the ordinary lane before it had a backlog."""
    lease(broker, "drainer")
    entries = broker.take("drainer", (1000, 1000, 1000), bulk=False).entries
    broker.complete([finish(entry, f"drained-{number}", keep_ms=0) for number, entry in enumerate(entries)])
    end_lease(broker, "drainer")


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


# -- several tenants with a backlog -----------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [1, 7, 64])
def test_two_backlogs_are_worked_off_by_weight_however_small_the_takes_are(each, broker, redis_client, pool):
    Limits(redis_client, pool).set_tenant("three", weight=3)
    flood(broker, 900, tenant="one")
    flood(broker, 900, tenant="three")
    drain_ordinary(broker)

    found = shares(broker, 640 // each, each)

    assert found[b"three"] / found[b"one"] == pytest.approx(3, rel=0.05)


def test_a_backlog_that_came_first_and_is_longer_does_not_go_first(broker):
    flood(broker, 2_000, tenant="first")
    flood(broker, 200, tenant="second")
    drain_ordinary(broker)

    found = shares(broker, 5, 64)

    assert found[b"second"] == pytest.approx(found[b"first"], rel=0.1)


def test_what_a_light_tenant_sends_beside_two_backlogs_is_in_the_next_take(broker):
    flood(broker, 200, tenant="one")
    flood(broker, 200, tenant="two")
    drain_ordinary(broker)
    submit(broker, request("light", tenant="light"))

    assert take(broker, shares=(11, 4, 1))[0].counted == b"light"


def test_a_backlog_that_is_alone_or_outlasts_the_others_has_all(broker, redis_client):
    flood(broker, 100, tenant="short")
    flood(broker, 500, tenant="long")
    drain_ordinary(broker)

    assert sum(shares(broker, 9, 64).values()) == 9 * 64

    assert unfinished(redis_client, broker) == [0, 600 - 9 * 64, 0]


def test_each_tenant_with_a_backlog_has_a_lane_of_its_own_while_there_are_enough(broker, redis_client):
    for name in ("a", "b", "c", "d"):
        flood(broker, 10, tenant=name)
    submit(broker, *(request(f"more-{number}", tenant="a") for number in range(5)))

    # The fifth one goes where it waits least.
    flood(broker, 1, tenant="e")

    assert bulk_lanes(redis_client, broker) == [15, 11, 10, 10]


def test_a_lane_that_two_tenants_share_has_the_weight_of_both(broker):
    for name in ("a", "b", "c", "d", "e"):
        flood(broker, 300, tenant=name)
    drain_ordinary(broker)

    found = shares(broker, 8, 50)

    assert found[b"a"] + found[b"e"] == pytest.approx(400 * 2 / 5, rel=0.1)


def test_a_weight_that_changes_holds_from_the_tenants_next_request_on(broker, redis_client, pool):
    flood(broker, 900, tenant="one")
    flood(broker, 900, tenant="three")
    drain_ordinary(broker)
    Limits(redis_client, pool).set_tenant("three", weight=3)
    submit(broker, request("next", tenant="three"))

    found = shares(broker, 10, 64)

    assert found[b"three"] / found[b"one"] == pytest.approx(3, rel=0.1)


def test_an_idle_tenant_leaves_its_lane_and_nothing_of_it_stays(broker, redis_client, pool):
    limits = Limits(redis_client, pool)
    for name, weight in (("a", 0.1), ("b", 0.2), ("c", 0.7), ("d", 3), ("e", 0.1)):
        limits.set_tenant(name, weight=weight)
        flood(broker, 100, tenant=name)
    assert redis_client.zscore(broker.keys.lanes, "d") == 4

    while entries := take(broker):
        broker.complete([finish(entry, f"done-{entry.id}", keep_ms=0) for entry in entries])

    assert tenants(redis_client, broker) == {}
    assert not redis_client.exists(broker.keys.lanes)


def test_a_full_redis_lets_two_backlogs_be_taken_and_finished(own_broker, own_redis):
    for name in ("one", "two"):
        flood(own_broker, 50, tenant=name)
    drain_ordinary(own_broker)
    lease(own_broker, "worker")
    own_redis.config_set("maxmemory", 1)

    entries = own_broker.take("worker", (0, 100, 0)).entries

    assert Counter(entry.counted for entry in entries) == {b"one": 50, b"two": 50}
    assert own_broker.complete([finish(entry, f"full-{at}", keep_ms=0) for at, entry in enumerate(entries)]) == 100
    assert not own_redis.exists(own_broker.keys.lanes)


def test_a_raw_producer_may_use_any_bulk_lane(broker, redis_client):
    for stream in NORMAL_LANES:
        add_raw(redis_client, broker, stream=stream)

    assert [entry.stream for entry in take(broker)] == [*NORMAL_LANES]


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
