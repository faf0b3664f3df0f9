"""A client's books, without Redis: what is sent, who gets which answer, what happens after accidents."""

from __future__ import annotations

from itertools import count

import pytest

from common.digest import PREFIX
from common.errors import DeadlineExceeded, InferenceError, InternalError, ModelError, ModelNotFound, Overloaded
from common.keys import PoolKeys
from common.protocol import Request, decode_request, encode_request
from common.scripts import Admitted
from common.tensor import to_tensor
from gateway.flight import MOST_WITHDRAWALS, Flight, Ticket
from gateway.payload import INLINE_UP_TO, Parcel, parcel
from gateway.pending import MAX_BATCH_BYTES, PROBE_S, SUBMIT_BATCH, Pending, Said, Submit, Withdraw
from gateway.result import Answer, Result

DIGEST = PREFIX + "0" * 40
OVERLOADED = Overloaded("full", retry_after_ms=1000)


class Books:
    """A Pending with names for what a test does to it; its time starts at 0."""

    def __init__(self) -> None:
        fresh = count(1)
        self.pending = Pending(lambda: f"fresh.{next(fresh)}")

    def add(
        self, request_id: str, deadline: float = 60.0, pool: str = "p", patient: bool = False, size: int = 0,
        pinned: bool = False,
    ) -> Ticket:  # fmt: skip
        ticket = Ticket(request_id, pool, "m", deadline, deadline, patient)
        self.pending.add(ticket, request(request_id, deadline, pool, size, pinned))
        return ticket

    def submit(self, now: float = 0.0) -> Submit:
        send = self.pending.next_send(now)
        assert isinstance(send, Submit)
        return send

    def send(self, *said: Said, now: float = 0.0) -> Submit:
        """Send the next batch; each request of it gets what is said, at last QUEUED."""
        submit = self.submit(now)
        rest = [Admitted.QUEUED] * (len(submit.flights) - len(said))
        self.settle(self.pending.submitted(submit, [*said, *rest], now, 0.0))
        return submit

    def receive(self, request_id: str, answer: Answer, now: float = 0.0) -> None:
        self.settle(self.pending.received([(request_id, answer)], now))

    @staticmethod
    def settle(outcomes: list[tuple[Ticket, Answer]]) -> None:
        for ticket, answer in outcomes:
            assert ticket.answer is None, "a ticket is settled once"
            ticket.settle(answer)


def request(request_id: str, timeout_s: float, pool: str, size: int = 0, pinned: bool = False) -> Parcel:
    keys = PoolKeys(pool)
    inputs = {"x": to_tensor(b"x" * size)}
    data = encode_request(Request(request_id, "m", inputs, version="2", timeout_ms=int(timeout_s * 1000)))
    return parcel(keys, request_id, 1, "", data, None, pinned)


def result() -> Result:
    return Result({"model": "m", "version": "1", "outputs": {}})


def ids(submit: Submit) -> list[str]:
    return [flight.request_id for flight in submit.flights]


def sent(flight: Flight) -> Request:
    value = flight.parcel.submission.value
    assert isinstance(value, bytes)
    return decode_request(value)


@pytest.fixture
def books() -> Books:
    return Books()


# Sending


def test_what_is_added_leaves_in_one_batch_in_order(books: Books) -> None:
    for name in ("a", "b", "c"):
        books.add(name)

    assert ids(books.submit()) == ["a", "b", "c"]
    assert books.pending.next_send(0.0) is None


def test_a_batch_holds_no_more_than_a_call_may(books: Books) -> None:
    for number in range(SUBMIT_BATCH + 1):
        books.add(str(number))

    assert [len(books.submit().flights), len(books.submit().flights)] == [SUBMIT_BATCH, 1]


