"""The model behind Redis: each chunk is one request of low priority, answered by whichever worker is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from typing import Any

from common.connect import broker_errors, connect
from common.errors import (
    BrokerUnavailable,
    ConfigError,
    DeadlineExceeded,
    InferenceError,
    InternalError,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
)
from common.keys import PRIORITIES
from common.protocol import OWN_BATCH
from common.tensor import Array
from common.versions import label_of
from gateway import Client, Handle
from gateway.admin.pools import Admin, PoolStatus
from gateway.catalog import Catalog, ModelInfo
from inference_worker.models.spec import TensorSpec
from inference_worker.scoring.engine import Answer
from inference_worker.scoring.facts import Facts, check_declared
from inference_worker.scoring.pace import Pace

PRIORITY = "low"
#: A chunk that is not answered by then is handed in again.
TIMEOUT_S = 3600.0
#: How often online traffic is looked at.
LOOK_S = 0.25
#: Chunks under way for each worker process: one runs, the others wait where the next batch is chosen.
PER_WORKER = 4
#: An internal error may pass; so often it is tried again.
TRIES = 3
_ENDS = (ModelNotFound, ModelUnavailable, ConfigError)
_AGAIN = (Overloaded, DeadlineExceeded, BrokerUnavailable)


def find_facts(url: str, pool: str, name: str, version: str | None) -> Facts:
    """A model as the pool's workers publish it. Raises ModelNotFound, ConfigError, BrokerUnavailable."""
    client = connect(url)
    try:
        [status] = Admin(client).snapshot([pool]).pools
    finally:
        client.close()
    info = Catalog(status.models, status.traffic).find(name, version)
    if info is None:
        there = ", ".join(f"{one.name}:{one.version}" for one in status.models) or "none"
        raise ModelNotFound(
            f"pool '{pool}' serves no model '{label_of(name, version)}'; there is {there}: start a "
            "worker with it, or score in this process by --local"
        )
    facts = _facts(info, status)
    check_declared(facts)
    return facts


def _facts(info: ModelInfo, status: PoolStatus) -> Facts:
    tensors = (
        tuple(TensorSpec(one.name, one.dtype, one.shape) for one in some) for some in (info.inputs, info.outputs)
    )
    inputs, outputs = tensors
    devices = {str(worker.about.get("device", "cpu")) for worker in status.workers}
    device = "cuda" if any(one.startswith("cuda") for one in devices) else "cpu"
    return Facts(info.name, info.version, info.weights, inputs, outputs, info.rows, info.pads, device)


class QueuedScorer:
    """A pool's workers as a Scorer. `tell` gets a line for whoever watches, such as that Redis is away."""

    def __init__(
        self,
        url: str,
        pool: str,
        facts: Facts,
        outputs: Sequence[str],
        *,
        parameters: Mapping[str, Any],
        tenant: str | None = None,
        cache: bool = False,
        window: int | None = None,
        tell: Callable[[str], None],
    ) -> None:
        self.facts = facts
        self._client = Client(url, pool=pool, tenant=tenant, timeout_s=TIMEOUT_S)
        # Batches that are cut here alone, and run as they are: their results are the same bytes each time.
        self._call: dict[str, Any] = {
            "version": facts.version,
            "parameters": {**parameters, OWN_BATCH: True},
            "outputs": tuple(outputs) or None,
            "priority": PRIORITY,
            "cache": cache,
        }
        self._watch = Watch(url, pool, facts, window, tell)

    def room(self, under_way: int) -> bool:
        return self._watch.allows(under_way)

    def submit(self, inputs: Mapping[str, Array], rows: int) -> QueuedPending:
        return QueuedPending(self, inputs)

    def close(self) -> None:
        self._watch.close()
        self._client.close()

    def ask(self, inputs: Mapping[str, Array]) -> Handle:
        return self._client.submit(self.facts.name, inputs, **self._call)

    @property
    def workers(self) -> int:
        """Worker processes that were there when it was last looked."""
        return self._watch.workers

    def check(self) -> None:
        """Raises ConfigError where the model is no longer the one that the job began with."""
        self._watch.check()


