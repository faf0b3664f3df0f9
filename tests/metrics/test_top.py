"""Which names of many are shown by themselves, so that what Prometheus makes of their counters is right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.metrics.declared import OTHER
from common.metrics.top import Top, top


def test_few_names_are_all_shown() -> None:
    assert Top(2).look({"a": 3.0, "b": 1.0}) == {"a": 3.0, "b": 1.0}


def test_of_many_those_that_grow_most_are_shown() -> None:
    assert Top(1).look({"a": 3.0, "b": 9.0, "c": 2.0}) == {"b": 9.0, OTHER: 5.0}


def test_a_name_that_grows_no_more_gives_way_to_one_that_grows_much() -> None:
    looks = Top(1)
    looks.look({"a": 10.0, "b": 1.0})

    for step in range(1, 20):
        shown = looks.look({"a": 10.0, "b": 1.0 + 100 * step})

    assert shown.keys() == {"b", OTHER}


def test_a_name_that_is_shown_stays_where_another_grows_as_much() -> None:
    looks = Top(1)
    looks.look({"a": 10.0, "b": 9.0})

    for step in range(1, 20):
        shown = looks.look({"a": 10.0 + 10 * step, "b": 9.0 + 11 * step})
        assert "a" in shown


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000), max_size=8), max_size=20))
def test_what_the_others_count_together_never_falls_and_no_more_are_shown_than_may_be(
    steps: list[dict[str, int]],
) -> None:
    looks, counts, other = Top(3), dict.fromkeys("abcdefgh", 0.0), 0.0
    for step in steps:
        for name, growth in step.items():
            counts[name] += growth
        shown = looks.look(counts)
        assert len(shown.keys() - {OTHER}) <= 3
        assert shown.get(OTHER, 0.0) >= other
        other = shown.get(OTHER, 0.0)


def test_a_name_that_is_called_as_the_others_are_counts_with_them() -> None:
    assert Top(2).look({OTHER: 4.0, "a": 1.0}) == {"a": 1.0, OTHER: 4.0}


def test_of_counts_that_may_fall_the_largest_are_shown() -> None:
    assert top({"a": 5, "b": 7, "c": 1}, most=1) == {"b": 7, OTHER: 6}
    assert top({"a": 5, OTHER: 7}, most=2) == {"a": 5, OTHER: 7}
