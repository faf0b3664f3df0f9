"""reclaim: what dead workers left goes to a live one, with a true count of crashes, at a bounded cost."""

from __future__ import annotations

from common.scripts import ENDED_LEASE_MS, MAX_BATCH
from tests.support.operations import (
    HIGH,
    LOW,
    NORMAL,
    add_raw,
    consumers,
    end_lease,
    finish,
    lease,
    leased,
    pending,
    replies,
    request,
    script_micros,
    submit,
    take,
    tenants,
    unfinished,
)
from tests.support.waiting import wait_until


def reclaim(broker, consumer="rescuer", most=100):
    lease(broker, consumer)
    return broker.reclaim(consumer, most)[1]


# -- who gets what ----------------------------------------------------------------------------------------------------


def test_entries_of_a_worker_that_is_gone_go_to_a_live_one_whole(broker, redis_client):
    submit(
        broker, request("h", HIGH, "acme", b"one"), request("n", NORMAL, "", b"two"), request("l", LOW, "", b"three")
    )
    taken = take(broker)
    end_lease(broker, "worker")

    rescued = reclaim(broker)

    assert [entry._replace(deliveries=0) for entry in rescued] == taken
    assert pending(redis_client, broker, HIGH) == {"rescuer": [taken[0].id]}
    assert broker.held("worker") == []


def test_entries_of_a_live_worker_stay_with_it(broker, redis_client):
    submit(broker, "a")
    taken = take(broker)

    assert reclaim(broker) == []
    assert pending(redis_client, broker) == {"worker": [taken[0].id]}


def test_a_lease_that_runs_out_by_itself_frees_the_entries(broker):
    submit(broker, "a")
    lease(broker, "worker", ms=30)
    taken = broker.take("worker", (0, 1, 0)).entries
    assert len(taken) == 1

    rescued = wait_until(lambda: reclaim(broker), "the lease of 30 ms has run out")

    assert [entry.id for entry in rescued] == [taken[0].id]


def test_a_worker_that_never_had_a_lease_holds_nothing_back(broker):
    submit(broker, "a")
    lease(broker, "worker")
    broker.take("worker", (0, 1, 0))
    broker._redis.delete(broker.keys.leases)

    assert len(reclaim(broker)) == 1


def test_a_rescuer_without_a_live_lease_gets_nothing(broker, redis_client):
    submit(broker, "a")
    taken = take(broker)
    end_lease(broker, "worker", "rescuer")

    assert broker.reclaim("rescuer", 100)[1] == []
    assert pending(redis_client, broker) == {"worker": [taken[0].id]}


def test_no_entry_goes_to_two_rescuers(broker):
    submit(broker, *(f"id{number}" for number in range(10)))
    take(broker)
    end_lease(broker, "worker")

    one, two = reclaim(broker, "one", 6), reclaim(broker, "two", 6)

    assert (len(one), len(two)) == (6, 4)
    assert {entry.id for entry in one} & {entry.id for entry in two} == set()


def test_no_more_than_asked_for_is_handed_over_from_all_workers_and_streams_together(broker):
    submit(broker, *(request(f"id{number}", number % 3) for number in range(12)))
    for worker in ("one", "two"):
        assert len(take(broker, worker, (2, 2, 2))) == 6
    end_lease(broker, "one", "two")

    assert [len(reclaim(broker, most=5)) for _ in range(4)] == [5, 5, 2, 0]


def test_redis_tells_its_time_with_what_is_reclaimed(broker, redis_client):
    seconds, _ = redis_client.time()
    lease(broker, "rescuer")

    assert 0 <= broker.reclaim("rescuer", 1)[0] - seconds * 1000 < 5_000


def test_it_tells_how_many_entries_their_worker_held_until_now(broker):
    submit(broker, *(request(f"id{number}", number % 3) for number in range(6)))
    assert len(take(broker)) == 6
    end_lease(broker, "worker")
    lease(broker, "rescuer")

    assert [broker.reclaim("rescuer", most).dead for most in (1, 5, 6)] == [{"worker": 6}, {"worker": 5}, {}]


def test_entries_of_several_workers_are_told_apart(broker):
    submit(broker, *(f"id{number}" for number in range(5)))
    take(broker, "one", (0, 3, 0))
    take(broker, "two", (0, 2, 0))
    end_lease(broker, "one", "two")
    lease(broker, "rescuer")

    assert broker.reclaim("rescuer", 5).dead == {"one": 3, "two": 2}


def test_what_was_handed_back_is_from_no_dead_worker(broker):
    submit(broker, "a")
    [entry] = take(broker)
    broker.release("worker", [entry.place])
    lease(broker, "rescuer")

    reclaimed = broker.reclaim("rescuer", 1)

    assert [one.id for one in reclaimed.entries] == [entry.id]
    assert reclaimed.dead == {}


def test_a_rescued_entry_is_finished_like_any_other(broker, redis_client):
    submit(broker, request("a", tenant="acme"))
    take(broker)
    end_lease(broker, "worker")

    assert broker.complete([finish(reclaim(broker)[0], "a")]) == 1

    assert replies(redis_client, broker) == [b"reply"]
    assert tenants(redis_client, broker) == {}
    assert unfinished(redis_client, broker) == [0, 0, 0]


