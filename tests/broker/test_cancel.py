"""cancel: one client stops waiting; what nobody waits for is marked, never deleted."""

from __future__ import annotations

import pytest

from common.scripts import CANCEL_MARK_MS, Admitted
from tests.support.operations import (
    HIGH,
    NORMAL,
    finish,
    inbox,
    lease,
    replies,
    request,
    submit,
    take,
    tenants,
    unfinished,
)


def cancel(broker, *ids: str, client: str = "client") -> int:
    return broker.cancel(inbox(broker, client), ids)


def marks(client, broker) -> set[bytes]:
    return set(client.smembers(broker.keys.cancelled))


def test_an_entry_that_nobody_waits_for_is_marked_and_stays_in_its_stream(broker, redis_client):
    submit(broker, request("a", HIGH), request("b"))

    assert cancel(broker, "a", "b") == 2

    assert len(marks(redis_client, broker)) == 2
    assert unfinished(redis_client, broker) == [1, 1, 0]
    assert not redis_client.exists(broker.keys.waiters("a"), broker.keys.waiters("b"))


def test_an_entry_that_another_client_waits_for_is_computed_for_that_one(broker, redis_client):
    for client in ("client", "other", "third"):
        submit(broker, "a", client=client)

    assert cancel(broker, "a") == 0

    broker.complete([finish(take(broker)[0], "a")])
    assert replies(redis_client, broker) == []
    assert replies(redis_client, broker, "other") == replies(redis_client, broker, "third") == [b"reply"]


def test_the_last_client_that_leaves_marks_the_entry(broker):
    submit(broker, "a", client="one")
    submit(broker, "a", client="two")

    assert cancel(broker, "a", client="one") == 0
    assert cancel(broker, "a", client="two") == 1


def test_a_client_that_never_waited_cancels_nobodys_request(broker, redis_client):
    submit(broker, "a")

    assert cancel(broker, "a", client="stranger") == 0
    broker.complete([finish(take(broker)[0], "a")])
    assert replies(redis_client, broker) == [b"reply"]


def test_the_others_wait_as_long_as_before(broker, redis_client):
    submit(broker, "a", client="one", lifetime_ms=30_000)
    submit(broker, "a", client="two", lifetime_ms=30_000)

    cancel(broker, "a", client="one")

    assert 20_000 < redis_client.pttl(broker.keys.waiters("a")) <= 30_000


@pytest.mark.parametrize("request_id", ["finished", "unknown"])
def test_what_is_finished_or_unknown_is_not_cancelled(request_id, broker, redis_client):
    submit(broker, "finished")
    broker.complete([finish(take(broker)[0], "finished")])

    assert cancel(broker, request_id) == 0
    assert marks(redis_client, broker) == set()


def test_a_client_that_asks_again_is_queued_again_and_the_old_mark_harms_it_not(broker, redis_client):
    submit(broker, "a")
    cancel(broker, "a")

    assert submit(broker, "a") == [Admitted.QUEUED]
    lease(broker, "worker")
    taken = broker.take("worker", (0, 2, 0))
    old, new = taken.entries
    assert taken.cancelled == {old.place}
    broker.complete([finish(old, "a", b"cancelled", keep_ms=0)])
    broker.complete([finish(new, "a", b"answer")])

    assert replies(redis_client, broker) == [b"answer"]


def test_a_cancelled_entry_that_is_dropped_gives_the_tenant_its_place_and_takes_its_mark_along(broker, redis_client):
    submit(broker, request("a", tenant="acme"))
    cancel(broker, "a")
    assert tenants(redis_client, broker) == {"acme": 1}

    assert broker.complete([finish(take(broker)[0], "a", b"cancelled", keep_ms=0)]) == 1

    assert tenants(redis_client, broker) == {}
    assert marks(redis_client, broker) == set()
    assert unfinished(redis_client, broker) == [0, 0, 0]
    assert replies(redis_client, broker) == []


def test_a_result_that_was_computed_all_the_same_is_kept(broker):
    submit(broker, "a")
    entry = take(broker)[0]
    cancel(broker, "a")

    broker.complete([finish(entry, "a", b"too late to stop")])

    assert submit(broker, "a") == [b"too late to stop"]


def test_marks_live_for_an_hour_after_the_last_one(broker, redis_client):
    submit(broker, "a", "b")
    cancel(broker, "a")
    redis_client.pexpire(broker.keys.cancelled, 1_000)
    cancel(broker, "b")

    assert CANCEL_MARK_MS - 5_000 < redis_client.pttl(broker.keys.cancelled) <= CANCEL_MARK_MS


def test_the_groups_lag_stays_known_and_right(broker, redis_client):
    """Autoscaling reads it. An XDEL of an undelivered entry would make it nil."""
    group = redis_client.xinfo_groups(broker.keys.streams[NORMAL])[0]
    knows_lag = "lag" in group  # Redis 7.0 and newer
    submit(broker, *(f"id{number}" for number in range(10)))
    broker.complete([finish(entry, f"id{n}") for n, entry in enumerate(take(broker, shares=(0, 3, 0)))])

    cancel(broker, "id5", "id7")

    group = redis_client.xinfo_groups(broker.keys.streams[NORMAL])[0]
    assert not knows_lag or group["lag"] == 7
    broker.complete([finish(entry, f"id{n}") for n, entry in enumerate(take(broker), 3)])
    group = redis_client.xinfo_groups(broker.keys.streams[NORMAL])[0]
    assert not knows_lag or group["lag"] == 0
    assert unfinished(redis_client, broker) == [0, 0, 0]


def test_cancelling_nothing_does_nothing(broker):
    assert cancel(broker) == 0
