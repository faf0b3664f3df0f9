"""release: a draining worker hands back what it has not begun, which is no crash."""

from __future__ import annotations

from common.keys import RELEASED
from tests.support.operations import (
    HIGH,
    LOW,
    consumers,
    end_lease,
    finish,
    lease,
    leased,
    pending,
    replies,
    request,
    submit,
    take,
    unfinished,
)


def test_what_is_handed_back_goes_to_the_next_worker_with_an_unraised_count(broker, redis_client):
    submit(broker, request("h", HIGH), request("l", LOW))
    taken = take(broker)

    assert broker.release("worker", [entry.place for entry in taken]) == 2
    lease(broker, "other")
    again = broker.reclaim("other", 100)[1]

    assert again == taken
    assert [entry.deliveries for entry in again] == [0, 0]


def test_it_is_told_of_to_the_next_worker_that_takes(broker):
    submit(broker, "a")
    entry = take(broker)[0]
    lease(broker, "other")
    assert not broker.take("other", (1, 1, 1)).lapsed

    broker.release("worker", [entry.place])

    assert broker.take("other", (1, 1, 1)).lapsed


def test_a_worker_may_hand_back_and_take_again_without_end(broker):
    submit(broker, "a")
    place = take(broker)[0].place
    for _ in range(10):
        broker.release("worker", [place])
        assert [entry.deliveries for entry in broker.reclaim("worker", 1)[1]] == [0]


def test_a_crash_before_is_not_forgotten_by_handing_back(broker):
    submit(broker, "a")
    take(broker, "first")
    end_lease(broker, "first")
    lease(broker, "second", "third")
    entry = broker.reclaim("second", 1)[1][0]
    assert entry.deliveries == 1

    broker.release("second", [entry.place])

    assert broker.reclaim("third", 1)[1][0].deliveries == 1


def test_only_what_is_named_is_handed_back(broker, redis_client):
    submit(broker, "a", "b", "c")
    entries = take(broker)

    broker.release("worker", [entries[1].place])

    assert pending(redis_client, broker) == {"worker": [entries[0].id, entries[2].id], RELEASED: [entries[1].id]}


def test_what_another_worker_has_taken_over_stays_with_it(broker, redis_client):
    submit(broker, "a")
    entry = take(broker)[0]
    end_lease(broker, "worker")
    lease(broker, "rescuer")
    broker.reclaim("rescuer", 1)

    assert broker.release("worker", [entry.place]) == 0
    assert pending(redis_client, broker) == {"rescuer": [entry.id]}


def test_what_is_finished_stays_finished(broker, redis_client):
    submit(broker, "a")
    entry = take(broker)[0]
    broker.complete([finish(entry, "a")])

    assert broker.release("worker", [entry.place]) == 0
    assert unfinished(redis_client, broker) == [0, 0, 0]


def test_handing_back_nothing_does_nothing(broker, redis_client):
    assert broker.release("worker", []) == 0
    assert leased(redis_client, broker) == set()


def test_a_worker_that_finishes_what_it_handed_back_still_wins(broker, redis_client):
    submit(broker, "a")
    entry = take(broker)[0]
    broker.release("worker", [entry.place])

    assert broker.complete([finish(entry, "a")]) == 1

    assert replies(redis_client, broker) == [b"reply"]
    assert pending(redis_client, broker) == {}


def test_the_consumer_that_stands_for_handed_back_work_goes_when_it_holds_none(broker, redis_client):
    submit(broker, "a")
    broker.release("worker", [take(broker)[0].place])
    assert RELEASED in consumers(redis_client, broker)

    broker.reclaim("worker", 100)

    assert RELEASED not in consumers(redis_client, broker)
    assert RELEASED not in leased(redis_client, broker)


def test_work_is_handed_back_where_redis_takes_no_more(full_redis):
    broker, client = full_redis
    entries = take(broker, shares=(0, 3, 0))

    assert broker.release("worker", [entry.place for entry in entries]) == 3
    assert pending(client, broker) == {RELEASED: [entry.id for entry in entries]}
