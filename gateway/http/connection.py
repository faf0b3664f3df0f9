"""One HTTP connection: uvicorn's own, with the bounds that it lacks, and an end to work that nobody waits for.

A head that comes a byte a minute (slow loris) would hold a connection for ever; so would a body, and a reader who
never takes his answer. The sweep looks after all of them: no request has a timer for it.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import httptools
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.http.burst import Burst, Line
from gateway.http.status import Headers, Refusal, headers_of
from gateway.http.sweep import Sweep

MAX_HEAD = 64 * 1024

_TOO_LARGE = Refusal(431, f"a request's headers must have at most {MAX_HEAD} bytes")
_LATE = Refusal(408, "the request's headers did not come in time")
_INVALID = Refusal(400, "this is not HTTP/1.1")


class Connection(HttpToolsProtocol):
    """Made by uvicorn's server. Each turn gives what comes next its time anew, until `due` in the sweep's clock."""

    def __init__(self, sweep: Sweep, burst: Burst, **options: Any) -> None:
        super().__init__(**options)
        self._served, self.app = self.app, self._serve
        self._sweep = sweep
        self._burst = burst
        self.due = math.inf
        self._in_request = self._in_head = self._body_is_late = False
        self._head_bytes = self._chunk = 0
        #: What is being answered, and in which task; `cycle` is the last request that came.
        self._answering: RequestResponseCycle | None = None
        self._task: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(Line(transport, self._burst))  # type: ignore[arg-type]  # it is one in all but name
        self._sweep.watched.add(self)
        self._turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sweep.watched.discard(self)
        if self._answering is not None:
            self._answering.disconnected = True
            if self._task is not None:
                self._task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # A piece that begins with a body's rest is not counted, even where the next head begins in it.
        self._chunk = len(data) if self._in_head or not self._in_request else 0
        super().data_received(data)
        if self._in_head:
            self._head_bytes += self._chunk
            if self._head_bytes > MAX_HEAD:
                self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_request = self._in_head = True
        self._body_is_late = False
        self._head_bytes = 0
        self._turn()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes + self._chunk > MAX_HEAD and _size(self.url, self.headers) > MAX_HEAD:
            self._refuse(_TOO_LARGE)
            raise httptools.HttpParserError(_TOO_LARGE.message)  # so that nothing more is read
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # no other protocol is spoken; what follows may be of it
        if not self.pipeline:
            self._answering = self.cycle
        self._turn()

    def on_message_complete(self) -> None:
        self._in_request = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self._turn()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._turn()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_INVALID)

    def late(self) -> None:
        """The last turn was long ago. An app takes the time that it needs, and uvicorn looks after the idle."""
        self.due = math.inf
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()  # a reader who stopped
        elif self._answering is not None:
            if self._answering is self.cycle and self.cycle.more_body:
                self._body_is_late = True
                self.cycle.message_event.set()
        elif self._in_head:
            self._refuse(_LATE)
        elif self._in_request or self.cycle is None:
            self.transport.close()  # a body that nobody reads, or nothing came at all

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, until the client goes away."""
        self._task, cycle = asyncio.current_task(), self._answering
        try:
            await self._served(scope, partial(self._receive, receive), send)
        except asyncio.CancelledError:
            if cycle is None or not cycle.disconnected:
                raise

    async def _receive(self, receive: Receive) -> Message:
        """Raises TimeoutError where the body does not come in time."""
        message = await receive()
        if self._body_is_late and message.get("more_body"):
            raise TimeoutError
        return message

    def _turn(self) -> None:
        self.due = self._sweep.now + self._sweep.slow_s

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, and close; behind what is being answered, unless that itself breaks off."""
        cycle = self._answering
        if cycle is not None and (cycle is not self.cycle or not cycle.more_body or cycle.response_started):
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        elif not self.transport.is_closing():
            self.transport.write(_closing(refusal, self.server_state.default_headers))
            self.transport.close()
            self._turn()


def _size(url: bytes, headers: Headers) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)


def _closing(refusal: Refusal, headers: Headers) -> bytes:
    """An answer without a request, after which the connection is closed."""
    body = b'{"error":"%b"}' % refusal.message.encode()
    told = dict([*headers, *headers_of(refusal), (b"content-type", b"application/json"), (b"connection", b"close")])
    lines = b"".join(b"%b: %b\r\n" % one for one in told.items())
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (STATUS_LINE[refusal.status], len(body), lines, body)
