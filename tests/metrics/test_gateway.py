"""A real gateway with two processes, scraped: both are counted together, and on a port of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from common.embedded import free_port
from tests.support.echo_worker import EchoWorker, model
from tests.support.gateways import Gateway, gateway
from tests.support.http import ask
from tests.support.leaks import keys_of
from tests.support.scrape import Scraped, scrape
from tests.support.waiting import wait_until

POOL = "metrics-gateway"
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Door:
    gateway: Gateway
    port: int

    def ask(self, path: str, body: object = None, method: str = "POST") -> Any:
        # A connection of its own each time: the kernel gives it to any of the processes.
        return ask(self.gateway.address, method, path, body)

    def scrape(self) -> Scraped:
        return scrape(self.port)


@pytest.fixture(scope="module")
def door(redis_url: str, redis_client: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    port = free_port()
    models = [model("echo"), model("kept", cache_ttl_s=60.0)]
    options = ("--workers", str(PROCESSES), "--metrics", f"127.0.0.1:{port}", "--concurrency", "7")
    with (
        EchoWorker(redis_url, POOL, models=models),
        gateway(redis_url, POOL, tmp_path_factory.mktemp("door"), *options) as it,
    ):
        yield Door(it, port)
    redis_client.delete(*keys_of(redis_client, POOL))


def test_all_processes_are_counted_together_by_the_code_of_the_answer(door: Door) -> None:
    before = door.scrape()
    for number in range(20):
        assert door.ask("/models/echo", {"x": [float(number)]}).status == 200
    for _ in range(3):
        assert door.ask("/models/echo?verison=1", {"x": [1.0]}).status == 400

    def all_counted() -> Scraped | None:
        # A client may have its answer before the gateway has counted that.
        found, name = door.scrape(), "inference_gateway_request_seconds_count"
        return found if found.of(name) - before.of(name) == 23 else None

    after = wait_until(all_counted, "23 requests are counted")

    def grown(name: str, **labels: str) -> float:
        return after.of(name, **labels) - before.of(name, **labels)

    assert grown("inference_gateway_requests_total", door="http", code="200") == 20
    assert grown("inference_gateway_requests_total", door="http", code="400") == 3
    assert grown("inference_gateway_model_requests_total", model="echo") == 20
    assert after.values("inference_gateway_model_requests_total", "model") <= {"echo", "kept"}


def test_an_answer_that_no_model_computed_is_a_cache_hit(door: Door) -> None:
    for _ in range(2):
        door.ask("/models/kept", {"x": [1.0, 2.0]})

    wait_until(lambda: door.scrape().of("inference_gateway_cache_hits_total", model="kept") == 1, "it is one")


def test_the_limits_of_all_processes_add_up(door: Door) -> None:
    found = door.scrape()

    assert found.of("inference_gateway_concurrency_limit") == 7 * PROCESSES
    assert found.of("inference_gateway_waiting_requests") == 0


def test_the_doors_own_port_shows_no_metrics(door: Door) -> None:
    assert door.ask("/metrics", method="GET").status == 404


def test_a_pools_work_is_shown_here_too(door: Door) -> None:
    assert POOL in door.scrape().values("inference_worker_pool_backlog", "pool")


def test_a_process_that_is_killed_takes_no_count_with_it(door: Door) -> None:
    asked = door.scrape().of("inference_gateway_requests_total")
    for pid in children_of(door.gateway.process.pid):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(children_of(door.gateway.process.pid)) == PROCESSES and answers(door), "both are back", 30)

    assert door.scrape().of("inference_gateway_requests_total") >= asked


def answers(door: Door) -> bool:
    try:
        return bool(door.ask("/v2/health/ready", method="GET").status == 200)
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(one) for task in tasks for one in (task / "children").read_text().split()]
