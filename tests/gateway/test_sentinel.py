"""A client whose master is replaced under it: Sentinel names another server, and that is where it goes on."""

from __future__ import annotations

import signal

from common.broker import Broker
from common.connect import connect
from common.errors import BrokerUnavailable
from tests.support.deployments import Sentinels


def test_a_connection_that_broke_goes_to_the_new_master() -> None:
    with Sentinels() as servers:
        client = connect(servers.url)
        broker = Broker(client, "pool")
        broker.create_groups()

        servers.lose_primary(signal.SIGKILL)
        servers.primary().client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        assert _tries(broker) <= 2


def _tries(broker: Broker, most: int = 20) -> int:
    """How often a write is tried until it is done."""
    for tried in range(1, most):
        try:
            broker.create_groups()
        except BrokerUnavailable:
            continue
        return tried
    return most
