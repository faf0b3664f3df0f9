"""The client for asyncio: the verbs of `gateway.client`, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from common.errors import InferenceError
from gateway.aiocourier import AsyncCourier
from gateway.aiowindow import as_completed, in_order
from gateway.base import WINDOW, BaseClient, check_map
from gateway.composer import stream_of
from gateway.handle import AsyncHandle
from gateway.result import Result
from gateway.routing import Routes


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
        tenant: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 10_000,
    ) -> None:
        super().__init__(
            broker_url, pool=pool, routes=routes, tenant=tenant, timeout_s=timeout_s, max_in_flight=max_in_flight
        )
        self._courier = AsyncCourier(self._url, self._composer.client_id, self._exchange)

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
    ) -> Result:
        """Ask `model` and wait for its answer. Arguments and errors as in `Client.infer`.

        A task that is cancelled while it waits cancels the request.
        """
        handle = await self._post(model, inputs, version, parameters, outputs, priority, timeout, tenant, cache)
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
    ) -> AsyncHandle:
        """Hand a request in; the handle gives its answer later. Arguments and errors as in `Client.infer`."""
        return await self._post(model, inputs, version, parameters, outputs, priority, timeout, tenant, cache)

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
    ) -> AsyncIterator[Result | InferenceError]:
        """Ask `model` for each of `inputs`, and yield the results in their order, or as they come.

        At most `window` requests are in flight or answered and not yet taken, and `inputs` is read no
        further. Where the pool is overloaded, requests wait and are submitted again. With
        `on_error="return"` an error takes its result's place. Leaving the loop cancels the rest.
        """
        check_map(window, on_error)

        def submit(one: object, finished: Callable[[AsyncHandle], None] | None) -> Awaitable[AsyncHandle]:
            return self._post(
                model, one, version, parameters, outputs, priority, timeout, tenant, cache, True, finished
            )

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
        model: str,
        inputs: object,
        version: str | None,
        parameters: Mapping[str, Any] | None,
        outputs: Sequence[str] | None,
        priority: str,
        timeout: float | None,
        tenant: str | None,
        cache: bool,
        patient: bool = False,
        finished: Callable[[AsyncHandle], None] | None = None,
    ) -> AsyncHandle:
        deadline, timeout_s = self._deadline(timeout)
        to = self._composer.destination(model, version, tenant)
        catalog = await self._courier.catalog(model, to.keys.pool, deadline, timeout_s)
        parcel = self._composer.compose(to, catalog, inputs, parameters, outputs, stream_of(priority), timeout_s, cache)
        handle = AsyncHandle(
            self._courier, parcel.submission.request_id, parcel.pool, model, deadline, timeout_s, patient, finished
        )
        await self._courier.post(handle, parcel)
        return handle
