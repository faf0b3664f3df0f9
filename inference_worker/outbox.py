"""The worker's way out: gather an item's parts, postprocess, encode, and complete many entries in one call."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from queue import Empty, Queue
from threading import Lock

import numpy as np

from common.backoff import Backoff
from common.broker import Broker
from common.digest import is_digest
from common.errors import BrokerUnavailable, InferenceError, InvalidRequest, ModelError
from common.protocol import Reply, Timings, encode_reply
from common.scripts import MAX_BATCH, MAX_BATCH_BYTES, Finish
from common.tensor import Array, Tensor, from_numpy
from inference_worker.item import Item
from inference_worker.outcome import Outcome, Refusal, as_model_error

log = logging.getLogger(__name__)

_NO_OUTPUTS: Mapping[str, Tensor] = {}
#: Stands in for the id of an entry that cannot be read. Nothing is stored under it.
_UNKNOWN = "-"

#: (stream, entry id) of what this worker has taken and not finished.
Held = set[tuple[int, bytes]]


class Outbox:
    """Takes outcomes and refusals from the other threads; `run` sends them until `close`.

    The queue is bounded: where Redis does not take results, the runner and then the intake wait.
    """

    def __init__(self, broker: Broker, reply_ttl_ms: int, held: Held) -> None:
        self._broker = broker
        self._reply_ttl_ms = reply_ttl_ms
        self._held = held
        self._queue: Queue[list[Outcome] | Refusal | None] = Queue(maxsize=16)
        self._sending = Lock()  # held by whoever sends
        self._gathered: dict[Item, list[Outcome]] = {}
        self._gathered_rows: Counter[Item] = Counter()
        self.finished = 0
        self.failed = 0

    def deliver(self, outcomes: list[Outcome], here: bool) -> None:
        """Queue them for the thread; or, `here`, send them in the caller's own where nobody sends just now."""
        if here and self._queue.empty() and self._sending.acquire(blocking=False):
            try:
                self._send(self._finishes(outcomes))
            finally:
                self._sending.release()
        else:
            self._queue.put(outcomes)

    def refuse(self, refusal: Refusal) -> None:
        self._queue.put(refusal)

    def close(self) -> None:
        """Send what is there, then let `run` return."""
        self._queue.put(None)

    def run(self) -> None:
        """The thread."""
        while (message := self._queue.get()) is not None:
            with self._sending:
                finishes, closed = self._collect(message)
                self._send(finishes)
            if closed:
                return

    def _collect(self, first: list[Outcome] | Refusal) -> tuple[list[Finish], bool]:
        """`first` and all that is queued behind it; and whether the outbox was closed."""
        finishes = self._finishes(first)
        while len(finishes) < MAX_BATCH:
            try:
                message = self._queue.get_nowait()
            except Empty:
                break
            if message is None:
                return finishes, True
            finishes += self._finishes(message)
        return finishes, False

    def _send(self, finishes: list[Finish]) -> None:
        batch: list[Finish] = []
        size = 0
        for finish in finishes:
            if batch and (len(batch) >= MAX_BATCH or size + len(finish.reply) > MAX_BATCH_BYTES):
                self._complete(batch)
                batch, size = [], 0
            batch.append(finish)
            size += len(finish.reply)
        if batch:
            self._complete(batch)

    def _finishes(self, message: list[Outcome] | Refusal) -> list[Finish]:
        if isinstance(message, Refusal):
            return [self._refused(message)]
        return [finish for outcome in message if (finish := self._finished(outcome)) is not None]

    def _finished(self, outcome: Outcome) -> Finish | None:
        """The item's finish where this was its last part."""
        item = outcome.part.item
        if outcome.part.rows == item.model_request.rows:
            return self._finish(item, [outcome])
        parts = self._gathered.setdefault(item, [])
        parts.append(outcome)
        self._gathered_rows[item] += outcome.part.rows
        if self._gathered_rows[item] < item.model_request.rows:
            return None
        del self._gathered[item], self._gathered_rows[item]
        return self._finish(item, sorted(parts, key=lambda part: part.part.start))

    def _finish(self, item: Item, parts: list[Outcome]) -> Finish:
        error = next((part.error for part in parts if part.error is not None), None)
        try:
            outputs = _NO_OUTPUTS if error else _outputs_of(item, parts)
            reply = encode_reply(_reply(item, parts, outputs, error))
        except Exception as failure:
            error = as_model_error(item.loaded, failure)
            reply = encode_reply(_reply(item, parts, _NO_OUTPUTS, error))
        request = item.request
        keep_ms = item.keep_ms if error is None else self._error_ttl(request.id)
        self.failed += error is not None
        return Finish(item.entry, request.id, reply, keep_ms, request.reply_to or "")

    def _refused(self, refusal: Refusal) -> Finish:
        self.failed += 1
        request_id = refusal.request_id or _UNKNOWN
        reply = encode_reply(Reply(request_id, refusal.model, None, _NO_OUTPUTS, refusal.error, Timings()))
        keep_ms = self._error_ttl(request_id) if refusal.request_id else 0
        return Finish(refusal.entry, request_id, reply, keep_ms, refusal.reply_to, refusal.dead)

    def _error_ttl(self, request_id: str) -> int:
        # An error is no result to cache: the same inputs sent again are computed again.
        return 0 if is_digest(request_id) else self._reply_ttl_ms

    def _complete(self, finishes: list[Finish]) -> None:
        """Hand a batch to Redis, however long that is away: results are not computed again for it."""
        backoff = Backoff()
        while True:
            try:
                self._broker.complete(finishes)
                break
            except BrokerUnavailable as error:
                pause = backoff.next()
                log.warning("%d results wait for Redis, next try in %.1f s: %s", len(finishes), pause, error)
                time.sleep(pause)
        self.finished += len(finishes)
        self._held.difference_update((finish.entry.stream, finish.entry.id) for finish in finishes)


def _outputs_of(item: Item, parts: list[Outcome]) -> dict[str, Tensor]:
    if len(parts) == 1:
        arrays = parts[0].outputs
    else:
        arrays = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
    arrays = item.loaded.backend.postprocess(arrays, item.model_request)
    chosen = _chosen(item, arrays)
    return {name: _tensor(item, name, array) for name, array in chosen.items()}


def _tensor(item: Item, name: str, array: Array) -> Tensor:
    try:
        return from_numpy(np.asarray(array[0]) if item.single else array)
    except InvalidRequest as error:
        raise ModelError(f"output '{name}' of model '{item.loaded.spec.name}': {error}") from error


def _chosen(item: Item, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    wanted = item.request.outputs
    if wanted is None:
        return arrays
    for name in wanted:
        if name not in arrays:
            raise InvalidRequest(
                f"model '{item.request.model}' has no output '{name}'; it gives {', '.join(sorted(arrays))}"
            )
    return {name: arrays[name] for name in wanted}


def _reply(item: Item, parts: list[Outcome], outputs: Mapping[str, Tensor], error: InferenceError | None) -> Reply:
    first = parts[0]
    timings = Timings(
        item.queue_us,
        max(0, int((first.started_s - item.taken_s) * 1e6)),
        sum(part.compute_us for part in parts),
        max(part.batch_rows for part in parts),
    )
    spec = item.loaded.spec
    return Reply(item.request.id, spec.name, spec.version, outputs, error, timings)
