"""The smallest worker there is, in a thread: takes, answers with what it got, completes. For tests of clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import msgpack

from common.broker import Broker
from common.connect import connect
from common.digest import is_digest
from common.errors import BrokerUnavailable, Cancelled, InferenceError
from common.protocol import Reply, Request, Timings, decode_request, encode_reply
from common.scripts import Entry, Finish
from common.tensor import Tensor

Answer = Mapping[str, Tensor] | InferenceError

LEASE_MS = 60_000


def echo(request: Request) -> Answer:
    """The inputs as outputs: `output` for `input`, else under their own names."""
    return {"output" if name == "input" else name: tensor for name, tensor in request.inputs.items()}


def model(name: str, version: str = "1", **more: Any) -> tuple[str, bytes]:
    """Metadata as a worker publishes it."""
    message = {
        "name": name, "version": version, "pool": "p", "backend": "python", "default": True, "aliases": [],
        "inputs": [], "outputs": [], "cache_ttl_s": 0.0, "weights": "w1", "rows": 64, **more,
    }  # fmt: skip
    return f"{name}:{version}", msgpack.packb(message)


class EchoWorker:
    """Serves one pool from a thread while its context is open.

    `answer` makes a reply of a request; `pause_s` is slept before each batch of at most `most`; with a
    `gate` nothing is answered until it is set. `seen` holds every request that it answered, in order.
    """

    def __init__(
        self,
        url: str,
        pool: str,
        *,
        answer: Callable[[Request], Answer] = echo,
        models: Iterable[tuple[str, bytes]] = (),
        most: int = 64,
        pause_s: float = 0.0,
        gate: threading.Event | None = None,
        keep_ms: int = 60_000,
        consumer: str = "echo",
    ) -> None:
        self._client = connect(url)
        self.broker = Broker(self._client, pool)
        self._answer = answer
        self._models = dict(models)
        self._most = most
        self._pause_s = pause_s
        self._gate = gate
        self._keep_ms = keep_ms
        self._consumer = consumer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{consumer}-{pool}")
        self._stray = False
        self._failure: Exception | None = None
        self.seen: list[Request] = []

    def __enter__(self) -> Self:
        self._greet()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._client.close()
        if self._failure is not None and error is None:
            raise self._failure

    def stop(self) -> None:
        """Take no more. What is taken is answered."""
        self._stop.set()
        if self._gate is not None:
            self._gate.set()
        self._thread.join()

    def _greet(self) -> None:
        self.broker.create_groups()
        self.broker.publish_models(self._models)
        self.broker.renew(LEASE_MS, [(self._consumer, b"")])

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._keep_trying(self._step)
        except Exception as error:
            self._failure = error

    def _keep_trying(self, step: Callable[[], None]) -> None:
        """A broker that is away comes back, perhaps another one that knows nothing of us."""
        try:
            step()
        except BrokerUnavailable:
            self._stray = True
            self._stop.wait(0.05)

    def _step(self) -> None:
        if self._gate is not None:
            self._gate.wait()
        if self._stray:
            # Between two steps nothing is in our hands: what Redis thinks is there was lost on the way.
            self.broker.release(self._consumer, self.broker.held(self._consumer))
            self._stray = False
        taken = self.broker.take(self._consumer, (self._most, self._most, self._most))
        if not taken.live:
            self._greet()
        entries = taken.entries or self.broker.reclaim(self._consumer, self._most)[1]
        if not entries:
            self._stop.wait(0.002)
            return
        time.sleep(self._pause_s)
        self._complete([self._finish(entry, entry.place in taken.cancelled) for entry in entries])

    def _complete(self, finishes: list[Finish]) -> None:
        done: list[int] = []
        while not done and not self._stop.is_set():
            self._keep_trying(lambda: done.append(self.broker.complete(finishes)))

    def _finish(self, entry: Entry, cancelled: bool) -> Finish:
        payload = entry.payload
        if payload is None and entry.reference is not None:
            payload = self.broker.fetch(entry.reference.decode())
        request = decode_request(payload or b"")
        answer: Answer = Cancelled("nobody waits for it") if cancelled else self._reply_to(request)
        failed = isinstance(answer, InferenceError)
        reply = Reply(
            request.id, request.model, request.version or "1",
            {} if isinstance(answer, InferenceError) else answer,
            answer if isinstance(answer, InferenceError) else None, Timings(1, 2, 3, 4),
        )  # fmt: skip
        keep_ms = 0 if failed and is_digest(request.id) else self._keep_ms
        return Finish(entry, request.id, encode_reply(reply), keep_ms)

    def _reply_to(self, request: Request) -> Answer:
        self.seen.append(request)
        return self._answer(request)
