"""docs/metrics.md is the reference of common/metrics/declared.py, and both keep to Prometheus's conventions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.metrics.declared import ALL, Kind, Metric
from gateway.admin.scaling import AT_FIRST, CATCH_UP_S, GROWTH, TARGET

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*) \| (.*) \|$", re.MULTILINE)


def row(metric: Metric) -> tuple[str, str, str, str]:
    labels = " ".join(f"`{label}`" for label in metric.labels) or "-"
    return metric.name, metric.kind.value, labels, metric.help


def test_the_page_has_a_row_for_each_metric_as_it_is_declared() -> None:
    assert _ROW.findall(PAGE) == [row(metric) for metric in ALL]


def test_names_are_given_once() -> None:
    assert len({metric.name for metric in ALL}) == len(ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_name_keeps_to_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"inference_(worker|gateway)_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.bounds) == sorted(set(metric.bounds))
    assert not re.search(r"(_ms|_us|_milliseconds|_mb|_percent)\b", metric.name)
    assert not metric.help.endswith(".")


def test_the_page_has_the_formula_as_it_is_computed() -> None:
    assert f"behind   = backlog × service / {CATCH_UP_S:.0f} s" in PAGE
    assert f"desired  = ceil(busy / {TARGET:g} + behind)" in PAGE
    assert f"at most {GROWTH} times the workers that serve, or\n  {AT_FIRST}" in PAGE
