"""Requests whose results are asked for later, from any door of the deployment: all that is known of one is in Redis.

A job is a record with a TTL, which says which request in which pool it is. The request waits in its stream like
any other; a job of its own is the inbox that waits for it, so that to cancel it is to leave that inbox.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from common.aiobroker import AsyncBroker
from common.connect import broker_errors
from common.errors import Cancelled, DeadlineExceeded, InferenceError, InvalidRequest, Overloaded
from common.keys import PoolKeys, job_key
from common.scripts import time_read
from common.wire import pack, unpack_map
from gateway.call import Call
from gateway.catalog import Catalog
from gateway.composer import Composer, stream_of
from gateway.payload import Parcel
from gateway.result import Result, read_reply

if TYPE_CHECKING:
    import redis.asyncio

#: A job is remembered so long after its deadline.
KEEP_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Job:
    """Which request a job is. `expires_ms` is its deadline by Redis's clock; `cancelled` is for good."""

    id: str
    tenant: str
    model: str
    pool: str
    request_id: str
    expires_ms: int
    cancelled: bool = False


#: None: it waits, or is computed.
Outcome = Result | InferenceError | None


class Jobs:
    """Submits, looks and cancels through one asyncio Redis client. Raises BrokerUnavailable."""

    def __init__(self, client: redis.asyncio.Redis, composer: Composer) -> None:
        self._redis = client
        self._composer = composer

    async def submit(self, call: Call, inputs: object, catalog: Catalog, timeout_s: float) -> Job:
        """Raises InvalidRequest, PayloadTooLarge, Overloaded."""
        to = self._composer.destination(call.model, call.version, call.tenant)
        parcel = self._composer.compose(
            to, catalog, inputs, call.parameters, call.outputs, stream_of(call.priority), timeout_s,
            call.cache, call.affinity,
        )  # fmt: skip
        lifetime_ms = max(1, int(timeout_s * 1000))
        job = Job(
            secrets.token_hex(16), call.tenant or "", call.model, parcel.pool, parcel.submission.request_id,
            await self._now_ms() + lifetime_ms,
        )  # fmt: skip
        await self._keep(job, lifetime_ms + KEEP_MS)
        await self._send(job, parcel, lifetime_ms)
        return job

    async def find(self, id: str, tenant: str | None) -> Job | None:
        """None where there is none, or it is somebody else's."""
        data: bytes | None = await self._execute("GET", job_key(id)) if id.isalnum() else None
        if data is None:
            return None
        job = _decode(data)
        return job if job.tenant == (tenant or "") else None

    async def outcome(self, job: Job) -> Outcome:
        """The result, the error, or None as long as there is neither."""
        if job.cancelled:
            return Cancelled(f"job {job.id} was cancelled")
        broker = self._broker(job)
        reply = await broker.fetch(broker.keys.reply(job.request_id))
        if reply is not None:
            return read_reply(reply)[1]
        if await broker.is_in_flight(job.request_id):
            return None
        # Completed between the two looks, or gone: the reply tells.
        reply = await broker.fetch(broker.keys.reply(job.request_id))
        return read_reply(reply)[1] if reply is not None else await self._gone(job)

    async def cancel(self, job: Job) -> None:
        """Nobody computes it any more, unless somebody else waits for the same result or it runs already."""
        await self._execute("SET", job_key(job.id), pack(asdict(replace(job, cancelled=True))), "KEEPTTL")
        broker = self._broker(job)
        await broker.cancel(_inbox(job), [job.request_id])

    async def _send(self, job: Job, parcel: Parcel, lifetime_ms: int) -> None:
        broker = self._broker(job)
        if parcel.payload is not None:
            await broker.store_payload(job.request_id, parcel.payload, lifetime_ms)
        [answer] = await broker.submit([parcel.submission], _inbox(job), lifetime_ms)
        if isinstance(answer, Overloaded):
            await self._execute("DEL", job_key(job.id))
            raise answer

    async def _gone(self, job: Job) -> InferenceError:
        if await self._now_ms() >= job.expires_ms:
            return DeadlineExceeded(f"job {job.id} was not computed in time, or its result was kept no longer")
        return DeadlineExceeded(f"the result of job {job.id} is kept no longer: look sooner, or raise --reply-ttl")

    async def _keep(self, job: Job, ttl_ms: int) -> None:
        await self._execute("SET", job_key(job.id), pack(asdict(job)), "PX", ttl_ms)

    async def _now_ms(self) -> int:
        return time_read(await self._execute("TIME"))

    def _broker(self, job: Job) -> AsyncBroker:
        return AsyncBroker(self._redis, job.pool)

    async def _execute(self, *command: Any) -> Any:
        with broker_errors():
            return await self._redis.execute_command(*command)


def _inbox(job: Job) -> str:
    return PoolKeys(job.pool).inbox(f"job-{job.id}")


def _decode(data: bytes) -> Job:
    message: Mapping[str, Any] = unpack_map("the job", data)
    try:
        return Job(**message)
    except TypeError as error:
        raise InvalidRequest(f"the job's record is of another release: {error}") from error
