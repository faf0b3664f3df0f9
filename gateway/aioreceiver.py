"""Reads an AsyncClient's inboxes in a task of its own. While nothing is unanswered it reads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.exchange import Exchange, read_replies
from gateway.flight import Outcome
from gateway.receiver import as_unavailable


class AsyncReceiver:
    """One blocking read at a time, over all inboxes that it watches. With a `pool` it serves that one alone.

    `read` blocks for at most the seconds that it is given; `report` gets what the exchange decided.
    """

    def __init__(
        self,
        exchange: Exchange,
        clock: Callable[[], float],
        read: Callable[[Sequence[str], float], Awaitable[list[bytes]]],
        report: Callable[[list[Outcome]], None],
        pool: str | None = None,
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._read_inboxes = read
        self._report = report
        self._pool = pool
        self._inboxes: tuple[str, ...] = ()
        self._reading: tuple[str, ...] = ()
        self._called = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def watch(self, inbox: str) -> None:
        """Read `inbox` too, from the next read on."""
        self._inboxes += (inbox,)

    def deaf_to(self, inbox: str) -> str | None:
        """An inbox by which to wake the read that is under way without `inbox`; None where there is none such."""
        reading = self._reading
        return reading[0] if reading and inbox not in reading else None

    def call(self) -> None:
        """Let the task read."""
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run(), name="inference-client-receiver")
        self._called.set()

    async def _run(self) -> None:
        while True:
            await self._called.wait()
            self._called.clear()
            while self._exchange.unanswered(self._pool):
                await self._read()

    async def _read(self) -> None:
        now = self._clock()
        self._report(self._exchange.tick(now))
        if now < self._exchange.quiet_until:
            # Deadlines have an alarm of their own: this may sleep.
            await asyncio.sleep(self._exchange.quiet_until - now)
            return
        self._reading = self._inboxes
        try:
            messages = await self._read_inboxes(self._reading, self._exchange.wait_s(now))
        except Exception as error:
            self._exchange.cut_off(as_unavailable(error), self._clock())
            self._report([])
            return
        except BaseException:
            # Somebody cancels all tasks of the loop, or the client is closed.
            self._exchange.missed()
            raise
        finally:
            self._reading = ()
        self._report(self._exchange.received(read_replies(messages), self._clock()))
