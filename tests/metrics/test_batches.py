"""What a worker's tally records of a batch: whose it is, how full, and how long its requests waited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.metrics.recorded import Recorded
from inference_worker.item import Reason, batch_of
from inference_worker.metrics.meter import Meter
from tests.support.items import model, parts

STARTED_S = 50.0


def recorded(folder: Path) -> dict[tuple[str, ...], list[float]]:
    found = Recorded(folder)()
    return {(one.metric.name.removeprefix("inference_worker_"), *one.labels[1:]): list(one.cells) for one in found}


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    return Meter(tmp_path / "worker-3", "p", "cuda:1")


def test_a_batchs_time_is_shared_out_by_rows_among_its_tenants(meter: Meter, tmp_path: Path) -> None:
    loaded = model(shape=(2,))
    of_acme = parts(loaded, np.zeros((3, 2)), tenant="acme")
    of_nobody = parts(loaded, np.zeros((1, 2)))

    meter.tally().add(batch_of([*of_acme, *of_nobody]), STARTED_S, 0.8)

    found = recorded(tmp_path)
    assert found["tenant_compute_seconds_total", "acme"] == [pytest.approx(0.6)]
    assert found["tenant_compute_seconds_total", "-"] == [pytest.approx(0.2)]
    assert (found["tenant_rows_total", "acme"], found["tenant_requests_total", "acme"]) == ([3.0], [1.0])
    assert found["busy_seconds_total", "cuda:1", "3"] == [pytest.approx(0.8)]


def test_a_request_of_many_parts_counts_once_in_whatever_batches_they_run(meter: Meter, tmp_path: Path) -> None:
    tally = meter.tally()
    first, second, third = parts(model(pad={"x": 0.0}), np.zeros((3, 4)))

    tally.add(batch_of([first, second]), STARTED_S, 0.1)
    tally.add(batch_of([third], Reason.FULL), STARTED_S, 0.1)

    found = recorded(tmp_path)
    assert found["model_requests_total", "m", "1"] == [1.0]
    assert found["tenant_requests_total", "-"] == [1.0]
    assert found["batch_rows", "m"][-1] == 3
    assert sum(found["queue_seconds", "m"][:-1]) == 1
    assert (found["batches_total", "m", "idle"], found["batches_total", "m", "full"]) == ([1.0], [1.0])
