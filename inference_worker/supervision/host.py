"""What this host is called in Redis: by its supervisors in their workers' names, and by whoever looks for these."""

from __future__ import annotations

import re
import socket

MAX_LENGTH = 64


def host_name() -> str:
    """The system's host name as a part of a name: of a container its id, of a pod the pod's name."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()).strip("-.")[:MAX_LENGTH] or "host"
