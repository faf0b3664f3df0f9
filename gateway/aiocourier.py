"""Carries an AsyncClient's requests to Redis and its replies back: one task that sends, one that receives.

Decides nothing. All of it happens in one event loop, the one in which the client was used first.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from common.aiobroker import AsyncBroker, read_inboxes
from common.brokerurl import is_cluster
from common.connect import broker_errors, connect_async
from common.errors import BrokerUnavailable, Cancelled
from common.keys import PoolKeys
from common.scripts import NOTE, Answers
from gateway.aioreceiver import AsyncReceiver
from gateway.catalog import Catalog
from gateway.courier import CLOSING_S
from gateway.exchange import Exchange, Task, read_said
from gateway.flight import Outcome
from gateway.handle import AsyncHandle
from gateway.payload import Parcel, left_behind
from gateway.pending import Submit, Withdraw

if TYPE_CHECKING:
    import redis.asyncio


class AsyncLane(NamedTuple):
    """A pool in use: where its replies go, and who reads them."""

    inbox: str
    receiver: AsyncReceiver


class AsyncCourier:
    """Safe from many tasks of one event loop; another loop, or a forked child, gets RuntimeError."""

    def __init__(self, url: str, client_id: str, exchange: Exchange) -> None:
        self._url = url
        self._client_id = client_id
        self._exchange = exchange
        self._clock = time.monotonic
        self._cluster = is_cluster(url)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work = asyncio.Event()
        self._watchers: list[asyncio.Future[None]] = []
        self._sender: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._client: redis.asyncio.Redis | None = None
        self._brokers: dict[str, AsyncBroker] = {}
        self._receivers: dict[str, AsyncReceiver] = {}
        self._lanes: dict[str, AsyncLane] = {}

    # What the client asks for

    async def catalog(self, model: str, pool: str, deadline: float, timeout_s: float) -> Catalog:
        """The pool's models, fetched where they are not fresh. Where time runs out, the error names `model`."""
        self._check_place()
        fresh = self._exchange.catalogs.fresh(pool, self._clock())
        return fresh if fresh is not None else await self._fetched_catalog(model, pool, deadline, timeout_s)

    async def post(self, handle: AsyncHandle, parcel: Parcel) -> None:
        """Take a request on; it leaves with all others of this turn of the loop."""
        await self.wait_for_room(handle)
        self.follow(handle, parcel)

    async def wait_for_room(self, handle: AsyncHandle) -> None:
        """Until the client may have one more request under way. Raises DeadlineExceeded."""
        while self._exchange.full and not self._exchange.closed:
            if not await self._watch(handle.deadline):
                raise self._exchange.crowded(handle.timeout_s)

    def follow(self, handle: AsyncHandle, parcel: Parcel) -> None:
        """Take a request on that waits for no room, as one that follows from another one's answer."""
        if self._exchange.closed:
            raise Cancelled("the client was closed")
        self._exchange.add(handle, parcel)
        self._lane(parcel.pool).receiver.call()
        self._call_sender()
        if handle.deadline < self._alarm_at:
            self._set_alarm()

    async def wait(self, waiters: list[asyncio.Future[None]], timeout: float | None) -> None:
        """Until a handle with these waiters is settled; its deadline settles it. Or for `timeout` seconds."""
        # A future for each waiter: a task that is cancelled while it waits takes nothing from the others.
        waiter = (self._loop or asyncio.get_running_loop()).create_future()
        waiters.append(waiter)
        try:
            if timeout is None:
                await waiter
            else:
                await asyncio.wait([waiter], timeout=timeout)
        except RuntimeError:
            # asyncio's own, for another loop's future: to ask for the loop beforehand is a system call each time.
            self._check_place()
            raise
        finally:
            waiters.remove(waiter)

    def cancel(self, handle: AsyncHandle) -> bool:
        outcome = self._exchange.cancel(handle)
        self._received([outcome] if outcome is not None else [])
        return outcome is not None

    async def close(self) -> None:
        """Settle everything that waits, withdraw what was sent, end the tasks: within a second, in any state."""
        if os.getpid() != self._pid:
            return  # The connections are the parent's.
        outcomes = self._exchange.close()
        self._report(outcomes)
        if self._loop is None:
            return
        self._check_place()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._exchange.ready(self._clock()):
            self._call_sender()
        self._work.set()
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=CLOSING_S)
        # What is cancelled here leaves its connection dirty: it is the last one to use it.
        await _end([task for task in (self._sender, *(one.task for one in self._receivers.values())) if task])
        if self._client is not None:
            await self._client.aclose()

    # Sending

    async def _run_sender(self) -> None:
        while await self._wait_for_work():
            task = self._exchange.next_task(self._clock())
            if task is not None:
                self._report(await self._carry_out(task))

    async def _wait_for_work(self) -> bool:
        """Until there is something to send; False when the client is closed and nothing can be withdrawn any more."""
        while not self._exchange.ready(now := self._clock()):
            if self._exchange.closed:
                return False
            self._work.clear()
            due = self._exchange.due_at(now)
            if due == math.inf:
                await self._work.wait()
            else:
                await _wait_for(self._work, due - now)
        return True

    async def _carry_out(self, task: Task) -> list[Outcome]:
        try:
            broker = self._broker(task.pool)
            if isinstance(task, Submit):
                answers = await self._submit(broker, task)
                return self._exchange.submitted(task, read_said(answers), self._clock(), answers.generation)
            if isinstance(task, Withdraw):
                await broker.cancel(self._lane(task.pool).inbox, task.request_ids)
                return self._exchange.withdrawn()
            return self._exchange.fetched(task, await broker.published(), self._clock())
        except Exception as error:
            return self._exchange.failed(task, error, self._clock())
        except BaseException:
            # Somebody cancels all tasks of the loop, or the client is closed.
            self._exchange.interrupted(task)
            raise

    async def _submit(self, broker: AsyncBroker, task: Submit) -> Answers:
        inbox, receiver = self._lane(task.pool)
        # A read that began before this pool was in use would not see its replies for up to a second.
        ear = receiver.deaf_to(inbox)
        if ear is not None:
            await broker.wake(ear)
        parcels = [flight.parcel for flight in task.flights]
        large = [(one.submission.request_id, one.payload) for one in parcels if one.payload is not None]
        for request_id, payload in large:
            await broker.store_payload(request_id, payload, task.lifetime_ms)
        submissions = [one.submission for one in parcels]
        answers = await broker.submit(submissions, inbox, task.lifetime_ms)
        if large and (refused := left_behind(parcels, answers)):
            with suppress(BrokerUnavailable):  # They have a TTL.
                await broker.drop_payloads(refused)
        return answers

    def _call_sender(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._run_sender(), name="inference-client-sender")
        self._work.set()

    # Receiving

    async def _read(self, inboxes: Sequence[str], wait_s: float) -> list[bytes]:
        messages = await read_inboxes(self._connected(), inboxes, wait_s)
        return [await self._whole(message) if message.startswith(NOTE) else message for message in messages]

    async def _whole(self, note: bytes) -> bytes:
        """A long reply, where its inbox holds only its key. Empty where it has expired: the probe asks again."""
        broker = next(iter(self._brokers.values()))
        return await broker.fetch(note.decode()) or b""

    def _received(self, outcomes: list[Outcome]) -> None:
        self._report(outcomes)
        now = self._clock()
        # What an answer lets in comes a moment later.
        if self._exchange.ready(now) or self._exchange.due_at(now) < math.inf:
            self._call_sender()

    def _report(self, outcomes: list[Outcome]) -> None:
        for ticket, answer in outcomes:
            ticket.settle(answer)
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _set_alarm(self) -> None:
        """One timer for the earliest deadline of all."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        self._alarm_at = self._exchange.next_deadline
        if self._alarm_at < math.inf and not self._exchange.closed:
            seconds = max(0.0, self._alarm_at - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._received(self._exchange.tick(self._clock()))
        self._set_alarm()

    # Waiting for the books to change

    async def _fetched_catalog(self, model: str, pool: str, deadline: float, timeout_s: float) -> Catalog:
        while not self._exchange.closed:
            self._exchange.catalogs.ask(pool)
            self._call_sender()
            if not await self._watch(deadline):
                raise self._exchange.overdue(model, pool, timeout_s)
            catalog = self._exchange.catalog(pool, self._clock())
            if catalog is not None:
                return catalog
        raise Cancelled("the client was closed")

    async def _watch(self, deadline: float) -> bool:
        """Wait for a change; False where the time is over."""
        left = deadline - self._clock()
        if left <= 0:
            return False
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        try:
            await asyncio.wait([watcher], timeout=left)
        finally:
            self._watchers.remove(watcher)
        return True

    # Connections

    def _lane(self, pool: str) -> AsyncLane:
        return self._lanes.get(pool) or self._new_lane(pool)

    def _new_lane(self, pool: str) -> AsyncLane:
        """One receiver reads for all pools; on a cluster, where one read may not cross slots, one for each."""
        inbox = PoolKeys(pool).inbox(self._client_id)
        served = pool if self._cluster else ""
        receiver = self._receivers.get(served)
        if receiver is None:
            receiver = AsyncReceiver(self._exchange, self._clock, self._read, self._received, served or None)
            self._receivers[served] = receiver
        receiver.watch(inbox)
        return self._lanes.setdefault(pool, AsyncLane(inbox, receiver))

    def _broker(self, pool: str) -> AsyncBroker:
        broker = self._brokers.get(pool)
        return broker if broker is not None else self._brokers.setdefault(pool, AsyncBroker(self._connected(), pool))

    def _connected(self) -> redis.asyncio.Redis:
        if self._client is None:
            with broker_errors():
                self._client = connect_async(self._url)
        return self._client

    def _check_place(self) -> None:
        # A loop that runs, and is known, is not a forked child's: there none runs. Asking for the process costs more.
        loop = asyncio._get_running_loop()
        if loop is not None and loop is self._loop:
            return
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this client was made in process {self._pid} and does not work in its forked child {os.getpid()}: "
                "make a client after the fork"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop:
            raise RuntimeError("this client belongs to another event loop: make one client for each loop")


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), max(0.0, seconds))
    except TimeoutError:
        return


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
