"""The client for asyncio: the verbs of `gateway.client`, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from common.errors import InferenceError
from gateway.aiocourier import AsyncCourier
from gateway.aiowindow import as_completed, in_order
from gateway.base import WINDOW, BaseClient, check_map
from gateway.call import Call, Times
from gateway.composer import stream_of
from gateway.handle import AsyncHandle
from gateway.result import Result
from gateway.routing import Routes

if TYPE_CHECKING:
    from common.tracing import Tracing
    from gateway.ensembles.aiorunner import AsyncRunner
    from gateway.ensembles.ensemble import Ensembles
    from gateway.tracing import RequestSpan


class AsyncClient(BaseClient):
    """Asks models through Redis. Safe from many tasks of one event loop; close it, or use it as a context manager.

        async with AsyncClient("redis://localhost") as client:
            result = await client.infer("minilm", "How far is the moon?")
            print(result["embedding"])

    The settings are those of BaseClient. In another event loop, or after a fork in the child, it raises
    RuntimeError: make a client there.
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
        self._courier = AsyncCourier(self._url, self._composer.client_id, self._exchange)
        self._runner = self._new_runner() if self._ensembles else None

    async def infer(
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
        """Ask `model` and wait for its answer. Arguments and errors as in `Client.infer`.

        A task that is cancelled while it waits cancels the request.
        """
        call = Call(model, version, parameters, outputs, priority, timeout, tenant, cache, affinity)
        handle = await self._post(call, inputs)
        try:
            return await handle.result()
        except BaseException:
            handle.cancel()
            raise

    async def submit(
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
    ) -> AsyncHandle:
        """Hand a request in; the handle gives its answer later. Arguments and errors as in `Client.infer`."""
        call = Call(model, version, parameters, outputs, priority, timeout, tenant, cache, affinity)
        return await self._post(call, inputs)

    @overload
    def map(
        self,
        model: str,
        inputs: Iterable[object] | AsyncIterable[object],
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
    ) -> AsyncIterator[Result]: ...

    @overload
    def map(
        self,
        model: str,
        inputs: Iterable[object] | AsyncIterable[object],
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
    ) -> AsyncIterator[Result | InferenceError]: ...

    def map(
        self,
        model: str,
        inputs: Iterable[object] | AsyncIterable[object],
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
    ) -> AsyncIterator[Result | InferenceError]:
        """Ask `model` for each of `inputs`, and yield the results in their order, or as they come.

        At most `window` requests are in flight or answered and not yet taken, and `inputs` is read no
        further. Where the pool is overloaded, requests wait and are submitted again. With
        `on_error="return"` an error takes its result's place. Leaving the loop cancels the rest.
        """
        check_map(window, on_error)
        call = Call(model, version, parameters, outputs, priority, timeout, tenant, cache, affinity)

        def submit(one: object, finished: Callable[[AsyncHandle], None] | None) -> Awaitable[AsyncHandle]:
            return self._post(call, one, True, finished)

        through = in_order if ordered else as_completed
        return through(submit, inputs, window, on_error == "return")

    async def close(self) -> None:
        """End the client: whatever waits gets Cancelled. Takes less than a second, in any state of the broker."""
        await self._courier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _post(
        self,
        call: Call,
        inputs: object,
        patient: bool = False,
        finished: Callable[[AsyncHandle], None] | None = None,
    ) -> AsyncHandle:
        if self._spans is None or (span := self._spans.begin(call.model, finished)) is None:
            return await self._hand_in(call, inputs, patient, finished, None)
        with span:
            return await self._hand_in(call, inputs, patient, span.settled, span)

    async def _hand_in(
        self,
        call: Call,
        inputs: object,
        patient: bool,
        finished: Callable[[AsyncHandle], None] | None,
        span: RequestSpan | None,
    ) -> AsyncHandle:
        deadline, timeout_s = self._deadline(call.timeout)
        if self._runner is not None and (ensemble := self._runner.find(call.model)) is not None:
            return await self._runner.start(ensemble, call, inputs, Times(deadline, timeout_s, patient), finished, span)
        to = self._composer.destination(call.model, call.version, call.tenant)
        catalog = await self._courier.catalog(call.model, to.keys.pool, deadline, timeout_s)
        parcel = self._composer.compose(
            to, catalog, inputs, call.parameters, call.outputs, stream_of(call.priority), timeout_s,
            call.cache, call.affinity, None if span is None else span.wire,
        )  # fmt: skip
        if span is not None:
            span.sending(parcel.submission.request_id)
        handle = AsyncHandle(
            self._courier, parcel.submission.request_id, parcel.pool, call.model, deadline, timeout_s, patient, finished
        )
        await self._courier.post(handle, parcel)
        return handle

    def _new_runner(self) -> AsyncRunner:
        # Imported where it is needed: most clients have no ensembles.
        from gateway.ensembles.aiorunner import AsyncRunner

        return AsyncRunner(self._ensembles or {}, self._composer, self._exchange.catalogs, self._courier)
