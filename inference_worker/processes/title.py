"""The process's title, as ps and top show it."""

from __future__ import annotations


def set_title(role: str) -> None:
    """Show this process as `inference-worker: <role>`, where setproctitle is installed."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"inference-worker: {role}")
