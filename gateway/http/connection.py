"""One HTTP/1.1 connection: httptools parses, the app answers, and nothing takes longer or grows larger than it may.

uvicorn's own protocol would cost a request twice as much, and bounds neither a head's time and size (slow loris) nor
a reader who stops. What it bounds here, a sweep looks after: no request has a timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.http.burst import Burst
from gateway.http.cycle import JOIN_UP_TO, Cycle, status_line
from gateway.http.status import Refusal, headers_of
from gateway.http.sweep import Sweep

log = logging.getLogger(__name__)

MAX_HEAD = 64 * 1024

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_TOO_LARGE = Refusal(431, f"a request's headers must have at most {MAX_HEAD} bytes")
_LATE = Refusal(408, "the request's headers did not come in time")
_INVALID = Refusal(400, "this is not HTTP/1.1")


class Connection(asyncio.Protocol):
    """Made by uvicorn's server for each connection that it takes; `sweep` and `burst` are those of the process."""

    __slots__ = (
        "_app", "_burst", "_chunk", "_closing", "_cycle", "_head_bytes", "_headers", "_in_head", "_last", "_loop",
        "_next", "_parser", "_read_paused", "_receiving", "_server", "_state", "_sweep", "_turned", "_unwritten",
        "_url", "_wants_continue", "_writable", "due", "transport",
    )  # fmt: skip

    def __init__(
        self,
        sweep: Sweep,
        burst: Burst,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._sweep = sweep
        self._burst = burst
        self._app = config.loaded_app
        self._server = server_state
        self._state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport
        #: When what it waits for is late.
        self.due = math.inf
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._wants_continue = False
        self._in_head = False
        self._head_bytes = self._chunk = 0
        #: The request that is being answered, those behind it, and the one whose body is being read.
        self._cycle: Cycle | None = None
        self._next: deque[Cycle] = deque()
        self._receiving: Cycle | None = None
        self._turned = False  # it waits for something else than before
        self._last = False  # no request is taken any more behind the one that comes
        self._read_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._unwritten = b""
        self._closing = False  # once all is written

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # its own protocols, for their `shutdown`
        self._sweep.watched.add(self)
        self.due = self._sweep.now + self._sweep.slow_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._sweep.watched.discard(self)
        self.resume_writing()
        if self._cycle is not None:
            self._give_up(self._cycle)
        self._next.clear()
        self._parser = self._receiving = None
        self._unwritten, self._closing = b"", False

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        self._chunk = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken; what comes behind this request may be of it.
            self._end_behind_last()
        except httptools.HttpParserCallbackError:
            log.exception("a request could not be taken. This is a bug.")
            self.transport.abort()
        except httptools.HttpParserError:
            self._refuse(_INVALID)
        if self._turned:
            self._turned = False
            self._wait()
        if self._in_head:
            self._head_bytes += self._chunk
            if self._head_bytes > MAX_HEAD:
                self._refuse(_TOO_LARGE)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()
        self._wait()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
            self._wait()

    # uvicorn's side

    def shutdown(self) -> None:
        """Close once what was begun is answered."""
        self._last = True
        if self._cycle is None and not self._in_head:
            self._close()
        elif not self._in_head:
            self._end_behind_last()

    # The parser's side

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._wants_continue = False
        self._in_head = self._turned = True
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        name = name.lower()
        if name == b"expect":
            self._wants_continue = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes + self._chunk > MAX_HEAD and self._size_of_head() > MAX_HEAD:
            self._refuse(_TOO_LARGE)
        parser = self._parser
        if parser is None:
            return  # the head was refused
        version = parser.get_http_version()
        try:
            scope = self._scope(parser.get_method().decode("ascii"), version)
        except (UnicodeDecodeError, httptools.HttpParserInvalidURLError):
            self._refuse(_INVALID)
            return
        keep_alive = version == "1.1" and not self._last and parser.should_keep_alive()
        cycle = self._receiving = Cycle(self, scope, keep_alive, self._wants_continue)
        if self._cycle is None:
            self._start(cycle)
        else:
            # Sent before the one before it was answered (pipelining): they are answered in turn.
            self._next.append(cycle)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._receiving is not None:
            self._receiving.feed(body)

    def on_message_complete(self) -> None:
        if self._receiving is not None:
            self._receiving.body_ends()
            self._receiving = None
            self._turned = True

    # The cycle's side

    @property
    def date(self) -> bytes:
        return self._sweep.date

    def write(self, data: bytes) -> None:
        if not self._unwritten and not self._closing:
            self._burst.add(self)
        self._unwritten += data
        if len(self._unwritten) > JOIN_UP_TO:
            self.flush()  # so that the transport says when it is too much

    def flush(self) -> None:
        data, self._unwritten = self._unwritten, b""
        if data:
            self.transport.write(data)
        if self._closing:
            self.transport.close()

    async def writable(self) -> None:
        """Until the reader has taken enough of what was written."""
        while self._writable is not None:
            await self._writable

    def pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused and not self._is_closing:
            self._read_paused = False
            self.transport.resume_reading()

    def answered(self, cycle: Cycle) -> None:
        self._cycle = None
        if not cycle.keep_alive:
            self._close_behind(cycle)
        else:
            if self._next:
                self._start(self._next.popleft())
            else:
                self.resume_reading()
            self._wait()

    def abort(self) -> None:
        self.transport.abort()

    # The sweep's side

    def late(self) -> None:
        if self._writable is not None:
            self.transport.abort()  # a reader who stopped
        elif self._cycle is not None:
            self._cycle.body_is_late()
        elif self._in_head:
            self._refuse(_LATE)
        else:
            self._close()
        self.due = math.inf

    def _start(self, cycle: Cycle) -> None:
        self._cycle = cycle
        cycle.task = task = self._loop.create_task(self._run(cycle))
        self._server.tasks.add(task)

    def _give_up(self, cycle: Cycle) -> None:
        # Here, too: a task that is cancelled before it has begun never comes to its end.
        self._server.tasks.discard(cycle.task)
        cycle.client_is_gone()

    async def _run(self, cycle: Cycle) -> None:
        try:
            await cycle.run(self._app)
        finally:
            self._server.tasks.discard(cycle.task)
            cycle.task = None

    @property
    def _is_closing(self) -> bool:
        return self._closing or self.transport.is_closing()

    def _close(self) -> None:
        """Once all is written."""
        self._closing = True
        if not self._unwritten:
            self.transport.close()

    def _wait(self) -> None:
        """Note what it waits for: the reader, a body, a head, the next request; for nothing while it answers."""
        cycle, sweep = self._cycle, self._sweep
        if self._writable is not None:
            self.due = sweep.now + sweep.slow_s
        elif cycle is not None:
            self.due = sweep.now + sweep.slow_s if cycle.more_body else math.inf
        else:
            busy = self._in_head or self._receiving is not None
            self.due = sweep.now + (sweep.slow_s if busy else sweep.keep_alive_s)

    def _scope(self, method: str, version: str) -> Scope:
        url = self._url
        if url.startswith(b"/"):
            path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            path, query = parsed.path or b"/", parsed.query or b""
        text = path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "scheme": "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "server": None,
            "client": None,
            "state": self._state,
        }

    def _size_of_head(self) -> int:
        return len(self._url) + sum(len(name) + len(value) for name, value in self._headers)

    def _close_behind(self, answered: Cycle) -> None:
        """Of a body that nobody wants the rest is read and dropped: closing at once would destroy the answer (RST)."""
        if not answered.more_body:
            self._close()
            return
        self._parser = self._receiving = None
        self.flush()
        self.transport.write_eof()
        self.resume_reading()
        self.due = self._sweep.now + self._sweep.slow_s

    def _end_behind_last(self) -> None:
        """What was taken is answered, and then the connection is closed."""
        last = self._next[-1] if self._next else self._cycle
        if last is not None:
            last.keep_alive = False
        elif not self._is_closing:
            self._close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, and close; where others before it are being answered, they come first."""
        self._parser, self._in_head = None, False
        broken = self._receiving
        if broken is not None and broken is self._cycle and not broken.started:
            # It is its own body that breaks off.
            self._give_up(broken)
        elif self._cycle is not None:
            self._end_behind_last()
            return
        if not self._is_closing:
            self.write(_answer(refusal, self._sweep.date))
            self._close()


def _answer(refusal: Refusal, date: bytes) -> bytes:
    body = b'{"error":"%b"}' % refusal.message.encode()
    headers = [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
        *(one for one in headers_of(refusal) if one[0] != b"connection"), (b"connection", b"close"),
    ]  # fmt: skip
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return status_line(refusal.status) + date + lines + b"\r\n" + body
