"""A process's metrics in a file: what is written is what is read, whatever happens to the writer."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from common.errors import ConfigError
from common.metrics.declared import (
    ALL,
    BATCHES,
    OPEN,
    OTHER,
    QUEUE,
    REQUESTS,
    TENANT_REQUESTS,
    TENANT_ROWS,
    Kind,
    Metric,
    Sample,
)
from common.metrics.exposition import families
from common.metrics.recorded import Recorded
from common.metrics.recording import FILE_BYTES, Recorder, Recordings
from inference_worker.item import Reason

RECORDED = [metric for metric in ALL if metric.kind is not Kind.GAUGE]


def numbers(folder: Path) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    return Recordings(folder).read()


def test_a_number_is_what_was_added_to_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "worker-0")

    recorder.number(REQUESTS, "p", "high").add(3)
    recorder.number(REQUESTS, "p", "high").add(0.5)

    assert numbers(tmp_path) == {(REQUESTS.name, ("p", "high")): [3.5]}


@given(st.lists(st.floats(0, 100) | st.sampled_from(QUEUE.bounds), max_size=50))
def test_a_histogram_filled_at_once_is_one_filled_value_by_value(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    theirs = Histogram("theirs", "", buckets=QUEUE.bounds, registry=(registry := CollectorRegistry()))
    for value in values:
        theirs.observe(value)
    folder = tmp_path_factory.mktemp("h")

    Recorder(folder / "worker-0").histogram(QUEUE, "p", "m").add(list(values))

    [family] = families(Sample(QUEUE, labels, cells) for (_, labels), cells in numbers(folder).items())
    ours = {(one.name.rpartition("_")[2], one.labels.get("le")): one.value for one in family.samples}
    expected = {
        (one.name.rpartition("_")[2], one.labels.get("le")): one.value
        for found in registry.collect()
        for one in found.samples
        if not one.name.endswith("_created")
    }
    assert ours == pytest.approx(expected)


def test_several_processes_are_added_up(tmp_path: Path) -> None:
    for place, count in (("worker-0", 2), ("worker-1", 5)):
        Recorder(tmp_path / place).number(REQUESTS, "p", "low").add(count)

    assert numbers(tmp_path) == {(REQUESTS.name, ("p", "low")): [7.0]}


def test_who_is_killed_has_lost_nothing_and_the_next_in_his_place_counts_on(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from common.metrics.declared import REQUESTS; "
        "from common.metrics.recording import Recorder; r = Recorder(Path(sys.argv[1])); "
        "r.number(REQUESTS, 'p', 'high').add(10); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "worker-0")], env={**os.environ, "PYTHONPATH": "."})

    assert numbers(tmp_path) == {(REQUESTS.name, ("p", "high")): [20.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["worker-0"]


def test_all_room_of_a_file_is_taken_when_it_is_made(tmp_path: Path) -> None:
    Recorder(tmp_path / "worker-0")

    assert (tmp_path / "worker-0").stat().st_blocks * 512 >= FILE_BYTES


def test_a_reader_sees_what_was_named_after_he_came(tmp_path: Path) -> None:
    recorder, reader = Recorder(tmp_path / "worker-0"), Recordings(tmp_path)
    assert reader.read() == {}

    recorder.number(REQUESTS, "p", "high").add(1)
    first = reader.read()
    recorder.number(REQUESTS, "p", "low").add(2)

    assert (len(first), len(reader.read())) == (1, 2)


def hostile(metric: Metric, number: int) -> tuple[str, ...]:
    """The longest names that may come in, each time others."""
    return tuple(f"{number:x}".ljust(128, "z") if label in OPEN else "0123456789" * 3 for label in metric.labels)


def test_however_many_names_come_in_the_file_has_room_for_every_metric(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "worker-0")

    for metric in RECORDED:
        for number in range(2 * metric.most):
            for reason in Reason if metric is BATCHES else (None,):
                labels = hostile(metric, number)
                labels = labels if reason is None else (*labels[:-1], reason.value)
                place = recorder.histogram if metric.kind is Kind.HISTOGRAM else recorder.number
                place(metric, *labels).add([1.0] if metric.kind is Kind.HISTOGRAM else 1)  # type: ignore[arg-type]

    found = numbers(tmp_path)
    for metric in RECORDED:
        sets = [labels for name, labels in found if name == metric.name]
        assert len(sets) <= metric.most + len(Reason)
        if OPEN & set(metric.labels):
            assert any(OTHER in labels for labels in sets), metric.name
    counted = sum(cells[0] for (name, _), cells in found.items() if name == TENANT_ROWS.name)
    assert counted == 2 * TENANT_ROWS.most


def test_of_many_tenants_twenty_are_shown_and_the_rest_together(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "worker-0")
    for number in range(100):
        recorder.number(TENANT_REQUESTS, "p", f"t{number:02}").add(number)

    shown = {one.labels[-1]: one.cells[0] for one in Recorded(tmp_path)()}

    assert len(shown) == 21
    assert shown["t99"] == 99
    assert sum(shown.values()) == sum(range(100))


def test_names_that_json_and_prometheus_quote_come_through(tmp_path: Path) -> None:
    name = 'a"b\\c\nd\u2028é'
    Recorder(tmp_path / "worker-0").number(REQUESTS, name, "high").add(1)

    assert numbers(tmp_path) == {(REQUESTS.name, (name, "high")): [1.0]}


def test_written_and_read_at_once_a_count_only_grows(tmp_path: Path) -> None:
    writer = Recorder(tmp_path / "worker-0").number(REQUESTS, "p", "high")
    reader = Recordings(tmp_path)
    last = 0.0

    for _ in range(300):
        writer.add(random.randrange(1, 9))
        [[now]] = reader.read().values()
        assert now > last
        last = now


def test_where_there_is_no_room_for_a_file_that_is_said_when_it_is_made(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES // 2, before[1]))
    try:
        with pytest.raises(ConfigError, match="too large"):
            Recorder(tmp_path / "worker-0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
