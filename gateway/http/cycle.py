"""One request and its answer on a connection, as ASGI's `receive` and `send`. Knows no parser and no timer."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

from gateway.http.status import Headers

log = logging.getLogger(__name__)

#: So much of a body is kept before the app has asked for it.
READ_AHEAD = 64 * 1024
#: A larger body is written by itself: to join it with the head would copy it.
JOIN_UP_TO = 64 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: These have no body, and say nothing of its length.
BODILESS = (204, 304)
_FAILED = (500, [(b"content-length", b"0"), (b"connection", b"close")])


class Line(Protocol):
    """What a cycle asks of its connection."""

    @property
    def date(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def writable(self) -> None: ...
    def resume_reading(self) -> None: ...
    def pause_reading(self) -> None: ...
    def answered(self, cycle: Cycle) -> None: ...
    def abort(self) -> None: ...


class Cycle:
    """`keep_alive`: another request may follow on the connection. `more_body`: the body is not all there yet."""

    __slots__ = (
        "_chunks", "_event", "_given", "_head", "_line", "_size", "_wants_continue",
        "complete", "gone", "keep_alive", "late", "more_body", "scope", "task",
    )  # fmt: skip

    def __init__(self, line: Line, scope: Scope, keep_alive: bool, wants_continue: bool) -> None:
        self._line = line
        self._wants_continue = wants_continue
        self._chunks: list[bytes] = []
        self._size = 0
        self._given = False  # the body's last piece was handed to the app
        self._event: asyncio.Event | None = None
        self._head: bytes | None = None
        self.scope = scope
        self.keep_alive = keep_alive
        self.more_body = True
        self.late = False
        self.gone = False
        self.complete = False
        self.task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Something of the answer was written."""
        return self._head is not None

    # The connection's side

    def feed(self, data: bytes) -> None:
        """A piece of the body. What comes behind an answer is read and dropped."""
        if self.complete:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > READ_AHEAD:
            self._line.pause_reading()
        self._wake()

    def body_ends(self) -> None:
        self.more_body = False
        self._wake()

    def body_is_late(self) -> None:
        """Whoever receives it gets TimeoutError."""
        self.late = True
        self._wake()

    def client_is_gone(self) -> None:
        """There is nobody to answer: the app's task is cancelled."""
        self.gone = True
        self._wake()
        if self.task is not None and not self.complete:
            self.task.cancel()

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.gone:  # a drain whose time is over
                self._line.abort()
        except Exception:
            log.exception("%s %s failed beyond its endpoint", self.scope["method"], self.scope["path"])
            await self._fail()
        else:
            if not self.complete and not self.gone:
                log.error(
                    "%s %s ended without a whole answer. This is a bug.", self.scope["method"], self.scope["path"]
                )
                await self._fail()

    async def _fail(self) -> None:
        if self._head is not None or self.complete:
            self._line.abort()
            return
        status, headers = _FAILED
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body"})

    # ASGI's side

    async def receive(self) -> Message:
        """Raises TimeoutError where the body does not come in time."""
        while not self.gone and not self.complete:
            if self._chunks or not (self.more_body or self._given):
                return self._piece()
            if self.late:
                raise TimeoutError
            if self._wants_continue:
                self._wants_continue = False
                self._line.write(_CONTINUE)
            if self.more_body:
                self._line.resume_reading()
            self._event = asyncio.Event()
            await self._event.wait()
        return {"type": "http.disconnect"}

    def _piece(self) -> Message:
        chunks, self._chunks, self._size = self._chunks, [], 0
        self._given = not self.more_body
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """An answer of one piece leaves in one write with its head."""
        line = self._line
        if message["type"] == "http.response.start":
            self._head = self._encoded(message["status"], message["headers"])
            return
        await line.writable()
        if self.gone:
            return
        body = message.get("body", b"") if self.scope["method"] != "HEAD" else b""
        head, self._head = self._head, b""
        if head and len(body) <= JOIN_UP_TO:
            line.write(head + body)
        else:
            if head:
                line.write(head)
            line.write(body)
        if not message.get("more_body"):
            self.complete = True
            self._wake()
            line.answered(self)

    def _encoded(self, status: int, headers: Headers) -> bytes:
        """An answer whose length is not told ends with its connection."""
        told_length = status in BODILESS
        closing = False
        parts = [status_line(status), self._line.date]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                told_length = True
            elif name == b"connection":
                closing = closing or value.lower() == b"close"
        self.keep_alive = self.keep_alive and told_length and not closing
        parts.append(b"\r\n" if self.keep_alive or closing else b"connection: close\r\n\r\n")
        head = b"".join(parts)
        if head.count(b"\n") != len(headers) + 3 + (not self.keep_alive and not closing):
            raise ValueError("a header of the answer holds a line break. This is a bug.")
        return head

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


_STATUS_LINES = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}
