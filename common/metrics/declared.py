"""Every metric: its name, what it says, its unit and its labels. Nothing else in the project spells one.

By Prometheus's conventions: base units, `_total` for what only grows. docs/metrics.md is this file as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

#: What a label says of names beyond those that a metric may have.
OTHER = "other"
#: What the label says where a request names no tenant. No tenant's name begins so.
NOBODY = "-"
#: Labels whose values come with requests or with models; all others have a fixed few.
OPEN = frozenset(("model", "version", "tenant"))

_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LOAD = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Kind(Enum):
    """How Prometheus calls it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One of them. A process keeps at most `most` sets of labels of it; the names of further ones are `OTHER`.

    `bounds` are a histogram's, each the largest value of its bucket.
    """

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    most: int = 64

    @property
    def cells(self) -> int:
        """Numbers that one set of labels takes: a histogram's are its buckets, that of all larger values, its sum."""
        return len(self.bounds) + 2 if self.bounds else 1


class Sample(NamedTuple):
    """What a metric says for one set of labels: its one number, or a histogram's counts by bucket and its sum."""

    metric: Metric
    labels: tuple[str, ...]
    cells: Sequence[float]


#: Tells what is so now.
Source = Callable[[], Iterable[Sample]]


def sample(metric: Metric, value: float, *labels: str) -> Sample:
    return Sample(metric, labels, (value,))


def _counter(name: str, help: str, *labels: str, most: int = 64) -> Metric:
    return Metric(Kind.COUNTER, name, help, labels, most=most)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(Kind.GAUGE, name, help, labels)


def _histogram(name: str, help: str, *labels: str, bounds: tuple[float, ...] = _LATENCY) -> Metric:
    return Metric(Kind.HISTOGRAM, name, help, labels, bounds)


# A request's way through a worker

REQUESTS = _counter("inference_worker_requests_total", "Requests answered, whether well or not", "pool", "priority")
ERRORS = _counter("inference_worker_errors_total", "Requests answered with an error, by its code", "pool", "code")
MODEL_REQUESTS = _counter(
    "inference_worker_model_requests_total", "Requests that a model ran without an error", "pool", "model", "version"
)
QUEUE = _histogram("inference_worker_queue_seconds", "From a request's XADD until a worker took it", "pool", "model")
BATCH_WAIT = _histogram("inference_worker_batch_wait_seconds", "From the take until its batch began", "pool", "model")
PREPROCESS = _histogram(
    "inference_worker_preprocess_seconds", "A model's own preprocess stage, for one request", "pool", "model"
)
COMPUTE = _histogram("inference_worker_compute_seconds", "The model's time for one batch", "pool", "model")
POSTPROCESS = _histogram(
    "inference_worker_postprocess_seconds", "A model's own postprocess stage, for one request", "pool", "model"
)
PUBLISH = _histogram("inference_worker_publish_seconds", "One call that hands results to Redis", "pool")
REQUEST = _histogram(
    "inference_worker_request_seconds", "From a request's XADD until Redis had its answer", "pool", "priority"
)

# Batches

BATCH_ROWS = _histogram("inference_worker_batch_rows", "Rows of a batch", "pool", "model", bounds=_ROWS)
TOKENS = _counter(
    "inference_worker_batch_tokens_total", "Elements of padded inputs that models ran, without padding", "pool", "model"
)
PADDING = _counter("inference_worker_padding_tokens_total", "Elements that were only padding", "pool", "model")
BATCHES = _counter(
    "inference_worker_batches_total", "Batches, by why they went out as they were", "pool", "model", "reason", most=256
)
BUSY = _counter(
    "inference_worker_busy_seconds_total", "Seconds in which a device's process ran models", "pool", "device", "worker"
)

# What goes wrong

RETRIES = _counter("inference_worker_retries_total", "Requests taken over from a worker that died with them", "pool")
RECLAIMED = _counter(
    "inference_worker_reclaimed_total", "Requests taken over, also those that a drained worker handed back", "pool"
)
LOST_LEASES = _counter(
    "inference_worker_lost_leases_total", "Workers whose lease ran out while they held requests", "pool"
)
DEAD_LETTERS = _counter("inference_worker_dead_letters_total", "Requests that became dead letters", "pool")
EXITS = _counter("inference_worker_exits_total", "Worker processes that ended, by why", "pool", "device", "reason")
BROKER_LOSSES = _counter("inference_worker_broker_losses_total", "Times that a pool's supervisor lost Redis", "pool")

# Whose work it is

