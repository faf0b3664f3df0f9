"""submit: once for each id, together where identical, within bounds."""

from __future__ import annotations

from threading import Barrier, Thread

from common import scripts
from common.broker import Broker
from common.connect import connect
from common.errors import Overloaded
from common.scripts import PUSH_WHOLE_UP_TO, Admitted
from tests.support.operations import (
    HIGH,
    LOW,
    NORMAL,
    add_raw,
    finish,
    inbox,
    replies,
    request,
    submit,
    take,
    tenants,
    unfinished,
)

QUEUED, JOINED = Admitted.QUEUED, Admitted.JOINED


# -- once for each id -------------------------------------------------------------------------------------------------


def test_requests_enter_their_streams_in_order(broker, redis_client):
    answers = submit(broker, request("a", HIGH), request("b", NORMAL), request("c", LOW), request("d", NORMAL))

    assert answers == [QUEUED] * 4
    assert unfinished(redis_client, broker) == [1, 2, 1]
    assert [entry.stream for entry in take(broker)] == [HIGH, NORMAL, NORMAL, LOW]


def test_a_worker_gets_the_payload_byte_for_byte_the_tenant_and_the_reference(broker):
    broker.submit([request("a", tenant="acme", payload=bytes(range(256)))], inbox(broker), 60_000)
    broker.submit([request("b")._replace(field="r", value=broker.keys.payload("b"))], inbox(broker), 60_000)

    first, second = take(broker)

    assert (first.payload, first.reference, first.counted) == (bytes(range(256)), None, b"acme")
    assert (second.payload, second.reference, second.counted) == (None, broker.keys.payload("b").encode(), b"")


def test_nothing_to_submit_is_no_answer(broker):
    assert submit(broker) == []


def test_an_id_that_comes_twice_in_one_call_is_queued_once(broker, redis_client):
    answers = submit(broker, "a", "a", "b", "a")

    assert answers == [QUEUED, JOINED, QUEUED, JOINED]
    assert unfinished(redis_client, broker) == [0, 2, 0]


def test_an_id_that_comes_again_in_a_later_call_joins_the_first(broker, redis_client):
    submit(broker, "a")

    assert submit(broker, "a") == [JOINED]
    assert unfinished(redis_client, broker) == [0, 1, 0]


def test_an_id_that_comes_again_while_it_runs_joins_it(broker, redis_client):
    submit(broker, "a")
    take(broker)

    assert submit(broker, "a") == [JOINED]
    assert unfinished(redis_client, broker) == [0, 1, 0]


def test_an_id_that_is_finished_is_answered_at_once_with_the_stored_reply(broker, redis_client):
    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a", b"the reply")])

    assert submit(broker, "a", "b") == [b"the reply", QUEUED]
    assert unfinished(redis_client, broker) == [0, 1, 0]


def test_an_id_whose_reply_was_not_kept_is_computed_again(broker, redis_client):
    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a", b"an error", keep_ms=0)])

    assert submit(broker, "a") == [QUEUED]


def test_a_long_stored_reply_leaves_the_script_as_its_key_and_comes_whole(broker, redis_client):
    """64 of them in one answer could have 4 GiB."""
    long, short = bytes(PUSH_WHOLE_UP_TO + 1), bytes(PUSH_WHOLE_UP_TO)
    submit(broker, "long", "short")
    first, second = take(broker)
    broker.complete([finish(first, "long", long), finish(second, "short", short)])

    script, keys, argv = scripts.submit(broker.keys, [request("long"), request("short")], inbox(broker), 60_000)
    said = redis_client.execute_command("EVAL", script.source, len(keys), *keys, *argv)

    assert said[:2] == [broker.keys.reply("long").encode(), short]
    assert submit(broker, "short", "new", "long") == [short, QUEUED, long]


def test_a_long_stored_reply_that_expires_before_it_is_fetched_is_computed_again(broker, redis_client):
    class Expiring:
        """Redis, where each key expires just before it is read."""

        def execute_command(self, *command):
            if command[0] == "GET":
                redis_client.delete(command[1])
            return redis_client.execute_command(*command)

    submit(broker, "a")
    broker.complete([finish(take(broker)[0], "a", bytes(PUSH_WHOLE_UP_TO + 1))])

    assert submit(Broker(Expiring(), broker.pool), "a") == [QUEUED]
    assert unfinished(redis_client, broker) == [0, 1, 0]


