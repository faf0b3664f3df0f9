"""W3C trace context, as a request carries it in its field `trace`: read, written, and shown. Knows no OpenTelemetry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

#: The W3C's limit is 512 characters for what must be passed on; longer ones may be cut, and are left out here.
MAX_TRACESTATE = 512

_SAMPLED = 1
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """Which trace something belongs to, under which span; whether that is recorded, and the vendors' own state."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    @property
    def wire(self) -> dict[str, str]:
        """The request's field `trace`."""
        parent = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"}
        return {**parent, "tracestate": self.state} if self.state else parent


def read_context(trace: Mapping[str, str] | None) -> TraceContext | None:
    """What `traceparent` and `tracestate` say; None for what is none.

    A malformed one is no error: as the W3C asks, whoever gets it goes on as if there were none.
    """
    if trace is None:
        return None
    match = _TRACEPARENT.fullmatch(trace.get("traceparent", ""))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = trace.get("tracestate", "")
    return TraceContext(
        trace_id, span_id, bool(int(flags, 16) & _SAMPLED), state if len(state) <= MAX_TRACESTATE else ""
    )
