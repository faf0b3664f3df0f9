"""What loaders may do at once."""

from __future__ import annotations

from common.orders import Order
from inference_worker.models.jobs import Jobs, Wanted

A, B = Wanted(("a", "1")), Wanted(("b", "1"))
ORDER = Order("id", "load", "c")


def jobs_of(*jobs: Wanted | Order) -> Jobs:
    found = Jobs()
    for job in jobs:
        found.add(job)
    return found


def test_models_that_are_wanted_load_beside_each_other() -> None:
    jobs = jobs_of(A, B)
    assert jobs.begin() == A
    assert jobs.next_may_begin
    assert jobs.begin() == B
    assert not jobs.next_may_begin


def test_an_order_waits_until_what_was_begun_before_it_is_done() -> None:
    jobs = jobs_of(A, ORDER)
    jobs.begin()
    assert not jobs.next_may_begin
    jobs.done()
    assert jobs.next_may_begin


def test_nothing_begins_while_an_order_is_obeyed() -> None:
    jobs = jobs_of(ORDER, A)
    assert jobs.begin() == ORDER
    assert not jobs.next_may_begin
    jobs.done()
    assert jobs.begin() == A
