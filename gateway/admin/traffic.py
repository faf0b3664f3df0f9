"""Changes an operator's plan for a model in a pool, while other operators may do the same."""

from __future__ import annotations

from collections.abc import Callable

from common.broker import Broker
from common.traffic import Plan, read_plan


def change_plan(broker: Broker, model: str, change: Callable[[Plan], Plan]) -> Plan:
    """The plan that `change` made of the one that is there. Clients and workers follow it within seconds.

    `change` is called again where somebody else was faster. Raises what it raises, BrokerUnavailable, and
    ConfigError for a plan that cannot be read.
    """
    while True:
        before = broker.traffic().get(model, b"")
        after = change(read_plan(before))
        if broker.steer(model, before, after.encode()):
            return after
