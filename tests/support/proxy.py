"""A TCP proxy that can lose what goes through it: a connection whose packets are dropped, as behind a dead firewall."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread


class Proxy:
    """Passes bytes on to a loopback port. `lose` makes all connections of now half-open; new ones work."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = Lock()
        self._lost = Event()
        self._sockets: list[socket.socket] = []
        self._thread = Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def lose(self) -> None:
        """From now on these connections carry nothing, and neither end is told."""
        with self._lock:
            self._lost.set()
            self._lost = Event()

    def close(self) -> None:
        """Both ends are told, and the threads end."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):  # The listener was closed.
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._sockets += (client, server)
                    lost = self._lost
                for source, sink in ((client, server), (server, client)):
                    Thread(target=_pass_on, args=(source, sink, lost), name="proxied", daemon=True).start()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy to that port, closed at the block's end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def _pass_on(source: socket.socket, sink: socket.socket, lost: Event) -> None:
    """Until either end closes. Once lost, everything is read and thrown away, an end's closing too."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if not lost.is_set():
                sink.sendall(data)
    if not lost.is_set():
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
