"""complete: a micro-batch at once, the first finisher of an entry wins, and a late one changes nothing."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from common.broker import Broker, read_inboxes
from common.connect import connect
from common.scripts import INBOX_LIFETIME_MS, PUSH_WHOLE_UP_TO, Admitted
from tests.support.operations import (
    HIGH,
    LOW,
    NORMAL,
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


def reclaimed_by(broker: Broker, rescuer: str, dead: str = "worker") -> list:
    """The entries of a worker that is gone, in another one's hands."""
    end_lease(broker, dead)
    lease(broker, rescuer)
    return broker.reclaim(rescuer, 100)[1]


# -- what finishing does ----------------------------------------------------------------------------------------------


def test_a_batch_over_all_streams_is_finished_in_one_call(broker, redis_client):
    submit(broker, request("h", HIGH, "acme"), request("n", NORMAL), request("l", LOW, "acme"))
    entries = take(broker)

    done = broker.complete([finish(entry, name, name.encode()) for entry, name in zip(entries, "hnl", strict=True)])

    assert done == 3
    assert replies(redis_client, broker) == [b"h", b"n", b"l"]
    assert [broker.fetch(broker.keys.reply(name)) for name in "hnl"] == [b"h", b"n", b"l"]
    assert unfinished(redis_client, broker) == [0, 0, 0]
    assert pending(redis_client, broker) == {}
    assert tenants(redis_client, broker) == {}
    assert not redis_client.exists(*(broker.keys.waiters(name) for name in "hnl"))


def test_a_part_of_what_was_taken_may_be_finished(broker, redis_client):
    submit(broker, "a", "b", "c")
    entries = take(broker)

    broker.complete([finish(entries[1], "b")])

    assert unfinished(redis_client, broker) == [0, 2, 0]
    assert pending(redis_client, broker) == {"worker": [entries[0].id, entries[2].id]}


def test_an_empty_batch_finishes_nothing(broker):
    assert broker.complete([]) == 0


def test_a_reply_is_kept_for_its_time(broker, redis_client):
    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a", keep_ms=30_000)])

    assert 0 < redis_client.pttl(broker.keys.reply("a")) <= 30_000


def test_an_inbox_lives_for_a_minute_after_the_last_push(broker, redis_client):
    submit(broker, "a", "b")
    for entry, name in zip(take(broker), "ab", strict=True):
        broker.complete([finish(entry, name)])
        assert INBOX_LIFETIME_MS - 5_000 < redis_client.pttl(inbox(broker)) <= INBOX_LIFETIME_MS


def test_an_error_that_is_not_kept_reaches_its_client_and_is_not_stored(broker, redis_client):
    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a", b"an error", keep_ms=0)])

    assert replies(redis_client, broker) == [b"an error"]
    assert broker.fetch(broker.keys.reply("a")) is None


def test_a_reply_up_to_the_limit_is_pushed_whole_and_a_longer_one_by_its_key(broker, redis_client):
    short, long = b"s" * PUSH_WHOLE_UP_TO, b"l" * (PUSH_WHOLE_UP_TO + 1)
    submit(broker, "a", "b")
    first, second = take(broker)

    broker.complete([finish(first, "a", short), finish(second, "b", long)])

    key = broker.keys.reply("b")
    assert replies(redis_client, broker) == [short, key.encode()]
    assert broker.fetch(key) == long


def test_a_long_reply_that_is_not_kept_is_pushed_whole_since_there_is_no_key(broker, redis_client):
    long = b"l" * (PUSH_WHOLE_UP_TO + 1)
    submit(broker, "a")

    broker.complete([finish(take(broker)[0], "a", long, keep_ms=0)])

    assert replies(redis_client, broker) == [long]


def test_a_large_requests_own_key_is_deleted_with_it(broker, redis_client):
    key = broker.store_payload("a", b"large", 60_000)
    broker.submit([request("a")._replace(field="r", value=key)], inbox(broker), 60_000)

    broker.complete([finish(take(broker)[0], "a")])

    assert not redis_client.exists(key)


