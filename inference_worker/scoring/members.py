"""A score job as Redis knows it: who works at it, how far they are, and whether it is cancelled.

A process writes one field of the job's hash each second, and learns by the same call whether it shall stop.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from common.connect import broker_errors
from common.errors import BrokerUnavailable, InvalidRequest
from common.keys import SCORE_JOBS, ScoreKeys

if TYPE_CHECKING:
    import redis

SEEN_S = 1.0
#: A process that has not been seen for so long is gone.
GONE_S = 15.0
_DAY_MS = 24 * 3600 * 1000
_CANCELLED, _ABOUT, _PROCESS = "cancelled", "about", "process:"


@dataclass(frozen=True, slots=True)
class Process:
    """One process's word on itself. `seen_s` ago it was last heard of."""

    host: str
    pid: int
    state: str
    rows: int
    errors: int
    rows_per_s: float
    seen_s: float

    @property
    def live(self) -> bool:
        return self.state == "runs" and self.seen_s < GONE_S


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job by the words of its processes. `total` rows is None where the input has to be read to know."""

    name: str
    model: str
    folder: str
    total: int | None
    rows: int
    errors: int
    cancelled: bool
    processes: tuple[Process, ...]

    @property
    def rows_per_s(self) -> float:
        return sum(one.rows_per_s for one in self.processes if one.live)


class Member:
    """This process's place in a job. `counts` gives its rows, errors, and rows a second."""

    def __init__(
        self, client: redis.Redis, keys: ScoreKeys, about: Mapping[str, Any], counts: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._redis, self._keys, self._counts = client, keys, counts
        self._field = _PROCESS + uuid4().hex[:12]
        self._state = "runs"
        self._ended = Event()
        self.cancelled = False
        with broker_errors():
            self._join(dict(about))
        self._tell()
        self._thread = Thread(target=self._run, name="score-member", daemon=True)
        self._thread.start()

    def close(self, state: str) -> None:
        """Say how it ended: `done`, `failed`, `cancelled`."""
        self._ended.set()
        self._thread.join(5)
        self._state = state
        self._tell()

    def _join(self, about: dict[str, Any]) -> None:
        """What was done before is told by the first process alone: the others' rows are counted by themselves."""
        told: Any = self._redis.hget(self._keys.job, _ABOUT)
        before = json.loads(told) if told else {}
        if any(before.get(name) != about[name] for name in ("model", "folder")):
            self._redis.delete(self._keys.job)  # Another job of that name, or the first of it.
            self._redis.hset(self._keys.job, _ABOUT, json.dumps(about))
        # Whoever starts a cancelled job again wants it to go on.
        self._redis.hdel(self._keys.job, _CANCELLED)

    def _run(self) -> None:
        while not self._ended.wait(SEEN_S):
            self._tell()

    def _tell(self) -> None:
        about = {"host": socket.gethostname(), "pid": os.getpid(), "state": self._state, "seen": time.time()}
        try:
            with broker_errors(), self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(self._keys.job, self._field, json.dumps({**about, **self._counts()}))
                pipeline.pexpire(self._keys.job, _DAY_MS)
                pipeline.hget(self._keys.job, _CANCELLED)
                told = pipeline.execute()
                self._redis.zadd(SCORE_JOBS, {self._keys.name: time.time()})
                self._redis.pexpire(SCORE_JOBS, 7 * _DAY_MS)
        except BrokerUnavailable:
            return  # It is told of where chunks wait for Redis; leases lapse meanwhile, and are taken again.
        self.cancelled = self.cancelled or told[2] is not None


def jobs(client: redis.Redis) -> list[str]:
    """The names of the jobs of the last week, the one seen last first."""
    with broker_errors():
        names: Any = client.zrange(SCORE_JOBS, 0, -1, desc=True)
    return [name.decode() for name in names]


def status(client: redis.Redis, name: str) -> JobStatus:
    """Raises InvalidRequest for a job that nobody has seen in the last day."""
    fields = _fields(client, name)
    about = json.loads(fields.get(_ABOUT, b"{}"))
    processes = tuple(_process(json.loads(value)) for field, value in fields.items() if field.startswith(_PROCESS))
    return JobStatus(
        name,
        about.get("model", ""),
        about.get("folder", ""),
        about.get("total"),
        about.get("before", 0) + sum(one.rows for one in processes),
        sum(one.errors for one in processes),
        _CANCELLED in fields,
        processes,
    )


def cancel(client: redis.Redis, name: str) -> None:
    """Have all processes of a job stop after the chunks that run. Raises InvalidRequest."""
    _fields(client, name)
    with broker_errors():
        client.hset(ScoreKeys(name).job, _CANCELLED, "1")


def _fields(client: redis.Redis, name: str) -> dict[str, bytes]:
    with broker_errors():
        fields: Any = client.hgetall(ScoreKeys(name).job)
        there = ", ".join(jobs(client)) or "none"
    if not fields:
        raise InvalidRequest(f"no process of a score job '{name}' was seen in the last day; there is {there}")
    return {field.decode(): value for field, value in fields.items()}


def _process(told: Mapping[str, Any]) -> Process:
    return Process(
        told.get("host", "?"), told.get("pid", 0), told.get("state", "?"), told.get("rows", 0), told.get("errors", 0),
        told.get("rows_per_s", 0.0), max(0.0, time.time() - told.get("seen", 0.0)),
    )  # fmt: skip
