"""Who is let in, who waits and who is refused; and the limit that finds itself."""

from __future__ import annotations

import pytest

from common.errors import Overloaded
from gateway.door.adaptive import WINDOW, AdaptiveLimit
from gateway.door.limiter import Limiter, Limits


def test_over_the_total_one_waits_and_is_let_in_when_another_leaves() -> None:
    limiter = Limiter(Limits(total=1))
    first, second = limiter.enter("m"), limiter.enter("m")

    assert (first.admitted, second.admitted) == (True, False)
    assert limiter.leave(first) == [second]
    assert second.admitted


def test_a_models_limit_holds_up_no_other_model() -> None:
    limiter = Limiter(Limits(total=9, per_model=1))

    assert [limiter.enter(model).admitted for model in ("a", "a", "b")] == [True, False, True]


def test_a_tenants_own_limit_goes_before_the_common_one() -> None:
    limiter = Limiter(Limits(total=9, per_tenant=1))

    assert [limiter.enter("m", "acme", 2).admitted for _ in range(3)] == [True, True, False]
    assert [limiter.enter("m", "other").admitted for _ in range(2)] == [True, False]


def test_tenants_are_let_in_in_turn_however_many_one_of_them_sent() -> None:
    limiter = Limiter(Limits(total=1))
    inside = limiter.enter("m", "busy")
    waiting = [limiter.enter("m", "busy") for _ in range(3)] + [limiter.enter("m", "quiet")]

    order = []
    while waiting:
        [inside] = limiter.leave(inside)
        order.append(inside.tenant)
        waiting.remove(inside)

    assert order.index("quiet") <= 1


def test_over_the_queues_bound_one_is_refused_and_told_why() -> None:
    limiter = Limiter(Limits(total=1, queue=1))
    limiter.enter("m")
    limiter.enter("m")

    with pytest.raises(Overloaded, match=r"1 requests are under way \(limit 1\), and 1 wait \(bound 1\)") as caught:
        limiter.enter("m")
    assert caught.value.retry_after_ms > 0


def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    limiter = Limiter(Limits(total=1))
    first, second = limiter.enter("m"), limiter.enter("m")

    assert limiter.leave(second) == []
    assert limiter.leave(first) == []
    assert (limiter.under_way, limiter.waiting) == (0, 0)


def run(limit: AdaptiveLimit, latency_s: float, windows: int) -> None:
    for _ in range(windows * WINDOW):
        limit.finished(latency_s, limit.limit)


def test_the_limit_grows_while_latency_stays() -> None:
    limit = AdaptiveLimit(16, 8, 1000)

    run(limit, 0.01, 20)

    assert limit.limit > 30


def test_the_limit_shrinks_where_latency_grows() -> None:
    limit = AdaptiveLimit(100, 8, 1000)
    run(limit, 0.01, 5)
    before = limit.limit

    run(limit, 0.05, 10)

    assert 8 <= limit.limit < before


def test_a_refusal_from_behind_cuts_the_limit_by_a_tenth() -> None:
    limit = AdaptiveLimit(100, 8, 1000)

    limit.refused()

    assert limit.limit == 90


def test_a_door_that_is_half_empty_learns_nothing_of_a_larger_limit() -> None:
    limit = AdaptiveLimit(100, 8, 1000)

    for _ in range(10 * WINDOW):
        limit.finished(0.01, 3)

    assert limit.limit == 100
