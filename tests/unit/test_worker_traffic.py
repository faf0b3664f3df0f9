"""A worker's view of the traffic plans: read now and then, followed for who names no version."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from common.errors import BrokerUnavailable, InternalError
from common.protocol import Request
from common.traffic import Plan
from inference_worker.models.registry import Registry, Title
from inference_worker.models.spec import ModelSpec
from inference_worker.models.traffic import FRESH_S, Traffic


class Source:
    """What Redis holds, and how often it was asked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reads = 0
        self.error: Exception | None = None
        self.now_s = 0.0

    def read(self) -> Mapping[str, bytes]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return {"m": self.plan.encode()}


@pytest.fixture
def source() -> Source:
    return Source(Plan({"prod": "1"}, {"1": 1}))


@pytest.fixture
def traffic(source: Source) -> Traffic:
    registry = Registry()
    registry.replace(
        "m", [Title(ModelSpec("m", "1", "python", aliases=("old",)), "w"), Title(ModelSpec("m", "2", "python"), "w")]
    )
    found = Traffic(source.read, registry, lambda: source.now_s)
    found.refresh()
    return found


def version(traffic: Traffic, asked: str | None = None, model: str = "m") -> str | None:
    return traffic.version(Request("r", model, {}, asked))


def test_a_plan_is_followed_for_its_model(traffic: Traffic) -> None:
    assert [version(traffic, asked) for asked in (None, "prod", "old", "2", "7")] == ["1", "1", "1", "2", "7"]
    assert version(traffic, model="other") is None


def test_plans_are_read_again_once_they_are_old(traffic: Traffic, source: Source) -> None:
    source.plan = Plan(split={"2": 1})

    source.now_s = FRESH_S - 0.1
    traffic.refresh()
    assert (version(traffic), source.reads) == ("1", 1)

    source.now_s = FRESH_S
    traffic.refresh()
    assert (version(traffic), source.reads) == ("2", 2)


def test_a_broker_that_is_away_is_told(traffic: Traffic, source: Source) -> None:
    source.now_s, source.error = FRESH_S, BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable):
        traffic.refresh()


def test_plans_that_redis_refuses_to_show_stay_as_they_were(
    traffic: Traffic, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.now_s, source.error = FRESH_S, InternalError("WRONGTYPE")

    traffic.refresh()

    assert version(traffic) == "1"
    assert "the old ones stay: WRONGTYPE" in caplog.text
