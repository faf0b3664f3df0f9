"""Tracing by OpenTelemetry: whether a process traces, where its spans go, and what they continue.

Nothing of OpenTelemetry is imported before a process asks for it. Who traces has a `Tracing`; who does not has None,
and pays one look at that.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TYPE_CHECKING

from common.errors import ConfigError, InferenceError
from common.logs import follow
from common.tracecontext import TraceContext, read_context

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Tracer

log = logging.getLogger(__name__)

#: A process begins so many new traces a second and no more, where OTEL_TRACES_SAMPLER says nothing: one costs 0.3 ms of
#: CPU time in all processes together.
NEW_TRACES_PER_S = 25
#: At the end of a process its last spans have so long: a collector that is away must not hold a drain up.
CLOSING_S = 2.0
#: Each kind of process adds its own word to it, where OTEL_SERVICE_NAME names none.
SERVICE = "inference-worker"
INSTALL = "pip install 'inference-worker[tracing]'"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_EXPORTER = "otlp"

Attributes = Mapping[str, str | int | float | bool]


class Budget:
    """So many new traces a second, and at most a second's in one go. Safe from many threads."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = float(per_s)
        self._at_s = clock()
        self._lock = Lock()

    def take(self) -> bool:
        with self._lock:
            now_s = self._clock()
            self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Share:
    """This share of the new traces, by chance: who follows them goes by what was decided here."""

    def __init__(self, share: float) -> None:
        self._share = share

    def take(self) -> bool:
        return random.random() < self._share


