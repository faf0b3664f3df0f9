"""What a door counts of its models: names that callers make up take bounded memory."""

from __future__ import annotations

from gateway.door.statistics import MOST, Statistics


def test_names_that_never_answered_are_counted_up_to_a_bound() -> None:
    counts = Statistics()
    for number in range(MOST + 1):
        counts.failed(f"m{number}", None, 0.1)

    assert counts.of("m0", "").failed == 1
    assert counts.of(f"m{MOST}", "").failed == 0


def test_what_is_too_long_for_a_name_is_not_kept() -> None:
    counts = Statistics()
    counts.failed("m" * 10_000, "1", 0.1)

    assert counts.of("m" * 10_000, "1").failed == 0
