"""What a client decides, for threads and asyncio alike: a plain method changes the books and says what to do.

It does no I/O and knows no lock. The couriers call it, from many threads under their lock, and carry
out what it returns.
"""

from __future__ import annotations

import logging
import math
import random
from typing import TYPE_CHECKING, NamedTuple

from common.backoff import Backoff
from common.connect import BLOCK_MS, error_text
from common.errors import (
    AccessDenied,
    BrokerRefuses,
    BrokerUnavailable,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InferenceError,
    InternalError,
)
from common.scripts import Answer as Raw
from common.scripts import Published
from gateway.catalog import Catalog, Catalogs
from gateway.composer import Composer
from gateway.flight import Outcome, Ticket
from gateway.payload import Parcel
from gateway.pending import Pending, Said, Submit, Withdraw
from gateway.result import Answer, read_reply

if TYPE_CHECKING:
    from gateway.tracing import RequestSpans

log = logging.getLogger(__name__)

#: A shorter wait for replies would cost more than the deadline that it watches is worth.
SHORTEST_WAIT_S = 0.01
LONGEST_WAIT_S = BLOCK_MS / 1000


class Fetch(NamedTuple):
    """A pool's models and its traffic plans, to be read."""

    pool: str


Task = Submit | Withdraw | Fetch