TENANT_REQUESTS = _counter(
    "inference_worker_tenant_requests_total", "Requests that ran, by tenant", "pool", "tenant", most=200
)
TENANT_ROWS = _counter("inference_worker_tenant_rows_total", "Rows that ran, by tenant", "pool", "tenant", most=200)
TENANT_COMPUTE = _counter(
    "inference_worker_tenant_compute_seconds_total",
    "Seconds of models' time, a batch's shared out by rows, by tenant",
    "pool",
    "tenant",
    most=200,
)

# Models, processes and devices of this host

MODEL_LOAD = _histogram(
    "inference_worker_model_load_seconds",
    "Loading a model, by step: import, load, warm",
    "pool",
    "model",
    "step",
    bounds=_LOAD,
)
EVICTIONS = _counter("inference_worker_evictions_total", "Models that went for others", "pool", "device", "worker")
MODEL_BYTES = _gauge("inference_worker_model_bytes", "What models take in a process", "pool", "device", "worker")
PARKED = _gauge(
    "inference_worker_parked_requests", "Requests that wait for their model to be loaded", "pool", "device", "worker"
)
PROCESSES = _gauge("inference_worker_processes", "This host's worker processes, by state", "pool", "device", "state")
DEVICE_USED = _gauge("inference_worker_device_memory_used_bytes", "A GPU's memory that is taken", "device", "uuid")
DEVICE_TOTAL = _gauge("inference_worker_device_memory_total_bytes", "A GPU's memory", "device", "uuid")
DEVICE_BUSY = _gauge(
    "inference_worker_device_utilisation_ratio", "Share of the time in which a GPU computed", "device", "uuid"
)
DEVICE_HEAT = _gauge("inference_worker_device_temperature_celsius", "A GPU's temperature", "device", "uuid")

# A pool as Redis shows it: the same from whichever host or gateway tells it

BACKLOG = _gauge("inference_worker_pool_backlog", "Unfinished requests", "pool", "priority")
OLDEST = _gauge(
    "inference_worker_pool_oldest_age_seconds", "Age of the oldest unfinished request, 0 for none", "pool", "priority"
)
IN_FLIGHT = _gauge("inference_worker_pool_in_flight", "Unfinished requests that workers hold", "pool", "priority")
WORKERS = _gauge("inference_worker_pool_workers", "Workers with a lease, on all hosts, that serve", "pool")
LETTERS = _gauge("inference_worker_pool_dead_letters", "Dead letters that are kept", "pool")
TENANT_BACKLOG = _gauge("inference_worker_pool_tenant_backlog", "Unfinished requests, by tenant", "pool", "tenant")
ARRIVALS = _gauge("inference_worker_pool_arrivals_per_second", "Requests that came, over the last minute", "pool")
SERVICE = _gauge("inference_worker_pool_service_seconds", "A worker's time for one request, as measured", "pool")
DESIRED = _gauge("inference_worker_pool_desired_workers", "Workers that the pool's load asks for", "pool")
REDIS_UP = _gauge("inference_worker_redis_up", "Whether Redis answered when it was asked for the pools: 1 or 0")
REDIS_USED = _gauge("inference_worker_redis_memory_used_bytes", "What Redis holds, as its maxmemory counts it")
REDIS_LIMIT = _gauge("inference_worker_redis_memory_limit_bytes", "Redis's maxmemory; 0: none")

# The gateway

DOOR_REQUESTS = _counter(
    "inference_gateway_requests_total", "Requests at a door, by the code of their answer", "door", "code"
)
DOOR_REQUEST = _histogram("inference_gateway_request_seconds", "From a request's head until its answer", "door")
DOOR_MODEL_REQUESTS = _counter(
    "inference_gateway_model_requests_total", "Requests that were answered, by model", "model"
)
DOOR_CACHE_HITS = _counter("inference_gateway_cache_hits_total", "Those of them that no model had to compute", "model")
DOOR_REJECTIONS = _counter(
    "inference_gateway_rejections_total", "Requests that were refused as too much, by which bound", "reason"
)
DOOR_TENANT_REQUESTS = _counter(
    "inference_gateway_tenant_requests_total", "Requests for a model, by tenant", "tenant", most=200
)
DOOR_WAITING = _gauge("inference_gateway_waiting_requests", "Requests that wait at the limiter")
DOOR_UNDER_WAY = _gauge("inference_gateway_under_way_requests", "Requests that the limiter has let in")
DOOR_LIMIT = _gauge("inference_gateway_concurrency_limit", "How many the limiter lets in at a time")

# Of the metrics themselves

READ_FAILURES = _counter(
    "inference_worker_metrics_failures_total", "Times that a part of the metrics could not be read", "part"
)

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
