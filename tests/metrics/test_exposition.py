"""Sources gathered for whoever scrapes: one that fails leaves the others, and none is asked too often."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from common.metrics.declared import ALL, REDIS_UP, WORKERS, Sample, sample
from common.metrics.exposition import Exporter, Lately


def told(exporter: Exporter) -> dict[str, float]:
    return {
        f"{one.name}{''.join(one.labels.values())}": one.value
        for family in exporter.collect()
        for one in family.samples
    }


def broken() -> Iterable[Sample]:
    raise ValueError("no such file")


def test_a_part_that_cannot_be_read_leaves_the_others_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter()
    exporter.add("sound", lambda: [sample(WORKERS, 3, "p")])
    exporter.add("broken", broken)

    told(exporter)
    found = told(exporter)

    assert found["inference_worker_pool_workersp"] == 3
    assert found["inference_worker_metrics_failures_totalbroken"] == 2
    assert found["inference_worker_metrics_failures_totalsound"] == 0
    [line] = [record.message for record in caplog.records if record.name == "common.metrics.exposition"]
    assert "'broken'" in line


def test_the_registry_is_told_all_names_and_asks_no_source_for_them() -> None:
    exporter = Exporter()
    exporter.add("broken", broken)

    assert [family.name for family in exporter.describe()] == [metric.name.removesuffix("_total") for metric in ALL]


def test_a_hundred_scrapers_ask_once_a_second() -> None:
    now_s, asked = 0.0, 0

    def source() -> Iterable[Sample]:
        nonlocal asked
        asked += 1
        return [sample(REDIS_UP, asked)]

    lately = Lately(source, clock=lambda: now_s)
    for _ in range(100):
        assert lately() == [sample(REDIS_UP, 1)]
    now_s = 1.0

    assert lately() == [sample(REDIS_UP, 2)]


def test_a_source_that_takes_long_is_left_alone_for_as_long_afterwards() -> None:
    now_s, asked = 0.0, 0

    def slow() -> Iterable[Sample]:
        nonlocal now_s, asked
        now_s += 3.0
        asked += 1
        return []

    lately = Lately(slow, clock=lambda: now_s)
    lately()
    lately()

    assert asked == 1
