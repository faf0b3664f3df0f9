"""The worker's way out: gather an item's parts, postprocess, encode, and complete many entries in one call."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, Queue
from threading import Event, Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.backoff import Backoff
from common.broker import Broker
from common.digest import is_digest
from common.errors import BrokerUnavailable, InferenceError, InvalidRequest, ModelError, PayloadTooLarge
from common.logs import about
from common.protocol import Reply, Timings, encode_reply
from common.scripts import MAX_BATCH, MAX_BATCH_BYTES, Finish
from common.tensor import Array, Tensor
from common.versions import label_of
from inference_worker.item import Item
from inference_worker.marks import Marks
from inference_worker.models.held import Held
from inference_worker.models.registry import key_of
from inference_worker.models.spec import POSTPROCESS, ModelSpec
from inference_worker.outcome import Outcome, Refusal, as_model_error
from inference_worker.outputs import postprocess, to_tensors
from inference_worker.pipeline.aside import Aside
from inference_worker.seldom import Outage, Seldom

if TYPE_CHECKING:
    from inference_worker.tracing import WorkerSpans

log = logging.getLogger(__name__)

_NO_OUTPUTS: Mapping[str, Tensor] = {}
#: Stands in for the id of an entry that cannot be read. Nothing is stored under it.
_UNKNOWN = "-"


class _Answer(NamedTuple):
    """What an item comes to, and the error if that is one."""

    finish: Finish
    item: Item
    error: InferenceError | None


_Message = list[Outcome] | _Answer | Refusal | Event
#: A Redis that is away takes no results, and a request that has killed a worker need not wait for it for ever.
SETTLE_S = 1.0


class Outbox:
    """Takes outcomes and refusals from the other threads; `run` sends them until `close`.

    The queue is bounded: where Redis does not take results, the runner and then the intake wait. An item whose model
    has threads for its postprocess goes aside, and comes back through the queue.
    """

    def __init__(
        self,
        broker: Broker,
        reply_ttl_ms: int,
        held: Held,
        marks: Marks,
        aside: Aside,
        spans: WorkerSpans | None = None,
        on_error: Callable[[InferenceError], None] | None = None,
    ) -> None:
        self._broker = broker
        self._spans = spans
        self._on_error = on_error
        self._reply_ttl_ms = reply_ttl_ms
        self._held = held
        self._marks = marks
        self._aside = aside
        self._away = 0  # items that are aside
        self._queue: Queue[_Message | None] = Queue(maxsize=16)
        self._sending = Lock()  # held by whoever sends
        self._gathered: dict[Item, list[Outcome]] = {}
        self._gathered_rows: Counter[Item] = Counter()
        self._model_errors = Seldom()
        self._outage = Outage()
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

    def settle(self) -> None:
        """Wait, up to SETTLE_S, until all that was put in before is sent. For whoever is not the thread."""
        sent = Event()
        self._queue.put(sent)
        sent.wait(SETTLE_S)

    def close(self) -> None:
        """Send what is there and what is aside, then let `run` return."""
        self._queue.put(None)

    def run(self) -> None:
        """The thread."""
        closed = False
        while not closed or self._away:
            message = self._queue.get()
            with self._sending:
                finishes, waiting, ends = self._collect(message)
                self._send(finishes)
            for sent in waiting:
                sent.set()
            closed = closed or ends

    def _collect(self, message: _Message | None) -> tuple[list[Finish], list[Event], bool]:
        """`message` and all that is queued behind it; who waits until it is sent; and whether the outbox was closed."""
        finishes: list[Finish] = []
        waiting: list[Event] = []
        while message is not None:
            if isinstance(message, Event):
                waiting.append(message)
            else:
                finishes += self._finishes(message)
            if len(finishes) >= MAX_BATCH:
                return finishes, waiting, False
            try:
                message = self._queue.get_nowait()
            except Empty:
                return finishes, waiting, False
        return finishes, waiting, True

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

    def _finishes(self, message: list[Outcome] | _Answer | Refusal) -> list[Finish]:
        if isinstance(message, Refusal):
            return [self._refused(message)]
        if isinstance(message, _Answer):
            self._away -= 1
            return [self._counted(message)]
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

    def _finish(self, item: Item, parts: list[Outcome]) -> Finish | None:
        """None where the model's own threads postprocess it: then it comes back as an answer."""
        error = parts[0].error if len(parts) == 1 else next((one.error for one in parts if one.error is not None), None)
        if error is None and POSTPROCESS in item.loaded.backend.stages:
            self._away += 1
            self._aside.put(item, partial(self._finish_aside, parts))
            return None
        return self._counted(self._answer(item, parts, error))

    def _finish_aside(self, parts: list[Outcome], item: Item) -> None:
        """In a thread of the model's postprocess stage."""
        self._queue.put(self._answer(item, parts, self._marks.check(item)))

    def _counted(self, answer: _Answer) -> Finish:
        if answer.error is not None:
            request = answer.item.request
            self._count(label_of(*key_of(answer.item.loaded.spec)), answer.error, about(request.id, request.trace))
        return answer.finish

    def _count(self, model: str, error: InferenceError, whose: Mapping[str, str]) -> None:
        """An error reply. The model's own faults are for its operator as well as for the sender."""
        self.failed += 1
        if self._on_error is not None:
            self._on_error(error)
        if isinstance(error, ModelError) and (times := self._model_errors.count(model, time.monotonic())):
            log.error("model '%s' failed on %s: %s", model, _requests(times), error, extra=whose)

    def _answer(self, item: Item, parts: list[Outcome], error: InferenceError | None) -> _Answer:
        try:
            outputs = _NO_OUTPUTS if error else _outputs_of(item, parts)
            reply = _encoded(item.loaded.spec, _reply(item, parts, outputs, error))
        except Exception as failure:
            error = as_model_error(item.loaded, failure)
            reply = encode_reply(_reply(item, parts, _NO_OUTPUTS, error))
        request = item.request
        if self._spans is not None:
            self._spans.answered(item, parts, error)
        keep_ms = item.keep_ms if error is None else self._error_ttl(request.id)
        return _Answer(Finish(item.entry, request.id, reply, keep_ms, request.reply_to or ""), item, error)

    def _refused(self, refusal: Refusal) -> Finish:
        self._count(refusal.model, refusal.error, about(refusal.request_id, refusal.trace))
        if self._spans is not None:
            self._spans.refused(refusal)
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
                if self._outage.goes_on(time.monotonic()):
                    log.warning("%d results wait for Redis, which is tried again and again: %s", len(finishes), error)
                time.sleep(backoff.next())
        if self._outage.over():
            log.warning("Redis takes results again")
        self.finished += len(finishes)
        if self._spans is not None:
            self._spans.completed(finishes)
        self._held.finish(finish.entry.place for finish in finishes)


