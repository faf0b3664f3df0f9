"""A pool's dead letters: look at them, put them back into their streams with a fresh count, or drop them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.broker import Broker
from common.connect import broker_errors
from common.errors import InvalidRequest, Overloaded
from common.keys import PRIORITIES, priority_of
from common.names import shorten
from common.protocol import sender_of
from common.scripts import Submission, time_read
from common.wire import peek, unpack_map
from gateway.result import Result, read_reply

if TYPE_CHECKING:
    import redis

_LETTER = re.compile(r"\d{1,20}(-\d{1,20})?")
#: Letters read in one call; each may hold a request of a quarter of a megabyte.
PAGE = 20
#: A letter that is put back has no client that waits: its result is kept for whoever asks by its id.
LIFETIME_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `died_ms` is Redis's clock; names are empty where the request cannot be read.

    `data` is the request as it came; None where it had a key of its own that has expired.
    """

    id: str
    died_ms: int
    priority: str
    reason: str
    deliveries: int
    tenant: str
    request_id: str
    model: str
    version: str
    data: bytes | None
    reference: str

    @property
    def message(self) -> Mapping[str, Any]:
        """The request's map. Raises InvalidRequest where it cannot be read."""
        if self.data is None:
            raise InvalidRequest(f"the request of letter {self.id} has expired with its payload key")
        return unpack_map("the request", self.data)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters: those for which all that is given holds. `reason` is a part of it; ages are in ms."""

    model: str | None = None
    tenant: str | None = None
    reason: str | None = None
    older_than_ms: int | None = None
    younger_than_ms: int | None = None

    def takes(self, letter: Letter, now_ms: int) -> bool:
        age_ms = now_ms - letter.died_ms
        return (
            self.model in (None, letter.model)
            and self.tenant in (None, letter.tenant)
            and (self.reason is None or self.reason in letter.reason)
            and (self.older_than_ms is None or age_ms >= self.older_than_ms)
            and (self.younger_than_ms is None or age_ms < self.younger_than_ms)
        )


class DeadLetters:
    """Those of one pool. Every method raises BrokerUnavailable where Redis does not answer."""

    def __init__(self, client: redis.Redis, pool: str) -> None:
        self._redis = client
        self._broker = Broker(client, pool)

    def find(self, wanted: Filter) -> Iterator[Letter]:
        """The letters that `wanted` takes, the oldest first."""
        now_ms = self._now_ms()
        start = "-"
        while page := self._range(start, "+", PAGE):
            for id, fields in page:
                letter = self._letter(id, fields)
                if wanted.takes(letter, now_ms):
                    yield letter
            start = f"({page[-1][0].decode()}"

    def get(self, id: str) -> Letter:
        """Raises InvalidRequest where there is no such letter."""
        if not _LETTER.fullmatch(id):
            raise InvalidRequest(f"a dead letter's id has a form such as 1700000000000-0; got {shorten(id)}")
        found = self._range(id, id, 1)
        if not found:
            raise InvalidRequest(f"there is no dead letter {id} in pool '{self._broker.pool}'")
        return self._letter(*found[0])

    def retry(self, letter: Letter) -> None:
        """Put its request back with a fresh delivery count and its whole time. Twice is as good as once.

        Raises InvalidRequest for one that cannot be read, Overloaded where the pool takes no more.
        """
        if not letter.request_id:
            raise InvalidRequest(f"letter {letter.id} cannot be put back: {letter.reason}")
        self._forget_error(letter)
        [answer] = self._broker.submit([self._submission(letter)], "", LIFETIME_MS)
        if isinstance(answer, Overloaded):
            raise answer
        self.drop([letter])

    def drop(self, letters: Sequence[Letter]) -> None:
        """Remove them for good."""
        for letter in letters:
            self._execute("XDEL", self._broker.keys.dead, letter.id)

    def _submission(self, letter: Letter) -> Submission:
        stream = PRIORITIES.index(letter.priority)
        if not letter.reference:
            return Submission(letter.request_id, stream, letter.tenant, "d", letter.data or b"")
        if not self._execute("PEXPIRE", letter.reference, LIFETIME_MS):
            raise InvalidRequest(f"letter {letter.id} cannot be put back: its payload key has expired")
        return Submission(letter.request_id, stream, letter.tenant, "r", letter.reference, len(letter.data or b""))

    def _forget_error(self, letter: Letter) -> None:
        """The error that its death left under the reply key: submit would answer with that."""
        key = self._broker.keys.reply(letter.request_id)
        stored = self._broker.fetch(key)
        if stored is not None and not isinstance(read_reply(stored)[1], Result):
            self._execute("DEL", key)

    def _letter(self, id: bytes, fields: Mapping[bytes, bytes]) -> Letter:
        reference = fields.get(b"r", b"").decode(errors="replace")
        data = self._broker.fetch(reference) if reference else fields.get(b"d")
        sender = sender_of(data or b"")
        return Letter(
            id=id.decode(),
            died_ms=int(id.partition(b"-")[0]),
            priority=PRIORITIES[priority_of(int(fields.get(b"stream", 2)) - 1)],
            reason=fields.get(b"reason", b"").decode(errors="replace"),
            deliveries=int(fields.get(b"deliveries", 0)),
            tenant=fields.get(b"t", b"").decode(errors="replace").partition(":")[0],
            request_id=sender.request_id or "",
            model=sender.model,
            version=peek(data or b"", ("version",)).get("version", ""),
            data=data,
            reference=reference,
        )

    def _range(self, first: str, last: str, count: int) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        with broker_errors():
            found: Any = self._redis.xrange(self._broker.keys.dead, first, last, count)
        return list(found)

    def _now_ms(self) -> int:
        return time_read(self._execute("TIME"))

    def _execute(self, *command: Any) -> Any:
        with broker_errors():
            return self._redis.execute_command(*command)
