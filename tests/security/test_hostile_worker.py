"""A worker that lies to an operator's command: what it says of itself opens, moves and steers nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from common.broker import Broker
from common.keys import POOLS
from common.orders import Report, decode_order, encode
from common.wire import pack
from inference_worker.supervision.host import host_name
from tests.support.command import CommandLine
from tests.support.leaks import keys_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

NAME = "liar-1-0-0"


@contextmanager
def liar(client: redis.Redis, note: str) -> Iterator[None]:
    """A worker on this host that answers its next order with that note."""
    broker = Broker(client, f"liar-{uuid4().hex[:8]}")
    client.sadd(POOLS, broker.pool)
    broker.renew(60_000, [(NAME, pack({"host": host_name(), "index": 0, "pid": 1, "state": "serves"}))])

    def answer() -> None:
        wait_until(lambda: broker.orders_after(b"0-0"), "an order is there")
        [(_, data)] = broker.orders_after(b"0-0")
        order = decode_order(data)
        broker.tell(order.inbox, encode(Report(order.id, NAME, host_name(), 0, True, note=note)))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
        thread.join()
    finally:
        client.delete(*keys_of(client, broker.pool))
        client.srem(POOLS, broker.pool)


@pytest.mark.parametrize("folder", ["home", "inference-worker-profile-x"])
def test_a_profile_that_it_never_wrote_is_not_fetched(
    folder: str, shell: CommandLine, redis_url: str, redis_client: redis.Redis
) -> None:
    # Given a file of the operator's, by its own path and through a link of a profile's name
    home = shell.folder / "home"
    home.mkdir()
    secret = home / f"{NAME}.json.gz"
    secret.write_text("keep")
    (shell.folder / "inference-worker-profile-x").symlink_to(home)
    told = shell.folder / folder / secret.name

    with liar(redis_client, str(told)):
        done = shell.run("profile", NAME, "--kind", "torch", "--seconds", "0.1", INFERENCE_WORKER_BROKER=redis_url)

    assert secret.read_text() == "keep"
    assert f"{host_name()}:{told}" in done.out


def test_what_it_says_steers_no_terminal(shell: CommandLine, redis_url: str, redis_client: redis.Redis) -> None:
    with liar(redis_client, "/x\x1b[2J\nworker: all is well"):
        done = shell.run("profile", NAME, "--kind", "torch", "--seconds", "0.1", INFERENCE_WORKER_BROKER=redis_url)

    assert "\x1b" not in done.out
    assert len(done.out.splitlines()) == 1
