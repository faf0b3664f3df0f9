"""One HTTP connection, with the bounds that uvicorn's own has not: on a head's time and size, and on a slow reader.

A head that comes a byte a minute (slow loris) holds a connection for ever otherwise; so does a reader who never
takes his answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024


def _closing(status: str, message: str) -> bytes:
    """An answer without a request, after which the connection is closed."""
    body = f'{{"error": "{message}"}}'
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
    return f"{head}\r\n\r\n{body}".encode()


_TOO_LARGE = _closing("431 Request Header Fields Too Large", f"a request's headers must have at most {MAX_HEAD} bytes")
_TIMEOUT = _closing("408 Request Timeout", "the request's headers did not come in time")


class Connection(HttpToolsProtocol):
    """`slow_s` is set once for the process, before the server starts: uvicorn makes the connections itself."""

    slow_s = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_bytes = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._end_with(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._arm(self._head_is_late)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm(self._reader_stopped)

    def resume_writing(self) -> None:
        self._disarm()
        super().resume_writing()

    def _arm(self, late: Any) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.slow_s, late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._end_with(_TIMEOUT)

    def _reader_stopped(self) -> None:
        self.transport.abort()

    def _end_with(self, answer: bytes) -> None:
        self._disarm()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
