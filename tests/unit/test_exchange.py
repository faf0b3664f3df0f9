"""What a client does when the broker is away, and what it tells whom it could not serve."""

from __future__ import annotations

import pytest

from common.errors import BrokerUnavailable, Cancelled, DeadlineExceeded, InternalError
from common.keys import PoolKeys
from common.protocol import Request, encode_request
from common.scripts import Admitted, Published
from common.tensor import to_tensor
from gateway.composer import Composer
from gateway.exchange import Exchange, Fetch
from gateway.flight import Ticket
from gateway.payload import parcel
from gateway.pending import Submit
from gateway.routing import Routes
from tests.support.echo_worker import model

AWAY = BrokerUnavailable("Redis does not answer: Connection refused; it is tried again")


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(Composer(Routes()), "redis://broker:6379", most=2)


def add(exchange: Exchange, request_id: str = "a", deadline: float = 60.0) -> Ticket:
    ticket = Ticket(request_id, "p", "m", deadline, deadline)
    data = encode_request(Request(request_id, "m", {"x": to_tensor(1.0)}))
    exchange.add(ticket, parcel(PoolKeys("p"), request_id, 1, "", data))
    return ticket


def submit(exchange: Exchange, now: float) -> Submit:
    task = exchange.next_task(now)
    assert isinstance(task, Submit)
    return task


def test_after_a_failure_nothing_is_tried_for_a_while(exchange: Exchange) -> None:
    add(exchange)
    exchange.failed(submit(exchange, 0.0), AWAY, 0.0)

    assert 0.02 <= exchange.due_at(0.0) <= 0.05
    assert not exchange.ready(0.01)
    assert exchange.next_task(0.01) is None
    assert exchange.ready(0.05)


def test_each_failure_makes_the_pause_longer_up_to_two_seconds(exchange: Exchange) -> None:
    add(exchange)
    pauses, now = [], 0.0
    for _ in range(12):
        exchange.failed(submit(exchange, now), AWAY, now)
        pauses.append(exchange.quiet_until - now)
        now = exchange.quiet_until

    assert pauses[5] > pauses[0]
    assert 1.0 <= pauses[-1] <= 2.0


def test_the_sender_and_the_receiver_count_one_loss_once(exchange: Exchange) -> None:
    add(exchange)
    exchange.failed(submit(exchange, 0.0), AWAY, 0.0)
    until = exchange.quiet_until

    exchange.cut_off(AWAY, 0.01)

    assert exchange.quiet_until == until


def test_a_redis_that_gives_out_replies_and_takes_no_requests_is_still_named_as_the_reason(exchange: Exchange) -> None:
    add(exchange)
    exchange.failed(submit(exchange, 0.0), AWAY, 0.0)

    exchange.received([], 0.1)
    assert "Connection refused" in str(exchange.overdue("m", "p", 1.0))

    exchange.submitted(submit(exchange, 0.1), [Admitted.QUEUED], 0.1)
    assert "Connection refused" not in str(exchange.overdue("m", "p", 1.0))


def test_what_redis_refuses_for_good_fails_its_callers(exchange: Exchange) -> None:
    ticket = add(exchange)

    outcomes = exchange.failed(submit(exchange, 0.0), InternalError("Redis refused a command: NOPERM"), 0.0)

    assert [(one, type(error)) for one, error in outcomes] == [(ticket, InternalError)]
    assert exchange.unanswered() == 0


def test_a_catalog_that_redis_refuses_keeps_nobody_from_asking(exchange: Exchange) -> None:
    exchange.catalogs.ask("p")
    task = exchange.next_task(0.0)
    assert task == Fetch("p")

    exchange.failed(task, InternalError("NOPERM"), 0.0)

    assert exchange.catalog("p", 0.0) is not None


def test_a_pool_without_workers_is_told_of_at_once_and_once(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.fetched(Fetch("served"), Published(dict([model("m")]), {}), 0.0)
    for now in (0.0, 5.0):
        exchange.fetched(Fetch("mistyped"), Published({}, {}), now)

    (told,) = caplog.messages
    assert told.startswith("pool 'mistyped' has no worker: ")
    assert "`inference-worker status`" in told


def test_a_catalog_is_fetched_before_anything_is_sent(exchange: Exchange) -> None:
    add(exchange)
    exchange.catalogs.ask("p")

    assert exchange.next_task(0.0) == Fetch("p")


def test_while_the_broker_is_away_an_old_catalog_serves(exchange: Exchange) -> None:
    exchange.fetched(Fetch("p"), Published({}, {}), 0.0)
    assert exchange.catalog("p", 100.0) is None

    exchange.cut_off(AWAY, 100.0)

    assert exchange.catalog("p", 100.0) is not None


def test_a_full_client_says_so(exchange: Exchange) -> None:
    add(exchange, "a")
    assert not exchange.full
    add(exchange, "b")

    assert exchange.full
    assert str(exchange.crowded(2.0)) == (
        "the request could not start within 2 s: 2 others of this client are unanswered (max_in_flight 2)"
    )


def test_closing_cancels_what_waits_and_withdraws_what_was_sent(exchange: Exchange) -> None:
    ticket = add(exchange)
    exchange.submitted(submit(exchange, 0.0), [Admitted.QUEUED], 0.0)

    (outcome,) = exchange.close()

    assert outcome[0] is ticket
    assert isinstance(outcome[1], Cancelled)
    assert exchange.ready(0.0)


# What is said when the time is over


def expired(exchange: Exchange, ticket: Ticket) -> Exception:
    ((late, error),) = exchange.tick(ticket.deadline)
    assert late is ticket
    assert isinstance(error, Exception)
    return error


def test_a_broker_that_was_never_reached_is_named(exchange: Exchange) -> None:
    ticket = add(exchange, deadline=2.0)
    exchange.failed(submit(exchange, 0.0), AWAY, 0.0)

    error = expired(exchange, ticket)

    assert isinstance(error, BrokerUnavailable)
    assert str(error).startswith("Redis at redis://broker:6379 was not reached within 2 s: ")


def test_a_broker_that_went_away_is_a_deadline_with_its_reason(exchange: Exchange) -> None:
    ticket = add(exchange, deadline=2.0)
    exchange.submitted(submit(exchange, 0.0), [Admitted.QUEUED], 0.0)
    exchange.cut_off(AWAY, 1.0)

    error = expired(exchange, ticket)

    assert isinstance(error, DeadlineExceeded)
    assert str(error).startswith("model 'm' did not answer within 2 s: Redis at redis://broker:6379 does not answer")


def test_a_pool_without_workers_is_named(exchange: Exchange) -> None:
    ticket = add(exchange, deadline=2.0)
    exchange.fetched(Fetch("p"), Published({}, {}), 0.0)

    assert str(expired(exchange, ticket)) == (
        "model 'm' did not answer within 2 s: pool 'p' had no worker; start one, or look at `inference-worker status`"
    )


def test_a_slow_pool_is_named(exchange: Exchange) -> None:
    ticket = add(exchange, deadline=2.0)
    exchange.fetched(Fetch("p"), Published(dict([model("m")]), {}), 0.0)

    assert "shows the backlog and the workers of pool 'p'" in str(expired(exchange, ticket))
