"""What is measured of each batch that ran. In the runner's thread, once a batch: a request adds to lists alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from common.metrics.declared import (
    BATCH_ROWS,
    BATCH_WAIT,
    BATCHES,
    BUSY,
    COMPUTE,
    MODEL_REQUESTS,
    NOBODY,
    OTHER,
    PADDING,
    QUEUE,
    TENANT_COMPUTE,
    TENANT_REQUESTS,
    TENANT_ROWS,
    TOKENS,
)
from common.metrics.recording import Histogram, Number, Recorder
from inference_worker.batching.tally import Tally
from inference_worker.item import Batch, Part, Reason


class Seat(NamedTuple):
    """Whose batches these are."""

    pool: str
    device: str
    worker: str


class _Model(NamedTuple):
    """The series of one version of a model."""

    requests: Number
    queue: Histogram
    wait: Histogram
    compute: Histogram
    rows: Histogram
    tokens: Number
    padding: Number


class _Tenant(NamedTuple):
    requests: Number
    rows: Number
    compute: Number


class MeteredTally(Tally):
    """A tally that others can read, too."""

    def __init__(self, recorder: Recorder, seat: Seat) -> None:
        super().__init__()
        self._recorder = recorder
        self._pool = seat.pool
        self._busy = recorder.number(BUSY, *seat)
        self._models: dict[tuple[str, str], _Model] = {}
        self._whys: dict[tuple[str, Reason], Number] = {}
        self._tenants: dict[str, _Tenant] = {}

    def add(self, batch: Batch, started_s: float, seconds: float) -> None:
        super().add(batch, started_s, seconds)
        self._busy.add(seconds)
        spec, parts = batch.loaded.spec, batch.parts
        model = self._models.get((spec.name, spec.version)) or self._model(spec.name, spec.version)
        # A request of several parts counts where its first one runs.
        items = [part.item for part in parts if part.start == 0]
        if items:
            model.requests.add(len(items))
            model.queue.add([item.queue_us / 1e6 for item in items])
            model.wait.add([started_s - item.taken_s for item in items])
        model.compute.add([seconds])
        model.rows.add([batch.rows])
        if parts[0].shapes:
            useful = batch.useful
            model.tokens.add(useful)
            model.padding.add(batch.size - useful)
        why = self._whys.get((spec.name, batch.reason)) or self._why(spec.name, batch.reason)
        why.add(1)
        self._share_out(parts, batch.rows, len(items), seconds)

    def _share_out(self, parts: Sequence[Part], rows: int, requests: int, seconds: float) -> None:
        names = {part.item.request.tenant for part in parts}
        if len(names) == 1:
            self._used(names.pop(), requests, rows, seconds)
            return
        requests_of: Counter[str | None] = Counter()
        rows_of: Counter[str | None] = Counter()
        for part in parts:
            tenant = part.item.request.tenant
            rows_of[tenant] += part.rows
            requests_of[tenant] += part.start == 0
        for tenant, share in rows_of.items():
            self._used(tenant, requests_of[tenant], share, seconds * share / rows)

    def _used(self, name: str | None, requests: int, rows: int, seconds: float) -> None:
        tenant = self._tenants.get(name or NOBODY) or self._tenant(name or NOBODY)
        tenant.requests.add(requests)
        tenant.rows.add(rows)
        tenant.compute.add(seconds)

    def _model(self, name: str, version: str) -> _Model:
        recorder, pool = self._recorder, self._pool
        made = self._models[name, version] = _Model(
            recorder.number(MODEL_REQUESTS, pool, name, version),
            recorder.histogram(QUEUE, pool, name),
            recorder.histogram(BATCH_WAIT, pool, name),
            recorder.histogram(COMPUTE, pool, name),
            recorder.histogram(BATCH_ROWS, pool, name),
            recorder.number(TOKENS, pool, name),
            recorder.number(PADDING, pool, name),
        )
        return made

    def _why(self, name: str, reason: Reason) -> Number:
        made = self._whys[name, reason] = self._recorder.number(BATCHES, self._pool, name, reason.value)
        return made

    def _tenant(self, name: str) -> _Tenant:
        # Their names come from outside: no more of them are kept than have a series.
        if len(self._tenants) >= TENANT_REQUESTS.most:
            name = OTHER
        recorder, pool = self._recorder, self._pool
        made = self._tenants[name] = _Tenant(
            recorder.number(TENANT_REQUESTS, pool, name),
            recorder.number(TENANT_ROWS, pool, name),
            recorder.number(TENANT_COMPUTE, pool, name),
        )
        return made
