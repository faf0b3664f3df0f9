"""A worker's spans: what became of each traced request between its stream and its reply, and the batches it ran in.

They are made when a reply is handed over, for all requests of one call together; until then an answer costs nothing
but its place in a map. Times are the wall clock's, counted back from now, and never set by another host's clock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from common.errors import Cancelled, DeadlineExceeded, InferenceError
from common.scripts import Finish, Place
from common.tracecontext import TraceContext, read_context
from common.tracing import Attributes, Tracing
from inference_worker.item import Item
from inference_worker.outcome import Outcome, Refusal

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, SpanKind

log = logging.getLogger(__name__)

#: What a request is told that no batch took along.
_NEVER_RAN = (Cancelled, DeadlineExceeded)


class Answered(NamedTuple):
    """A traced request whose answer is made, and is not handed over yet."""

    item: Item
    parts: Sequence[Outcome]
    error: InferenceError | None
    context: TraceContext


class WorkerSpans:
    """Safe from many threads."""

    def __init__(self, tracing: Tracing, pool: str) -> None:
        self._tracing = tracing
        self._pool = pool
        self._lock = Lock()
        self._answered: dict[Place, Answered] = {}

    def answered(self, item: Item, parts: Sequence[Outcome], error: InferenceError | None) -> None:
        """`item` has its answer. Whether its trace is recorded was decided where that began."""
        context = read_context(item.request.trace)
        if context is not None and context.sampled:
            with self._lock:
                self._answered[item.entry.place] = Answered(item, parts, error, context)

    def refused(self, refusal: Refusal) -> None:
        """It never ran: its whole life here is a wait, from Redis's own time for its entry on."""
        context = read_context(refusal.trace)
        if context is not None and context.sampled:
            tracing, now_ns = self._tracing, time.time_ns()
            start_ns = min(now_ns, refusal.entry.added_ms * 1_000_000)
            span = tracing.start(
                "wait", tracing.api.SpanKind.CONSUMER, tracing.below(tracing.remote(context)), start_ns
            )
            span.set_attributes({"request.id": refusal.request_id or "", "pool": self._pool})
            tracing.failed(span, refusal.error)
            span.end(now_ns)

    def completed(self, finishes: Iterable[Finish]) -> None:
        """Redis has their replies."""
        if not self._answered:
            return
        with self._lock:
            places = [finish.entry.place for finish in finishes]
            found = [one for place in places if (one := self._answered.pop(place, None)) is not None]
        try:
            self._tell(found, _Clock())
        except Exception:
            log.exception("the spans of %d requests are lost. This is a bug.", len(found))

    def _tell(self, found: Sequence[Answered], clock: _Clock) -> None:
        batches = self._batches(found, clock)
        for one in found:
            self._request(one, batches, clock)

    def _batches(self, found: Sequence[Answered], clock: _Clock) -> Mapping[float, Link]:
        """A span for each batch in which some of these ran, by when it began: a trace of its own, linked to theirs."""
        tracing = self._tracing
        ran: dict[float, tuple[Outcome, list[Link]]] = {}
        for one in found:
            link = tracing.api.Link(tracing.remote(one.context).get_span_context(), {"request.id": one.item.request.id})
            for started_s, part in _runs(one).items():
                ran.setdefault(started_s, (part, []))[1].append(link)
        return {started_s: self._batch(part, links, clock) for started_s, (part, links) in ran.items()}

    def _batch(self, part: Outcome, links: Sequence[Link], clock: _Clock) -> Link:
        spec = part.part.item.loaded.spec
        kind = self._tracing.api.SpanKind.INTERNAL
        about: Attributes = {
            "pool": self._pool, "model.name": spec.name, "model.version": spec.version, "rows": part.batch_rows,
        }  # fmt: skip
        span = self._tracing.start(f"batch {spec.name}", kind, None, clock.ns(part.started_s), about, links)
        span.end(clock.ns(part.started_s) + part.compute_us * 1000)
        link: Link = self._tracing.api.Link(span.get_span_context())
        return link

    def _request(self, one: Answered, batches: Mapping[float, Link], clock: _Clock) -> None:
        api, item, first = self._tracing.api, one.item, one.parts[0]
        taken_ns, began_ns = clock.ns(item.taken_s), clock.ns(first.started_s)
        wait = self._under(one, "wait", api.SpanKind.CONSUMER, taken_ns - item.queue_us * 1000)
        wait.set_attributes(
            {"request.id": item.request.id, "pool": self._pool, "entry.id": item.entry.id.decode(),
             "deliveries": item.entry.deliveries}
        )  # fmt: skip
        wait.add_event("taken", timestamp=taken_ns)
        ran = _runs(one)
        if one.error is not None and not ran:
            self._tracing.failed(wait, one.error)
        wait.end(began_ns)
        ended_ns = self._computed(one, ran, batches, clock) if ran else began_ns
        self._under(one, "reply", api.SpanKind.PRODUCER, ended_ns).end(clock.now_ns)

    def _computed(
        self, one: Answered, ran: Mapping[float, Outcome], batches: Mapping[float, Link], clock: _Clock
    ) -> int:
        """Its time in the model; when that ended."""
        item, kind = one.item, self._tracing.api.SpanKind.INTERNAL
        began_ns = clock.ns(one.parts[0].started_s)
        ended_ns = max(clock.ns(part.started_s) + part.compute_us * 1000 for part in one.parts)
        compute = self._under(one, "compute", kind, began_ns, [batches[started_s] for started_s in ran])
        compute.set_attributes(
            {"model.name": item.loaded.spec.name, "model.version": item.loaded.spec.version,
             "rows": item.model_request.rows, "batch.rows": max(part.batch_rows for part in one.parts)}
        )  # fmt: skip
        if one.error is not None:
            self._tracing.failed(compute, one.error)
        compute.end(ended_ns)
        return ended_ns

    def _under(self, one: Answered, name: str, kind: SpanKind, start_ns: int, links: Sequence[Link] = ()) -> Span:
        parent = self._tracing.below(self._tracing.remote(one.context))
        return self._tracing.start(name, kind, parent, start_ns, links=links)


def _runs(one: Answered) -> dict[float, Outcome]:
    """The batches in which its parts ran, by when they began; none for one that was dropped before."""
    if isinstance(one.error, _NEVER_RAN):
        return {}
    return {part.started_s: part for part in one.parts}


class _Clock:
    """The wall clock at times of this process's monotonic one."""

    __slots__ = ("_now_s", "now_ns")

    def __init__(self) -> None:
        self.now_ns = time.time_ns()
        self._now_s = time.monotonic()

    def ns(self, monotonic_s: float) -> int:
        return self.now_ns - int((self._now_s - monotonic_s) * 1e9)
