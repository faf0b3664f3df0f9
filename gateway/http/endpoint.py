"""One route: who asks, his request, the handler's answer or an error in the dialect's shape.

Whoever goes away before he is answered cancels the task that this runs in, and with it his work: `connection.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from common.errors import InferenceError, InternalError
from common.text import describe
from gateway.access.bearer import bearer_of
from gateway.access.tenant import ANYBODY, Tenant
from gateway.door.memory import Holding
from gateway.door.service import Service
from gateway.http.bodies import Bodies, Gone, Unread, drop
from gateway.http.status import Headers, Refusal, Trouble, headers_of, status_of

log = logging.getLogger(__name__)

#: Such pieces of an answer go out one by one: a reader who stops holds up no more than one of them.
PIECE = 256 * 1024

#: These have no body, and say nothing of its length.
BODILESS = (204, 304)

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

    __slots__ = ("_door", "_holding", "_receive", "headers", "scope", "tenant")

    def __init__(self, door: Door, scope: Scope, receive: Receive) -> None:
        self._door = door
        self._receive = receive
        self._holding = Holding(door.service.memory)
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

    async def body(self) -> bytes:
        """All of it."""
        _check_media_type(self.headers.get(b"content-type"))
        return await self._door.bodies.read(self.headers, self._receive, self._holding)

    def identify(self) -> None:
        """Raises Unauthenticated."""
        self.tenant = self.service.guard.identify(bearer_of(self.headers.get(b"authorization")))

    def close(self) -> None:
        self._holding.drop()


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
        except Unread as trouble:
            request.close()
            await self._send_early(self._refused(trouble), receive, send)
            return
        except (InferenceError, Refusal) as trouble:
            answer = self._refused(trouble)
        except Gone:
            return
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = self._refused(InternalError(f"the gateway failed: {describe(error)}. This is a bug."))
        finally:
            request.close()
        await self._send(answer, send)

    def _refused(self, trouble: Trouble) -> Answer:
        return Answer(status_of(trouble), [JSON, *headers_of(trouble)], self._shape(trouble))

    async def _send_early(self, answer: Answer, receive: Receive, send: Send) -> None:
        """While the body still comes; what is left of it is dropped before the connection is closed."""
        await self._begin(answer, send)
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await drop(receive)
        await send({"type": "http.response.body"})

    async def _begin(self, answer: Answer, send: Send) -> None:
        headers = list(answer.headers)
        if answer.status not in BODILESS:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        if self._door.service.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _send(self, answer: Answer, send: Send) -> None:
        await self._begin(answer, send)
        body = answer.body
        if len(body) > PIECE:
            view = memoryview(body)
            for start in range(0, len(body) - PIECE, PIECE):
                await send(
                    {"type": "http.response.body", "body": bytes(view[start : start + PIECE]), "more_body": True}
                )
            body = view[(len(body) - 1) // PIECE * PIECE :]
        await send({"type": "http.response.body", "body": bytes(body) if isinstance(body, memoryview) else body})


def _check_media_type(content_type: bytes | None) -> None:
    """None is what tritonclient sends. Raises Refusal."""
    if content_type is None or content_type == b"application/json":
        return
    media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    if media_type not in _MEDIA_TYPES and not media_type.endswith("+json"):
        raise Refusal(415, f"Content-Type must be application/json (curl: --json); got {media_type}")
