"""The bounded queue between intake and runner."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Thread

from inference_worker.holding import PASSING_ROWS, Holding
from inference_worker.item import Part
from tests.support.items import model, part, parts


def no(_: Iterable[Part]) -> list[Part]:
    return []


def test_there_is_room_until_it_is_full() -> None:
    holding, loaded = Holding(3), model()
    holding.add([part(loaded), part(loaded)])
    assert holding.room == 1
    holding.add([part(loaded)])
    assert holding.room == 0


def test_where_it_is_full_there_is_some_room_for_those_who_pass_a_backlog() -> None:
    holding, loaded = Holding(1), model()
    holding.add([part(loaded), part(loaded)])
    assert (holding.room, holding.room_behind) == (0, PASSING_ROWS - 1)
    holding.close()
    assert holding.room_behind == 0


def test_taking_a_batch_makes_room_for_who_waits() -> None:
    holding, loaded = Holding(1), model()
    holding.add([part(loaded)])
    waiting = Thread(target=holding.wait_for_room, args=(10,))
    waiting.start()
    assert holding.next_batch(no)[0] is not None
    waiting.join(5)
    assert not waiting.is_alive()


def test_the_runner_waits_for_what_comes() -> None:
    holding = Holding(1)
    waiting = Thread(target=holding.wait_for_batch)
    waiting.start()
    holding.add([part(model())])
    waiting.join(5)
    assert not waiting.is_alive()


def test_the_runner_waits_until_a_linger_is_over() -> None:
    holding = Holding(8)
    holding.add([part(model(linger_ms=30.0), taken_s=time.monotonic())])
    assert holding.next_batch(no)[0] is None
    holding.wait_for_batch()
    assert holding.next_batch(no)[0] is not None


def test_what_is_unwanted_comes_out_beside_the_batch() -> None:
    holding, loaded = Holding(8), model()
    late, fine = part(loaded, number=1), part(loaded, number=2)
    holding.add([late, fine])
    batch, dropped = holding.next_batch(lambda parts: [one for one in parts if one is late])
    assert dropped == [late]
    assert batch is not None
    assert batch.parts == (fine,)


def test_closing_hands_back_what_has_not_begun_and_ends_both_sides() -> None:
    holding, loaded = Holding(8), model()
    mine = part(loaded)
    holding.add([mine])
    assert holding.close() == [mine.item]
    assert holding.next_batch(no) == (None, [])
    assert holding.room == 0
    assert not holding.add([part(loaded)])


def test_a_request_of_which_some_rows_have_run_is_finished() -> None:
    holding, loaded = Holding(8), model(shape=(2,), rows=2)
    holding.add(parts(loaded, [[1, 2]] * 4))
    assert holding.next_batch(no)[0] is not None
    assert holding.close() == []
    rest, _ = holding.next_batch(no)
    assert rest is not None
    assert rest.rows == 2
    assert holding.empty
