"""take: by priority, with a share for each, for live workers only, and with the marks of what was cancelled."""

from __future__ import annotations

import time
from collections import Counter
from threading import Thread

from common.broker import Broker, read_entries
from common.connect import BLOCK_MS, connect
from tests.support.operations import (
    HIGH,
    LOW,
    NORMAL,
    add_raw,
    end_lease,
    finish,
    inbox,
    lease,
    pending,
    request,
    script_micros,
    submit,
    take,
)
from tests.support.waiting import wait_until


def fill(broker: Broker, stream: int, count: int) -> None:
    submit(broker, *(request(f"{stream}-{number}", stream) for number in range(count)))


# -- shares -----------------------------------------------------------------------------------------------------------


def test_a_flood_of_high_leaves_normal_and_low_their_shares(broker):
    for stream in (HIGH, NORMAL, LOW):
        fill(broker, stream, 50)

    taken = Counter(entry.stream for entry in take(broker, shares=(11, 4, 1)))

    assert taken == {HIGH: 11, NORMAL: 4, LOW: 1}


def test_what_a_share_leaves_over_goes_to_the_others_high_first(broker):
    fill(broker, HIGH, 50)
    fill(broker, LOW, 50)

    taken = Counter(entry.stream for entry in take(broker, shares=(11, 4, 1)))

    assert taken == {HIGH: 15, LOW: 1}


def test_a_share_that_high_leaves_over_goes_to_lower_priorities(broker):
    fill(broker, HIGH, 2)
    fill(broker, NORMAL, 3)
    fill(broker, LOW, 50)

    taken = Counter(entry.stream for entry in take(broker, shares=(11, 4, 1)))

    assert taken == {HIGH: 2, NORMAL: 3, LOW: 11}


def test_a_priority_without_a_share_is_served_from_what_is_left_over(broker):
    fill(broker, LOW, 5)

    assert len(take(broker, shares=(3, 1, 0))) == 4


def test_no_more_than_the_shares_together_is_handed_out(broker):
    for stream in (HIGH, NORMAL, LOW):
        fill(broker, stream, 50)

    assert len(take(broker, shares=(0, 0, 0))) == 0
    assert len(take(broker, shares=(1, 0, 0))) == 1
    assert len(take(broker, shares=(50, 50, 50))) == 149


def test_each_priority_comes_in_the_order_it_was_added(broker):
    fill(broker, NORMAL, 20)

    ids = [entry.id for entry in take(broker)]

    assert ids == sorted(ids, key=lambda one: [int(part) for part in one.split(b"-")])
    assert len(ids) == 20


def test_no_entry_goes_to_two_workers(broker):
    fill(broker, NORMAL, 20)

    one, two = take(broker, "one", (0, 12, 0)), take(broker, "two", (0, 12, 0))

    assert (len(one), len(two)) == (12, 8)
    assert {entry.id for entry in one} & {entry.id for entry in two} == set()


