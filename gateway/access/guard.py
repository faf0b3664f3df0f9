"""The keyring that holds now, for one door. Looks again every few seconds, in a thread; never between two requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from common.errors import InferenceError
from gateway.access.apikey import PREFIX
from gateway.access.keyring import Keyring, read_keyring
from gateway.access.store import Store
from gateway.access.tenant import ANYBODY, Tenant

if TYPE_CHECKING:
    from gateway.access.tokens import Tokens

log = logging.getLogger(__name__)

#: A key that was made or revoked, a limit that was changed: doors know it so much later at most.
LOOK_S = 2.0
_OURS = f"{PREFIX}_"


class Guard:
    """With neither `store` nor `tokens` nobody needs a key. `changed` is called with each new keyring."""

    def __init__(
        self,
        store: Store | None,
        changed: Callable[[Keyring], None],
        clock: Callable[[], float] = time.time,
        tokens: Tokens | None = None,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._changed = changed
        self._clock = clock
        self.keyring = Keyring()

    @property
    def asks_for_keys(self) -> bool:
        return self._store is not None or self._tokens is not None

    def identify(self, key: str | None) -> Tenant:
        """Of a key of ours, or of an issuer's token. Raises Unauthenticated, and PermissionDenied for a token."""
        tokens = self._tokens
        if tokens is not None and key is not None and not key.startswith(_OURS):
            return self.keyring.of_claims(tokens.verify(key), tokens.tenant_claim)
        return self.keyring.identify(key, self._clock()) if self.asks_for_keys else ANYBODY

    async def look(self) -> None:
        """Raises what the store raises, and ConfigError for a file of the issuer's keys; its host may come later."""
        await self._look_at_store()
        try:
            await self._look_at_tokens()
        except InferenceError as error:
            if self._tokens is None or not self._tokens.are_elsewhere:
                raise
            log.warning("tokens are refused until then: %s", error)

    async def keep_looking(self) -> None:
        """Until it is cancelled. While one of them cannot be read, what was read last holds."""
        while self.asks_for_keys:
            await asyncio.sleep(LOOK_S)
            for look in (self._look_at_store, self._look_at_tokens):
                try:
                    await look()
                except InferenceError as error:
                    log.warning("the keys cannot be read, those read before hold: %s", error)

    async def _look_at_tokens(self) -> None:
        if self._tokens is not None:
            await asyncio.to_thread(self._tokens.look)

    async def _look_at_store(self) -> None:
        if self._store is None:
            return
        found = read_keyring(await asyncio.to_thread(self._store.read))
        if found != self.keyring:
            self.keyring = found
            self._changed(found)
