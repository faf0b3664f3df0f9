"""An HTTP server of a folder's files, with byte ranges, that counts what it is asked for and fails as it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from urllib.parse import unquote, urlsplit


@dataclass
class ModelServer:
    """`asked` counts the GETs by path. What goes wrong is set by path too, before or while it serves."""

    folder: Path
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)
    #: So many answers to come end after half of their bytes.
    breaks: Counter[str] = field(default_factory=Counter)
    #: So many answers to come are a 503.
    refuses: Counter[str] = field(default_factory=Counter)
    #: What is sent in place of the file.
    lies: dict[str, bytes] = field(default_factory=dict)
    #: Answers stop after half of their bytes until it is set.
    gates: dict[str, Event] = field(default_factory=dict)
    knows_ranges: bool = True
    lock: Lock = field(default_factory=Lock)


@contextmanager
def model_server(folder: Path) -> Iterator[ModelServer]:
    """Serves `folder` at the server's `url` until the block ends."""
    state = ModelServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, state)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests count."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        for gate in state.gates.values():
            gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, state: ModelServer) -> None:
    path = unquote(urlsplit(request.path).path).strip("/")
    with state.lock:
        state.asked[path] += 1
        refuse, state.refuses[path] = state.refuses[path] > 0, state.refuses[path] - 1
        breaks, state.breaks[path] = state.breaks[path] > 0, state.breaks[path] - 1
    file = state.folder / path
    if refuse or not file.is_file():
        request.send_response(503 if refuse else 404)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    data, start = state.lies.get(path, file.read_bytes()), 0
    asked = request.headers.get("Range")
    if asked and state.knows_ranges:
        state.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").partition("-")[0])
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(data) - start))
    request.end_headers()
    half = start + (len(data) - start) // 2
    request.wfile.write(data[start:half])
    request.wfile.flush()
    if path in state.gates:
        state.gates[path].wait(30)
    if breaks:
        request.close_connection = True
        return
    request.wfile.write(data[half:])
