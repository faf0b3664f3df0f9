"""The models of a process: lent, waited for, evicted, replaced."""

from __future__ import annotations

import threading

import pytest

from common.errors import ConfigError, ModelNotFound, ModelUnavailable
from common.orders import Order
from common.scripts import Place
from inference_worker.models.jobs import Wanted
from inference_worker.models.library import Library
from inference_worker.models.registry import Key, Loaded, Title
from inference_worker.models.spec import ModelSpec, Residence
from tests.support.items import FunctionBackend
from tests.support.waiting import wait_until

A, B, C = ("a", "1"), ("b", "1"), ("c", "1")


class Clock:
    """Moves a little each time it is read."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.01
        return self.now_s


def place(number: int) -> Place:
    return 1, f"{number}-0".encode()


def spec_of(key: Key, **more: object) -> ModelSpec:
    return ModelSpec(*key, "python", **more)  # type: ignore[arg-type]


def library_of(*keys: Key, limit: int | None = None) -> Library:
    """A library that offers these models, none of them in memory."""
    library = Library(limit, Clock())
    for name in {name for name, _ in keys}:
        library.offer(name, [Title(spec_of(key), "w") for key in keys if key[0] == name])
    return library


def bring(library: Library, key: Key, size: int = 1, **more: object) -> Loaded:
    """Load a model as a loader does."""
    loaded = Loaded(spec_of(key, **more), FunctionBackend(lambda batch: batch))
    library.arrived(loaded, size)
    name = key[0]
    titles = {title.key: title for title in library.registry.versions(name)} | {key: Title(loaded.spec, "w")}
    library.offer(name, list(titles.values()))
    return loaded


def test_a_model_in_memory_is_lent_and_in_use_until_the_entry_is_finished() -> None:
    library = library_of(A)
    loaded = bring(library, A)

    assert library.lend(place(1), "a", None) is loaded
    assert library.held.uses(loaded) == 1
    library.held.finish([place(1)])
    assert library.held.uses(loaded) == 0


def test_the_first_who_asks_for_a_model_has_it_loaded_and_the_others_wait_with_him() -> None:
    library = library_of(A)

    assert [library.lend(place(number), "a", None) for number in range(3)] == [A, A, A]

    assert library.next_job() == Wanted(A)
    assert library.awaits(A)
    loaded = bring(library, A)
    assert not library.awaits(A)
    assert library.lend(place(0), "a", None) is loaded


def test_a_failed_load_is_told_to_all_who_waited_and_to_who_asks_soon_after() -> None:
    library = library_of(A)
    library.lend(place(1), "a", None)
    library.next_job()

    library.failed(A, ConfigError("no file w.npy"))

    assert not library.awaits(A)
    for number in (1, 2):
        with pytest.raises(ModelUnavailable, match=r"model 'a:1' cannot be loaded: no file w\.npy \(tried again from "):
            library.lend(place(number), "a", None)


def test_who_waited_for_a_load_that_failed_is_told_however_late_he_looks() -> None:
    clock = Clock()
    library = Library(clock=clock)
    library.offer("a", [Title(spec_of(A), "w")])
    library.lend(place(1), "a", None)
    library.next_job()
    library.failed(A, ConfigError("no file w.npy"))

    clock.now_s += 60

    with pytest.raises(ModelUnavailable):
        library.lend(place(1), "a", None)


def test_of_a_model_that_can_never_fit_no_other_try_is_promised() -> None:
    library = library_of(A, limit=100)
    library.lend(place(1), "a", None)
    with pytest.raises(ModelUnavailable) as caught:
        library.make_room("model 'a:1'", 101)

    library.failed(A, caught.value)

    with pytest.raises(ModelUnavailable, match=r"more than the whole memory budget of .*; raise --memory-budget$"):
        library.lend(place(1), "a", None)


def test_a_failed_load_is_tried_again_after_a_while() -> None:
    clock = Clock()
    library = Library(clock=clock)
    library.offer("a", [Title(spec_of(A), "w")])
    library.lend(place(1), "a", None)
    library.next_job()
    library.failed(A, ConfigError("no file w.npy"))

    clock.now_s += 60

    assert library.lend(place(2), "a", None) == A
    assert library.next_job() == Wanted(A)


def test_a_replaced_model_is_lent_no_more_and_closed_when_its_last_entry_is_finished() -> None:
    # Given an entry that uses a model
    library = library_of(A)
    old = bring(library, A)
    library.lend(place(1), "a", None)
    # When another one takes its place
    new = bring(library, A)
    # Then the next entry gets that, and the old one is closed only after the first entry
    assert library.lend(place(2), "a", None) is new
    assert library.take_free() == []
    library.held.finish([place(1)])
    assert library.take_free() == [old]
    assert library.take_free() == []


def test_a_version_that_is_offered_no_more_leaves_and_an_older_one_is_the_default() -> None:
    library = library_of(A, ("a", "2"))
    older, newer = bring(library, A), bring(library, ("a", "2"))

    library.offer("a", [Title(older.spec, "w")])

    assert library.lend(place(1), "a", None) is older
    assert library.take_free() == [newer]
    with pytest.raises(ModelNotFound):
        library.lend(place(1), "a", "2")


def test_who_waits_for_what_is_offered_no_more_is_told_so() -> None:
    library = library_of(A)
    library.lend(place(1), "a", None)

    library.offer("a", [])
    library.settled(A)

    assert not library.awaits(A)
    with pytest.raises(ModelNotFound):
        library.lend(place(1), "a", None)


def test_versions_with_one_alias_change_nothing() -> None:
    library = library_of(A)
    loaded = bring(library, A)

    with pytest.raises(ConfigError, match="both have the alias 'prod'"):
        library.offer("a", [Title(spec_of(("a", version), aliases=("prod",)), "w") for version in ("1", "2")])

    assert library.lend(place(1), "a", None) is loaded


def test_the_least_recently_used_model_makes_room() -> None:
    library = library_of(A, B, C, limit=2)
    bring(library, A)
    second = bring(library, B)
    library.lend(place(1), "a", None)
    library.held.finish([place(1)])

    assert not library.make_room("model 'c:1'", 1)
    assert library.take_free() == [second]
    library.closed()
    assert library.make_room("model 'c:1'", 1)
    assert (library.evictions, library.in_memory(9), library.evicted_lately(9)) == (1, {"a:1": 1}, {"b:1": 1})


def test_a_pinned_model_is_never_evicted() -> None:
    library = library_of(A, B, C, limit=2)
    bring(library, A, residence=Residence(pinned=True))
    second = bring(library, B)

    library.make_room("model 'c:1'", 1)

    assert library.take_free() == [second]


def test_a_model_in_use_keeps_its_memory_until_it_is_used_no_more() -> None:
    # Given a budget that is full of a model with a request
    library = library_of(A, B, limit=1)
    loaded = bring(library, A)
    library.lend(place(1), "a", None)
    # When another one needs its room
    made: list[bool] = []
    waiting = threading.Thread(target=lambda: made.append(library.make_room("model 'b:1'", 1)))
    waiting.start()
    wait_until(lambda: A not in library.loaded, "it is to go")
    assert made == []
    assert library.take_free() == []
    # Then that has to wait for the request
    library.held.finish([place(1)])
    waiting.join(10)
    assert made == [False]
    assert library.take_free() == [loaded]
    library.closed()
    assert library.make_room("model 'b:1'", 1)


def test_a_model_is_not_evicted_before_those_who_waited_for_it_have_it() -> None:
    # Given a request that waited, and its model that has come
    library = library_of(A, B, limit=1)
    library.lend(place(1), "a", None)
    loaded = bring(library, A)
    # When another one needs the room
    made: list[bool] = []
    waiting = threading.Thread(target=lambda: made.append(library.make_room("model 'b:1'", 1)))
    waiting.start()
    # Then it waits until the request has been answered
    assert library.lend(place(1), "a", None) is loaded
    wait_until(lambda: A not in library.loaded, "it may go now")
    library.held.finish([place(1)])
    waiting.join(10)
    assert made == [False]


def test_what_has_arrived_counts_and_is_lent_only_when_it_is_offered() -> None:
    library = library_of(A, limit=3)
    new = Loaded(spec_of(("a", "2")), FunctionBackend(lambda batch: batch))

    library.arrived(new, 2)

    assert not library.fits(2)
    with pytest.raises(ModelNotFound):
        library.lend(place(1), "a", "2")
    library.abandon()
    assert library.take_free() == [new]
    library.closed()
    assert library.fits(3)


def test_a_retired_model_stays_offered_and_is_waited_for() -> None:
    library = library_of(A)
    loaded = bring(library, A)

    assert not library.retire([A])
    assert library.take_free() == [loaded]
    library.closed()
    assert library.retire([A])

    assert library.lend(place(1), "a", None) == A


def test_orders_and_wanted_models_are_done_in_the_order_in_which_they_came() -> None:
    library = library_of(A)
    order = Order("id", "load", "b")
    library.lend(place(1), "a", None)
    library.order(order)

    assert library.next_job() == Wanted(A)
    library.done()
    assert library.next_job() == order


def test_two_models_load_at_once_and_each_has_its_room() -> None:
    # Given room for three, of which one load was promised two
    library = library_of(A, B, limit=3)
    assert library.make_room("model 'a:1'", 2)

    # When another one that needs two asks for room
    made: list[bool] = []
    waiting = threading.Thread(target=lambda: made.append(library.make_room("model 'b:1'", 2)))
    waiting.start()

    # Then it waits for the first to come and to go
    assert not library.fits(2)
    loaded = Loaded(spec_of(A), FunctionBackend(lambda batch: batch))
    library.serve(loaded, 2, promised=2)
    waiting.join(10)
    assert made == [False]
    assert library.take_free() == [loaded]
    library.closed()
    assert library.make_room("model 'b:1'", 2)


def test_room_that_was_made_for_what_does_not_load_is_free_again() -> None:
    library = library_of(A, limit=3)
    assert library.make_room("model 'a:1'", 3)
    assert not library.fits(1)

    library.forgo(3)

    assert library.fits(3)


def test_what_another_thread_closes_still_takes_its_memory() -> None:
    library = library_of(A, B, limit=1)
    loaded = bring(library, A)
    assert not library.make_room("model 'b:1'", 1)
    assert library.take_free() == [loaded]

    made: list[bool] = []
    waiting = threading.Thread(target=lambda: made.append(library.make_room("model 'b:1'", 1)))
    waiting.start()
    assert not library.fits(1)
    assert library.at_work

    library.closed()
    waiting.join(10)
    assert made == [True]


def test_of_two_versions_that_load_at_once_each_is_lent_with_its_own_digest() -> None:
    # Given a model of which one version's files have changed, so that its digest will be another one
    newer = ("a", "2")
    library = library_of(A, newer)
    first, second = (Loaded(spec_of(key), FunctionBackend(lambda batch: batch)) for key in (A, newer))
    second.backend.weights = "other"

    assert library.serve(second, 1, promised=0)
    assert not library.serve(first, 1, promised=0)

    assert library.loaded == {A: first, newer: second}
    assert [title.weights for title in library.registry.versions("a")] == ["w", "other"]


def test_what_was_taken_away_while_it_loaded_is_closed_and_not_lent() -> None:
    library = library_of(A)
    loaded = Loaded(spec_of(A), FunctionBackend(lambda batch: batch))
    library.offer("a", [])

    assert not library.serve(loaded, 1, promised=0)

    assert library.take_free() == [loaded]
