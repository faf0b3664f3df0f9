"""What `status` sees of a pool."""

from __future__ import annotations

from contextlib import closing

import msgpack
import pytest
import redis

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.scripts import Finish
from gateway.admin.pools import Admin, PoolStatus, Rates, Snapshot, WorkerStatus, rates
from tests.support.echo_worker import model
from tests.support.operations import HIGH, LOW, request, submit


@pytest.fixture
def admin(redis_client: redis.Redis) -> Admin:
    return Admin(redis_client)


def status(admin: Admin, broker: Broker) -> PoolStatus:
    (found,) = admin.snapshot([broker.pool]).pools
    return found


def test_a_pool_is_known_since_its_workers_started(admin: Admin, broker: Broker) -> None:
    assert broker.pool in admin.pools()
    assert broker.pool in [pool.name for pool in admin.snapshot().pools]


def test_unfinished_requests_are_counted_by_priority_tenant_and_holder(admin: Admin, broker: Broker) -> None:
    submit(broker, request("a", HIGH), request("b", tenant="acme"), request("c", tenant="acme"), request("d", LOW))
    broker.renew(10_000, [("w", b"")])
    broker.take("w", (1, 1, 0))

    found = status(admin, broker)

    assert found.backlog == {"high": 1, "normal": 2, "low": 1}
    assert found.in_flight == 2
    assert found.tenants == {"acme": 2}
    assert found.oldest_ms is not None
    assert 0 <= found.oldest_ms < 10_000


def test_an_empty_pool_has_no_oldest_request(admin: Admin, broker: Broker) -> None:
    assert status(admin, broker).oldest_ms is None


def test_a_worker_is_shown_with_its_lease_and_what_it_says_of_itself(admin: Admin, broker: Broker) -> None:
    broker.renew(10_000, [("w", msgpack.packb({"host": "h", "rows": 7}))])
    broker.renew(0, [("gone", b"")])

    gone, worker = status(admin, broker).workers

    assert (worker.name, worker.live, worker.about) == ("w", True, {"host": "h", "rows": 7})
    assert 9_000 < worker.lease_left_ms <= 10_000
    assert (gone.name, gone.live, gone.about) == ("gone", False, {})


def test_what_was_handed_back_is_no_worker(admin: Admin, broker: Broker) -> None:
    submit(broker, "a")
    broker.renew(10_000, [("w", b"")])
    broker.take("w", (0, 1, 0))
    broker.release("w", broker.held("w"))

    assert [worker.name for worker in status(admin, broker).workers] == ["w"]


def test_models_and_dead_letters_are_shown(admin: Admin, broker: Broker) -> None:
    broker.publish_models(dict([model("m", "1"), model("m", "2")]))
    submit(broker, "a")
    broker.renew(10_000, [("w", b"")])
    (entry,) = broker.take("w", (0, 1, 0)).entries
    broker.complete([Finish(entry, "a", b"reply", 0, dead="three workers died")])

    found = status(admin, broker)

    assert [(info.name, info.version) for info in found.models] == [("m", "1"), ("m", "2")]
    assert found.dead_letters == 1


def test_a_pool_that_was_never_started_is_empty(admin: Admin, pool: str) -> None:
    (found,) = admin.snapshot([pool]).pools

    assert (found.backlog, found.in_flight, found.workers) == ({"high": 0, "normal": 0, "low": 0}, 0, ())


def test_the_time_that_a_draining_worker_has_left_is_told(admin: Admin, broker: Broker) -> None:
    until_ms = admin.snapshot([]).at_ms + 20_000
    broker.renew(10_000, [("drains", msgpack.packb({"drains_until_ms": until_ms})), ("runs", msgpack.packb({}))])

    left_ms = {worker.name: worker.drain_left_ms for worker in status(admin, broker).workers}

    assert left_ms["runs"] is None
    assert 10_000 < (left_ms["drains"] or 0) <= 20_000


# Memory


def test_how_full_redis_is_stands_beside_the_pools(admin: Admin) -> None:
    memory = admin.snapshot([]).memory

    assert memory is not None
    assert memory.used > 0


def test_a_user_who_may_not_ask_how_full_it_is_sees_the_rest() -> None:
    with EmbeddedRedis() as server, closing(connect(server.url)) as client:
        client.execute_command("ACL", "SETUSER", "default", "-info")

        found = Admin(client).snapshot()

        client.execute_command("ACL", "SETUSER", "default", "+info")
    assert (found.memory, found.pools) == (None, ())


# Rates


def snapshot(at_ms: int, backlog: int, /, failed: int = 0, **rows: int) -> Snapshot:
    abouts = {name: {"rows": count, "batches": count // 10, "failed": failed} for name, count in rows.items()}
    workers = tuple(WorkerStatus(name, 1, about) for name, about in abouts.items())
    return Snapshot(at_ms, (PoolStatus("p", {"normal": backlog}, 0, None, {}, 0, workers, (), {}, 0),))


def test_rates_come_from_what_changed_between_two_snapshots() -> None:
    assert rates(snapshot(1000, 50, 1, w=100), snapshot(3000, 10, 7, w=300)) == {"p": Rates(10.0, 100.0, 3.0, -20.0)}


def test_a_worker_that_is_new_or_was_started_again_counts_from_zero() -> None:
    assert rates(snapshot(0, 0, w=100), snapshot(1000, 0, w=20, v=30))["p"].rows == 50.0


def test_without_time_between_there_are_no_rates() -> None:
    assert rates(snapshot(0, 0), snapshot(0, 0)) == {}