class QueuedPending:
    """A chunk under way, handed in again as often as the queue refuses it or loses sight of it."""

    def __init__(self, scorer: QueuedScorer, inputs: Mapping[str, Array]) -> None:
        self._scorer = scorer
        self._inputs = inputs
        self._handle: Handle | None = None
        self._refused: InferenceError | None = None
        self._not_before_s = 0.0
        self._tries = 0
        self._submit()

    def result(self, timeout_s: float) -> Answer | None:
        self._scorer.check()
        if self._refused is not None:
            return Answer({}, self._refused)
        if self._handle is None and not self._retry(timeout_s):
            return None
        assert self._handle is not None
        try:
            result = self._handle.result(timeout_s)
            return Answer(result.outputs, None, result.timings.compute_us / 1e6)
        except TimeoutError:
            return None
        except InferenceError as error:
            return self._failed(error)

    def _failed(self, error: InferenceError) -> Answer | None:
        if isinstance(error, _ENDS):
            raise error
        self._tries += isinstance(error, InternalError)
        again = isinstance(error, _AGAIN) or (isinstance(error, InternalError) and self._tries < TRIES)
        if not again:
            return Answer({}, error)
        wait_s = error.retry_after_ms / 1000 if isinstance(error, Overloaded) else 1.0
        self._handle, self._not_before_s = None, time.monotonic() + wait_s
        return None

    def _retry(self, timeout_s: float) -> bool:
        wait_s = self._not_before_s - time.monotonic()
        time.sleep(max(0.0, min(wait_s, timeout_s)))
        return wait_s <= timeout_s and self._submit()

    def _submit(self) -> bool:
        try:
            self._handle = self._scorer.ask(self._inputs)
        except _AGAIN:
            self._not_before_s = time.monotonic() + 1.0
        except InferenceError as error:
            # A chunk that is too large, say: the fault of one of its rows.
            self._refused = error
        return self._handle is not None


class Watch:
    """A thread that looks at the pool: how much online traffic waits, whether Redis answers, which model is served."""

    def __init__(self, url: str, pool: str, facts: Facts, window: int | None, tell: Callable[[str], None]) -> None:
        self._redis = connect(url)
        self._pool, self._facts, self._tell = pool, facts, tell
        self._fixed = window
        self._pace = Pace(window or PER_WORKER)
        self._ended = Event()
        self._away_since: float | None = None
        self._changed: ConfigError | None = None
        self.workers = 1
        self._thread = Thread(target=self._run, name="score-watch", daemon=True)
        self._thread.start()

    def allows(self, under_way: int) -> bool:
        return self._pace.allows(under_way, time.monotonic())

    def check(self) -> None:
        if self._changed is not None:
            raise self._changed

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._redis.close()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                with broker_errors():
                    [status] = Admin(self._redis).snapshot([self._pool]).pools
                self._back()
                self._look(status)
            except InferenceError as error:
                self._away(error)

    def _look(self, status: PoolStatus) -> None:
        live = sum(worker.live for worker in status.workers)
        if live != self.workers and self._fixed is None:
            self.workers = live
            self._pace.most = PER_WORKER * max(1, live)
        self._pace.seen(sum(status.backlog[one] for one in PRIORITIES if one != PRIORITY))
        info = Catalog(status.models).find(self._facts.name, self._facts.version)
        if info is not None and info.weights != self._facts.weights:
            self._changed = ConfigError(
                f"model '{self._facts.label}' was loaded again with other weights ({info.weights[:12]}) than this job "
                f"began with ({self._facts.weights[:12]}); put them back, or score into another folder"
            )

    def _away(self, error: InferenceError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._tell(f"Redis is away, the job waits for it: {error}")

    def _back(self) -> None:
        if self._away_since is not None:
            self._tell(f"Redis is back after {time.monotonic() - self._away_since:.1f} s")
            self._away_since = None
