"""The asyncio twin of broker.py, for clients: the same verbs with the same arguments, awaited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from common import scripts
from common.connect import BLOCK_MS, broker_errors, error_kind, execute_together_async
from common.keys import PoolKeys
from common.scripts import INBOX_CHUNK, Answer, Answers, Call, Published, Submission

if TYPE_CHECKING:
    import redis.asyncio


class AsyncBroker:
    """One pool on one Redis, as a client sees it. Used within one event loop.

    Every method raises BrokerUnavailable where Redis does not answer; none retries by itself.
    """

    def __init__(self, client: redis.asyncio.Redis, pool: str) -> None:
        self._redis = client
        self.keys = PoolKeys(pool)

    @property
    def pool(self) -> str:
        return self.keys.pool

    async def submit(self, submissions: Sequence[Submission], inbox: str, lifetime_ms: int) -> Answers:
        raw = await self._run(scripts.submit(self.keys, submissions, inbox, lifetime_ms))
        answers = scripts.submit_answers(self.pool, raw)
        for index in scripts.notes(answers):
            answers[index] = await self._stored(submissions[index], answers[index], inbox, lifetime_ms)
        return answers

    async def cancel(self, inbox: str, request_ids: Iterable[str]) -> int:
        return int(await self._run(scripts.cancel(self.keys, inbox, request_ids)))

    async def published(self) -> Published:
        with broker_errors():
            return scripts.published_read(await execute_together_async(self._redis, scripts.published(self.keys)))

    async def workers(self) -> int:
        """How many worker processes have a lease that holds."""
        now_ms = scripts.time_read(await self._execute("TIME"))
        return int(await self._execute("ZCOUNT", self.keys.leases, now_ms, "+inf"))

    async def is_in_flight(self, request_id: str) -> bool:
        """Whether somebody waits for it and it is not answered yet."""
        return bool(await self._execute("EXISTS", self.keys.waiters(request_id)))

    async def wake(self, inbox: str) -> None:
        with broker_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.execute_command("RPUSH", inbox, b"")
                pipeline.execute_command("PEXPIRE", inbox, scripts.INBOX_LIFETIME_MS)
                await pipeline.execute()

    async def store_payload(self, request_id: str, data: bytes, lifetime_ms: int) -> str:
        key = self.keys.payload(request_id)
        await self._execute("SET", key, data, "PX", lifetime_ms)
        return key

    async def drop_payloads(self, request_ids: Iterable[str]) -> None:
        """Large requests that nobody will come for."""
        await self._execute("DEL", *map(self.keys.payload, request_ids))

    async def fetch(self, key: str) -> bytes | None:
        value: bytes | None = await self._execute("GET", key)
        return value

    async def _stored(self, submission: Submission, note: Answer, inbox: str, lifetime_ms: int) -> Answer:
        """A long reply, of which submit gave the key. One that expired in between is computed again."""
        reply: bytes | None = await self._execute("GET", note)
        return reply if reply is not None else (await self.submit([submission], inbox, lifetime_ms))[0]

    async def _run(self, call: Call) -> Any:
        script, keys, argv = call
        with broker_errors():
            try:
                return await self._redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *argv)
            except Exception as error:
                if error_kind(error) != "NOSCRIPT":
                    raise
            return await self._redis.execute_command("EVAL", script.source, len(keys), *keys, *argv)

    async def _execute(self, *command: Any) -> Any:
        with broker_errors():
            return await self._redis.execute_command(*command)

    def __repr__(self) -> str:
        return f"AsyncBroker({self.pool!r})"


async def read_inboxes(
    client: redis.asyncio.Redis, inboxes: Sequence[str], wait_s: float = BLOCK_MS / 1000
) -> list[bytes]:
    """Wait up to `wait_s` (10 ms to 1 s) for replies in any of the inboxes; then take all that is there.

    Where this is cancelled, the connection is dirty: `client` must not be used again.
    """
    with broker_errors():
        first, *more = await execute_together_async(
            client, [("BLPOP", *inboxes, wait_s), *(("LPOP", inbox, INBOX_CHUNK) for inbox in inboxes)]
        )
    return scripts.inbox_values(first, more)