class Exchange:
    """Requests, catalogs and the broker's health, in one set of books.

    `broker` is the URL as it may be shown. Methods with `now` take seconds of the client's clock.
    """

    def __init__(self, composer: Composer, broker: str, most: int, spans: RequestSpans | None = None) -> None:
        self._broker = broker
        self._spans = spans
        self._most = most
        self._pending = Pending(composer.new_id)
        self.catalogs = Catalogs()
        self._backoff = Backoff()
        #: Nothing is tried before: the broker did not answer a moment ago.
        self.quiet_until = -math.inf
        self._trouble: BrokerUnavailable | None = None
        self._refused = False  # it was the sender that met it
        self._reached = False
        self._warned: set[str] = set()
        self.closed = False

    # Callers

    def add(self, ticket: Ticket, parcel: Parcel) -> None:
        self._pending.add(ticket, parcel)

    def cancel(self, ticket: Ticket) -> Outcome | None:
        if not self._pending.cancel(ticket):
            return None
        return (ticket, Cancelled(f"the request to model '{ticket.model}' was cancelled"))

    def catalog(self, pool: str, now: float) -> Catalog | None:
        """What is known of the pool's models; an old state only while the broker is away."""
        return self.catalogs.known(pool) if now < self.quiet_until else self.catalogs.fresh(pool, now)

    @property
    def full(self) -> bool:
        return self._pending.tickets >= self._most

    def close(self) -> list[Outcome]:
        self.closed = True
        return [(ticket, Cancelled("the client was closed")) for ticket in self._pending.close()]

    # The sender

    def ready(self, now: float) -> bool:
        """`next_task` has something."""
        if now < self.quiet_until:
            return False
        return self.catalogs.asked() is not None or self._pending.ready(now)

    def next_task(self, now: float) -> Task | None:
        if now < self.quiet_until:
            return None
        pool = self.catalogs.asked()
        return Fetch(pool) if pool is not None else self._pending.next_send(now)

    def due_at(self, now: float) -> float:
        """When the sender has to look again without being called; infinity where there is nothing."""
        return self.quiet_until if now < self.quiet_until else self._pending.delayed_until()

    def submitted(self, submit: Submit, said: list[Said], now: float, generation: bytes | None = None) -> list[Outcome]:
        """`generation`: of the pool's models, as Redis knows them now."""
        self.answered()
        if self._spans is not None:
            self._spans.admitted(submit.flights)
        if generation is not None:
            self.catalogs.outdated(submit.pool, generation)
        return self._pending.submitted(submit, said, now, random.random(), generation)

    def interrupted(self, task: Task) -> None:
        """Whoever carried the task out was stopped in the middle, as by Ctrl-C: it comes again."""
        if not isinstance(task, Fetch):
            self._pending.unsent(task)

    def withdrawn(self) -> list[Outcome]:
        self.answered()
        return []

    def fetched(self, fetch: Fetch, published: Published, now: float) -> list[Outcome]:
        self.answered()
        self.catalogs.fetched(fetch.pool, published, now)
        if not published.models:
            self._warn_of_no_worker(fetch.pool)
        return []

    def failed(self, task: Task, error: Exception, now: float) -> list[Outcome]:
        """The task was not carried out: it comes again, or, where that is of no use, its callers get the error."""
        if isinstance(error, AccessDenied) and not self._reached:
            error = ConfigError(error.message)  # A password that never was right: waiting does not mend it.
        if isinstance(error, BrokerUnavailable):
            self._stumbled(error, now)
            self._refused = True
            self.interrupted(task)
            return []
        if isinstance(task, Submit):
            return self._pending.refused(task, as_ours(error))
        if isinstance(task, Fetch):
            self.catalogs.refused(task.pool, now)
            log.warning("pool %s is used without its model list, so nothing is cached: %s", task.pool, error)
        else:
            log.warning("%d requests could not be withdrawn: %s", len(task.request_ids), error)
        return []

    # The receiver

    def answered(self) -> None:
        """The broker does what it is asked."""
        self._reached = True
        self._refused = False
        if self._trouble is not None:
            self._trouble = None
            self._backoff.reset()

    def received(self, replies: list[tuple[str, Answer]], now: float) -> list[Outcome]:
        # A Redis that is full, or a replica, gives out replies while it refuses whatever is sent.
        if not self._refused:
            self.answered()
        return self._pending.received(replies, now)

    def cut_off(self, error: BrokerUnavailable, now: float) -> None:
        """The connection that replies come by is gone: all that is unanswered is submitted again."""
        self._stumbled(error, now)
        self.missed()

    def missed(self) -> None:
        """Replies may have been lost on their way: they are asked for again."""
        self._pending.lost()

    def unanswered(self, pool: str | None = None) -> int:
        return self._pending.unanswered(pool)

    @property
    def next_deadline(self) -> float:
        return self._pending.next_deadline

    def wait_s(self, now: float) -> float:
        """How long to wait for replies before time itself may have something to do."""
        return min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, self._pending.next_deadline - now))

    # The clock

    def tick(self, now: float) -> list[Outcome]:
        """What time brings: deadlines that have passed, and a look whether Redis still knows what is old."""
        late: list[Outcome] = [
            (one, self.overdue(one.model, one.pool, one.timeout_s)) for one in self._pending.expired(now)
        ]
        self._pending.probe(now)
        return late

    def overdue(self, model: str, pool: str, timeout_s: float) -> InferenceError:
        """Why there was no answer in time, and where to look."""
        within = f"within {timeout_s:g} s"
        if self._trouble is not None:
            why = self._trouble.__cause__ or self._trouble
            if not self._reached:
                return BrokerUnavailable(f"Redis at {self._broker} was not reached {within}: {why}")
            does = _does(self._trouble)
            return DeadlineExceeded(
                f"model '{model}' did not answer {within}: Redis at {self._broker} {does} ({error_text(why)})"
            )
        catalog = self.catalogs.known(pool)
        if catalog is None or not catalog.models:
            return DeadlineExceeded(
                f"model '{model}' did not answer {within}: pool '{pool}' had no worker; "
                "start one, or look at `inference-worker status`"
            )
        return DeadlineExceeded(
            f"model '{model}' did not answer {within}; "
            f"`inference-worker status` shows the backlog and the workers of pool '{pool}'"
        )

    def crowded(self, timeout_s: float) -> DeadlineExceeded:
        """Why a request was not even taken on."""
        return DeadlineExceeded(
            f"the request could not start within {timeout_s:g} s: {self._pending.tickets} others of this client "
            f"are unanswered (max_in_flight {self._most})"
        )

    def _warn_of_no_worker(self, pool: str) -> None:
        """At once, and not only when the first deadline has passed: the pool's name may be mistyped."""
        if pool not in self._warned:
            self._warned.add(pool)
            log.warning(
                "pool '%s' has no worker: requests wait there until one starts, or until their deadlines; "
                "`inference-worker status` shows the pools and their workers",
                pool,
            )

    def _stumbled(self, error: BrokerUnavailable, now: float) -> None:
        if isinstance(error, AccessDenied) and not isinstance(self._trouble, AccessDenied):
            log.warning("requests wait until Redis lets us in again, or until their deadlines: %s", error)
        self._trouble = error
        # The sender and the receiver notice one and the same loss: it counts once.
        if now >= self.quiet_until:
            self.quiet_until = now + self._backoff.next()


def read_replies(messages: list[bytes]) -> list[tuple[str, Answer]]:
    """The answers among an inbox's messages, by id; an empty one was a wake-up."""
    return [read_reply(message) for message in messages if message]


def read_said(raw: list[Raw]) -> list[Said]:
    """What submit said, with the stored replies decoded."""
    return [read_reply(one)[1] if isinstance(one, bytes) else one for one in raw]


def _does(trouble: BrokerUnavailable) -> str:
    if isinstance(trouble, AccessDenied):
        return "lets nobody in"
    return "refuses for now" if isinstance(trouble, BrokerRefuses) else "does not answer"


def as_ours(error: Exception) -> InferenceError:
    if isinstance(error, InferenceError):
        return error
    return InternalError(f"sending failed: {type(error).__name__}: {error}. This is a bug.")
