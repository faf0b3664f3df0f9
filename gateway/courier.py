"""Carries a client's requests to Redis and its replies back: connections, threads, locks. Decides nothing.

A caller that waits anyway sends in its own thread, and reads its reply there too, where nobody else
does so just then. What is only handed in is sent by the sender's thread, many in one call.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from common.broker import Broker, read_inboxes
from common.brokerurl import is_cluster
from common.connect import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S, broker_errors, connect, disconnect
from common.errors import BrokerUnavailable, Cancelled
from common.keys import PoolKeys
from common.scripts import NOTE, Answers
from gateway.catalog import Catalog
from gateway.exchange import SHORTEST_WAIT_S, Exchange, Task, read_said
from gateway.flight import Outcome
from gateway.handle import Handle
from gateway.payload import Parcel, left_behind
from gateway.pending import Submit, Withdraw
from gateway.receiver import Receiver

if TYPE_CHECKING:
    import redis

#: A caller with less time leaves all I/O to the threads: it could not give a socket up at its deadline.
PATIENCE_S = CONNECT_TIMEOUT_S + SOCKET_TIMEOUT_S
#: A caller that sends in its own thread sends so many batches for others too, then calls the sender.
ROUNDS = 4
#: Closing waits so long for the threads: once for what is still to be withdrawn, once after the sockets are cut.
CLOSING_S = 0.4


class Lane(NamedTuple):
    """A pool in use: where its replies go, and who reads them."""

    inbox: str
    receiver: Receiver


class Courier:
    """Safe from many threads. Not usable in a forked child, which has none of the threads: it raises there."""

    def __init__(self, url: str, client_id: str, exchange: Exchange) -> None:
        self._url = url
        self._client_id = client_id
        self._exchange = exchange
        self._clock = time.monotonic
        self._cluster = is_cluster(url)
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards the exchange and all that is ours
        self._sending = threading.Lock()  # held by whoever sends
        self._work = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._watchers = 0
        self._sender: threading.Thread | None = None
        self._idle = False
        self._connecting = threading.Lock()
        self._client: redis.Redis | None = None
        self._brokers: dict[str, Broker] = {}
        self._receivers: dict[str, Receiver] = {}
        self._lanes: dict[str, Lane] = {}

    # What the client asks for

    def catalog(self, model: str, pool: str, deadline: float, timeout_s: float) -> Catalog:
        """The pool's models, fetched where they are not fresh. Where time runs out, the error names `model`."""
        self._check_process()
        fresh = self._exchange.catalogs.fresh(pool, self._clock())
        return fresh if fresh is not None else self._fetched_catalog(model, pool, deadline, timeout_s)

    def post(self, handle: Handle, parcel: Parcel, direct: bool) -> None:
        """Take a request on. A `direct` one is sent by its caller, which goes on to `send_here`."""
        lane = self._lane(parcel.pool)
        with self._lock:
            if self._exchange.full:
                self._wait_for_room(handle)
            self._take_on(handle, parcel)
            if not direct:
                lane.receiver.call()
                self._call_sender()

    def follow(self, handle: Handle, parcel: Parcel) -> None:
        """Take a request on that follows from another one's answer. It waits for no room, whatever thread this is."""
        lane = self._lane(parcel.pool)
        with self._lock:
            self._take_on(handle, parcel)
            lane.receiver.call()
            self._call_sender()

    def wait_for_room(self, handle: Handle) -> None:
        """Until the client may have one more request under way. Raises DeadlineExceeded."""
        self._check_process()
        with self._lock:
            self._wait_for_room(handle)

    def send_here(self, deadline: float) -> None:
        """Send what is to be sent in this thread, unless another does so just now or time is too short for it."""
        if deadline - self._clock() > PATIENCE_S and self._sending.acquire(blocking=False):
            try:
                self._send(ROUNDS)
            finally:
                self._sending.release()
                self._look_again()
        else:
            self._look_again()

    def wait(self, handle: Handle, timeout: float | None) -> None:
        """Until `handle` has its answer; its deadline gives it one. Or for `timeout` seconds."""
        self._check_process()
        until = handle.deadline if timeout is None else min(handle.deadline, self._clock() + timeout)
        receiver = self._lane(handle.pool).receiver
        while handle.answer is None:
            now = self._clock()
            if now >= handle.deadline:
                if not self.overdue(handle):
                    handle.block(SHORTEST_WAIT_S)  # Another thread has the answer and is about to settle it.
            elif now >= until:
                return
            elif until - now <= PATIENCE_S or not receiver.lead(handle, until - PATIENCE_S):
                with self._lock:
                    receiver.call()
                handle.block(until - now)

    def overdue(self, handle: Handle) -> bool:
        """Whether the deadline has passed, which then settles `handle`."""
        if self._clock() < handle.deadline:
            return False
        with self._lock:
            late = self._exchange.tick(self._clock())
        self._report(late)
        return handle.answer is not None

    def cancel(self, handle: Handle) -> bool:
        self._check_process()
        with self._lock:
            outcome = self._exchange.cancel(handle)
        self._report([outcome] if outcome is not None else [])
        return outcome is not None

    def close(self) -> None:
        """Settle everything that waits, withdraw what was sent, end the threads: within a second, in any state."""
        if os.getpid() != self._pid:
            return  # The connections are the parent's.
        with self._lock:
            outcomes = self._exchange.close()
            self._call_sender_if_needed()
            self._work.notify()
            self._changed.notify_all()
            for receiver in self._receivers.values():
                receiver.stop()
        self._report(outcomes)
        _join([self._sender], CLOSING_S)
        self._cut()
        _join([self._sender, *(receiver.thread for receiver in self._receivers.values())], CLOSING_S)
        self._cut()

    # Sending

    def _run_sender(self) -> None:
        while self._wait_for_work():
            with self._sending:
                self._send(ROUNDS)

    def _wait_for_work(self) -> bool:
        """Until there is something to send; False when the client is closed and nothing can be withdrawn any more."""
        with self._lock:
            while not self._exchange.ready(now := self._clock()):
                if self._exchange.closed:
                    return False
                due = self._exchange.due_at(now)
                self._idle = True
                self._work.wait(due - now if due < now + threading.TIMEOUT_MAX else None)
        return True

    def _send(self, rounds: int) -> None:
        for _ in range(rounds):
            with self._lock:
                task = self._exchange.next_task(self._clock())
            if task is None:
                return
            outcomes = self._carry_out(task)
            self._report(outcomes)
            if outcomes and isinstance(task, Submit):
                self._wake_leader(task.pool, outcomes)

    def _wake_leader(self, pool: str, outcomes: list[Outcome]) -> None:
        """A caller may wait at its inbox for what the submit itself answered: from the cache, or with an error."""
        inbox = self._lane(pool).receiver.led_by(ticket for ticket, _ in outcomes)
        if inbox is not None:
            with suppress(BrokerUnavailable):  # Then its read breaks off too.
                self._broker(pool).wake(inbox)

    def _carry_out(self, task: Task) -> list[Outcome]:
        try:
            if isinstance(task, Submit):
                answers = self._submit(self._broker(task.pool), task)
                said = read_said(answers)
                with self._lock:
                    return self._exchange.submitted(task, said, self._clock(), answers.generation)
            if isinstance(task, Withdraw):
                self._broker(task.pool).cancel(self._lane(task.pool).inbox, task.request_ids)
                with self._lock:
                    return self._exchange.withdrawn()
            published = self._broker(task.pool).published()
            with self._lock:
                return self._exchange.fetched(task, published, self._clock())
        except Exception as error:
            with self._lock:
                return self._exchange.failed(task, error, self._clock())
        except BaseException:
            # Ctrl-C in a caller that sends for others too.
            with self._lock:
                self._exchange.interrupted(task)
            raise

    def _submit(self, broker: Broker, task: Submit) -> Answers:
        inbox, receiver = self._lane(task.pool)
        # A read that began before this pool was in use would not see its replies for up to a second.
        ear = receiver.deaf_to(inbox)
        if ear is not None:
            broker.wake(ear)
        parcels = [flight.parcel for flight in task.flights]
        large = [(one.submission.request_id, one.payload) for one in parcels if one.payload is not None]
        for request_id, payload in large:
            broker.store_payload(request_id, payload, task.lifetime_ms)
        submissions = [one.submission for one in parcels]
        answers = broker.submit(submissions, inbox, task.lifetime_ms)
        if large and (refused := left_behind(parcels, answers)):
            with suppress(BrokerUnavailable):  # They have a TTL.
                broker.drop_payloads(refused)
        return answers

    def _call_sender(self) -> None:
        """Let the thread send. Under the lock."""
        if self._sender is None:
            self._sender = threading.Thread(target=self._run_sender, name="inference-client-sender", daemon=True)
            self._sender.start()
        elif self._idle:
            self._idle = False
            self._work.notify()

    def _look_again(self) -> None:
        """More has come, the broker is away, or whoever was sending had just looked for the last time."""
        with self._lock:
            self._call_sender_if_needed()

    def _call_sender_if_needed(self) -> None:
        """There is something to send, or will be. Under the lock."""
        now = self._clock()
        if self._exchange.ready(now) or self._exchange.due_at(now) < math.inf:
            self._call_sender()

    # Receiving

    def _read(self, inboxes: Sequence[str], wait_s: float) -> list[bytes]:
        messages = read_inboxes(self._connected(), inboxes, wait_s)
        return [self._whole(message) if message.startswith(NOTE) else message for message in messages]

    def _whole(self, note: bytes) -> bytes:
        """A long reply, where its inbox holds only its key. Empty where it has expired: the probe asks again."""
        broker = next(iter(self._brokers.values()))
        return broker.fetch(note.decode()) or b""

    def _received(self, outcomes: list[Outcome]) -> None:
        self._report(outcomes)
        self._look_again()

    def _report(self, outcomes: list[Outcome]) -> None:
        for ticket, answer in outcomes:
            ticket.settle(answer)
        if self._watchers:
            with self._lock:
                self._changed.notify_all()

    def _take_on(self, handle: Handle, parcel: Parcel) -> None:
        if self._exchange.closed:
            raise Cancelled("the client was closed")
        self._exchange.add(handle, parcel)

    # Waiting for the books to change. Under the lock, which a wait gives up

    def _wait_for_room(self, handle: Handle) -> None:
        while self._exchange.full and not self._exchange.closed:
            if not self._watch(handle.deadline):
                raise self._exchange.crowded(handle.timeout_s)

    def _fetched_catalog(self, model: str, pool: str, deadline: float, timeout_s: float) -> Catalog:
        with self._lock:
            self._exchange.catalogs.ask(pool)
        self.send_here(deadline)
        with self._lock:
            while not self._exchange.closed:
                catalog = self._exchange.catalog(pool, self._clock())
                if catalog is not None:
                    return catalog
                # Again: one that was fetched may have grown old before we were awake.
                self._exchange.catalogs.ask(pool)
                self._call_sender_if_needed()
                if not self._watch(deadline):
                    raise self._exchange.overdue(model, pool, timeout_s)
        raise Cancelled("the client was closed")

    def _watch(self, deadline: float) -> bool:
        """Wait for a change; False where the time is over."""
        left = deadline - self._clock()
        if left <= 0:
            return False
        self._watchers += 1
        try:
            self._changed.wait(left)
        finally:
            self._watchers -= 1
        return True

    # Connections

    def _lane(self, pool: str) -> Lane:
        return self._lanes.get(pool) or self._new_lane(pool)

    def _new_lane(self, pool: str) -> Lane:
        """One receiver reads for all pools; on a cluster, where one read may not cross slots, one for each."""
        inbox = PoolKeys(pool).inbox(self._client_id)
        served = pool if self._cluster else ""
        with self._lock:
            receiver = self._receivers.get(served)
            if receiver is None:
                receiver = Receiver(self._exchange, self._lock, self._clock, self._read, self._received, served or None)
                self._receivers[served] = receiver
            if pool not in self._lanes:
                receiver.watch(inbox)
                self._lanes[pool] = Lane(inbox, receiver)
            return self._lanes[pool]

    def _broker(self, pool: str) -> Broker:
        broker = self._brokers.get(pool)
        return broker if broker is not None else self._brokers.setdefault(pool, Broker(self._connected(), pool))

    def _connected(self) -> redis.Redis:
        with self._connecting:
            if self._client is None:
                with broker_errors():
                    self._client = connect(self._url)
            return self._client

    def _cut(self) -> None:
        if self._client is not None:
            disconnect(self._client)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this client was made in process {self._pid} and does not work in its forked child {os.getpid()}: "
                "make a client after the fork"
            )


def _join(threads: Iterable[threading.Thread | None], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    for thread in threads:
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
