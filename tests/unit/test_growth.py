"""What a model counts with, by its files and by what its process was seen to grow by."""

from __future__ import annotations

from inference_worker.models.growth import Growth

A, B = ("a", "1"), ("b", "1")


def test_a_model_counts_with_its_files_or_with_what_its_process_grew_by_if_that_is_more() -> None:
    growth = Growth()
    assert growth.end(growth.begin(A, need=50, resident=100), resident=120) == 50
    assert growth.end(growth.begin(B, need=50, resident=120), resident=200) == 80


def test_the_least_that_was_ever_seen_counts() -> None:
    growth = Growth()
    assert growth.end(growth.begin(A, need=10, resident=0), resident=70) == 70
    assert growth.end(growth.begin(A, need=10, resident=0), resident=30) == 30
    assert growth.end(growth.begin(A, need=10, resident=0), resident=90) == 30


def test_what_two_loads_at_once_add_is_shared_by_their_needs() -> None:
    growth = Growth()
    one = growth.begin(A, need=50, resident=0)
    other = growth.begin(B, need=100, resident=0)

    assert growth.end(one, resident=300) == 100
    assert growth.end(other, resident=300) == 200


def test_what_a_model_took_when_it_loaded_alone_is_better_known() -> None:
    growth = Growth()
    growth.end(growth.begin(A, need=50, resident=0), resident=60)
    one = growth.begin(A, need=50, resident=0)
    growth.give_up(growth.begin(B, need=50, resident=0))

    assert growth.end(one, resident=500) == 60
