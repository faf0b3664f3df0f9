"""Logging for the processes of this project: one readable line for each event, on standard error."""

from __future__ import annotations

import logging
from typing import Any

from common.text import visible

FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"
#: With the name by which others know this process.
NAMED_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(who)s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """Whatever is in a message, it begins no line of its own and steers no terminal. A traceback is indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"    {visible(line)}" for line in super().formatException(ei).splitlines())


def setup_logging(level: str = "INFO", who: str = "") -> None:
    """Once, at the start of a process: a worker's lines name it as `who`. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(NAMED_FORMAT, defaults={"who": who}) if who else OneLine(FORMAT))
    logging.basicConfig(handlers=[handler], level=level.upper())
