"""Which parts run next, and together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.batcher import Batcher
from inference_worker.item import Batch
from tests.support.items import model, part, parts

LATER = 1000.0


def lengths(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [one.length for one in batch.parts]


def test_without_parts_there_is_no_batch() -> None:
    assert Batcher().next(LATER) is None
    assert Batcher().wait_s(LATER) is None


def test_what_is_there_leaves_at_once_when_the_device_is_free() -> None:
    batcher, loaded = Batcher(), model(rows=8)
    batcher.add(part(loaded))
    assert len(lengths(batcher.next(LATER))) == 1
    assert batcher.rows == 0


def test_no_batch_exceeds_the_limit_in_rows() -> None:
    batcher, loaded = Batcher(), model(rows=4)
    for _ in range(10):
        batcher.add(part(loaded))
    sizes = [len(lengths(batcher.next(LATER))) for _ in range(3)]
    assert sizes == [4, 4, 2]


def test_no_batch_exceeds_the_limit_in_padded_elements() -> None:
    batcher, loaded = Batcher(), model(rows=64, padded=100, pad={"x": 0.0})
    for length in (10, 20, 30, 40, 50):
        batcher.add(part(loaded, length))
    while (batch := batcher.next(LATER)) is not None:
        assert max(lengths(batch)) * len(batch.parts) <= 100


def test_a_part_over_the_padded_limit_runs_by_itself() -> None:
    batcher, loaded = Batcher(), model(rows=64, padded=100, pad={"x": 0.0})
    batcher.add(part(loaded, 500, taken_s=0.0))
    batcher.add(part(loaded, 20, taken_s=1.0))
    assert lengths(batcher.next(LATER)) == [500]


def test_the_oldest_leads_and_takes_its_likes_along() -> None:
    batcher, loaded = Batcher(), model(rows=3, pad={"x": 0.0})
    for taken_s, length in enumerate((50, 10, 52, 11, 100, 51)):
        batcher.add(part(loaded, length, taken_s=float(taken_s)))
    assert lengths(batcher.next(LATER)) == [50, 51, 52]
    assert lengths(batcher.next(LATER)) == [10, 11, 100]


def test_of_equal_lengths_the_older_go_first() -> None:
    batcher, loaded = Batcher(), model(rows=2)
    for number in range(4):
        batcher.add(part(loaded, number=number, taken_s=float(number)))
    batch = batcher.next(LATER)
    assert batch is not None
    assert [one.item.entry.id for one in batch.parts] == [b"0-0", b"1-0"]


def test_different_models_and_fixed_shapes_do_not_mix() -> None:
    batcher, one, other = Batcher(), model(), model()
    batcher.add(part(one, 3, taken_s=0.0))
    batcher.add(part(other, 3, taken_s=1.0))
    batcher.add(part(one, 4, taken_s=2.0))
    assert [len(lengths(batcher.next(LATER))) for _ in range(3)] == [1, 1, 1]


def test_what_a_worker_died_of_runs_alone() -> None:
    batcher, loaded = Batcher(), model(rows=8)
    batcher.add(part(loaded, taken_s=0.0))
    batcher.add(part(loaded, taken_s=1.0, deliveries=1))
    batcher.add(part(loaded, taken_s=2.0))
    sizes = [len(lengths(batcher.next(LATER))) for _ in range(3)]
    assert sizes == [1, 1, 1]


def test_a_high_one_passes_a_normal_one_that_is_just_older() -> None:
    batcher, loaded = Batcher(), model(rows=1)
    batcher.add(part(loaded, taken_s=0.0, stream=1, number=1))
    batcher.add(part(loaded, taken_s=0.01, stream=0, number=2))
    batch = batcher.next(LATER)
    assert batch is not None
    assert batch.parts[0].item.entry.id == b"2-0"


def test_a_low_one_that_has_waited_passes_a_new_high_one() -> None:
    batcher, loaded = Batcher(), model(rows=1)
    batcher.add(part(loaded, taken_s=0.0, stream=2, number=1))
    batcher.add(part(loaded, taken_s=1.0, stream=0, number=2))
    batch = batcher.next(LATER)
    assert batch is not None
    assert batch.parts[0].item.entry.id == b"1-0"


def test_a_model_with_a_linger_waits_for_more_until_it_is_over() -> None:
    batcher, loaded = Batcher(), model(rows=4, linger_ms=100.0)
    batcher.add(part(loaded, taken_s=1.0))
    assert batcher.next(1.05) is None
    assert batcher.wait_s(1.05) == pytest.approx(0.05)
    assert batcher.next(1.11) is not None


def test_a_full_batch_does_not_linger() -> None:
    batcher, loaded = Batcher(), model(rows=2, linger_ms=100.0)
    batcher.add(part(loaded, taken_s=1.0))
    batcher.add(part(loaded, taken_s=1.0))
    assert batcher.next(1.0) is not None


def test_what_is_unwanted_is_taken_out() -> None:
    batcher, loaded = Batcher(), model()
    for length in (3, 4, 5):
        batcher.add(part(loaded, length))
    dropped = batcher.drop(lambda one: one.arrays["x"].size == 4)
    assert len(dropped) == 1
    assert batcher.rows == 2


def test_a_large_request_is_cut_into_batches() -> None:
    batcher, loaded = Batcher(), model(shape=(2,), rows=4)
    for one in parts(loaded, [[1, 2]] * 10):
        batcher.add(one)
    assert [batch.rows for batch in iter(lambda: batcher.next(LATER), None)] == [4, 4, 2]


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 2)), max_size=60), st.integers(1, 16))
def test_every_part_leaves_exactly_once_and_the_due_one_leaves_first(wanted: list[tuple[int, int]], rows: int) -> None:
    batcher, loaded = Batcher(), model(rows=rows, padded=400, pad={"x": 0.0})
    held = {
        part(loaded, length, taken_s=float(n), stream=stream, number=n) for n, (length, stream) in enumerate(wanted)
    }
    for one in held:
        batcher.add(one)
    while (batch := batcher.next(LATER)) is not None:
        assert min(held, key=lambda one: one.order) in batch.parts
        assert set(batch.parts) <= held
        held -= set(batch.parts)
    assert not held
    assert batcher.rows == 0
