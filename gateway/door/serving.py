"""One process of a door: opens the service, lets requests in by each protocol, and drains so that nobody notices."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.door.deployment import open_service
from gateway.door.service import Service
from gateway.door.settings import DoorSettings

log = logging.getLogger(__name__)


class Entrance(Protocol):
    """One protocol's server in this process."""

    async def open(self, ended: Callable[[], None]) -> None:
        """Take requests. `ended` is called where it ends unasked. Raises ConfigError."""
        ...

    async def withdraw(self) -> None:
        """Tell whoever asks that no more requests are wanted, and go on to take them."""
        ...

    async def close(self) -> None:
        """Take no more, and wait for those under way, for as long as the settings say."""
        ...

    async def abort(self) -> None:
        """End those under way, so that `close` returns."""
        ...


async def serve(
    settings: DoorSettings, entrances: Callable[[Service], Sequence[Entrance]], ready: Callable[[], None]
) -> None:
    """Until SIGTERM or SIGINT; a second one ends at once. `ready` is called when requests are taken."""
    async with open_service(settings) as service:
        opened = entrances(service)
        signals = Signals()
        for one in opened:
            await one.open(signals.first.set)
        ready()
        await signals.first.wait()
        service.draining = True
        log.warning("draining: readiness is off, connections are taken for another %g s", settings.notice_s)
        await asyncio.gather(*(one.withdraw() for one in opened))
        await _until(signals.second, settings.notice_s)
        await _close(opened, signals.second)


class Signals:
    """SIGTERM and SIGINT to this process: `first` is set by one, `second` by the next."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came)

    def _came(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _until(event: asyncio.Event, patience_s: float) -> None:
    """`event`, or the end of patience."""
    try:
        await asyncio.wait_for(event.wait(), patience_s)
    except TimeoutError:
        return


async def _close(entrances: Sequence[Entrance], hurry: asyncio.Event) -> None:
    closing = asyncio.ensure_future(asyncio.gather(*(one.close() for one in entrances)))
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((closing, hurrying), return_when=asyncio.FIRST_COMPLETED)
    if hurrying.done():
        await asyncio.gather(*(one.abort() for one in entrances))
    hurrying.cancel()
    await closing
