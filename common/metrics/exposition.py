"""Metrics as Prometheus asks for them: sources gathered by prometheus-client's registry, served by its HTTP server.

The one file that knows prometheus-client. Its own counters are not used: an observation by its multi-process mode costs
twenty times a number in our file, and leaves a file for each process that ever ran.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from common.metrics.declared import ALL, READ_FAILURES, Kind, Metric, Sample, Source, sample

log = logging.getLogger(__name__)

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_FAMILIES: dict[Kind, Callable[..., Family]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


class Exporter(Collector):
    """Asks its sources whenever somebody scrapes, one scraper after the other. One that fails leaves the others."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._failures: dict[str, int] = {}
        self._lock = Lock()

    def add(self, part: str, source: Source) -> None:
        """From now on `part` is shown too."""
        with self._lock:
            self._sources[part] = source
            self._failures[part] = 0

    def describe(self) -> list[Family]:
        """All that there may be, without asking for it: the registry's names."""
        return [_family(metric) for metric in ALL]

    def collect(self) -> Iterator[Family]:
        with self._lock:
            samples = [one for part, source in self._sources.items() for one in self._ask(part, source)]
            samples += [sample(READ_FAILURES, count, part) for part, count in self._failures.items()]
        return families(samples)

    def _ask(self, part: str, source: Source) -> list[Sample]:
        try:
            return list(source())
        except Exception:
            self._failures[part] += 1
            if self._failures[part] == 1:
                log.exception("the metrics of the part '%s' cannot be read, and are left out. This is a bug.", part)
            return []


class Lately:
    """What a source told at most `every_s` seconds ago: however many scrape, what it asks is asked no more often."""

    def __init__(self, source: Source, every_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._every_s = every_s
        self._clock = clock
        self._told_s = -math.inf
        self._told: list[Sample] = []

    def __call__(self) -> list[Sample]:
        if self._clock() - self._told_s >= self._every_s:
            self._told = list(self._source())
            # From the answer on: one that took long must not be followed by the next at once.
            self._told_s = self._clock()
        return self._told


class Serving:
    """GET /metrics on one port, from now until `close`. Raises OSError where the port is taken."""

    def __init__(self, exporter: Exporter, host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(exporter)
        self._server: WSGIServer
        self._server, self._thread = start_http_server(port, host, registry)

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def families(samples: Iterable[Sample]) -> Iterator[Family]:
    """By metric, in the order in which these are declared."""
    found: dict[Metric, Family] = {}
    for metric, labels, cells in samples:
        family = found.get(metric)
        if family is None:
            family = found[metric] = _family(metric)
        if isinstance(family, HistogramMetricFamily):
            family.add_metric(labels, _buckets(metric, cells), cells[-1])
        else:
            family.add_metric(labels, cells[0])
    return (found[metric] for metric in ALL if metric in found)


def _family(metric: Metric) -> Family:
    return _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)


def _buckets(metric: Metric, cells: Sequence[float]) -> list[tuple[str, float]]:
    """(largest value, how many values are at most that) of each bucket."""
    total, found = 0.0, []
    for bound, count in zip((*map(str, metric.bounds), "+Inf"), cells, strict=False):
        total += count
        found.append((bound, total))
    return found
