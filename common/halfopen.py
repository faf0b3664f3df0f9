"""Connections whose other end has gone without a word: how soon they are given up, and who is told of one.

The kernel gives up what it sends in vain, or has heard nothing of, long before a reply is overdue. Where something on
the way takes the bytes and loses them, only the overdue reply tells; then no idle connection of the process is trusted
any more, or each would cost as long a wait.
"""

from __future__ import annotations

import socket
from typing import Any

#: What nobody acknowledges for so long is given up (TCP_USER_TIMEOUT, RFC 5482). A Redis that is merely busy
#: acknowledges: its kernel does.
UNHEARD_S = 5
#: So often an end of which nothing is heard is asked whether it is there.
PROBE_S = 1

#: Each as the socket module names it; what a system lacks is left out.
_OPTIONS = {
    "TCP_KEEPIDLE": UNHEARD_S,
    "TCP_KEEPINTVL": PROBE_S,
    "TCP_KEEPCNT": UNHEARD_S // PROBE_S,
    "TCP_USER_TIMEOUT": 1000 * UNHEARD_S,
}


def tcp_options() -> dict[str, Any]:
    """redis-py's settings for a TCP connection."""
    known = {getattr(socket, name): value for name, value in _OPTIONS.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": known}


class Doubts:
    """How often a connection of this process was found dead. Whoever keeps idle ones compares: are mine older?"""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def raised_by(self, error: BaseException) -> None:
        """An exchange has ended so, without Redis's answer. One that was cancelled tells nothing."""
        if isinstance(error, Exception):
            self.count += 1


#: Of this process: its clients reach the same servers over the same network.
DOUBTS = Doubts()