def test_an_entry_tells_when_it_was_added_by_redis_clock(broker, redis_client):
    seconds, micros = redis_client.time()
    submit(broker, "a")

    entry = take(broker)[0]

    assert 0 <= entry.added_ms - (seconds * 1000 + micros // 1000) < 5_000


def test_redis_tells_its_time(broker, redis_client):
    seconds, _ = redis_client.time()

    assert 0 <= broker.take("worker", (1, 1, 1)).now_ms - seconds * 1000 < 5_000


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_worker_without_a_lease_gets_nothing(broker):
    submit(broker, "a")

    taken = broker.take("stranger", (1, 1, 1))

    assert not taken.live
    assert taken.entries == []


def test_a_worker_whose_lease_has_ended_gets_nothing(broker, redis_client):
    submit(broker, "a")
    lease(broker, "worker")
    end_lease(broker, "worker")

    taken = broker.take("worker", (1, 1, 1))

    assert not taken.live
    assert taken.entries == []
    assert pending(redis_client, broker) == {}


def test_a_lease_that_is_not_renewed_runs_out(broker):
    lease(broker, "worker", ms=30)
    assert broker.take("worker", (1, 1, 1)).live

    wait_until(lambda: not broker.take("worker", (1, 1, 1)).live, "the lease of 30 ms has run out")


def test_a_renewed_lease_is_live_again(broker):
    end_lease(broker, "worker")
    lease(broker, "worker")

    assert broker.take("worker", (1, 1, 1)).live


def test_take_tells_that_some_lease_has_ended(broker):
    lease(broker, "worker", "other")
    assert not broker.take("worker", (1, 1, 1)).lapsed

    end_lease(broker, "other")

    assert broker.take("worker", (1, 1, 1)).lapsed


# -- marks ------------------------------------------------------------------------------------------------------------


def test_a_cancelled_entry_is_handed_out_with_its_mark(broker):
    submit(broker, "a", "b")
    broker.cancel(inbox(broker), ["b"])
    lease(broker, "worker")

    taken = broker.take("worker", (1, 2, 1))

    first, second = taken.entries
    assert taken.cancelled == {second.place}
    assert first.place not in taken.cancelled


def test_an_entry_that_is_cancelled_while_it_is_held_is_told_of_at_the_next_take(broker):
    submit(broker, "a", "b")
    entries = take(broker)
    broker.cancel(inbox(broker), ["a"])

    assert broker.take("worker", (0, 0, 0)).cancelled == {entries[0].place}


def test_of_thousands_of_held_entries_each_cancelled_one_is_told_of(broker):
    """A model that takes thousands of rows at once makes its worker hold as many."""
    for start in range(0, 2_100, 100):
        submit(broker, *(f"id{number}" for number in range(start, start + 100)))
    entries = take(broker, shares=(0, 2_100, 0))
    broker.cancel(inbox(broker), ["id0", "id999", "id1000", "id1999", "id2000", "id2099"])

    marked = {entries[number].place for number in (0, 999, 1000, 1999, 2000, 2099)}
    assert broker.take("worker", (0, 0, 0)).cancelled == marked


def test_marks_of_other_workers_entries_are_not_told(broker):
    submit(broker, "a", "b")
    take(broker, "one", (0, 1, 0))
    mine = take(broker, "two", (0, 1, 0))
    broker.cancel(inbox(broker), ["a", "b"])

    assert broker.take("two", (0, 0, 0)).cancelled == {mine[0].place}


def test_the_same_id_in_two_streams_is_two_entries(broker, redis_client):
    """Redis numbers each stream by itself: in one millisecond both begin with -0."""
    waiting = broker.keys.waiters("a")
    for stream in (HIGH, NORMAL):
        redis_client.xadd(broker.keys.streams[stream], {"d": b"x"}, id="5-0")
    redis_client.set(waiting, f"{NORMAL + 1}:5-0 {inbox(broker)}", px=60_000)
    broker.cancel(inbox(broker), ["a"])
    lease(broker, "worker")

    assert broker.take("worker", (1, 1, 1)).cancelled == {(NORMAL, b"5-0")}


def test_many_marks_cost_a_take_nothing(broker, redis_client):
    """Only what the worker holds is looked up, however many requests were cancelled before it."""
    redis_client.sadd(broker.keys.cancelled, *(f"3:{number}-0" for number in range(20_000)))
    redis_client.expire(broker.keys.cancelled, 60)
    submit(broker, "a")
    lease(broker, "worker")
    before = script_micros(redis_client)

    taken = broker.take("worker", (1, 1, 1))

    assert taken.cancelled == frozenset()
    assert script_micros(redis_client) - before < 5_000


# -- the blocking read ------------------------------------------------------------------------------------------------


def test_a_blocked_read_gets_an_entry_the_moment_it_is_added(redis_url, broker, redis_client):
    found: list[object] = []
    blocking = connect(redis_url)
    lease(broker, "worker")
    reader = Thread(target=lambda: found.extend(read_entries(blocking, broker.keys, "worker", 5)))
    reader.start()
    wait_until(lambda: redis_client.info("clients")["blocked_clients"] >= 1, "the reader waits")
    started = time.monotonic()

    submit(broker, request("a", LOW, "acme", b"payload"))
    reader.join()

    assert time.monotonic() - started < BLOCK_MS / 1000 / 2
    assert [(one.stream, one.payload, one.counted) for one in found] == [(LOW, b"payload", b"acme")]
    blocking.close()


def test_a_read_gives_entries_of_all_streams_each_up_to_the_count(redis_client, broker):
    for stream in (HIGH, NORMAL, LOW):
        fill(broker, stream, 5)

    entries = read_entries(redis_client, broker.keys, "worker", 3)

    assert Counter(entry.stream for entry in entries) == {HIGH: 3, NORMAL: 3, LOW: 3}


def test_a_read_of_an_idle_pool_ends_after_a_second_with_nothing(redis_client, broker):
    started = time.monotonic()

    assert read_entries(redis_client, broker.keys, "worker", 1) == []
    assert BLOCK_MS / 1000 * 0.8 < time.monotonic() - started < BLOCK_MS / 1000 * 3


def test_what_was_read_is_held_by_its_reader(redis_client, broker):
    submit(broker, request("a", HIGH), request("b", LOW))

    entries = read_entries(redis_client, broker.keys, "worker", 5)

    assert broker.held("worker") == [entry.place for entry in entries]
    assert broker.held("other") == []


def test_a_raw_entry_without_a_payload_is_handed_out_for_the_worker_to_refuse(redis_client, broker):
    redis_client.xadd(broker.keys.streams[NORMAL], {"x": b"1"})
    add_raw(redis_client, broker, b"raw", note="ignored")

    nothing, raw = take(broker)

    assert (nothing.payload, nothing.reference) == (None, None)
    assert raw.payload == b"raw"


# -- among workers ----------------------------------------------------------------------------------------------------


def test_a_small_backlog_is_shared_evenly_between_the_workers(broker):
    fill(broker, NORMAL, 10)
    lease(broker, "one", "two", "three")

    taken = [len(broker.take(name, (0, 64, 0)).entries) for name in ("one", "two", "three")]

    assert taken == [4, 4, 2]


def test_who_holds_more_than_the_others_leaves_the_rest_to_them(broker):
    fill(broker, NORMAL, 20)
    lease(broker, "busy")
    assert len(broker.take("busy", (0, 64, 0)).entries) == 20
    lease(broker, "idle")
    submit(broker, "a", "b")

    busy = broker.take("busy", (0, 64, 0))
    idle = broker.take("idle", (0, 64, 0))

    assert (len(busy.entries), busy.workers, busy.left) == (0, 2, 2)
    assert (len(idle.entries), idle.left) == (2, 0)


def test_of_a_large_backlog_each_worker_gets_all_that_it_has_room_for(broker):
    fill(broker, NORMAL, 200)
    lease(broker, "one", "two")

    assert len(broker.take("one", (0, 64, 0)).entries) == 64
    assert len(broker.take("two", (0, 64, 0)).entries) == 64


def test_a_worker_that_takes_nothing_keeps_nothing_from_the_others(broker):
    fill(broker, NORMAL, 16)
    lease(broker, "live", "stuck")

    rounds = 0
    while (taken := broker.take("live", (0, 64, 0))).left:
        broker.complete([finish(entry, entry.id.decode()) for entry in taken.entries])
        rounds += 1

    assert rounds <= 5


def test_where_all_takes_are_small_a_flood_of_high_leaves_low_its_share(broker):
    # Given so many workers that the mean lets each have two
    lease(broker, *(f"worker{number}" for number in range(10)))
    fill(broker, LOW, 2)
    fill(broker, HIGH, 16)
    found = Counter()
    for number in range(1_000):
        entries = broker.take("worker0", (44, 16, 4)).entries
        found.update(entry.stream for entry in entries)
        broker.complete([finish(entry, f"{entry.stream}-{entry.id.decode()}") for entry in entries])
        submit(broker, request(f"high{number}", HIGH), request(f"more{number}", HIGH))
        if found[LOW]:
            break

    assert found[LOW] >= 1
