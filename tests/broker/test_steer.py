"""steer: an operator's plan for a model is replaced only where it is the one that he has read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.broker import Broker
from common.traffic import Plan, read_plan
from gateway.admin.traffic import change_plan
from tests.support.operations import request

if TYPE_CHECKING:
    import redis


def test_a_plan_is_written_replaced_and_removed(redis_client: redis.Redis, broker: Broker) -> None:
    assert broker.steer("m", b"", b"one")
    assert broker.steer("m", b"one", b"two")
    assert broker.traffic() == {"m": b"two"}

    assert broker.steer("m", b"two", b"")
    assert redis_client.exists(broker.keys.traffic) == 0


def test_a_plan_that_changed_meanwhile_stays(broker: Broker) -> None:
    broker.steer("m", b"", b"one")

    assert not broker.steer("m", b"", b"mine")
    assert not broker.steer("m", b"another", b"")
    assert broker.traffic() == {"m": b"one"}


def test_models_and_plans_are_read_in_one_round_trip(broker: Broker) -> None:
    broker.publish_models({"m:1": b"metadata"})
    broker.steer("m", b"", b"plan")

    assert broker.published() == ({"m:1": b"metadata"}, {"m": b"plan"}, b"1")
    broker.steer("m", b"plan", b"")


def test_two_operators_at_once_lose_nothing(broker: Broker) -> None:
    def change(plan: Plan) -> Plan:
        if not plan.aliases:
            # Somebody else writes between our reading and our writing.
            broker.steer("m", b"", Plan({"canary": "3"}).encode())
        return plan.with_aliases({"prod": "2"})

    change_plan(broker, "m", change)

    assert read_plan(broker.traffic()["m"]).aliases == {"canary": "3", "prod": "2"}


def test_each_change_of_the_models_is_a_new_generation_and_submit_tells_it(broker: Broker) -> None:
    generations = [submit_one(broker)]

    broker.publish_models({"m:1": b"metadata"})
    generations.append(submit_one(broker))
    broker.retire_models(["m:1"])
    generations.append(submit_one(broker))

    assert generations == [b"", b"1", b"2"]


def submit_one(broker: Broker) -> bytes:
    return broker.submit([request("a")], "", 1000).generation