class Tracing:
    """Makes spans through `tracer`. `budget` says which traces begin here; `end` hands the last spans on.

    Whatever a budget refuses costs no span, which OpenTelemetry's own samplers would make first (5 µs).
    """

    def __init__(
        self, tracer: Tracer, budget: Budget | Share | None = None, end: Callable[[], object] = lambda: None
    ) -> None:
        from opentelemetry import trace

        self.api = trace
        self._tracer = tracer
        self._budget = budget
        self._end = end
        #: Stands for the span of something that is not recorded: what it calls does not begin a trace of its own.
        self._passed = trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)

    def begin(self, name: str, kind: SpanKind, attributes: Attributes | None = None) -> Span | None:
        """A span under the caller's, or of a new trace; None where nothing is recorded and nothing is passed on."""
        current: Span = self.api.get_current_span()
        if current is self._passed:
            return None
        context = current.get_span_context()
        if context.is_valid and not context.trace_flags.sampled:
            return current
        if not context.is_valid and self._budget is not None and not self._budget.take():
            return None
        return self._tracer.start_span(name, kind=kind, attributes=attributes)

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: Context | None,
        start_ns: int | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """A span under `parent`, a context of `below`; with None under nothing. Times are the wall clock's, in ns."""
        context = parent if parent is not None else self._nowhere()
        return self._tracer.start_span(
            name, context, kind=kind, attributes=attributes, links=links, start_time=start_ns
        )

    def below(self, span: Span) -> Context:
        found: Context = self.api.set_span_in_context(span, self._nowhere())
        return found

    def remote(self, context: TraceContext) -> Span:
        """A span of another process, to be a parent or a link."""
        api = self.api
        found: Span = api.NonRecordingSpan(
            api.SpanContext(
                int(context.trace_id, 16),
                int(context.span_id, 16),
                is_remote=True,
                trace_flags=api.TraceFlags(int(context.sampled)),
                trace_state=api.TraceState.from_header([context.state]) if context.state else None,
            )
        )
        return found

    def context_of(self, span: Span) -> TraceContext:
        """A span, as it goes through the wire."""
        found = span.get_span_context()
        sampled = bool(found.trace_flags.sampled)
        return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}", sampled, found.trace_state.to_header())

    def current(self) -> str:
        """The trace that goes on where this is called, by its id; "" for none."""
        context = self.api.get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def failed(self, span: Span, error: InferenceError) -> None:
        span.set_attribute("error.type", error.code)
        span.set_status(self.api.StatusCode.ERROR, error.message)

    @contextmanager
    def serve(self, name: str, carrier: Mapping[str, str], attributes: Attributes | None = None) -> Iterator[Span]:
        """What a door does around one request: a span that continues its caller's trace, or begins one.

        `carrier` is the caller's headers or metadata, by names in lower case: `traceparent` and `tracestate` are read.
        Clients that are asked inside go on under this span, in the same thread or task.
        """
        from opentelemetry import context

        span = self._served(name, carrier, attributes)
        token = context.attach(self.api.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self.api.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()
            context.detach(token)

    def _served(self, name: str, carrier: Mapping[str, str], attributes: Attributes | None) -> Span:
        caller = read_context(carrier)
        if caller is None:
            if self._budget is not None and not self._budget.take():
                return self._passed
            parent = None
        else:
            if not caller.sampled:
                return self.remote(caller)
            parent = self.below(self.remote(caller))
        return self.start(name, self.api.SpanKind.SERVER, parent, attributes=attributes)

    def close(self) -> None:
        """Hand the last spans on, for `CLOSING_S` at most."""
        thread = Thread(target=self._end, name="tracing end", daemon=True)
        thread.start()
        thread.join(CLOSING_S)

    def _nowhere(self) -> Context:
        from opentelemetry.context import Context

        return Context()


def wanted(flag: bool, environment: Mapping[str, str]) -> bool:
    """Whether to trace: by `--tracing`, or by OpenTelemetry's own variables, which can also forbid it.

    Raises ConfigError where the flag asks for what these variables make impossible.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter == "none":
        return False
    if not flag and exporter != _EXPORTER and not _first(_ENDPOINTS, environment):
        return False
    protocol = _first(_PROTOCOLS, environment) or _PROTOCOL
    if exporter not in ("", _EXPORTER) or protocol != _PROTOCOL:
        why = (
            f"spans go out by {_EXPORTER} over {_PROTOCOL} only, and the environment asks for "
            f"{exporter or _EXPORTER} over {protocol}: set OTEL_EXPORTER_OTLP_PROTOCOL={_PROTOCOL} (port 4318)"
        )
        if flag:
            raise ConfigError(why)
        log.warning("nothing is traced: %s", why)
        return False
    return True


def budget_of(environment: Mapping[str, str]) -> Budget | Share | None:
    """Which new traces to begin; None where a sampler of OpenTelemetry's is asked for that knows better."""
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").strip()
    if not sampler:
        return Budget(NEW_TRACES_PER_S)
    if sampler != "parentbased_traceidratio":
        return None
    try:
        return Share(float(environment.get("OTEL_TRACES_SAMPLER_ARG", "") or 1))
    except ValueError:
        return None  # OpenTelemetry says what is wrong, and what it does instead.


def open_tracing(flag: bool, environment: Mapping[str, str], service: str, instance: str) -> Tracing | None:
    """Tracing of this process as `service` (OTEL_SERVICE_NAME goes before it), or None where it is off.

    The exporter and its queue read OpenTelemetry's own variables: where to, headers, time limits, sizes. Raises
    ConfigError where the flag asks for it and it cannot be.
    """
    if not wanted(flag, environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import DEFAULT_ON
    except ModuleNotFoundError as error:
        why = f"tracing needs the package '{error.name}', not installed: {INSTALL}"
        if flag:
            raise ConfigError(why) from error
        log.warning("nothing is traced: %s", why)
        return None
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": service}
    resource = Resource.create({**named, "service.instance.id": instance})
    budget = budget_of(environment)
    # Behind a budget everything is recorded; without one OpenTelemetry's sampler reads the environment itself.
    provider = TracerProvider(sampler=None if budget is None else DEFAULT_ON, resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracing = Tracing(provider.get_tracer("inference_worker"), budget, provider.shutdown)
    follow(tracing.current)
    return tracing


def application_tracing() -> Tracing:
    """Spans through the provider that the application around a client has set up. Raises ConfigError."""
    try:
        from opentelemetry import trace
    except ModuleNotFoundError as error:
        raise ConfigError(f"tracing needs the package '{error.name}', not installed: {INSTALL}") from error
    return Tracing(trace.get_tracer("inference_worker"))


def _first(names: Sequence[str], environment: Mapping[str, str]) -> str:
    return next((value for name in names if (value := environment.get(name, "").strip())), "")
