"""Logging for the processes of this project: one readable line for each event, on standard error."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"


def setup_logging(level: str = "INFO") -> None:
    """Once, at the start of a process. Raises ValueError for an unknown level."""
    logging.basicConfig(format=FORMAT, level=level.upper())
