"""Log lines: for people or as JSON, each line about a request with its id and its trace, secrets in none."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from common.broker import Broker
from common.logs import JsonLine, OneLine, Repeats, about, follow, set_level
from common.protocol import Request, encode_request
from common.tensor import to_tensor
from tests.support.command import MODELS, CommandLine
from tests.support.waiting import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("test.lines")
    found.propagate = False
    yield found
    found.handlers.clear()
    found.setLevel(logging.NOTSET)
    follow(str)


def written(logger: logging.Logger, formatter: logging.Formatter, *arguments: Any, **more: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.handlers = [handler]
    logger.error(*arguments, **more)
    return stream.getvalue()


def test_a_line_about_a_request_names_it_and_its_trace(logger: logging.Logger) -> None:
    whose = about("order-1", PARENT)

    assert json.loads(written(logger, JsonLine("host-1-0-0"), "it failed", extra=whose)).items() >= {
        "level": "error", "message": "it failed", "logger": "test.lines", "process": os.getpid(), "who": "host-1-0-0",
        "request": "order-1", "trace": TRACE,
    }.items()  # fmt: skip
    assert written(logger, OneLine("%(message)s"), "it failed", extra=whose) == (
        f"it failed request=order-1 trace={TRACE}\n"
    )
    assert written(logger, OneLine("%(message)s"), "it failed") == "it failed\n"


def test_a_line_within_a_traced_request_has_its_trace_without_being_told(logger: logging.Logger) -> None:
    follow(lambda: TRACE)

    assert json.loads(written(logger, JsonLine(), "deep inside"))["trace"] == TRACE
    assert json.loads(written(logger, JsonLine(), "x", extra={"trace": "its own"}))["trace"] == "its own"


def test_a_library_that_says_the_same_again_and_again_is_heard_once_a_minute() -> None:
    now = [0.0]
    repeats = Repeats("opentelemetry", 60.0, lambda: now[0])

    def heard(name: str, line: int) -> bool:
        return repeats.filter(logging.LogRecord(name, logging.ERROR, "", line, "failed", (), None))

    exporter = "opentelemetry.exporter"
    assert [heard(exporter, 7) for _ in range(3)] == [True, False, False]
    assert [heard("our.own", 7) for _ in range(3)] == [True] * 3
    assert heard(exporter, 8)
    now[0] = 61.0
    assert heard(exporter, 7)


def test_json_stays_one_line_whatever_is_in_it(logger: logging.Logger) -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        line = written(logger, JsonLine(), "x\n\x1b[2J %s", object(), exc_info=True)

    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "ValueError: a\nb" in json.loads(line)["error"]


def test_a_level_is_set_for_a_logger_and_those_below_it(logger: logging.Logger) -> None:
    before = set_level("debug", "test.lines")

    assert logging.getLogger("test.lines.deeper").isEnabledFor(logging.DEBUG)
    assert set_level(before, "test.lines") == "debug"
    with pytest.raises(ValueError, match="must be one of debug, info, warning, error"):
        set_level("loud")


def test_all_lines_of_a_fleet_are_json_and_a_models_failure_names_its_request(
    shell: CommandLine, redis_url: str, broker: Broker, redis_client: Any, pool: str
) -> None:
    options = ("--pool", pool, "--device", "cpu", "--log-format", "json", "--log-level", "info")
    with shell.running("worker", *options, MODELS, INFERENCE_WORKER_BROKER=redis_url) as worker:
        worker.wait_for(" serves ")
        request = Request("order-1", "root", {"x": to_tensor(-1.0)}, trace=PARENT)
        redis_client.xadd(broker.keys.streams[1], {"d": encode_request(request)})
        wait_until(lambda: "no real root" in worker.printed, "it fails", 20)
        worker.stop(signal.SIGTERM)
        lines = [json.loads(line) for line in worker.printed.splitlines()]

    [failure] = [line for line in lines if "no real root" in line["message"]]
    assert (failure["request"], failure["trace"], failure["level"]) == ("order-1", TRACE, "error")
    assert failure["who"].endswith("-0-0")
    assert all(line.keys() >= {"time", "level", "message", "logger", "process"} for line in lines)
    assert any(line["logger"] == "events" and "draining 1 workers" in line["message"] for line in lines)
