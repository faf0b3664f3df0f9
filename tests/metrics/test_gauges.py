"""Pools as metrics: read from a real Redis when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterable

import msgpack
import pytest
import redis

from common.broker import Broker
from common.connect import connect
from common.embedded import free_port
from common.errors import AccessDenied, BrokerUnavailable
from common.metrics.declared import (
    BACKLOG,
    DESIRED,
    IN_FLIGHT,
    OLDEST,
    REDIS_UP,
    REDIS_USED,
    TENANT_BACKLOG,
    WORKERS,
    Sample,
)
from gateway.admin.gauges import PoolGauges
from gateway.admin.pools import Admin, Snapshot
from tests.support.operations import HIGH, LOW, request, submit


def numbers(samples: Iterable[Sample]) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(metric.name, labels): cells[0] for metric, labels, cells in samples}


def test_a_pools_work_is_told_by_priority(redis_client: redis.Redis, broker: Broker) -> None:
    pool = broker.pool
    submit(broker, request("a", HIGH), request("b", tenant="acme"), request("c", tenant="acme"), request("d", LOW))
    broker.renew(10_000, [("w", msgpack.packb({"state": "ready"})), ("v", msgpack.packb({"state": "loading"}))])
    broker.take("w", (1, 1, 0))

    found = numbers(PoolGauges(lambda: Admin(redis_client).snapshot([pool]))())

    assert [found[BACKLOG.name, (pool, priority)] for priority in ("high", "normal", "low")] == [1, 2, 1]
    assert [found[IN_FLIGHT.name, (pool, priority)] for priority in ("high", "normal", "low")] == [1, 1, 0]
    assert 0 <= found[OLDEST.name, (pool, "high")] < 10
    assert found[TENANT_BACKLOG.name, (pool, "acme")] == 2
    assert found[WORKERS.name, (pool,)] == 1
    assert found[DESIRED.name, (pool,)] == 1
    assert found[REDIS_UP.name, ()] == 1
    assert found[REDIS_USED.name, ()] > 0


def test_a_redis_that_is_away_is_told_as_such() -> None:
    nowhere = Admin(connect(f"redis://127.0.0.1:{free_port()}", 0.2))

    assert numbers(PoolGauges(lambda: nowhere.snapshot(["p"]))()) == {(REDIS_UP.name, ()): 0}


def test_a_redis_that_comes_back_is_read_again(redis_client: redis.Redis, broker: Broker) -> None:
    answers: list[Exception | Snapshot] = [BrokerUnavailable("away"), Admin(redis_client).snapshot([broker.pool])]

    def read() -> Snapshot:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    gauges = PoolGauges(read)
    assert numbers(gauges())[REDIS_UP.name, ()] == 0
    assert numbers(gauges())[REDIS_UP.name, ()] == 1


def test_a_user_who_may_not_look_leaves_pools_out_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:

    def read() -> Snapshot:
        raise AccessDenied("NOPERM this user has no permissions to run the 'xpending' command")

    gauges = PoolGauges(read)
    for _ in range(3):
        assert gauges() == []

    [line] = [record for record in caplog.records if record.name == "gateway.admin.gauges"]
    assert "xpending" in line.message


def test_rates_are_taken_over_the_last_minute(redis_client: redis.Redis, broker: Broker) -> None:
    # Idle for long, then 600 requests within the last ten of 150 seconds.
    counts = iter([(10_000 * step, 0) for step in range(15)] + [(150_000, 600)])

    def read() -> Snapshot:
        at_ms, finished = next(counts)
        told = {"state": "ready", "finished": finished, "busy_s": finished / 200}
        broker.renew(10_000, [("w", msgpack.packb(told))])
        [pool] = Admin(redis_client).snapshot([broker.pool]).pools
        return Snapshot(at_ms, (pool,))

    gauges = PoolGauges(read)
    for _ in range(16):
        found = numbers(gauges())

    assert found["inference_worker_pool_arrivals_per_second", (broker.pool,)] == pytest.approx(600 / 60)
    assert found["inference_worker_pool_service_seconds", (broker.pool,)] == pytest.approx(0.005)
