"""A supervisor's events as lines."""

from __future__ import annotations

import re

import pytest

from common.memory import Memory
from inference_worker.cli.lines import EventLines
from inference_worker.supervision.events import BrokerFull, BrokerHasRoom

MB = 1_000_000


def test_a_line_begins_with_its_time_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    EventLines()(BrokerHasRoom("gpu", Memory(20 * MB, 200 * MB)))

    line = capsys.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} the Redis of pool 'gpu' has room again: 20 of 200 MB$", line)


def test_a_full_redis_is_a_warning_with_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    EventLines()(BrokerFull("gpu", Memory(200 * MB, 200 * MB)))

    told = "warning: the Redis of pool 'gpu' holds 200 of 200 MB: full, new requests are refused; raise its maxmemory"
    assert told in capsys.readouterr().err
