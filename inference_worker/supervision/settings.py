"""What one supervisor and all its workers are told, with the defaults: the same from Python, flags and the demo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The flags of `up` and `worker`, by the same names. Times in seconds."""

    #: After this time others take over the work of a host that is gone.
    lease_s: float = 10.0
    #: A request that so many workers died of becomes a dead letter.
    max_deliveries: int = 3
    #: For so long a reply that is not cached can be fetched.
    reply_ttl_s: float = 60.0
    #: A worker that ends within this time of being told to has handed back what it held; then it is killed.
    drain_s: float = 30.0
    #: Bound on a pool's unfinished requests, for all clients; None leaves it as it is.
    max_backlog: int | None = None
    #: Models are loaded when they are first asked for, but for those that are pinned.
    lazy: bool = False
    #: Bytes for the models of each worker process together: the least recently used go for others. None: no bound.
    memory_budget: int | None = None
    #: What the workers log to standard error.
    log_level: str = "warning"
    #: Lines for people ("text"), or one JSON object each ("json").
    log_format: str = "text"
    #: Spans of traced requests go to an OpenTelemetry collector; OTEL_* variables alone do that, too.
    tracing: bool = False
    #: A folder that is there, where each worker keeps the file of its metrics; None: nothing is measured.
    metrics: str | None = None

    @property
    def lease_ms(self) -> int:
        return int(self.lease_s * 1000)
