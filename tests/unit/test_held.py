"""What a worker has in its hands, and what is in use for it."""

from __future__ import annotations

from inference_worker.models.held import Held

FIRST, SECOND = (1, b"1-0"), (1, b"2-0")


def test_what_is_taken_is_held_until_it_is_finished() -> None:
    held = Held()
    held.take([FIRST, SECOND])

    held.finish([FIRST])

    assert FIRST not in held
    assert SECOND in held
    assert len(held) == 1


def test_a_model_is_in_use_until_the_last_of_its_entries_is_finished() -> None:
    held = Held()
    held.take([FIRST, SECOND])
    for place in (FIRST, SECOND):
        held.use(place, "model")

    held.finish([FIRST])
    assert held.uses("model") == 1

    held.finish([SECOND])
    assert held.uses("model") == 0


def test_an_entry_that_waited_for_a_model_waits_no_more_once_it_uses_it() -> None:
    held = Held()
    held.use(FIRST, ("m", "1"))

    held.use(FIRST, "model")

    assert (held.uses(("m", "1")), held.uses("model")) == (0, 1)


def test_who_watches_hears_when_something_is_used_no_longer_and_only_then() -> None:
    heard: list[int] = []
    held = Held()
    held.watch(lambda: heard.append(len(held)))
    held.take([FIRST, SECOND])
    for place in (FIRST, SECOND):
        held.use(place, "model")

    held.finish([FIRST])
    assert heard == []

    held.finish([SECOND])
    assert heard == [0]


def test_what_was_never_held_may_be_finished() -> None:
    held = Held()

    held.finish([FIRST])

    assert len(held) == 0


def test_an_entry_that_is_taken_again_keeps_its_model_in_use() -> None:
    held = Held()
    held.use(FIRST, "model")

    held.take([FIRST])

    assert held.uses("model") == 1
