"""Reads a client's inboxes for all of its callers, in the thread of a caller that waits anyway or in its own.

A caller that is alone reads its reply itself and pays for no change of threads; as soon as there are
more, the receiver's thread takes over. While nothing is unanswered nobody reads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from common.errors import BrokerUnavailable
from gateway.exchange import Exchange, read_replies
from gateway.flight import Outcome, Ticket
from gateway.handle import Handle

log = logging.getLogger(__name__)


class Receiver:
    """One blocking read at a time, over all inboxes that it watches.

    `lock` guards the exchange; `read` blocks for at most the seconds that it is given; `report` gets
    what the exchange decided, without the lock. With a `pool` it serves that one alone.
    """

    def __init__(
        self,
        exchange: Exchange,
        lock: threading.Lock,
        clock: Callable[[], float],
        read: Callable[[Sequence[str], float], list[bytes]],
        report: Callable[[list[Outcome]], None],
        pool: str | None = None,
    ) -> None:
        self._exchange = exchange
        self._lock = lock
        self._clock = clock
        self._read_inboxes = read
        self._report = report
        self._pool = pool
        self._inboxes: tuple[str, ...] = ()
        self._reading: tuple[str, ...] = ()
        self._turn = threading.Lock()  # held by whoever reads
        self._called = threading.Condition(lock)
        self._idle = False
        self._leader: Handle | None = None
        self.thread: threading.Thread | None = None

    def watch(self, inbox: str) -> None:
        """Read `inbox` too, from the next read on."""
        self._inboxes += (inbox,)

    def deaf_to(self, inbox: str) -> str | None:
        """An inbox by which to wake the read that is under way without `inbox`; None where there is none such."""
        reading = self._reading
        return reading[0] if reading and inbox not in reading else None

    def lead(self, handle: Handle, until: float) -> bool:
        """Read here until `handle` has its answer, or until then. False where another reads, or the broker is away."""
        if not self._turn.acquire(blocking=False):
            return False
        self._leader = handle
        try:
            while handle.answer is None and self._clock() < until and self._read():
                pass
        finally:
            self._leader = None
            self._turn.release()
            with self._lock:
                # Whoever found the turn taken relies on this.
                if self._needed():
                    self.call()
        return handle.answer is not None or self._clock() >= until

    def led_by(self, tickets: Iterable[Ticket]) -> str | None:
        """An inbox by which to wake the caller who reads here, where one of these is his: it was answered elsewhere."""
        leader = self._leader
        return self._inboxes[0] if leader is not None and any(one is leader for one in tickets) else None

    def call(self) -> None:
        """Let the thread read. Under the lock."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="inference-client-receiver", daemon=True)
            self.thread.start()
        elif self._idle:
            self._idle = False
            self._called.notify()

    def stop(self) -> None:
        """Wake the thread, so that it sees the exchange closed. Under the lock."""
        self._called.notify()

    def _run(self) -> None:
        while not self._exchange.closed:
            with self._turn:
                while self._needed():
                    if not self._read():
                        self._pause()
            with self._lock:
                while not self._needed() and not self._exchange.closed:
                    self._idle = True
                    self._called.wait()

    def _needed(self) -> bool:
        return self._exchange.unanswered(self._pool) > 0

    def _read(self) -> bool:
        """Settle what has come or expired. False where nothing can be read for now."""
        now = self._clock()
        with self._lock:
            late = self._exchange.tick(now)
            wait_s = self._exchange.wait_s(now)
            quiet = self._exchange.closed or now < self._exchange.quiet_until
            if not quiet:
                self._reading = self._inboxes
        self._report(late)
        return not quiet and self._receive(wait_s)

    def _receive(self, wait_s: float) -> bool:
        try:
            messages = self._read_inboxes(self._reading, wait_s)
        except Exception as error:
            self._cut_off(error)
            return False
        except BaseException:
            # Ctrl-C in a caller that reads for others too.
            with self._lock:
                self._exchange.missed()
            raise
        finally:
            self._reading = ()
        replies = read_replies(messages)
        with self._lock:
            outcomes = self._exchange.received(replies, self._clock())
        self._report(outcomes)
        return True

    def _cut_off(self, error: Exception) -> None:
        with self._lock:
            if self._exchange.closed:
                return  # The connection was cut by our own close.
            self._exchange.cut_off(as_unavailable(error), self._clock())
        self._report([])

    def _pause(self) -> None:
        with self._lock:
            if not self._exchange.closed:
                self._called.wait(max(0.01, self._exchange.quiet_until - self._clock()))


def as_unavailable(error: Exception) -> BrokerUnavailable:
    """Whatever keeps replies from being read: they are asked for again, until the deadlines have passed."""
    if isinstance(error, BrokerUnavailable):
        return error
    # Each try would tell the same: one line, and where it comes from only for who looks for it.
    log.error("replies cannot be read for now; it is tried again: %s: %s", type(error).__name__, error)
    log.debug("this kept replies from being read", exc_info=error)
    unavailable = BrokerUnavailable(f"replies cannot be read: {error}")
    unavailable.__cause__ = error
    return unavailable