# -- the count of crashes ---------------------------------------------------------------------------------------------


def test_each_worker_that_dies_with_an_entry_raises_its_count_by_one(broker):
    submit(broker, "a")
    assert take(broker, "worker0")[0].deliveries == 0

    for crashes in range(1, 6):
        end_lease(broker, f"worker{crashes - 1}")
        entries = reclaim(broker, f"worker{crashes}")
        assert [entry.deliveries for entry in entries] == [crashes]


def test_looking_for_work_raises_no_count(broker):
    submit(broker, "a")
    take(broker)
    for _ in range(5):
        take(broker)
        reclaim(broker)
        broker.held("worker")
    end_lease(broker, "worker")

    assert reclaim(broker)[0].deliveries == 1


# -- pruning ----------------------------------------------------------------------------------------------------------


def test_a_dead_worker_that_holds_nothing_is_forgotten(broker, redis_client):
    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a")])
    end_lease(broker, "worker")

    reclaim(broker)

    assert "worker" not in consumers(redis_client, broker)


def test_a_dead_worker_that_still_holds_entries_is_never_pruned(broker, redis_client):
    submit(broker, *(f"id{number}" for number in range(5)))
    taken = take(broker)
    redis_client.zadd(broker.keys.leases, {"worker": 0})

    reclaim(broker, most=2)

    assert "worker" in consumers(redis_client, broker)
    assert "worker" in leased(redis_client, broker)
    assert pending(redis_client, broker)["worker"] == [entry.id for entry in taken[2:]]

    assert len(reclaim(broker)) == 3
    assert consumers(redis_client, broker) == {"rescuer"}


def test_a_live_worker_that_holds_nothing_is_not_pruned(broker, redis_client):
    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a")])

    reclaim(broker)

    assert "worker" in consumers(redis_client, broker)


def test_an_ended_lease_is_remembered_longer_than_a_read_may_still_block(broker, redis_client):
    """A dying connection may be handed an entry after its worker's death was noticed."""
    lease(broker, "worker")
    end_lease(broker, "worker")
    reclaim(broker)
    submit(broker, "late")
    redis_client.xreadgroup("workers", "worker", {broker.keys.streams[NORMAL]: ">"}, count=1)

    assert broker.take("rescuer", (0, 0, 0)).lapsed
    assert len(reclaim(broker)) == 1


def test_an_old_lease_and_its_description_are_forgotten(broker, redis_client):
    lease(broker, "worker")
    now = broker.renew(60_000, [("rescuer", b"")])
    redis_client.zadd(broker.keys.leases, {"worker": now - ENDED_LEASE_MS - 1})

    reclaim(broker)

    assert leased(redis_client, broker) == {"rescuer"}
    assert redis_client.hkeys(broker.keys.workers) == [b"rescuer"]
    assert not broker.take("rescuer", (0, 0, 0)).lapsed


# -- the cost ---------------------------------------------------------------------------------------------------------


def test_ten_thousand_pending_entries_are_handed_over_in_bounded_calls(broker, redis_client):
    total = 10_000
    for start in range(0, total, MAX_BATCH):
        submit(broker, *(f"id{number}" for number in range(start, min(start + MAX_BATCH, total))))
    lease(broker, "worker")
    held = 0
    while held < total:
        held += len(broker.take("worker", (0, MAX_BATCH, 0)).entries)
    end_lease(broker, "worker")
    lease(broker, "rescuer")

    sizes, micros = [], []
    seen: set[bytes] = set()
    while True:
        before = script_micros(redis_client)
        _, entries, _ = broker.reclaim("rescuer", 64)
        micros.append(script_micros(redis_client) - before)
        if not entries:
            break
        sizes.append(len(entries))
        seen |= {entry.id for entry in entries}

    assert sum(sizes) == len(seen) == total
    assert max(sizes) == 64
    assert sorted(micros)[len(micros) // 2] < 5_000
    assert consumers(redis_client, broker) == {"rescuer"}


def test_an_entry_that_an_operator_deleted_is_let_go(broker, redis_client):
    submit(broker, "a", "b")
    first, second = take(broker)
    redis_client.xdel(broker.keys.streams[NORMAL], first.id)
    end_lease(broker, "worker")

    assert [entry.id for entry in reclaim(broker)] == [second.id]
    assert pending(redis_client, broker) == {"rescuer": [second.id]}


def test_raw_entries_are_reclaimed_too(broker, redis_client):
    add_raw(redis_client, broker, b"raw")
    take(broker)
    end_lease(broker, "worker")

    assert [(entry.payload, entry.deliveries) for entry in reclaim(broker)] == [(b"raw", 1)]


def test_work_is_rescued_where_redis_takes_no_more(full_redis):
    broker, client = full_redis
    # First in the list of consumers: Redis 6.2 refuses to prune it, which must not keep the others' work.
    broker.complete([finish(take(broker, "a-idle-worker", (0, 1, 0))[0], "id0")])
    held = take(broker, shares=(0, 4, 0))
    end_lease(broker, "worker", "a-idle-worker")

    rescued = reclaim(broker)

    assert [entry.id for entry in rescued] == [entry.id for entry in held]
    assert pending(client, broker) == {"rescuer": [entry.id for entry in held]}
