"""A worker that died with a million entries: taking them over costs what is taken over, not what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.recovery import pile_up
from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis

if TYPE_CHECKING:
    import redis

LEASE_MS = 60_000
MOST = 64


def commands_of_a_reclaim(client: redis.Redis, pool: str, pending: int) -> dict[str, int]:
    """How often Redis ran each command for one reclaim of 64 entries out of so many."""
    broker = Broker(client, pool)
    broker.create_groups()
    broker.renew(LEASE_MS, [("rescuer", b"")])
    pile_up(client, broker.keys, pending)
    broker.reclaim("rescuer", 1)  # Redis knows the script now.
    client.config_resetstat()

    _, entries, _ = broker.reclaim("rescuer", MOST)

    assert len(entries) == MOST
    return {name: int(stats["calls"]) for name, stats in client.info("commandstats").items()}


@pytest.mark.slow
def test_a_reclaim_takes_as_many_commands_with_a_million_pending_as_with_a_hundred() -> None:
    with EmbeddedRedis() as server:
        client = connect(server.url)
        few = commands_of_a_reclaim(client, "few", 100)
        many = commands_of_a_reclaim(client, "many", 1_000_000)
        client.close()

    ignored = ("cmdstat_info", "cmdstat_config", "cmdstat_config|resetstat")
    assert {name: calls for name, calls in many.items() if name not in ignored} == {
        name: calls for name, calls in few.items() if name not in ignored
    }
