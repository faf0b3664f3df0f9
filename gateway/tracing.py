"""A client's spans: a request from its call to its answer, and in it the way into its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from common.errors import InferenceError
from common.tracing import Tracing, application_tracing
from gateway.flight import Flight, Ticket
from gateway.result import Answer, Result

if TYPE_CHECKING:
    from opentelemetry.trace import Span

#: Called with a handle when that is settled.
Finished = Callable[[Any], None]


class RequestSpan:
    """One request, or an ensemble's whole. `wire` is its field `trace`. Ends when its handle is `settled`."""

    __slots__ = ("_enqueue", "_finished", "_owner", "_span", "request_id", "trace_id", "wire")

    def __init__(self, owner: RequestSpans, span: Span, enqueue: Span | None, finished: Finished | None) -> None:
        self._owner = owner
        self._span = span
        self._enqueue = enqueue
        self._finished = finished
        context = owner.tracing.context_of(span)
        self.trace_id = context.trace_id
        self.wire = context.wire
        self.request_id = ""

    def sending(self, request_id: str) -> None:
        """From now on `RequestSpans.admitted` may tell that Redis has it."""
        self.request_id = request_id
        self._span.set_attribute("request.id", request_id)
        self._owner.sending(self)

    def admitted(self) -> None:
        if self._enqueue is not None:
            self._enqueue.end()
            self._enqueue = None

    def settled(self, handle: Ticket) -> None:
        self._end(handle.answer)
        if self._finished is not None:
            self._finished(handle)

    def step(self, model: str, finished: Finished) -> RequestSpan:
        """Of an ensemble: one of its requests."""
        return self._owner.below(self._span, model, finished)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What is raised before there is a handle is its end, too."""
        if isinstance(error, InferenceError):
            self._end(error)

    def _end(self, answer: Answer | None) -> None:
        self._owner.landed(self)
        self.admitted()
        span = self._span
        if isinstance(answer, Result):
            span.set_attributes({"model.version": answer.version, "cached": answer.cached})
        elif answer is not None:
            self._owner.tracing.failed(span, answer)
        span.end()


class RequestSpans:
    """Those of one client. Safe from many threads."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        self._under_way: dict[str, RequestSpan] = {}

    def begin(self, model: str, finished: Finished | None) -> RequestSpan | None:
        """Under the caller's current span, or as a trace of its own; None where it is not to be traced."""
        kind = self.tracing.api.SpanKind.CLIENT
        span = self.tracing.begin(f"infer {model}", kind, {"model.name": model})
        return None if span is None else self._request(span, finished)

    def below(self, parent: Span, model: str, finished: Finished) -> RequestSpan:
        tracing = self.tracing
        if not parent.is_recording():
            return RequestSpan(self, parent, None, finished)
        kind, below = tracing.api.SpanKind.CLIENT, tracing.below(parent)
        return self._request(tracing.start(f"infer {model}", kind, below, None, {"model.name": model}), finished)

    def admitted(self, flights: Iterable[Flight]) -> None:
        """Redis has answered for these."""
        for flight in flights:
            if (one := self._under_way.get(flight.request_id)) is not None:
                one.admitted()

    def sending(self, one: RequestSpan) -> None:
        self._under_way.setdefault(one.request_id, one)

    def landed(self, one: RequestSpan) -> None:
        if self._under_way.get(one.request_id) is one:
            del self._under_way[one.request_id]

    def _request(self, span: Span, finished: Finished | None) -> RequestSpan:
        tracing = self.tracing
        if not span.is_recording():
            return RequestSpan(self, span, None, finished)
        enqueue = tracing.start("enqueue", tracing.api.SpanKind.PRODUCER, tracing.below(span))
        return RequestSpan(self, span, enqueue, finished)


def spans_of(tracing: Tracing | Literal[True]) -> RequestSpans:
    """`True`: through the application's own OpenTelemetry. Raises ConfigError where that is not installed."""
    return RequestSpans(application_tracing() if tracing is True else tracing)
