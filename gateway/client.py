"""The client for threads: ask a model and wait, hand a request in, or stream many through a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from common.errors import InferenceError
from gateway.base import WINDOW, BaseClient, check_map
from gateway.call import Call, Times
from gateway.composer import stream_of
from gateway.courier import Courier
from gateway.handle import Handle
from gateway.result import Result
from gateway.routing import Routes
from gateway.window import as_completed, in_order

if TYPE_CHECKING:
    from common.tracing import Tracing
    from gateway.ensembles.ensemble import Ensembles
    from gateway.ensembles.runner import Runner
    from gateway.tracing import RequestSpan


class Client(BaseClient):
    """Asks models through Redis. Safe from many threads; close it, or use it as a context manager.

        with Client("redis://localhost") as client:
            result = client.infer("minilm", "How far is the moon?")
            print(result["embedding"])

    The settings are those of BaseClient. After a fork it raises RuntimeError in the child: make a
    client there.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        pool: str | None = None,
        routes: Routes | str | Path | None = None,
        ensembles: Ensembles | str | Path | None = None,
        tenant: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 10_000,
        tracing: Tracing | bool = False,
    ) -> None:
        super().__init__(
            broker_url, pool=pool, routes=routes, ensembles=ensembles,
            tenant=tenant, timeout_s=timeout_s, max_in_flight=max_in_flight, tracing=tracing,
        )  # fmt: skip
        self._courier = Courier(self._url, self._composer.client_id, self._exchange)
        self._runner = self._new_runner() if self._ensembles else None

    def infer(
        self,
        model: str,
        inputs: object,
        *,
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        tenant: str | None = None,
        cache: bool = True,
        affinity: str | None = None,
    ) -> Result:
        """Ask `model` and wait for its answer.

        `inputs` is a map of names to arrays, strings, numbers or lists, or one such value where the
        model has a single input. `timeout` in seconds; when it is over nobody computes the request any
        more. `cache=False` computes anew what could come from the cache. `affinity` names whose request
        it is, such as a user or a session: where the model's requests are split between versions by key,
        one key stays with one version.

        Raises InferenceError: InvalidRequest, ModelNotFound, Overloaded, DeadlineExceeded, ModelError, ...
        """
        call = Call(model, version, parameters, outputs, priority, timeout, tenant, cache, affinity)
        handle = self._post(True, call, inputs)
        try:
            self._courier.send_here(handle.deadline)
            return handle.result()
        except BaseException:
            handle.cancel()
            raise

    def submit(
        self,
        model: str,
        inputs: object,
        *,
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        tenant: str | None = None,
        cache: bool = True,
        affinity: str | None = None,
    ) -> Handle:
        """Hand a request in; the handle gives its answer later. Arguments and errors as in `infer`."""
        call = Call(model, version, parameters, outputs, priority, timeout, tenant, cache, affinity)
        return self._post(False, call, inputs)

    @overload
    def map(
        self,
        model: str,
        inputs: Iterable[object],
        *,
        window: int = WINDOW,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        tenant: str | None = None,
        cache: bool = True,
        affinity: str | None = None,
    ) -> Iterator[Result]: ...

    @overload
    def map(
        self,
        model: str,
        inputs: Iterable[object],
        *,
        window: int = WINDOW,
        ordered: bool = True,
        on_error: Literal["return"],
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        tenant: str | None = None,
        cache: bool = True,
        affinity: str | None = None,
    ) -> Iterator[Result | InferenceError]: ...

    def map(
        self,
        model: str,
        inputs: Iterable[object],
        *,
        window: int = WINDOW,
        ordered: bool = True,
        on_error: Literal["raise", "return"] = "raise",
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        tenant: str | None = None,
        cache: bool = True,
        affinity: str | None = None,
    ) -> Iterator[Result | InferenceError]:
        """Ask `model` for each of `inputs`, and yield the results in their order, or as they come.

        At most `window` requests are in flight or answered and not yet taken, and `inputs` is read no
        further. Where the pool is overloaded, requests wait and are submitted again. With
        `on_error="return"` an error takes its result's place. Leaving the loop cancels the rest.
        """
        check_map(window, on_error)
        call = Call(model, version, parameters, outputs, priority, timeout, tenant, cache, affinity)

        def submit(one: object, finished: Callable[[Handle], None] | None) -> Handle:
            return self._post(False, call, one, True, finished)

        through = in_order if ordered else as_completed
        return through(submit, inputs, window, on_error == "return")

    def close(self) -> None:
        """End the client: whatever waits gets Cancelled. Takes less than a second, in any state of the broker."""
        self._courier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _post(
        self,
        direct: bool,
        call: Call,
        inputs: object,
        patient: bool = False,
        finished: Callable[[Handle], None] | None = None,
    ) -> Handle:
        if self._spans is None or (span := self._spans.begin(call.model, finished)) is None:
            return self._hand_in(direct, call, inputs, patient, finished, None)
        with span:
            return self._hand_in(direct, call, inputs, patient, span.settled, span)

    def _hand_in(
        self,
        direct: bool,
        call: Call,
        inputs: object,
        patient: bool,
        finished: Callable[[Handle], None] | None,
        span: RequestSpan | None,
    ) -> Handle:
        deadline, timeout_s = self._deadline(call.timeout)
        if self._runner is not None and (ensemble := self._runner.find(call.model)) is not None:
            return self._runner.start(ensemble, call, inputs, Times(deadline, timeout_s, patient), finished, span)
        to = self._composer.destination(call.model, call.version, call.tenant)
        catalog = self._courier.catalog(call.model, to.keys.pool, deadline, timeout_s)
        parcel = self._composer.compose(
            to, catalog, inputs, call.parameters, call.outputs, stream_of(call.priority), timeout_s,
            call.cache, call.affinity, None if span is None else span.wire,
        )  # fmt: skip
        if span is not None:
            span.sending(parcel.submission.request_id)
        handle = Handle(
            self._courier, parcel.submission.request_id, parcel.pool, call.model, deadline, timeout_s, patient, finished
        )
        self._courier.post(handle, parcel, direct)
        return handle

    def _new_runner(self) -> Runner:
        # Imported where it is needed: most clients have no ensembles.
        from gateway.ensembles.runner import Runner

        return Runner(self._ensembles or {}, self._composer, self._exchange.catalogs, self._courier)
