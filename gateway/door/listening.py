"""A door's socket: bound before anything is started, so that a port that is taken is told at once."""

from __future__ import annotations

import socket

from common.errors import ConfigError
from gateway.door.settings import Address


def claim(address: Address) -> socket.socket:
    """A bound socket that never listens: for as long as it is open, processes may `listen` there.

    Raises ConfigError, also where another gateway of the same user listens: the two would share its callers.
    """
    claimed = _bound(address, shared=False)
    claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return claimed


def listen(address: Address) -> socket.socket:
    """A bound socket, whose port several processes share. Raises ConfigError."""
    return _bound(address, shared=True)


def _bound(address: Address, shared: bool) -> socket.socket:
    try:
        [found, *_] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        bound = socket.socket(found[0], found[1])
        # Without it the connections of a gateway that has just ended would keep the port for a minute.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        bound.bind(found[4])
    except OSError as error:
        raise ConfigError(f"the gateway cannot listen on {address}: {error.strerror or error}") from error
    return bound
