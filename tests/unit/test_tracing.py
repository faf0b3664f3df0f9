"""Whether a process traces, how many traces it begins, and what counts as a trace's context."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.tracecontext import TraceContext, read_context
from common.tracing import Budget, Share, budget_of, wanted

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("flag", "environment", "on"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, HERE, True),
        (False, {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (True, {"OTEL_SDK_DISABLED": "true"}, False),
        (True, {**HERE, "OTEL_TRACES_EXPORTER": "none"}, False),
        (False, {**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        (False, {**HERE, "OTEL_TRACES_EXPORTER": "zipkin"}, False),
    ],
)
def test_the_flag_or_opentelemetrys_variables_turn_it_on(flag: bool, environment: dict[str, str], on: bool) -> None:
    assert wanted(flag, environment) is on


def test_a_flag_that_the_environment_makes_impossible_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"otlp over grpc: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"):
        wanted(True, {**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_a_budget_gives_a_seconds_worth_at_once_and_then_by_the_clock() -> None:
    now = [0.0]
    budget = Budget(10, lambda: now[0])

    assert [budget.take() for _ in range(12)] == [True] * 10 + [False] * 2
    now[0] = 0.25
    assert [budget.take() for _ in range(4)] == [True, True, False, False]
    now[0] = 100.0
    assert sum(budget.take() for _ in range(100)) == 10


def test_a_ratio_of_the_environment_is_decided_at_the_head() -> None:
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.2"}
    share, everything = budget_of(ratio), budget_of({**ratio, "OTEL_TRACES_SAMPLER_ARG": "1"})

    assert isinstance(share, Share)
    assert isinstance(everything, Share)
    assert 0 < sum(share.take() for _ in range(1000)) < 500
    assert all(everything.take() for _ in range(100))
    assert isinstance(budget_of({}), Budget)
    assert budget_of({"OTEL_TRACES_SAMPLER": "always_off"}) is None


def test_a_context_goes_through_the_wire_and_back() -> None:
    context = read_context({"traceparent": PARENT, "tracestate": "a=1"})

    assert context == TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "a=1")
    assert context.wire == {"traceparent": PARENT, "tracestate": "a=1"}


def test_a_later_version_may_have_more_behind_it() -> None:
    assert read_context({"traceparent": f"cc-{PARENT[3:]}-what-the-future-holds"}) is not None


@pytest.mark.parametrize(
    "parent",
    [
        "", "00", PARENT.upper(), f"{PARENT}-more", f" {PARENT}", f"{PARENT}\n", f"ff-{PARENT[3:]}",
        PARENT.replace("-", "_"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{'1' * 32}-{'0' * 16}-01", PARENT[:-1], "x" * 512,
    ],
)  # fmt: skip
def test_what_is_no_context_is_passed_over(parent: str) -> None:
    assert read_context({"traceparent": parent}) is None
