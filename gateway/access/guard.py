"""The keyring that holds now, for one door. Looks again every few seconds, in a thread; never between two requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from common.errors import InferenceError
from gateway.access.keyring import Keyring, read_keyring
from gateway.access.store import Store
from gateway.access.tenant import ANYBODY, Tenant

log = logging.getLogger(__name__)

#: A key that was made or revoked, a limit that was changed: doors know it so much later at most.
LOOK_S = 2.0


class Guard:
    """`store` None: nobody needs a key. `changed` is called with each new keyring."""

    def __init__(
        self, store: Store | None, changed: Callable[[Keyring], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._changed = changed
        self._clock = clock
        self.keyring = Keyring()

    @property
    def asks_for_keys(self) -> bool:
        return self._store is not None

    def identify(self, key: str | None) -> Tenant:
        """Raises Unauthenticated."""
        return ANYBODY if self._store is None else self.keyring.identify(key, self._clock())

    async def look(self) -> None:
        """Raises what the store raises."""
        if self._store is None:
            return
        found = read_keyring(await asyncio.to_thread(self._store.read))
        if found != self.keyring:
            self.keyring = found
            self._changed(found)

    async def keep_looking(self) -> None:
        """Until it is cancelled. While the store cannot be read, what was read last holds."""
        while self._store is not None:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except InferenceError as error:
                log.warning("the keys cannot be read, those read before hold: %s", error)
