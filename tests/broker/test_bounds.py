"""Bounds that an operator sets: bytes of the pool, a tenant's rate, and one tenant's own; checked in submit."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from common.broker import Broker
from common.connect import connect
from common.errors import Overloaded
from common.scripts import Admitted
from gateway.admin.limits import Limits
from tests.support.leaks import leaked_keys
from tests.support.operations import (
    add_raw,
    counted_bytes,
    finish,
    inbox,
    request,
    submit,
    take,
    tenants,
    unfinished,
)
from tests.support.waiting import wait_until

QUEUED = Admitted.QUEUED


@pytest.fixture
def limits(redis_client, pool) -> Limits:
    return Limits(redis_client, pool)


def done(broker: Broker, *names: str) -> None:
    broker.complete([finish(entry, name, keep_ms=0) for entry, name in zip(take(broker), names, strict=True)])


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_more_bytes_than_the_bound_are_refused_with_count_bound_and_wait(broker, redis_client, limits, pool):
    limits.set_pool(bytes=1_000)

    first, second, third = submit(
        broker, request("a", payload=b"x" * 700), request("b", payload=b"x" * 400), request("c", payload=b"x" * 300)
    )

    assert (first, third) == (QUEUED, QUEUED)
    assert second.message == (f"pool '{pool}' holds 700 bytes of requests (bound 1000); retry in 50 ms or add workers")
    assert counted_bytes(redis_client, broker) == 1_000


def test_finished_requests_give_their_bytes_back(broker, redis_client, limits):
    limits.set_pool(bytes=1_000)
    submit(broker, request("a", payload=b"x" * 700, tenant="acme"), request("b", payload=b"x" * 200))

    done(broker, "a", "b")

    assert counted_bytes(redis_client, broker) == 0
    assert tenants(redis_client, broker) == {}


def test_a_request_over_the_bound_is_taken_where_nothing_else_is_there(broker, limits):
    limits.set_pool(bytes=100)

    assert submit(broker, request("large", payload=b"x" * 500)) == [QUEUED]
    assert isinstance(submit(broker, "small")[0], Overloaded)


def test_a_payload_of_its_own_counts_with_its_size_though_it_expires(broker, redis_client, limits):
    limits.set_pool(bytes=1_000)
    key = broker.store_payload("a", b"x" * 900, 60_000)
    large = request("a")._replace(field="r", value=key, size=900)
    broker.submit([large], inbox(broker), 60_000)
    assert counted_bytes(redis_client, broker) == 900
    redis_client.delete(key)

    [entry] = take(broker)
    assert entry.reference == key.encode()
    broker.complete([finish(entry, "a", dead="its payload has expired")])

    assert counted_bytes(redis_client, broker) == 0


def test_what_came_before_the_bound_or_around_it_lowers_no_count(broker, redis_client, limits):
    submit(broker, request("before", payload=b"x" * 500))
    limits.set_pool(bytes=1_000)
    add_raw(redis_client, broker, b"x" * 500)
    add_raw(redis_client, broker, b"x", t="acme:" + "9" * 40)
    add_raw(redis_client, broker, b"x", t=":bytes")
    submit(broker, request("after", payload=b"x" * 300))

    entries = take(broker)
    broker.complete([finish(entry, f"id{number}", keep_ms=0) for number, entry in enumerate(entries[:4])])
    assert counted_bytes(redis_client, broker) == 300
    broker.complete([finish(entries[4], "after", keep_ms=0)])

    assert counted_bytes(redis_client, broker) == 0
    assert redis_client.hgetall(broker.keys.tenants) == {}


def test_an_idle_pool_has_no_bytes_whatever_an_operator_deleted(broker, redis_client, limits):
    limits.set_pool(bytes=1_000)
    submit(broker, request("a", payload=b"x" * 900))
    redis_client.xtrim(broker.keys.streams[1], maxlen=0)

    assert submit(broker, request("b", payload=b"x" * 900)) == [QUEUED]
    assert counted_bytes(redis_client, broker) == 900


def test_a_pool_without_the_bound_counts_no_bytes(broker, redis_client):
    submit(broker, request("a", tenant="acme"))

    assert redis_client.hgetall(broker.keys.tenants) == {b"acme": b"1"}


# -- rate -------------------------------------------------------------------------------------------------------------


def test_a_tenant_may_send_its_burst_at_once_and_then_waits_for_tokens(broker, limits, pool):
    limits.set_tenant("acme", rate=2, burst=3)

    answers = submit(broker, *(request(f"a{number}", tenant="acme") for number in range(5)))

    assert answers[:3] == [QUEUED] * 3
    assert answers[3].message.startswith(f"this tenant may send 2 requests a second to pool '{pool}' (burst 3); retry")
    assert answers[3].retry_after_ms == 500
    # Who comes behind waits for the token after that one.
    assert answers[4].retry_after_ms == 1_000


def test_tokens_come_back_with_time(broker, limits):
    limits.set_tenant("acme", rate=20, burst=1)
    submit(broker, request("a", tenant="acme"))
    assert isinstance(submit(broker, request("b", tenant="acme"))[0], Overloaded)

    wait_until(lambda: submit(broker, request("b", tenant="acme"))[0] == QUEUED, "a token after 50 ms")


def test_the_pools_rate_holds_for_each_tenant_that_has_none_of_its_own(broker, limits):
    limits.set_pool(rate=0.1, burst=1)
    limits.set_tenant("acme", rate=0.1, burst=2)

    answers = submit(
        broker, *(request(f"{who}{n}", tenant=who) for who in ("acme", "other", "third") for n in range(3))
    )
    without = submit(broker, *(f"id{number}" for number in range(3)))

    assert [answer == QUEUED for answer in answers] == [True, True, False, True, False, False, True, False, False]
    assert without == [QUEUED] * 3


def test_joining_a_stored_reply_and_a_refusal_cost_no_token(broker, limits):
    limits.set_pool(rate=0.1, burst=2, backlog=1)
    submit(broker, request("a", tenant="acme"))
    submit(broker, request("a", tenant="acme"), request("refused", tenant="acme"))
    broker.complete([finish(take(broker)[0], "a")])
    submit(broker, request("a", tenant="acme"))

    assert submit(broker, request("b", tenant="acme"), request("c", tenant="acme"))[0] == QUEUED


def test_buckets_leave_nothing_behind(broker, redis_client, limits, pool):
    limits.set_pool(rate=100, burst=1)
    submit(broker, *(request(f"id{number}", tenant=f"tenant{number}") for number in range(50)))
    assert 0 < redis_client.pttl(broker.keys.rates) <= 11

    wait_until(lambda: not redis_client.exists(broker.keys.rates), "all buckets are full again")
    assert leaked_keys(redis_client, pool) == []


def test_two_clients_that_race_for_the_last_tokens_never_overshoot(redis_url, broker, redis_client, limits):
    limits.set_tenant("acme", rate=0.001, burst=100)
    together = Barrier(2)
    answers: list[object] = []

    def send(name: str) -> None:
        connection = connect(redis_url)
        mine = Broker(connection, broker.pool)
        together.wait()
        for start in range(0, 100, 10):
            answers.extend(submit(mine, *(request(f"{name}{start + n}", tenant="acme") for n in range(10))))
        connection.close()

    threads = [Thread(target=send, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers.count(QUEUED) == 100
    assert sum(unfinished(redis_client, broker)) == 100


# -- a tenant's own bound ---------------------------------------------------------------------------------------------


def test_a_tenants_own_bound_goes_before_the_pools(broker, limits):
    broker.set_limits(tenant=1)
    limits.set_tenant("acme", in_flight=3)

    answers = submit(broker, *(request(f"{who}{n}", tenant=who) for who in ("acme", "other") for n in range(4)))

    assert [answer == QUEUED for answer in answers] == [True, True, True, False, True, False, False, False]
    assert "has 3 unfinished requests" in answers[3].message


def test_limits_that_are_cleared_hold_no_more(broker, limits):
    limits.set_tenant("acme", in_flight=1)
    limits.set_pool(bytes=1)
    limits.clear("acme")
    limits.clear()

    assert submit(broker, request("a", tenant="acme"), request("b", tenant="acme")) == [QUEUED, QUEUED]
