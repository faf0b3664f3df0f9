"""A door's socket: bound before anything is started, so that a port that is taken is told at once."""

from __future__ import annotations

import socket

from common.errors import ConfigError
from gateway.door.settings import Address


def listen(address: Address) -> socket.socket:
    """A bound socket, whose port several processes share. Raises ConfigError."""
    try:
        [found, *_] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listener = socket.socket(found[0], found[1])
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(found[4])
    except OSError as error:
        raise ConfigError(f"the gateway cannot listen on {address}: {error.strerror or error}") from error
    return listener
