"""The client for threads: ask a model and wait, hand a request in, or stream many through a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from common.errors import InferenceError
from gateway.base import WINDOW, BaseClient, check_map
from gateway.composer import stream_of
from gateway.courier import Courier
from gateway.handle import Handle
from gateway.result import Result
from gateway.routing import Routes
from gateway.window import as_completed, in_order


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
        tenant: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 10_000,
    ) -> None:
        super().__init__(
            broker_url, pool=pool, routes=routes, tenant=tenant, timeout_s=timeout_s, max_in_flight=max_in_flight
        )
        self._courier = Courier(self._url, self._composer.client_id, self._exchange)

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
    ) -> Result:
        """Ask `model` and wait for its answer.

        `inputs` is a map of names to arrays, strings, numbers or lists, or one such value where the
        model has a single input. `timeout` in seconds; when it is over nobody computes the request any
        more. `cache=False` computes anew what could come from the cache.

        Raises InferenceError: InvalidRequest, ModelNotFound, Overloaded, DeadlineExceeded, ModelError, ...
        """
        handle = self._post(True, model, inputs, version, parameters, outputs, priority, timeout, tenant, cache)
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
    ) -> Handle:
        """Hand a request in; the handle gives its answer later. Arguments and errors as in `infer`."""
        return self._post(False, model, inputs, version, parameters, outputs, priority, timeout, tenant, cache)

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
    ) -> Iterator[Result | InferenceError]:
        """Ask `model` for each of `inputs`, and yield the results in their order, or as they come.

        At most `window` requests are in flight or answered and not yet taken, and `inputs` is read no
        further. Where the pool is overloaded, requests wait and are submitted again. With
        `on_error="return"` an error takes its result's place. Leaving the loop cancels the rest.
        """
        check_map(window, on_error)

        def submit(one: object, finished: Callable[[Handle], None] | None) -> Handle:
            return self._post(
                False, model, one, version, parameters, outputs, priority, timeout, tenant, cache, True, finished
            )

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
        finished: Callable[[Handle], None] | None = None,
    ) -> Handle:
        deadline, timeout_s = self._deadline(timeout)
        to = self._composer.destination(model, version, tenant)
        catalog = self._courier.catalog(model, to.keys.pool, deadline, timeout_s)
        parcel = self._composer.compose(to, catalog, inputs, parameters, outputs, stream_of(priority), timeout_s, cache)
        handle = Handle(
            self._courier, parcel.submission.request_id, parcel.pool, model, deadline, timeout_s, patient, finished
        )
        self._courier.post(handle, parcel, direct)
        return handle