def test_replies_are_read_in_one_go(broker, redis_client):
    submit(broker, *(f"id{number}" for number in range(20)))
    broker.complete([finish(entry, f"id{number}", b"%d" % number) for number, entry in enumerate(take(broker))])

    assert read_inboxes(redis_client, [inbox(broker, "nobody"), inbox(broker)]) == [b"%d" % n for n in range(20)]


# -- the first finisher wins ------------------------------------------------------------------------------------------


def test_the_same_batch_finished_again_changes_nothing(broker, redis_client):
    submit(broker, request("a", tenant="acme"), request("b", tenant="acme"))
    batch = [finish(entry, name) for entry, name in zip(take(broker), "ab", strict=True)]
    assert broker.complete(batch[:1]) == 1

    assert broker.complete(batch) == 1
    assert broker.complete(batch) == 0
    assert replies(redis_client, broker) == [b"reply", b"reply"]
    assert tenants(redis_client, broker) == {}


def test_an_entry_that_comes_twice_in_one_batch_is_finished_once(broker, redis_client):
    submit(broker, request("a", tenant="acme"), request("b", tenant="acme"))
    first, _ = take(broker)

    assert broker.complete([finish(first, "a", b"one"), finish(first, "a", b"two")]) == 1
    assert replies(redis_client, broker) == [b"one"]
    assert broker.fetch(broker.keys.reply("a")) == b"one"
    assert tenants(redis_client, broker) == {"acme": 1}


def test_a_late_finisher_after_a_rescue_changes_nothing(broker, redis_client):
    submit(broker, request("a", tenant="acme"))
    late = take(broker)[0]
    rescued = reclaimed_by(broker, "rescuer")[0]
    assert broker.complete([finish(rescued, "a", b"rescued")]) == 1

    assert broker.complete([finish(late, "a", b"late")]) == 0

    assert replies(redis_client, broker) == [b"rescued"]
    assert broker.fetch(broker.keys.reply("a")) == b"rescued"


def test_a_slow_worker_that_finishes_before_its_rescuer_wins(broker, redis_client):
    submit(broker, "a")
    slow = take(broker)[0]
    rescued = reclaimed_by(broker, "rescuer")[0]

    assert broker.complete([finish(slow, "a", b"slow")]) == 1
    assert broker.complete([finish(rescued, "a", b"rescued")]) == 0

    assert replies(redis_client, broker) == [b"slow"]


def test_a_late_finisher_does_not_touch_the_same_id_when_it_is_asked_for_again(broker, redis_client):
    """Its error was not kept, so the client sent the id again: that one is another entry."""
    submit(broker, request("a", tenant="acme"))
    late = take(broker)[0]
    rescued = reclaimed_by(broker, "rescuer")[0]
    broker.complete([finish(rescued, "a", b"an error", keep_ms=0)])
    key = broker.store_payload("a", b"large", 60_000)
    again = request("a", tenant="acme")._replace(field="r", value=key)
    assert broker.submit([again], inbox(broker), 60_000) == [Admitted.QUEUED]

    assert broker.complete([finish(late._replace(reference=key.encode()), "a", b"late")]) == 0

    assert broker.fetch(key) == b"large"
    assert broker.fetch(broker.keys.reply("a")) is None
    assert replies(redis_client, broker) == [b"an error"]
    assert unfinished(redis_client, broker) == [0, 1, 0]
    assert tenants(redis_client, broker) == {"acme": 1}


