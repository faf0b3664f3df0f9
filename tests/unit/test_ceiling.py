"""How large a batch may become, by what happened to those before it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from inference_worker.batching.ceiling import Ceiling


def settled(ceiling: Ceiling, fits: Callable[[int], bool], wanted: int, batches: int) -> list[int]:
    """The sizes of batches that each take what the ceiling allows of `wanted`; what does not fit is out of memory."""
    sizes = []
    for _ in range(batches):
        size = int(min(wanted, ceiling.elements))
        sizes.append(size)
        if fits(size):
            ceiling.ran(size, 0.01, None)
        else:
            ceiling.out_of_memory(size)
    return sizes


def test_without_trouble_there_is_no_ceiling() -> None:
    ceiling = Ceiling()
    ceiling.ran(10_000, 60.0, None)
    assert ceiling.elements == inf


def test_a_batch_that_missed_the_target_lowers_it_by_a_tenth() -> None:
    ceiling = Ceiling()
    ceiling.ran(1000, 0.3, target_s=0.2)
    assert ceiling.elements == pytest.approx(900)


def test_it_settles_where_batches_just_meet_the_target() -> None:
    ceiling = Ceiling()
    sizes = []
    for _ in range(300):
        size = int(min(6400, ceiling.elements))
        ceiling.ran(size, size / 10_000, target_s=0.2)
        sizes.append(size)
    assert 1700 < sum(sizes[100:]) / 200 < 2100


def test_a_small_batch_in_time_says_nothing_about_larger_ones() -> None:
    ceiling = Ceiling()
    ceiling.ran(1000, 0.3, target_s=0.2)
    ceiling.ran(10, 0.01, target_s=0.2)
    assert ceiling.elements == pytest.approx(900)


def test_out_of_memory_halves_it() -> None:
    ceiling = Ceiling()
    ceiling.out_of_memory(1000)
    assert ceiling.elements == 500


def test_it_never_forbids_a_batch_of_one() -> None:
    ceiling = Ceiling()
    for _ in range(5):
        ceiling.out_of_memory(1)
    assert ceiling.elements == 1


def test_after_out_of_memory_it_grows_up_to_what_failed_and_stays_below() -> None:
    sizes = settled(Ceiling(), lambda size: size < 1000, wanted=1000, batches=90)
    assert sizes[:2] == [1000, 500]
    assert max(sizes[2:]) < 1000
    assert sizes[-1] > 800


def test_what_failed_is_tried_again_only_after_hundreds_of_batches() -> None:
    sizes = settled(Ceiling(), lambda size: size < 1000, wanted=1000, batches=2000)
    assert 2 <= sum(size >= 1000 for size in sizes) <= 2000 // 100


def test_memory_that_is_free_again_is_used_in_the_end() -> None:
    ceiling = Ceiling()
    ceiling.out_of_memory(1000)
    assert settled(ceiling, lambda size: True, wanted=4000, batches=3000)[-1] == 4000
