"""One request on its way: the ticket of each caller that waits for it, the flight that carries it, its pool's lane."""

from __future__ import annotations

import math
from collections import deque

from gateway.payload import Parcel
from gateway.result import Answer

#: While Redis is away withdrawals wait; those that fall out are passed over by the workers at their deadline.
MOST_WITHDRAWALS = 10_000


class Ticket:
    """One caller's wait for one request; settled once, with a result or an error.

    `patient` ones wait where the pool is overloaded and are submitted again. Times are in seconds of
    the client's own clock.
    """

    __slots__ = ("answer", "deadline", "model", "patient", "pool", "request_id", "timeout_s")

    def __init__(
        self, request_id: str, pool: str, model: str, deadline: float, timeout_s: float, patient: bool = False
    ) -> None:
        self.request_id = request_id
        self.pool = pool
        self.model = model
        self.deadline = deadline
        self.timeout_s = timeout_s
        self.patient = patient
        self.answer: Answer | None = None

    def settle(self, answer: Answer) -> None:
        self.answer = answer


#: What a ticket gets.
Outcome = tuple[Ticket, Answer]


class Lane:
    """What is to be done for one pool. `flights` counts its unanswered requests."""

    __slots__ = ("flights", "pool", "probed_at", "to_send", "to_withdraw")

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.flights = 0
        self.to_send: deque[Flight] = deque()
        self.to_withdraw: deque[str] = deque(maxlen=MOST_WITHDRAWALS)
        self.probed_at = -math.inf


class Flight:
    """One request id on its way, and the tickets that wait for it; without tickets it is over.

    `admitted`: Redis said that it holds the request. `waiting`: it is among those to be sent, or held by its tenant's
    throttle, `throttled`. `trying`: that let it go to see whether there is room.
    """

    __slots__ = (
        "admitted", "attempts", "deadline", "lane", "parcel", "request_id", "sent_at", "throttled", "tickets", "trying",
        "waiting",
    )  # fmt: skip

    def __init__(self, parcel: Parcel, lane: Lane, tickets: list[Ticket], deadline: float) -> None:
        self.request_id = parcel.submission.request_id
        self.parcel = parcel
        self.lane = lane
        self.tickets = tickets
        self.deadline = deadline
        self.attempts = 0
        self.admitted = False
        self.waiting = False
        self.throttled = False
        self.trying = False
        self.sent_at = 0.0

    @property
    def whose(self) -> tuple[str, str]:
        """Its pool and tenant: who is throttled together."""
        return self.lane.pool, self.parcel.submission.tenant

    def is_outdated(self, generation: bytes | None) -> bool:
        """Its id is a digest of models that were of another generation; None: nobody knows of any."""
        return generation is not None and self.parcel.generation not in (None, generation)

    @property
    def patient(self) -> bool:
        """All that wait for it wait for room, too."""
        return all(ticket.patient for ticket in self.tickets)
