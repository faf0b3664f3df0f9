"""Logging for the processes of this project: one line for each event on standard error, for people or for machines.

A line about a request names it and its trace: whoever logs one passes `extra=about(request_id, trace)`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from common.text import visible
from common.tracecontext import read_context

FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"
#: With the name by which others know this process.
NAMED_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(who)s %(name)s: %(message)s"

TEXT, JSON = FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
#: What a line about a request has beside its message.
_ABOUT: Final = ("request", "trace")
_current: Callable[[], str] = str


def about(request_id: str | None, trace: Mapping[str, str] | None = None) -> dict[str, str]:
    """`extra` of a line about one request; `trace` is its field of that name."""
    found = {"request": request_id} if request_id else {}
    context = read_context(trace)
    return found if context is None else {**found, "trace": context.trace_id}


def follow(current: Callable[[], str]) -> None:
    """Lines that name no trace have that of whatever is going on where they are logged, by its id or ""."""
    global _current
    _current = current


class OneLine(logging.Formatter):
    """Whatever is in a message, it begins no line of its own and steers no terminal. A traceback is indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        more = "".join(f" {name}={value}" for name, value in _about(record).items())
        return visible(super().formatMessage(record) + more)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"    {visible(line)}" for line in super().formatException(ei).splitlines())


class JsonLine(logging.Formatter):
    """One JSON object a line: time (UTC), level, message, logger, process; and who, request, trace and error if any."""

    def __init__(self, who: str = "") -> None:
        super().__init__()
        self._who = {"who": who} if who else {}

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "process": record.process,
            **self._who,
            **_about(record),
        }
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


class Repeats(logging.Filter):
    """Of a foreign library that logs each of its tries: each line of its code is heard once in `every_s` seconds."""

    def __init__(self, library: str, every_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._library = library
        self._every_s = every_s
        self._clock = clock
        self._said_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._library):
            return True
        place, now_s = (record.name, record.lineno), self._clock()
        if now_s - self._said_s.get(place, -math.inf) < self._every_s:
            return False
        self._said_s[place] = now_s
        return True


def setup_logging(level: str = "INFO", who: str = "", form: str = TEXT) -> None:
    """Once, at the start of a process: a worker's lines name it as `who`. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler()
    # A collector that is away is tried again and again.
    handler.addFilter(Repeats("opentelemetry"))
    handler.setFormatter(_formatter(who, form))
    logging.basicConfig(handlers=[handler], level=level.upper())


def set_level(level: str, logger: str = "") -> str:
    """From now on, of one `logger` and those below it, or of all. What it was. Raises ValueError for no level."""
    if level.lower() not in LEVELS:
        raise ValueError(f"a log level must be one of {', '.join(LEVELS)}; got {level!r}")
    which = logging.getLogger(logger or None)
    before = logging.getLevelName(which.getEffectiveLevel()).lower()
    which.setLevel(level.upper())
    return before


def say_json(level: str, text: str) -> None:
    """A command's own event, as the JSON line that it is among those of its workers."""
    line = {"time": _utc(time.time()), "level": level, "message": text, "logger": "events", "process": os.getpid()}
    # A disk that is full, or a reader that has gone, costs the line and not the workers.
    with suppress(OSError):
        print(json.dumps(line), file=sys.stderr, flush=True)


def _formatter(who: str, form: str) -> logging.Formatter:
    if form == JSON:
        return JsonLine(who)
    return OneLine(NAMED_FORMAT, defaults={"who": who}) if who else OneLine(FORMAT)


def _about(record: logging.LogRecord) -> dict[str, str]:
    found = {name: value for name in _ABOUT if (value := getattr(record, name, None))}
    return found if "trace" in found or not (trace := _current()) else {**found, "trace": trace}


def _utc(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
