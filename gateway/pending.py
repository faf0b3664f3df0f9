"""Requests on their way: what to send to which pool, and who waits for which answer. Pure: time is passed in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from common.digest import is_digest
from common.errors import Cancelled, DeadlineExceeded, InferenceError, ModelNotFound, Overloaded
from common.scripts import MAX_BATCH, MAX_BATCH_BYTES, Admitted
from gateway.flight import MOST_WITHDRAWALS, Flight, Lane, Outcome, Ticket
from gateway.payload import Parcel, readdressed
from gateway.result import Answer, Result
from gateway.throttle import Throttle

#: Redis does nothing else during a call: short ones let the workers in between (measured: a quarter more per second).
SUBMIT_BATCH = 64
#: An unanswered request so old is submitted again, one per pool: it finds out whether Redis still knows them.
PROBE_S = 5.0
#: How often it is looked whether one is so old.
PROBE_EVERY_S = 0.5
#: The waiters in Redis outlive the clients' deadlines by so much, so that an answer on the last moment arrives.
GRACE_MS = 10_000
#: With less time left, somebody else's deadline is as good as ours.
SLACK_S = 0.005


class Submit(NamedTuple):
    """Requests to be submitted in one call; their waiters live for `lifetime_ms`."""

    pool: str
    flights: list[Flight]
    lifetime_ms: int


class Withdraw(NamedTuple):
    """Requests that nobody here waits for any more."""

    pool: str
    request_ids: list[str]


#: What submit said of a request: that it waits, that it is refused, or what was answered before.
Said = Admitted | Answer


class Pending:
    """A client's unanswered requests. The same id asked for twice goes once over the wire."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._flights: dict[str, Flight] = {}
        self._lanes: dict[str, Lane] = {}
        self._throttles: dict[tuple[str, str], Throttle] = {}
        self._next_deadline = math.inf
        self._next_probe = -math.inf
        #: Tickets that wait for an answer.
        self.tickets = 0

    # What callers want

    def add(self, ticket: Ticket, parcel: Parcel) -> None:
        """`ticket` waits for `parcel`: sent with the next batch, or joined to the same id under way."""
        flight = self._flights.get(ticket.request_id)
        if flight is None:
            self._take_off(Flight(parcel, self._lane(parcel.pool), [ticket], ticket.deadline))
        else:
            flight.tickets.append(ticket)
            flight.deadline = max(flight.deadline, ticket.deadline)
            if flight.throttled and not ticket.patient:
                self._throttles[flight.whose].leave(flight)
                self._queue(flight)
        self.tickets += 1
        if ticket.deadline < self._next_deadline:
            self._next_deadline = ticket.deadline

    def cancel(self, ticket: Ticket) -> bool:
        """`ticket` waits no longer; False where it was settled before."""
        flight = self._flights.get(ticket.request_id)
        if flight is None or ticket not in flight.tickets:
            return False
        self._drop(flight, ticket)
        return True

    def unanswered(self, pool: str | None = None) -> int:
        """Requests without an answer, in one pool or in all."""
        if pool is None:
            return len(self._flights)
        lane = self._lanes.get(pool)
        return lane.flights if lane is not None else 0

    # What is to be sent

    def ready(self, now: float) -> bool:
        """`next_send` has something."""
        self._release_throttled(now)
        return any(lane.to_send or lane.to_withdraw for lane in self._lanes.values())

    def next_send(self, now: float) -> Submit | Withdraw | None:
        """What to send next, pools in turn; what was withdrawn goes before what was added after it."""
        self._release_throttled(now)
        for pool, lane in list(self._lanes.items()):
            send = self._withdrawal(lane) if lane.to_withdraw else self._batch(lane, now)
            if send is not None:
                self._lanes[pool] = self._lanes.pop(pool)
                return send
        return None

    def delayed_until(self) -> float:
        """When a request that met an overload is due again; infinity where there is none."""
        return min((throttle.due_at for throttle in self._throttles.values()), default=math.inf)

    # What came back

    def submitted(
        self, submit: Submit, said: Sequence[Said], now: float, jitter: float, generation: bytes | None = None
    ) -> list[Outcome]:
        """What became of a batch; `jitter` (0 to 1) spreads those that have to come again.

        What was kept under a digest of another `generation` of the models is computed anew.
        """
        outcomes: list[Outcome] = []
        forgotten = False
        refused: list[tuple[Flight, Overloaded]] = []
        for flight, answer in zip(submit.flights, said, strict=True):
            if not flight.tickets:
                continue
            if isinstance(answer, Admitted):
                forgotten |= flight.admitted and answer is Admitted.QUEUED
                flight.admitted = True
            elif isinstance(answer, Overloaded):
                if self._stays(flight, answer, outcomes):
                    refused.append((flight, answer))
            elif isinstance(answer, Result) and flight.is_outdated(generation):
                self._send_alone(flight, now, unpin=False)
            else:
                if isinstance(answer, Result):
                    answer.cached = flight.attempts == 1
                self._answered(flight, answer, now, outcomes)
        if self._throttles or refused:
            self._throttle(submit, refused, now, jitter)
        if forgotten:
            # It was there and had to be queued again: Redis lost its data, and the other requests with it.
            self._send_again(self._of_pool(submit.pool, without=set(submit.flights)))
        return outcomes

    def unsent(self, send: Submit | Withdraw) -> None:
        """The connection broke: whether Redis got it is unknown, and sending it again does no harm."""
        lane = self._lane(send.pool)
        if isinstance(send, Withdraw):
            if len(lane.to_withdraw) + len(send.request_ids) <= MOST_WITHDRAWALS:
                lane.to_withdraw.extendleft(reversed(send.request_ids))
            return
        for flight in reversed(send.flights):
            if flight.tickets and not flight.waiting:
                flight.waiting = True
                lane.to_send.appendleft(flight)

    def refused(self, submit: Submit, error: InferenceError) -> list[Outcome]:
        """Redis will not take them at all."""
        outcomes: list[Outcome] = []
        for flight in submit.flights:
            if flight.tickets:
                self._land(flight, error, outcomes)
        return outcomes

    def received(self, replies: Iterable[tuple[str, Answer]], now: float) -> list[Outcome]:
        """Answers by id, out of an inbox; those that nobody waits for any more are passed over."""
        outcomes: list[Outcome] = []
        for request_id, answer in replies:
            flight = self._flights.get(request_id)
            if flight is not None:
                if self._throttles and (throttle := self._throttles.get(flight.whose)) is not None:
                    throttle.answered(now - flight.sent_at, now)
                self._answered(flight, answer, now, outcomes)
        return outcomes

    # What time and accidents bring

    def expired(self, now: float) -> list[Ticket]:
        """Tickets whose deadline has passed, withdrawn."""
        if now < self._next_deadline:
            return []
        waiting = [(flight, ticket) for flight in self._flights.values() for ticket in flight.tickets]
        late = [(flight, ticket) for flight, ticket in waiting if ticket.deadline <= now]
        self._next_deadline = min((ticket.deadline for _, ticket in waiting if ticket.deadline > now), default=math.inf)
        for flight, ticket in late:
            self._drop(flight, ticket)
        return [ticket for _, ticket in late]

    @property
    def next_deadline(self) -> float:
        """No ticket expires before."""
        return self._next_deadline

    def probe(self, now: float) -> None:
        """Submit each pool's oldest request again where it is old: `submitted` learns from the answer."""
        if now < self._next_probe:
            return
        self._next_probe = now + PROBE_EVERY_S
        lanes = {lane for lane in self._lanes.values() if lane.flights}
        for flight in self._flights.values():
            if not lanes:
                return
            lane = flight.lane
            if lane not in lanes:
                continue
            lanes.discard(lane)
            if not flight.waiting and now - max(flight.sent_at, lane.probed_at) >= PROBE_S:
                lane.probed_at = now
                self._queue(flight)

    def lost(self) -> None:
        """The connection that replies come by broke, perhaps with replies in it: ask for all of them again."""
        self._send_again(self._flights.values())

    def close(self) -> list[Ticket]:
        """Everybody who still waits; what was sent is withdrawn."""
        tickets = [ticket for flight in self._flights.values() for ticket in flight.tickets]
        for flight in list(self._flights.values()):
            for ticket in list(flight.tickets):
                self._drop(flight, ticket)
        return tickets

    def _take_off(self, flight: Flight) -> None:
        self._flights[flight.request_id] = flight
        flight.lane.flights += 1
        throttle = self._throttles.get(flight.whose) if self._throttles else None
        if throttle and flight.patient:
            self._hold(flight)
            throttle.stand_behind(flight)
        else:
            self._queue(flight)

    def _lane(self, pool: str) -> Lane:
        return self._lanes.get(pool) or self._lanes.setdefault(pool, Lane(pool))

    def _of_pool(self, pool: str, without: set[Flight]) -> list[Flight]:
        return [one for one in self._flights.values() if one.lane.pool == pool and one not in without]

    def _hold(self, flight: Flight) -> None:
        flight.waiting = flight.throttled = True

    def _queue(self, flight: Flight) -> None:
        flight.waiting = True
        flight.throttled = False
        flight.lane.to_send.append(flight)

    def _send_again(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            flight.admitted = False
            if not flight.waiting:
                self._queue(flight)

    def _release_throttled(self, now: float) -> None:
        if not self._throttles:
            return
        for whose, throttle in list(self._throttles.items()):
            for flight in throttle.due(now):
                self._queue(flight)
            if not throttle:
                del self._throttles[whose]

    def _withdrawal(self, lane: Lane) -> Withdraw:
        waiting = lane.to_withdraw
        return Withdraw(lane.pool, [waiting.popleft() for _ in range(min(len(waiting), MAX_BATCH))])

    def _batch(self, lane: Lane, now: float) -> Submit | None:
        flights: list[Flight] = []
        size, latest = 0, now
        while lane.to_send and len(flights) < SUBMIT_BATCH and size < MAX_BATCH_BYTES:
            flight = lane.to_send.popleft()
            flight.waiting = False
            if not flight.tickets:
                continue
            flight.attempts += 1
            flight.sent_at = now
            size += flight.parcel.size
            latest = max(latest, flight.deadline)
            flights.append(flight)
        return Submit(lane.pool, flights, int((latest - now) * 1000) + GRACE_MS) if flights else None

    def _stays(self, flight: Flight, error: Overloaded, outcomes: list[Outcome]) -> bool:
        """A refused request comes again where some of those who wait for it wait for room, too."""
        if not any(ticket.patient for ticket in flight.tickets):
            self._land(flight, error, outcomes)
            return False
        for ticket in [ticket for ticket in flight.tickets if not ticket.patient]:
            self._drop(flight, ticket)
            outcomes.append((ticket, error))
        return not flight.waiting

    def _throttle(self, submit: Submit, refused: list[tuple[Flight, Overloaded]], now: float, jitter: float) -> None:
        """Hold what was refused, and what was about to be; or let more try where there was room."""
        by_owner: dict[tuple[str, str], list[Flight]] = {}
        errors: dict[tuple[str, str], Overloaded] = {}
        for flight, error in refused:
            by_owner.setdefault(flight.whose, []).append(flight)
            errors.setdefault(flight.whose, error)
        for whose, error in errors.items():
            flights = by_owner[whose] + self._about_to_follow(submit.pool, whose)
            for flight in flights:
                self._hold(flight)
            self._throttles.setdefault(whose, Throttle()).refused(flights, error, now, jitter)
        tried = {flight.whose for flight in submit.flights if flight.trying}
        for whose in tried - errors.keys():
            if (throttle := self._throttles.get(whose)) is not None:
                throttle.got_in(now)
        for flight in submit.flights:
            flight.trying = False

    def _about_to_follow(self, pool: str, whose: tuple[str, str]) -> list[Flight]:
        """Those that are to be sent next, for the same tenant: they would meet the same bound."""
        lane = self._lane(pool)
        found = [flight for flight in lane.to_send if flight.whose == whose and flight.tickets and flight.patient]
        gone = set(found)
        lane.to_send = deque(flight for flight in lane.to_send if flight not in gone)
        return found

    def _answered(self, flight: Flight, answer: Answer, now: float, outcomes: list[Outcome]) -> None:
        if isinstance(answer, InferenceError) and self._is_not_ours(flight, answer, now):
            self._send_alone(flight, now, unpin=isinstance(answer, ModelNotFound))
        else:
            self._land(flight, answer, outcomes)

    def _land(self, flight: Flight, answer: Answer, outcomes: list[Outcome]) -> None:
        for ticket in flight.tickets:
            outcomes.append((ticket, answer))
            self.tickets -= 1
        self._remove(flight)

    def _remove(self, flight: Flight) -> None:
        flight.tickets = []
        flight.lane.flights -= 1
        del self._flights[flight.request_id]

    def _drop(self, flight: Flight, ticket: Ticket) -> None:
        flight.tickets.remove(ticket)
        self.tickets -= 1
        if not flight.tickets:
            if flight.attempts:
                flight.lane.to_withdraw.append(flight.request_id)
            self._remove(flight)

    def _is_not_ours(self, flight: Flight, error: InferenceError, now: float) -> bool:
        """It failed for no reason of its caller's: another's deadline or cancellation, a version chosen for it."""
        if flight.deadline - now <= SLACK_S:
            return False
        if isinstance(error, ModelNotFound):
            return flight.parcel.pinned
        return is_digest(flight.request_id) and isinstance(error, (DeadlineExceeded, Cancelled))

    def _send_alone(self, flight: Flight, now: float, unpin: bool) -> None:
        """Under an id of its own, which shares nothing: that cannot happen to it twice."""
        left_ms = max(1, int((flight.deadline - now) * 1000))
        parcel = readdressed(flight.parcel, self._new_id(), left_ms, unpin)
        alone = Flight(parcel, flight.lane, flight.tickets, flight.deadline)
        self._remove(flight)
        for ticket in alone.tickets:
            ticket.request_id = alone.request_id
        self._take_off(alone)
