"""One ensemble under way: each answer sends the steps that waited for it. It has no thread or task of its own.

A step is an ordinary request of the client. Whoever settles its handle (a caller that reads its own reply, the
receiver, the sender) goes on with the ensemble right there, and never waits for anything.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from common.errors import Cancelled, DeadlineExceeded, InferenceError, InternalError
from common.tracecontext import TraceContext
from gateway.call import Call, Times
from gateway.catalog import Catalog, Catalogs
from gateway.composer import Composer, Destination, stream_of
from gateway.ensembles.ensemble import Ensemble, Ensembles, Step, mismatches
from gateway.ensembles.flow import Flow, at_step
from gateway.handle import AsyncHandle, Handle
from gateway.payload import Parcel
from gateway.result import Answer, Result

if TYPE_CHECKING:
    from gateway.tracing import RequestSpan

log = logging.getLogger(__name__)

AnyHandle = TypeVar("AnyHandle", Handle, AsyncHandle)
_UNKNOWN = Catalog()


class Stage:
    """What all runs of one client share: the ensembles, and what is known of the pools."""

    def __init__(self, ensembles: Ensembles, composer: Composer, catalogs: Catalogs) -> None:
        self._ensembles = ensembles
        self._composer = composer
        self._catalogs = catalogs
        self._checked: dict[str, dict[str, Catalog]] = {}

    def find(self, name: str) -> Ensemble | None:
        """An ensemble goes before a model of its name."""
        return self._ensembles.get(name)

    def destinations(self, flow: Flow, tenant: str | None) -> dict[str, Destination]:
        """Where each step goes. Raises InvalidRequest."""
        return {
            step.name: self._composer.destination(step.model, step.version, tenant, step.pool) for step in flow.steps
        }

    def check(self, ensemble: Ensemble, destinations: Mapping[str, Destination]) -> None:
        """Raises what does not fit of the models that the pools serve, naming the step. Looks again at what is new."""
        catalogs = {name: self.catalog(to.keys.pool) for name, to in destinations.items()}
        if self._checked.get(ensemble.name) == catalogs:
            return
        for step, error in mismatches(
            ensemble, {step.name: catalogs.get(step.name, _UNKNOWN) for step in ensemble.steps}
        ):
            raise at_step(error, step, ensemble.name)
        self._checked[ensemble.name] = catalogs

    def catalog(self, pool: str) -> Catalog:
        """As it was fetched last: a step never waits for one."""
        return self._catalogs.known(pool) or _UNKNOWN

    def parcel(
        self, to: Destination, call: Call, inputs: Mapping[str, object], left_s: float, trace: Mapping[str, str]
    ) -> Parcel:
        catalog, stream = self.catalog(to.keys.pool), stream_of(call.priority)
        return self._composer.compose(
            to, catalog, inputs, call.parameters, call.outputs, stream, left_s, call.cache, call.affinity, trace
        )


class Run(Generic[AnyHandle]):
    """One ensemble under way, for threads and asyncio alike. `handle` is its caller's, set before `start`.

    `send` makes a step's handle of a parcel and hands it in without waiting; its last argument gets the handle
    when it is settled, in any thread.
    """

    handle: AnyHandle

    def __init__(
        self,
        stage: Stage,
        flow: Flow,
        destinations: Mapping[str, Destination],
        times: Times,
        send: Callable[[Parcel, str, Times, Callable[[AnyHandle], None]], AnyHandle],
        span: RequestSpan | None = None,
    ) -> None:
        self._stage = stage
        self._flow = flow
        self._destinations = destinations
        self._times = times
        self._send: Callable[[Parcel, str, Times, Callable[[AnyHandle], None]], AnyHandle] = send
        self._lock = Lock()  # guards the flow and what follows; no answer is waited for under it
        self._running: dict[str, AnyHandle] = {}
        self._over = False
        self._span = span
        self.trace_id = os.urandom(16).hex() if span is None else span.trace_id

    def start(self) -> None:
        """Send the first steps. Raises the error that one of them meets: then `handle` is never settled."""
        try:
            with self._lock:
                self._launch()
        except BaseException:
            self._stop()
            raise

    def cancel(self, handle: AnyHandle) -> bool:
        """Give up what runs; False where the answer is there."""
        return self._finish(Cancelled(f"the request to ensemble '{self._flow.ensemble.name}' was cancelled"))

    def _settled(self, step: Step, handle: AnyHandle) -> None:
        try:
            with self._lock:
                if self._over:
                    return
                del self._running[step.name]
                outcome = self._taken_in(step, handle.answer)
        except Exception as bug:
            log.exception("ensemble '%s' cannot go on", self._flow.ensemble.name)
            outcome = InternalError(f"ensemble '{self._flow.ensemble.name}' failed: {bug!r}. This is a bug.")
        except BaseException:
            # Ctrl-C in a caller that reads for others too.
            self._finish(Cancelled(f"ensemble '{self._flow.ensemble.name}' was interrupted"))
            raise
        if outcome is not None:
            self._finish(outcome)

    def _taken_in(self, step: Step, answer: Answer | None) -> Answer | None:
        """What comes of a step's answer for the whole; None where that goes on. Under the lock."""
        try:
            if not isinstance(answer, Result):
                raise answer or InternalError("it was settled without an answer. This is a bug.")
            self._flow.answered(step, answer)
        except InferenceError as error:
            return at_step(error, step.name, self._flow.ensemble.name)
        try:
            self._launch()
        except InferenceError as error:
            return error
        return self._flow.result() if self._flow.done else None

    def _launch(self) -> None:
        for step in self._flow.ready():
            try:
                self._running[step.name] = self._sent(step)
            except InferenceError as error:
                raise at_step(error, step.name, self._flow.ensemble.name) from error

    def _sent(self, step: Step) -> AnyHandle:
        left_s = self._times.deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(f"it could not start within {self._times.timeout_s:g} s")
        inputs, call, to = self._flow.inputs(step), self._flow.call(step), self._destinations[step.name]
        settled: Callable[[AnyHandle], None] = partial(self._settled, step)
        if self._span is None:
            parcel = self._stage.parcel(to, call, inputs, left_s, self._unrecorded().wire)
            return self._send(parcel, step.model, self._times, settled)
        span = self._span.step(step.model, settled)
        with span:
            parcel = self._stage.parcel(to, call, inputs, left_s, span.wire)
            span.sending(parcel.submission.request_id)
            return self._send(parcel, step.model, self._times, span.settled)

    def _unrecorded(self) -> TraceContext:
        """One trace for the whole, a span for each step: logs show what belongs together though nothing is traced."""
        return TraceContext(self.trace_id, os.urandom(8).hex(), sampled=False)

    def _finish(self, outcome: Answer) -> bool:
        if not self._stop():
            return False
        self.handle.settle(outcome)
        return True

    def _stop(self) -> bool:
        """Nothing more is sent, and what runs is given up; False where it was over before."""
        with self._lock:
            if self._over:
                return False
            self._over = True
            rest = list(self._running.values())
            self._running.clear()
        for handle in rest:
            handle.cancel()
        return True