def test_an_id_whose_entry_was_deleted_by_hand_is_queued_again_for_all_who_wait(broker, redis_client):
    submit(broker, "a", client="one")
    submit(broker, "a", client="two")
    stream = broker.keys.streams[NORMAL]
    redis_client.xdel(stream, redis_client.xrange(stream)[0][0])

    assert submit(broker, "a", "a", client="two") == [QUEUED, JOINED]
    assert submit(broker, "a", client="three") == [JOINED]

    broker.complete([finish(take(broker)[0], "a")])
    assert [replies(redis_client, broker, client) for client in ("one", "two", "three")] == [[b"reply"]] * 3


def test_an_id_is_bound_to_no_priority(broker, redis_client):
    submit(broker, request("a", LOW))

    assert submit(broker, request("a", HIGH)) == [JOINED]
    assert unfinished(redis_client, broker) == [0, 0, 1]


# -- together where identical -----------------------------------------------------------------------------------------


def test_every_inbox_that_joined_gets_the_one_reply_once(broker, redis_client):
    for client in ("one", "two", "three", "two"):
        submit(broker, "a", client=client)

    broker.complete([finish(take(broker)[0], "a", b"shared")])

    assert [replies(redis_client, broker, client) for client in ("one", "two", "three")] == [[b"shared"]] * 3


def test_a_client_that_asks_for_a_running_id_twice_in_one_call_gets_one_reply(broker, redis_client):
    submit(broker, "a", client="other")

    assert submit(broker, "a", "a") == [JOINED, JOINED]
    broker.complete([finish(take(broker)[0], "a")])

    assert replies(redis_client, broker) == [b"reply"]


def test_an_inbox_whose_name_begins_like_another_is_not_taken_for_it(broker, redis_client):
    submit(broker, "a", client="client-10")
    submit(broker, "a", client="client-1")

    broker.complete([finish(take(broker)[0], "a")])

    assert replies(redis_client, broker, "client-1") == [b"reply"]


def test_a_request_without_an_inbox_is_computed_and_its_reply_kept(broker):
    broker.submit([request("a")], "", 60_000)
    broker.complete([finish(take(broker)[0], "a")])

    assert broker.fetch(broker.keys.reply("a")) == b"reply"


def test_an_inbox_may_join_a_request_that_had_none(broker, redis_client):
    broker.submit([request("a")], "", 60_000)

    assert submit(broker, "a") == [JOINED]
    broker.complete([finish(take(broker)[0], "a")])

    assert replies(redis_client, broker) == [b"reply"]


def test_joining_prolongs_the_wait_and_never_shortens_it(broker, redis_client):
    submit(broker, "a", lifetime_ms=5_000)
    submit(broker, "a", client="patient", lifetime_ms=50_000)
    submit(broker, "a", client="hasty", lifetime_ms=1_000)

    assert 40_000 < redis_client.pttl(broker.keys.waiters("a")) <= 50_000


# -- within bounds ----------------------------------------------------------------------------------------------------


def test_a_full_backlog_answers_overloaded_with_count_bound_and_wait(broker, redis_client, pool):
    broker.set_limits(backlog=2)

    answers = submit(broker, request("a", HIGH), request("b", LOW), request("c"))

    assert answers[:2] == [QUEUED, QUEUED]
    assert isinstance(answers[2], Overloaded)
    assert answers[2].message == f"pool '{pool}' holds 2 unfinished requests (bound 2); retry in 50 ms or add workers"
    assert answers[2].retry_after_ms == 50
    assert unfinished(redis_client, broker) == [1, 0, 1]


def test_a_full_backlog_still_joins_and_answers_from_the_cache(broker):
    submit(broker, "done")
    broker.complete([finish(take(broker)[0], "done")])
    submit(broker, "running")
    broker.set_limits(backlog=1)

    refused, joined, cached = submit(broker, "new", "running", "done")

    assert isinstance(refused, Overloaded)
    assert (joined, cached) == (JOINED, b"reply")


def test_what_is_in_a_workers_hands_counts_as_backlog(broker):
    broker.set_limits(backlog=1)
    submit(broker, "a")
    entries = take(broker)

    assert isinstance(submit(broker, "b")[0], Overloaded)
    broker.complete([finish(entries[0], "a")])
    assert submit(broker, "b") == [QUEUED]


