"""What happened how often in the last minutes."""

from __future__ import annotations

from inference_worker.models.lately import WINDOW_S, Lately


def test_names_are_counted_and_the_most_frequent_comes_first() -> None:
    lately = Lately()
    for name in ("a", "b", "b"):
        lately.add(name, 0.0)
    assert list(lately.counts(1.0).items()) == [("b", 2), ("a", 1)]


def test_what_is_long_ago_is_forgotten() -> None:
    lately = Lately()
    lately.add("a", 0.0)
    lately.add("b", 1.0)
    assert lately.counts(WINDOW_S + 0.5) == {"b": 1}
