"""The worker's way out on a real Redis: what has been put in is sent when `settle` returns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from common.broker import Broker
from common.errors import InvalidRequest
from inference_worker.clock import RedisClock
from inference_worker.holding import Holding
from inference_worker.marks import Marks
from inference_worker.models.held import Held
from inference_worker.models.spec import POSTPROCESS
from inference_worker.outbox import Outbox
from inference_worker.outcome import Refusal
from inference_worker.pipeline.aside import Aside
from tests.support.operations import replies, submit, take, unfinished

MANY = 40


@pytest.fixture
def outbox(broker: Broker) -> Iterator[Outbox]:
    """With its thread."""
    outbox = Outbox(broker, 60_000, Held(), Marks(RedisClock()), Aside(POSTPROCESS, Holding(1)))
    thread = threading.Thread(target=outbox.run)
    thread.start()
    yield outbox
    outbox.close()
    thread.join()


def refuse(outbox: Outbox, broker: Broker, count: int) -> None:
    submit(broker, *(f"id{number}" for number in range(count)))
    for number, entry in enumerate(take(broker)):
        outbox.refuse(Refusal(entry, f"id{number}", "", "m:1", InvalidRequest("bad")))


def test_once_it_is_settled_all_that_was_put_in_before_is_complete(
    outbox: Outbox, broker: Broker, redis_client: Any
) -> None:
    refuse(outbox, broker, MANY)

    outbox.settle()

    assert unfinished(redis_client, broker) == [0, 0, 0]
    assert len(replies(redis_client, broker)) == MANY