def test_raw_entries_count_as_backlog(broker, redis_client):
    broker.set_limits(backlog=1)
    add_raw(redis_client, broker)

    assert isinstance(submit(broker, "a")[0], Overloaded)


def test_the_suggested_wait_grows_with_the_age_of_the_oldest_entry(broker, redis_client):
    seconds, _ = redis_client.time()
    redis_client.xadd(broker.keys.streams[LOW], {"d": b""}, id=f"{(seconds - 40) * 1000}-0")
    broker.set_limits(backlog=1)

    refused = submit(broker, "a")[0]

    assert 4_900 <= refused.retry_after_ms <= 5_300


def test_the_suggested_wait_ends_at_ten_seconds(broker, redis_client):
    redis_client.xadd(broker.keys.streams[LOW], {"d": b""}, id="1-0")
    broker.set_limits(backlog=1)

    assert submit(broker, "a")[0].retry_after_ms == 10_000


def test_a_tenant_at_its_bound_is_refused_and_others_are_not(broker, redis_client, pool):
    broker.set_limits(tenant=2)

    answers = submit(broker, *(request(f"a{i}", tenant="acme") for i in range(3)), request("b", tenant="other"), "c")

    assert answers[:2] == [QUEUED, QUEUED]
    assert isinstance(answers[2], Overloaded)
    assert answers[2].message == (f"this tenant has 2 unfinished requests in pool '{pool}' (bound 2); retry in 50 ms")
    assert answers[3:] == [QUEUED, QUEUED]
    assert tenants(redis_client, broker) == {"acme": 2, "other": 1}


def test_what_somebody_trimmed_away_keeps_no_tenant_from_an_idle_pool(broker, redis_client):
    # Given a tenant at its bound, in a lane of its own, and who may XADD with MAXLEN
    broker.set_limits(tenant=40)
    submit(broker, *(request(f"a{i}", tenant="acme") for i in range(40)))
    assert isinstance(submit(broker, request("a40", tenant="acme"))[0], Overloaded)

    for stream in broker.keys.streams:
        redis_client.xtrim(stream, maxlen=0)

    assert submit(broker, request("b", tenant="acme")) == [QUEUED]
    assert tenants(redis_client, broker) == {"acme": 1}
    assert not redis_client.exists(broker.keys.lanes)


def test_a_finished_request_gives_its_place_back_to_the_tenant(broker, redis_client):
    broker.set_limits(tenant=1)
    submit(broker, request("a", tenant="acme"))
    assert isinstance(submit(broker, request("b", tenant="acme"))[0], Overloaded)

    broker.complete([finish(take(broker)[0], "a")])

    assert tenants(redis_client, broker) == {}
    assert submit(broker, request("b", tenant="acme")) == [QUEUED]


def test_joining_and_cached_replies_cost_a_tenant_nothing(broker, redis_client):
    submit(broker, request("a", tenant="acme"))

    submit(broker, request("a", tenant="acme"), request("a", tenant="other"))

    assert tenants(redis_client, broker) == {"acme": 1}


def test_two_clients_that_race_for_the_last_places_never_overshoot(redis_url, broker, redis_client):
    bound, together = 500, Barrier(2)
    broker.set_limits(backlog=bound, tenant=bound - 100)
    answers: list[object] = []

    def flood(name: str) -> None:
        connection = connect(redis_url)
        mine = Broker(connection, broker.pool)
        together.wait()
        for start in range(0, bound, 50):
            batch = [request(f"{name}{start + i}", tenant="acme" if i % 2 else "") for i in range(50)]
            answers.extend(submit(mine, *batch))
        connection.close()

    threads = [Thread(target=flood, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers.count(QUEUED) == bound
    assert sum(isinstance(answer, Overloaded) for answer in answers) == bound
    assert sum(unfinished(redis_client, broker)) == bound
    assert tenants(redis_client, broker)["acme"] <= bound - 100


def test_two_clients_that_race_with_one_id_compute_it_once(redis_url, broker, redis_client):
    together = Barrier(2)
    answers: list[object] = []

    def ask(name: str) -> None:
        connection = connect(redis_url)
        mine = Broker(connection, broker.pool)
        for number in range(50):
            together.wait()
            answers.extend(submit(mine, f"id{number}", client=name))
        connection.close()

    threads = [Thread(target=ask, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers.count(QUEUED) == answers.count(JOINED) == 50
    assert unfinished(redis_client, broker) == [0, 50, 0]