def test_of_two_finishers_that_race_exactly_one_wins_each_entry(redis_url, broker, redis_client):
    rounds, size, together = 20, 10, Barrier(2)
    submit(broker, *(request(f"id{number}", tenant="acme") for number in range(rounds * size)))
    slow = take(broker, shares=(0, rounds * size, 0))
    end_lease(broker, "worker")
    lease(broker, "rescuer")
    rescued = broker.reclaim("rescuer", rounds * size)[1]
    assert [entry.id for entry in slow] == [entry.id for entry in rescued]
    won: dict[str, int] = {}

    def race(name: str, entries: list) -> None:
        connection = connect(redis_url)
        mine = Broker(connection, broker.pool)
        won[name] = 0
        for start in range(0, len(entries), size):
            batch = [finish(entries[i], f"id{i}", name.encode()) for i in range(start, start + size)]
            together.wait()
            won[name] += mine.complete(batch)
        connection.close()

    threads = [Thread(target=race, args=racer) for racer in (("slow", slow), ("rescuer", rescued))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    pushed = replies(redis_client, broker)
    assert sum(won.values()) == len(pushed) == rounds * size
    assert {name: pushed.count(name.encode()) for name in won} == won
    assert [broker.fetch(broker.keys.reply(f"id{number}")) for number in range(rounds * size)] == pushed
    assert tenants(redis_client, broker) == {}
    assert unfinished(redis_client, broker) == [0, 0, 0]


# -- producers without our client -------------------------------------------------------------------------------------


def test_a_raw_entry_is_finished_into_its_reply_to(broker, redis_client):
    add_raw(redis_client, broker)

    done = broker.complete([finish(take(broker)[0], "raw-1", b"answer", reply_to=inbox(broker, "raw"))])

    assert done == 1
    assert replies(redis_client, broker, "raw") == [b"answer"]
    assert broker.fetch(broker.keys.reply("raw-1")) == b"answer"
    assert unfinished(redis_client, broker) == [0, 0, 0]


def test_a_raw_entry_without_reply_to_is_finished_into_its_reply_key(broker, redis_client):
    add_raw(redis_client, broker)

    assert broker.complete([finish(take(broker)[0], "raw-1", b"answer")]) == 1

    assert broker.fetch(broker.keys.reply("raw-1")) == b"answer"


def test_a_raw_entry_finished_twice_is_answered_once(broker, redis_client):
    add_raw(redis_client, broker)
    batch = [finish(take(broker)[0], "raw-1", b"answer", reply_to=inbox(broker, "raw"))]

    assert broker.complete(batch + batch) == 1
    assert broker.complete(batch) == 0

    assert replies(redis_client, broker, "raw") == [b"answer"]


def test_a_long_answer_to_a_raw_entry_goes_by_its_key(broker, redis_client):
    long = b"l" * (PUSH_WHOLE_UP_TO + 1)
    add_raw(redis_client, broker)

    broker.complete([finish(take(broker)[0], "raw-1", long, reply_to=inbox(broker, "raw"))])

    assert replies(redis_client, broker, "raw") == [broker.keys.reply("raw-1").encode()]


def test_an_inbox_that_waits_and_is_also_the_reply_to_gets_one_reply(broker, redis_client):
    submit(broker, "a")

    broker.complete([finish(take(broker)[0], "a", reply_to=inbox(broker))])

    assert replies(redis_client, broker) == [b"reply"]


def test_a_raw_entry_leaves_the_waiters_of_the_same_id_alone(broker, redis_client):
    add_raw(redis_client, broker)
    submit(broker, "a")
    raw, ours = take(broker)

    assert broker.complete([finish(raw, "a", b"raw's own", reply_to=inbox(broker, "raw"))]) == 1
    assert replies(redis_client, broker) == []
    assert broker.fetch(broker.keys.reply("a")) is None
    assert broker.complete([finish(ours, "a", b"ours")]) == 1

    assert replies(redis_client, broker) == [b"ours"]
    assert replies(redis_client, broker, "raw") == [b"raw's own"]
    assert broker.fetch(broker.keys.reply("a")) == b"ours"


def test_a_client_that_made_its_inbox_no_list_fails_alone(broker, redis_client):
    submit(broker, "a", client="broken")
    submit(broker, "b", client="whole")
    redis_client.set(inbox(broker, "broken"), "not a list", px=60_000)

    done = broker.complete([finish(entry, name) for entry, name in zip(take(broker), "ab", strict=True)])

    assert done == 2
    assert replies(redis_client, broker, "whole") == [b"reply"]
    assert broker.fetch(broker.keys.reply("a")) == b"reply"


def test_waiters_that_have_expired_are_missed_by_nobody(broker, redis_client):
    submit(broker, request("a", tenant="acme"))
    entry = take(broker)[0]
    redis_client.delete(broker.keys.waiters("a"))

    assert broker.complete([finish(entry, "a")]) == 1

    assert broker.fetch(broker.keys.reply("a")) == b"reply"
    assert tenants(redis_client, broker) == {}
    assert unfinished(redis_client, broker) == [0, 0, 0]


# -- dead letters -----------------------------------------------------------------------------------------------------


def test_a_dead_letter_carries_entry_reason_deliveries_tenant_and_payload(broker, redis_client):
    submit(broker, request("a", LOW, "acme", b"the request"))
    entry = take(broker)[0]._replace(deliveries=3)

    done = broker.complete([finish(entry, "a", b"worker_lost", keep_ms=0, dead="killed its worker 3 times")])

    assert done == 1
    assert letters(redis_client, broker) == [
        {
            b"entry": entry.id,
            b"stream": b"3",
            b"reason": b"killed its worker 3 times",
            b"deliveries": b"3",
            b"d": b"the request",
            b"t": b"acme",
        }
    ]
    assert replies(redis_client, broker) == [b"worker_lost"]
    assert unfinished(redis_client, broker) == [0, 0, 0]
    assert tenants(redis_client, broker) == {}


def test_one_dead_letter_among_a_batch_leaves_the_others_alone(broker, redis_client):
    submit(broker, "a", "b", "c")
    entries = take(broker)

    batch = [
        finish(entry, name, dead="poison" if name == "b" else "") for entry, name in zip(entries, "abc", strict=True)
    ]

    assert broker.complete(batch) == 3
    assert [letter[b"entry"] for letter in letters(redis_client, broker)] == [entries[1].id]


def test_a_dead_letters_large_payload_stays_under_its_key_and_its_ttl(broker, redis_client):
    keys = {name: broker.store_payload(name, b"large", 30_000) for name in "ab"}
    references = [request(name)._replace(field="r", value=keys[name]) for name in "ab"]
    broker.submit(references, inbox(broker), 60_000)
    first, second = take(broker)

    broker.complete([finish(first, "a", dead="poison"), finish(second, "b")])

    assert letters(redis_client, broker)[0][b"r"] == keys["a"].encode()
    assert 0 < redis_client.pttl(keys["a"]) <= 30_000
    assert not redis_client.exists(keys["b"])


def test_a_late_finisher_writes_no_second_dead_letter(broker, redis_client):
    submit(broker, "a")
    batch = [finish(take(broker)[0], "a", dead="poison")]

    assert broker.complete(batch) == 1
    assert broker.complete(batch) == 0

    assert len(letters(redis_client, broker)) == 1


def test_a_raw_entry_with_forged_and_countless_fields_becomes_a_plain_dead_letter(broker, redis_client):
    forged = {"reason": "forged", "entry": "0-0", **{f"field{number}": "x" for number in range(5_000)}}
    add_raw(redis_client, broker, b"raw", **forged)
    entry = take(broker)[0]

    broker.complete([finish(entry, "raw-1", dead="poison")])

    assert letters(redis_client, broker) == [
        {b"entry": entry.id, b"stream": b"2", b"reason": b"poison", b"deliveries": b"0", b"d": b"raw"}
    ]


# -- a Redis that is full ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["", "poison"], ids=["finished", "dead letter"])
def test_work_can_be_finished_where_redis_takes_no_more(dead, full_redis):
    broker, client = full_redis

    entries = take(broker, shares=(0, 5, 0))
    done = broker.complete([finish(entry, f"id{number}", dead=dead) for number, entry in enumerate(entries)])

    assert done == 5
    assert unfinished(client, broker) == [0, 5, 0]
    assert replies(client, broker) == [b"reply"] * 5
