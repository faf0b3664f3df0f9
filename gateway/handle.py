"""A request under way in its caller's hands: wait for it, look whether it is done, give it up."""

from __future__ import annotations

from _thread import LockType, allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gateway.flight import Ticket
from gateway.result import Answer, Result

if TYPE_CHECKING:
    import asyncio

# Guards the making of a handle's lock, which few handles need: most are answered before anybody waits.
_MAKING = allocate_lock()


class Carrier(Protocol):
    """What a handle asks of its client's courier, in the thread of whoever waits."""

    def wait(self, handle: Handle, timeout: float | None) -> None: ...
    def overdue(self, handle: Handle) -> bool: ...
    def cancel(self, handle: Handle) -> bool: ...


class AsyncCarrier(Protocol):
    """The same of an asyncio client's."""

    async def wait(self, waiters: list[asyncio.Future[None]], timeout: float | None) -> None: ...
    def cancel(self, handle: AsyncHandle) -> bool: ...


class Handle(Ticket):
    """What `Client.submit` returns. Safe from many threads."""

    __slots__ = ("_courier", "_finished", "_waiter")

    def __init__(
        self,
        courier: Carrier,
        request_id: str,
        pool: str,
        model: str,
        deadline: float,
        timeout_s: float,
        patient: bool = False,
        finished: Callable[[Handle], None] | None = None,
    ) -> None:
        super().__init__(request_id, pool, model, deadline, timeout_s, patient)
        self._courier = courier
        self._finished = finished
        self._waiter: LockType | None = None

    def result(self, timeout: float | None = None) -> Result:
        """The answer, waited for up to `timeout` seconds, or to the request's own deadline.

        Raises the request's error; TimeoutError where `timeout` is over first: the request goes on.
        """
        if self.answer is None:
            self._courier.wait(self, timeout)
        return _outcome(self, timeout)

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self.answer is not None or self._courier.overdue(self)

    def cancel(self) -> bool:
        """Give the request up: nobody computes it for us any more. False where its answer is there already."""
        return self.answer is None and self._courier.cancel(self)

    def settle(self, answer: Answer) -> None:
        self.answer = answer
        # A waiter that comes from now on sees the answer; one that was there before is found here.
        if self._waiter is not None:
            self._waiter.release()
        if self._finished is not None:
            self._finished(self)

    def block(self, seconds: float) -> None:
        """Wait until the answer is there, or so long."""
        with _MAKING:
            if self._waiter is None:
                locked = allocate_lock()
                locked.acquire()
                self._waiter = locked
        if self.answer is None and self._waiter.acquire(timeout=seconds):
            self._waiter.release()  # for the next one who waits

    def __repr__(self) -> str:
        return _repr(self)


class AsyncHandle(Ticket):
    """What `AsyncClient.submit` returns. Awaited by any number of tasks of the client's event loop."""

    __slots__ = ("_courier", "_finished", "_waiters")

    def __init__(
        self,
        courier: AsyncCarrier,
        request_id: str,
        pool: str,
        model: str,
        deadline: float,
        timeout_s: float,
        patient: bool = False,
        finished: Callable[[AsyncHandle], None] | None = None,
    ) -> None:
        super().__init__(request_id, pool, model, deadline, timeout_s, patient)
        self._courier = courier
        self._finished = finished
        self._waiters: list[asyncio.Future[None]] = []

    async def result(self, timeout: float | None = None) -> Result:
        """The answer, waited for up to `timeout` seconds, or to the request's own deadline.

        Raises the request's error; TimeoutError where `timeout` is over first: the request goes on.
        """
        if self.answer is None:
            await self._courier.wait(self._waiters, timeout)
        return _outcome(self, timeout)

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self.answer is not None

    def cancel(self) -> bool:
        """Give the request up: nobody computes it for us any more. False where its answer is there already."""
        return self.answer is None and self._courier.cancel(self)

    def settle(self, answer: Answer) -> None:
        self.answer = answer
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._finished is not None:
            self._finished(self)

    def __repr__(self) -> str:
        return _repr(self)


def _outcome(ticket: Ticket, timeout: float | None) -> Result:
    answer = ticket.answer
    if isinstance(answer, Result):
        return answer
    if answer is None:
        raise TimeoutError(f"model '{ticket.model}' has not answered within {timeout:g} s; the request goes on")
    raise answer


def _repr(ticket: Ticket) -> str:
    answer = ticket.answer
    state = "waits" if answer is None else "answered" if isinstance(answer, Result) else f"failed: {answer.code}"
    return f"{type(ticket).__name__}({ticket.model} {ticket.request_id}, {state})"
