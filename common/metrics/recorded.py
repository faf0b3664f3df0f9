"""What processes have recorded, as a source of samples: the names of tenants cut to the top of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from common.metrics.declared import ALL, Kind, Metric, Sample, sample
from common.metrics.recording import Recordings
from common.metrics.top import Top

_METRICS = {metric.name: metric for metric in ALL}
_TENANT = "tenant"


class Recorded:
    """The files of a folder (see recording.py), all processes added up. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._recordings = Recordings(folder)
        self._tops: defaultdict[tuple[str, tuple[str, ...]], Top] = defaultdict(Top)

    def __call__(self) -> Iterator[Sample]:
        of_tenants: defaultdict[tuple[str, tuple[str, ...]], dict[str, float]] = defaultdict(dict)
        for (name, labels), cells in self._recordings.read().items():
            metric = _METRICS[name]
            if metric.kind is Kind.COUNTER and metric.labels[-1:] == (_TENANT,):
                of_tenants[name, labels[:-1]][labels[-1]] = cells[0]
            else:
                yield Sample(metric, labels, cells)
        for (name, labels), counts in of_tenants.items():
            yield from self._shown(_METRICS[name], labels, counts)

    def _shown(self, metric: Metric, labels: tuple[str, ...], counts: dict[str, float]) -> Iterator[Sample]:
        for tenant, number in self._tops[metric.name, labels].look(counts).items():
            yield sample(metric, number, *labels, tenant)
