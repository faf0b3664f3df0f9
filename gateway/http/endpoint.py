"""One route: who asks, his request, the handler's answer or an error in the dialect's shape; if he goes, cancel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from common.errors import InferenceError, InternalError
from common.text import describe
from gateway.access.tenant import ANYBODY, Tenant
from gateway.door.service import Service
from gateway.http.bodies import Bodies, Gone, Holding
from gateway.http.status import Headers, Refusal, Trouble, headers_of, status_of

log = logging.getLogger(__name__)

#: Only a request that takes longer is worth a task that watches for its client going away.
WATCH_AFTER_S = 0.05
#: Such pieces of an answer go out one by one: a reader who stops holds up no more than one of them.
PIECE = 256 * 1024

JSON = (b"content-type", b"application/json")
#: What a body may say that it is. Browsers send these to another site only after asking it (CORS).
_MEDIA_TYPES = ("application/json", "application/octet-stream")


class Answer(NamedTuple):
    """`body` is None where there is nothing to say beyond the status."""

    status: int = 200
    headers: Headers = []  # noqa: RUF012 (never changed)
    body: bytes | memoryview = b""


class Door:
    """What the endpoints of one app share."""

    def __init__(self, service: Service, bodies: Bodies) -> None:
        self.service = service
        self.bodies = bodies


class Request:
    """One request while it is handled."""

    __slots__ = ("_door", "_holding", "_receive", "_watch", "headers", "scope", "tenant")

    def __init__(self, door: Door, scope: Scope, receive: Receive) -> None:
        self._door = door
        self._receive = receive
        self._holding = Holding(door.bodies)
        self._watch: Watch | None = None
        self.scope = scope
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.tenant: Tenant = ANYBODY

    @property
    def service(self) -> Service:
        return self._door.service

    @property
    def path(self) -> Mapping[str, str]:
        """The names in the path."""
        found: Mapping[str, str] = self.scope["path_params"]
        return found

    @property
    def cacheable(self) -> bool:
        """False where the client wants it computed anew."""
        wish = self.headers.get(b"cache-control")
        return wish is None or (b"no-cache" not in wish and b"no-store" not in wish)

    @property
    def gone(self) -> bool:
        return self._watch is not None and self._watch.gone

    async def body(self) -> bytes:
        """All of it; from now on the handler's task is cancelled when the client goes away."""
        _check_media_type(self.headers.get(b"content-type"))
        data = await self._door.bodies.read(self.headers, self._receive, self._holding)
        self._watch = Watch(self._receive)
        return data

    def identify(self) -> None:
        """Raises Unauthenticated."""
        self.tenant = self.service.guard.identify(_key_of(self.headers.get(b"authorization")))

    def close(self) -> None:
        self._holding.drop()
        if self._watch is not None:
            self._watch.end()


class Watch:
    """Cancels the task that made it when the client goes away before it is answered."""

    __slots__ = ("_receive", "_task", "_timer", "_watcher", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)
        self.gone = False

    def end(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._run(), name="watch")

    async def _run(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # Whatever comes behind a body is none of ours.
        self.gone = True
        if self._task is not None:
            self._task.cancel()


Handler = Callable[[Request], Awaitable[Answer]]


class Endpoint:
    """An ASGI app. `shape` makes the body of an error; `open` ones ask for no key."""

    def __init__(self, door: Door, handler: Handler, shape: Callable[[Trouble], bytes], open: bool = False) -> None:
        self._door = door
        self._handler = handler
        self._shape = shape
        self._open = open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(self._door, scope, receive)
        try:
            if not self._open:
                request.identify()
            answer = await self._handler(request)
        except (InferenceError, Refusal) as trouble:
            answer = self._refused(trouble)
        except Gone:
            return
        except asyncio.CancelledError:
            if request.gone:
                return
            raise
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = self._refused(InternalError(f"the gateway failed: {describe(error)}. This is a bug."))
        finally:
            request.close()
        await self._send(answer, send)

    def _refused(self, trouble: Trouble) -> Answer:
        return Answer(status_of(trouble), [JSON, *headers_of(trouble)], self._shape(trouble))

    async def _send(self, answer: Answer, send: Send) -> None:
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
        if self._door.service.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = answer.body
        if len(body) > PIECE:
            view = memoryview(body)
            for start in range(0, len(body) - PIECE, PIECE):
                await send(
                    {"type": "http.response.body", "body": bytes(view[start : start + PIECE]), "more_body": True}
                )
            body = view[(len(body) - 1) // PIECE * PIECE :]
        await send({"type": "http.response.body", "body": bytes(body) if isinstance(body, memoryview) else body})


def _key_of(authorization: bytes | None) -> str | None:
    """The key in `Authorization: Bearer <key>`."""
    scheme, _, key = (authorization or b"").partition(b" ")
    return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _check_media_type(content_type: bytes | None) -> None:
    """None is what tritonclient sends. Raises Refusal."""
    if content_type is None or content_type == b"application/json":
        return
    media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    if media_type not in _MEDIA_TYPES and not media_type.endswith("+json"):
        raise Refusal(415, f"Content-Type must be application/json (curl: --json); got {media_type}")