def _requests(times: int) -> str:
    return "a request" if times == 1 else f"{times} requests since its last such line, on the last one"


def _encoded(spec: ModelSpec, reply: Reply) -> bytes:
    """Raises ModelError for outputs that cannot be sent: their sender asked for nothing wrong."""
    try:
        return encode_reply(reply)
    except (InvalidRequest, PayloadTooLarge) as error:
        raise ModelError(f"the outputs of model '{spec.name}:{spec.version}' cannot be sent: {error}") from error


def _outputs_of(item: Item, parts: list[Outcome]) -> dict[str, Tensor]:
    if len(parts) == 1:
        arrays = parts[0].outputs
    else:
        arrays = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
    arrays = _chosen(item, postprocess(item.loaded, arrays, item.model_request))
    return to_tensors(item.loaded.spec, arrays, item.single)


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
    compute_us, batch_rows = first.compute_us, first.batch_rows
    if len(parts) > 1:
        compute_us, batch_rows = sum(part.compute_us for part in parts), max(part.batch_rows for part in parts)
    timings = Timings(item.queue_us, max(0, int((first.started_s - item.taken_s) * 1e6)), compute_us, batch_rows)
    spec = item.loaded.spec
    return Reply(item.request.id, spec.name, spec.version, outputs, error, timings)
