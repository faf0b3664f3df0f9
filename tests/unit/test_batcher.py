"""Which parts run next, and together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.batching.batcher import Batcher
from inference_worker.item import Batch, Part, Reason
from inference_worker.models.registry import Loaded
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
    assert lengths(batcher.next(LATER)) == [10, 11]
    assert lengths(batcher.next(LATER)) == [100]


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


def test_what_a_worker_died_of_runs_alone_and_stands_in_nobodys_way() -> None:
    batcher, loaded = Batcher(), model(rows=8)
    for taken_s, deliveries in ((0.0, 0), (1.0, 1), (2.0, 0)):
        batcher.add(part(loaded, taken_s=taken_s, deliveries=deliveries))
    first, second = batcher.next(LATER), batcher.next(LATER)
    assert (len(lengths(first)), len(lengths(second))) == (2, 1)
    assert second is not None
    assert second.reason is Reason.ALONE
    assert batcher.next(LATER) is None


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
    dropped = batcher.drop(lambda parts: [one for one in parts if one.arrays["x"].size == 4])
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


def test_rows_of_different_shapes_count_as_what_they_become_together() -> None:
    batcher, loaded = Batcher(), model(shape=(-1, -1), padded=100, pad={"x": 0.0})
    for shape in ((1, 50), (50, 1)):
        batcher.add(parts(loaded, np.zeros(shape))[0])
    assert lengths(batcher.next(LATER)) == [50]


# -- what was learned -------------------------------------------------------------------------------------------------


def run_all(batcher: Batcher, seconds: Callable[[Batch], float], now_s: float = LATER) -> list[Batch]:
    """All that is held, in batches of which it learns."""
    batches = []
    while (batch := batcher.next(now_s)) is not None:
        batcher.ran(batch, seconds(batch))
        batches.append(batch)
    return batches


def teach(
    batcher: Batcher, loaded: Loaded, lengths: Sequence[int], seconds: Callable[[Batch], float], rounds: int = 60
) -> None:
    for _ in range(rounds):
        for number, length in enumerate(lengths):
            batcher.add(part(loaded, length, taken_s=float(number)))
        run_all(batcher, seconds)


def teach_all_sizes(batcher: Batcher, loaded: Loaded, length: int, seconds: Callable[[Batch], float]) -> None:
    for rows in (1, 2, 4, 8, 16, 32, 64):
        teach(batcher, loaded, [length] * rows, seconds, rounds=4)


def by_length(batch: Batch) -> float:
    return 0.006 + 0.00013 * batch.size


def by_call(batch: Batch) -> float:
    return 0.02 + 0.0000001 * batch.size


def by_call_and_row(batch: Batch) -> float:
    return 0.02 + 0.005 * batch.rows


def past_the_cache(batch: Batch) -> float:
    return 0.001 + 0.0001 * batch.size * (1 if batch.rows <= 8 else 3)


MIXED = [6, 7, 8, 9, 10, 11, 12, 13] * 4 + [40, 41, 42, 43] * 6 + [120, 121] * 4


def test_where_time_follows_length_it_learns_to_send_batches_of_like_length() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    teach(batcher, loaded, MIXED, by_length)
    for number, length in enumerate(MIXED):
        batcher.add(part(loaded, length, taken_s=float(number)))
    batches = run_all(batcher, by_length)
    assert sum(batch.useful for batch in batches) / sum(batch.size for batch in batches) > 0.9
    assert Reason.COST in {batch.reason for batch in batches}


def test_where_the_call_itself_costs_most_it_keeps_to_large_batches() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    teach(batcher, loaded, MIXED, by_call)
    for length in MIXED:
        batcher.add(part(loaded, length))
    assert len(run_all(batcher, by_call)) <= 2


def test_where_large_batches_are_slow_for_each_row_it_finds_the_small_ones_without_any_padding() -> None:
    batcher, loaded = Batcher(), model(shape=(1,))
    teach(batcher, loaded, [1] * 64, past_the_cache)
    for _ in range(64):
        batcher.add(part(loaded))
    assert sum(batch.rows <= 8 for batch in run_all(batcher, past_the_cache)) >= 6


def test_an_overlong_one_drags_nobody_along_and_does_not_wait() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    teach(batcher, loaded, MIXED, by_length)
    batcher.add(part(loaded, 2000, taken_s=0.0))
    for number in range(63):
        batcher.add(part(loaded, 10, taken_s=1.0 + number))
    assert lengths(batcher.next(LATER)) == [2000]
    assert set(lengths(batcher.next(LATER))) == {10}


def test_the_overlong_one_that_came_late_is_not_taken_along() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    teach(batcher, loaded, MIXED, by_length)
    for number in range(63):
        batcher.add(part(loaded, 10, taken_s=float(number)))
    batcher.add(part(loaded, 2000, taken_s=100.0))
    assert set(lengths(batcher.next(LATER))) == {10}


def test_two_models_learn_apart() -> None:
    batcher, one, other = Batcher(), model(pad={"x": 0.0}), model(pad={"x": 0.0})
    teach(batcher, one, MIXED, by_length)
    teach(batcher, other, MIXED, by_call)
    for length in MIXED:
        batcher.add(part(other, length))
    assert len(run_all(batcher, by_call)) <= 2


# -- deadlines --------------------------------------------------------------------------------------------------------


def due(loaded: Loaded, within_s: float, length: int = 10, taken_s: float = 0.0) -> Part:
    return replace(part(loaded, length, taken_s=taken_s), deadline_s=within_s)


def test_a_batch_stays_so_small_that_its_most_urgent_part_is_in_time() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    teach_all_sizes(batcher, loaded, 10, by_call_and_row)
    for number in range(64):
        batcher.add(due(loaded, 0.1, taken_s=float(number) / 1000))
    batch = batcher.next(0.0)
    assert batch is not None
    assert batch.reason is Reason.DEADLINE
    assert 0.04 < by_call_and_row(batch) <= 0.1


def test_a_part_that_is_late_in_any_case_hurries_nobody() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    teach_all_sizes(batcher, loaded, 10, by_call_and_row)
    batcher.add(due(loaded, 0.001))
    for number in range(20):
        batcher.add(part(loaded, 10, taken_s=1.0 + number))
    assert len(lengths(batcher.next(0.0))) == 21


def test_a_near_deadline_passes_what_is_a_little_older() -> None:
    batcher, loaded = Batcher(), model(rows=1)
    batcher.add(part(loaded, taken_s=0.0, number=1))
    batcher.add(part(loaded, taken_s=0.5, number=2, timeout_ms=200))
    batch = batcher.next(LATER)
    assert batch is not None
    assert batch.parts[0].item.entry.id == b"2-0"


def test_what_has_waited_passes_a_new_near_deadline() -> None:
    batcher, loaded = Batcher(), model(rows=1)
    batcher.add(part(loaded, taken_s=0.0, number=1))
    batcher.add(part(loaded, taken_s=2.0, number=2, timeout_ms=200))
    batch = batcher.next(LATER)
    assert batch is not None
    assert batch.parts[0].item.entry.id == b"1-0"


def test_no_linger_goes_past_the_slack_of_a_deadline() -> None:
    batcher, loaded = Batcher(), model(linger_ms=1000.0, shape=(1,), rows=64)
    teach_all_sizes(batcher, loaded, 1, lambda batch: 0.04)
    batcher.add(part(loaded, taken_s=0.0))
    batcher.add(part(loaded, taken_s=0.0, timeout_ms=100))
    assert batcher.next(0.01) is None
    assert batcher.wait_s(0.01) == pytest.approx(0.01)
    batch = batcher.next(0.021)
    assert batch is not None
    assert (len(batch.parts), batch.reason) == (2, Reason.DEADLINE)


def test_a_batch_lingers_for_no_more_than_half_the_time_to_its_deadline() -> None:
    batcher, loaded = Batcher(), model(linger_ms=1000.0)
    batcher.add(part(loaded, taken_s=0.0, timeout_ms=100))
    assert batcher.wait_s(0.0) == pytest.approx(0.05)


# -- why --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({}, Reason.IDLE),
        ({"rows": 4}, Reason.FULL),
        ({"padded": 40, "pad": {"x": 0.0}}, Reason.TOKENS),
        ({"bytes": 160}, Reason.BYTES),
        ({"linger_ms": 5.0}, Reason.LINGER),
    ],
)
def test_a_batch_says_why_it_was_no_larger(limits: dict[str, Any], reason: Reason) -> None:
    batcher, loaded = Batcher(), model(**limits)
    for _ in range(8):
        batcher.add(part(loaded, 10))
    batch = batcher.next(LATER)
    assert batch is not None
    assert batch.reason is reason


def test_after_out_of_memory_batches_are_half_as_large() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0})
    for _ in range(64):
        batcher.add(part(loaded, 10))
    first = batcher.next(LATER)
    assert first is not None
    batcher.out_of_memory(first)
    for _ in range(64):
        batcher.add(part(loaded, 10))
    second = batcher.next(LATER)
    assert second is not None
    assert (second.rows, second.reason) == (32, Reason.CEILING)


def test_batches_that_miss_the_target_become_smaller() -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0}, target_ms=100.0)
    for _ in range(40):
        for _ in range(64):
            batcher.add(part(loaded, 10))
        batches = run_all(batcher, by_call_and_row)
    assert max(map(by_call_and_row, batches)) < 0.12


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 2), st.floats(0, 5)), min_size=1, max_size=40))
def test_none_starves_however_much_comes_behind_it(wanted: list[tuple[int, int, float]]) -> None:
    batcher, loaded = Batcher(), model(pad={"x": 0.0}, rows=8)
    held = {part(loaded, length, taken_s=0.0, stream=stream) for length, stream, _ in wanted}
    for one in held:
        batcher.add(one)
    now_s = 0.0
    # When with each batch as many newer ones come, each high and each with a near deadline
    while held and now_s < 60:
        batch = batcher.next(now_s)
        assert batch is not None
        batcher.ran(batch, by_length(batch))
        now_s += by_length(batch)
        held -= set(batch.parts)
        for _ in batch.parts:
            batcher.add(part(loaded, 10, taken_s=now_s, stream=0, timeout_ms=300))
    # Then all have left about when their patience and the work before them were over
    assert not held