def test_a_batch_of_large_requests_stops_at_its_bytes(books: Books) -> None:
    for number in range(8):
        books.add(str(number), size=MAX_BATCH_BYTES // 4)

    assert len(books.submit().flights) == 4


def test_a_request_over_the_inline_size_carries_its_payload_beside_the_submission(books: Books) -> None:
    books.add("large", size=INLINE_UP_TO)

    large = books.submit().flights[0].parcel

    assert large.submission.field == "r"
    assert large.submission.value == PoolKeys("p").payload("large")
    assert large.payload is not None
    assert decode_request(large.payload).id == "large"


def test_the_waiters_outlive_the_latest_deadline_of_their_batch(books: Books) -> None:
    books.add("a", deadline=5.0)
    books.add("b", deadline=30.0)

    assert books.submit(now=1.0).lifetime_ms > 29_000


def test_pools_take_turns(books: Books) -> None:
    for number in range(2 * SUBMIT_BATCH):
        books.add(str(number), pool="busy")
    books.add("other", pool="quiet")

    assert [books.submit().pool for _ in range(3)] == ["busy", "quiet", "busy"]


# Answers


def test_a_reply_settles_its_request_alone(books: Books) -> None:
    first, second = books.add("a"), books.add("b")
    books.send()
    answer = result()

    books.receive("b", answer)

    assert second.answer is answer
    assert first.answer is None
    assert books.pending.tickets == 1


def test_a_reply_that_nobody_waits_for_is_passed_over(books: Books) -> None:
    books.add("a")

    books.receive("unknown", result())

    assert books.pending.tickets == 1


def test_the_same_id_goes_once_over_the_wire_and_answers_everyone(books: Books) -> None:
    first, second = books.add("a"), books.add("a")
    assert ids(books.send()) == ["a"]

    books.receive("a", result())

    assert first.answer is second.answer is not None


def test_a_reply_that_was_stored_already_is_marked_as_cached(books: Books) -> None:
    ticket = books.add("a")

    books.send(result())

    assert isinstance(ticket.answer, Result)
    assert ticket.answer.cached


def test_a_reply_that_a_second_try_finds_is_not_called_cached(books: Books) -> None:
    ticket = books.add("a")
    books.send()
    books.pending.lost()

    books.send(result())

    assert isinstance(ticket.answer, Result)
    assert not ticket.answer.cached


def test_an_error_reply_settles_with_the_error(books: Books) -> None:
    ticket = books.add("a")
    books.send()

    books.receive("a", ModelError("division by zero"))

    assert isinstance(ticket.answer, ModelError)


def test_an_overload_is_told_to_who_does_not_wait_for_it(books: Books) -> None:
    ticket = books.add("a")

    books.send(OVERLOADED)

    assert ticket.answer is OVERLOADED


def test_a_patient_request_is_submitted_again_after_the_suggested_wait(books: Books) -> None:
    ticket = books.add("a", patient=True)

    books.send(OVERLOADED)

    assert ticket.answer is None
    assert not books.pending.ready(0.9)
    assert books.pending.delayed_until() == 1.0
    assert ids(books.send(now=1.0)) == ["a"]


def test_an_overload_parts_the_patient_from_the_others(books: Books) -> None:
    patient, other = books.add("a", patient=True), books.add("a")

    books.send(OVERLOADED)

    assert (patient.answer, other.answer) == (None, OVERLOADED)


def test_a_batch_that_redis_refuses_fails(books: Books) -> None:
    ticket = books.add("a")
    refusal = InternalError("NOPERM")

    books.settle(books.pending.refused(books.submit(), refusal))

    assert ticket.answer is refusal
    assert books.pending.next_send(0.0) is None


# Deadlines and cancellation


def test_a_ticket_expires_at_its_deadline_and_is_withdrawn(books: Books) -> None:
    early, late = books.add("a", deadline=1.0), books.add("b", deadline=2.0)
    books.send()

    assert books.pending.expired(0.99) == []
    assert books.pending.expired(1.0) == [early]
    assert books.pending.next_send(1.0) == Withdraw("p", ["a"])
    assert books.pending.next_deadline == 2.0
    assert books.pending.expired(2.0) == [late]


def test_what_was_cancelled_before_it_was_sent_is_never_sent(books: Books) -> None:
    ticket = books.add("a")

    assert books.pending.cancel(ticket)
    assert not books.pending.cancel(ticket)
    assert books.pending.next_send(0.0) is None


def test_a_request_stays_while_somebody_else_waits_for_it(books: Books) -> None:
    first, second = books.add("a"), books.add("a")
    books.send()

    books.pending.cancel(first)

    assert books.pending.next_send(0.0) is None
    books.receive("a", result())
    assert second.answer is not None


def test_a_withdrawal_goes_before_the_same_id_asked_for_anew(books: Books) -> None:
    ticket = books.add("a")
    books.send()
    books.pending.cancel(ticket)
    books.add("a")

    assert books.pending.next_send(0.0) == Withdraw("p", ["a"])
    assert ids(books.submit()) == ["a"]


def test_the_answer_to_a_batch_changes_nothing_for_what_was_cancelled_meanwhile(books: Books) -> None:
    ticket = books.add("a")
    submit = books.submit()
    books.pending.cancel(ticket)
    again = books.add("a")

    assert books.pending.submitted(submit, [result()], 0.0, 0.0) == []
    assert again.answer is None


def test_closing_names_everybody_and_withdraws_what_was_sent(books: Books) -> None:
    first = books.add("a")
    books.send()
    second = books.add("b")

    assert books.pending.close() == [first, second]
    assert books.pending.next_send(0.0) == Withdraw("p", ["a"])
    assert books.pending.next_send(0.0) is None


@pytest.mark.parametrize("error", [DeadlineExceeded("their deadline"), ModelNotFound("their version")])
def test_another_callers_failure_is_no_answer_to_a_shared_request(books: Books, error: InferenceError) -> None:
    ticket = books.add(DIGEST, deadline=60.0, pinned=True)
    books.send()

    books.receive(DIGEST, error, now=10.0)

    assert ticket.answer is None
    again = books.submit(now=10.0)
    assert ids(again) == ["fresh.1"]
    assert sent(again.flights[0]).timeout_ms == 50_000
    books.receive("fresh.1", result())
    assert ticket.answer is not None


@pytest.mark.parametrize("request_id", [DIGEST, "own.1"])
def test_a_version_that_the_catalog_chose_is_not_asked_for_again_once_it_is_gone(books: Books, request_id: str) -> None:
    books.add(request_id, pinned=True)
    books.send()

    books.receive(request_id, ModelNotFound("version 2 is gone"))

    assert sent(books.submit().flights[0]).version is None


def test_a_version_that_the_caller_named_is_his_own_to_miss(books: Books) -> None:
    ticket = books.add("own.1")
    books.send()

    books.receive("own.1", ModelNotFound("version 2 is gone"))

    assert isinstance(ticket.answer, ModelNotFound)


def test_a_request_of_its_own_id_takes_the_deadline_error_as_its_own(books: Books) -> None:
    ticket = books.add("own.1", deadline=60.0)
    books.send()

    books.receive("own.1", DeadlineExceeded("too late"), now=10.0)

    assert isinstance(ticket.answer, DeadlineExceeded)


def test_a_request_sent_alone_can_still_be_cancelled(books: Books) -> None:
    ticket = books.add(DIGEST)
    books.send()
    books.receive(DIGEST, DeadlineExceeded("theirs"))
    books.send()

    assert books.pending.cancel(ticket)
    assert books.pending.next_send(0.0) == Withdraw("p", ["fresh.1"])


# Accidents


def test_a_batch_that_broke_off_is_sent_again_first_and_in_order(books: Books) -> None:
    books.add("a")
    books.add("b")
    submit = books.submit()
    books.add("c")

    books.pending.unsent(submit)

    assert ids(books.submit()) == ["a", "b", "c"]


def test_a_withdrawal_that_broke_off_is_sent_again(books: Books) -> None:
    ticket = books.add("a")
    books.send()
    books.pending.cancel(ticket)
    withdraw = books.pending.next_send(0.0)
    assert isinstance(withdraw, Withdraw)

    books.pending.unsent(withdraw)

    assert books.pending.next_send(0.0) == withdraw


def test_withdrawals_that_cannot_be_sent_do_not_pile_up(books: Books) -> None:
    tickets = [books.add(str(number)) for number in range(MOST_WITHDRAWALS + 10)]
    while books.pending.ready(0.0):
        books.send()
    for ticket in tickets:
        books.pending.cancel(ticket)

    withdrawn = 0
    while books.pending.ready(0.0):
        withdraw = books.pending.next_send(0.0)
        assert isinstance(withdraw, Withdraw)
        withdrawn += len(withdraw.request_ids)

    assert withdrawn == MOST_WITHDRAWALS


def test_after_a_lost_connection_all_that_is_unanswered_is_sent_again(books: Books) -> None:
    for name in ("a", "b", "c"):
        books.add(name)
    books.send()
    books.receive("b", result())

    books.pending.lost()

    assert ids(books.send(Admitted.JOINED, Admitted.JOINED)) == ["a", "c"]
    assert books.pending.next_send(0.0) is None


def test_losing_the_connection_twice_sends_nothing_twice(books: Books) -> None:
    books.add("a")
    books.send()
    books.pending.lost()
    books.pending.lost()

    assert ids(books.submit()) == ["a"]
    assert books.pending.next_send(0.0) is None


def test_the_oldest_unanswered_request_of_each_pool_is_asked_for_again(books: Books) -> None:
    for name, pool in (("a", "p"), ("b", "p"), ("c", "q")):
        books.add(name, pool=pool)
    books.send()
    books.send()

    books.pending.probe(PROBE_S - 1)
    assert books.pending.next_send(PROBE_S - 1) is None

    books.pending.probe(PROBE_S)
    assert [ids(books.submit(PROBE_S)), ids(books.submit(PROBE_S))] == [["a"], ["c"]]


def test_a_probe_that_redis_knows_changes_nothing(books: Books) -> None:
    books.add("a")
    books.add("b")
    books.send()
    books.pending.probe(PROBE_S)

    books.send(Admitted.JOINED, now=PROBE_S)

    assert books.pending.next_send(PROBE_S) is None


def test_a_probe_that_redis_has_forgotten_brings_all_of_its_pool_back(books: Books) -> None:
    for name in ("a", "b", "c"):
        books.add(name)
    books.add("other", pool="q")
    books.send()
    books.send()
    books.pending.probe(PROBE_S)

    assert ids(books.send(Admitted.QUEUED, now=PROBE_S)) == ["a"]
    assert ids(books.send(Admitted.JOINED, now=PROBE_S)) == ["other"]

    assert ids(books.send(now=PROBE_S)) == ["b", "c"]
    assert books.pending.next_send(PROBE_S) is None


def test_what_redis_forgot_on_a_reconnect_is_sent_once(books: Books) -> None:
    for number in range(SUBMIT_BATCH + 10):
        books.add(str(number))
    books.send()
    books.send()
    books.pending.lost()

    assert len(books.send().flights) == SUBMIT_BATCH
    assert len(books.send().flights) == 10
    assert books.pending.next_send(0.0) is None


# -- at a bound -------------------------------------------------------------------------------------------------------


def test_a_new_request_stands_behind_those_that_wait_for_room(books: Books) -> None:
    books.add("a", patient=True)
    books.send(OVERLOADED)

    books.add("b", patient=True)

    assert books.pending.next_send(0.9) is None
    assert ids(books.send(now=1.0)) == ["a"]
    assert ids(books.send(now=books.pending.delayed_until())) == ["b"]


def test_who_does_not_wait_for_room_is_told_at_once_though_others_wait(books: Books) -> None:
    books.add("a", patient=True)
    books.send(OVERLOADED)

    other, same = books.add("b"), books.add("a")

    assert ids(books.send(OVERLOADED, OVERLOADED, now=0.1)) == ["b", "a"]
    assert (other.answer, same.answer) == (OVERLOADED, OVERLOADED)


def test_what_was_about_to_follow_a_refused_request_is_held_back(books: Books) -> None:
    for number in range(SUBMIT_BATCH + 10):
        books.add(f"id{number}", patient=True)

    books.send(*[OVERLOADED] * SUBMIT_BATCH)

    assert books.pending.next_send(0.9) is None
    assert ids(books.send(now=1.0)) == ["id0"]


def test_after_each_refusal_one_tries_later_and_after_each_success_sooner(books: Books) -> None:
    for number in range(20):
        books.add(f"id{number}", patient=True)
    books.send(*[OVERLOADED] * 20)
    now, waits = 0.0, []

    for said in (OVERLOADED, OVERLOADED, Admitted.QUEUED, Admitted.QUEUED):
        due = books.pending.delayed_until()
        waits.append(due - now)
        now = due
        assert len(books.send(said, now=now).flights) == 1
    waits.append(books.pending.delayed_until() - now)

    assert waits == [1.0, 4.0, 16.0, 16.0, 8.0]


def test_an_answer_lets_the_next_one_come_within_a_part_of_the_time_it_took(books: Books) -> None:
    for number in range(4):
        books.add(f"id{number}", patient=True)
    books.send(Admitted.QUEUED, *[OVERLOADED] * 3)

    books.receive("id0", result(), now=0.4)

    assert 0.4 <= books.pending.delayed_until() <= 0.5
    assert ids(books.send(now=0.5)) == ["id1"]


def test_an_answer_brings_no_token_to_who_is_over_a_rate(books: Books) -> None:
    for number in range(3):
        books.add(f"id{number}", patient=True)
    books.send(Admitted.QUEUED, *[Overloaded("rate", 1000, "rate")] * 2)

    books.receive("id0", result(), now=0.4)

    assert books.pending.delayed_until() == 1.0


def test_one_tenants_refusal_holds_back_no_other_tenant(books: Books) -> None:
    books.add("a", patient=True)
    books.send(OVERLOADED)
    other = parcel(PoolKeys("p"), "b", 1, "acme", b"data")

    books.pending.add(Ticket("b", "p", "m", 60.0, 60.0, patient=True), other)

    assert ids(books.send(now=0.1)) == ["b"]


def test_who_gave_up_while_he_was_held_back_is_not_sent(books: Books) -> None:
    first, _ = books.add("a", deadline=0.5, patient=True), books.add("b", patient=True)
    books.send(OVERLOADED, OVERLOADED)

    assert books.pending.expired(0.6) == [first]

    send = books.pending.next_send(1.0)
    assert send == Withdraw("p", ["a"])
    assert ids(books.send(now=1.0)) == ["b"]
