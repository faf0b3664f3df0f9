"""The worker process: one device, ruled by its supervisor.

    python -m inference_worker.process

Reads its configuration and then control lines as JSON from standard input; the end of that input
means that the supervisor is gone, and ends the process at once. Writes status lines as JSON to the
file descriptor in INFERENCE_WORKER_STATUS_FD. Only control lines and SIGKILL end it: the terminal's
Ctrl-C is for the supervisor, which drains.
"""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass
from threading import Lock, Thread
from typing import Any, TextIO

from common.broker import Broker
from common.connect import connect
from common.errors import ConfigError, InferenceError
from common.logs import setup_logging
from inference_worker.child import STATUS_FD
from inference_worker.lifeline import die_with_parent
from inference_worker.restarts import CONFIG_EXIT
from inference_worker.title import set_title
from inference_worker.worker import EXIT_BUG, Counts, Worker

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_ORPHANED = 3


@dataclass(frozen=True, slots=True)
class Config:
    """What the supervisor tells its child, as one JSON line. The broker's password travels nowhere else."""

    broker: str
    pool: str
    consumer: str
    paths: list[str]
    device: str
    threads: int
    models_pool: str | None
    max_deliveries: int
    reply_ttl_s: float
    log_level: str = "INFO"


class Status:
    """Status lines to the supervisor, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = Lock()

    def send(self, what: str, **facts: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps({"is": what, **facts}) + "\n")
            self._stream.flush()

    def loading(self, model: str, done: int, of: int) -> None:
        self.send("loading", model=model, done=done, of=of)


def control_stream() -> TextIO:
    """Standard input, moved away: a program that a model starts must not read the supervisor's lines."""
    stream = os.fdopen(os.dup(0), encoding="utf-8")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    return stream


class Control(Thread):
    """Obeys the supervisor's lines, and tells it once a second what was done, if anything was.

    It starts before the models load: a child that loads must notice too that its supervisor is gone.
    """

    def __init__(self, lines: TextIO, status: Status) -> None:
        super().__init__(name="control", daemon=True)
        self._lines = lines
        self._status = status
        self._worker: Worker | None = None
        self._told: Counts | None = None

    def rule(self, worker: Worker) -> None:
        """From now on there is work to hand back."""
        self._worker = worker

    def run(self) -> None:
        try:
            while True:
                readable, _, _ = select.select([self._lines], [], [], 1.0)
                if readable:
                    self._obey(self._lines.readline())
                self.tell()
        except BrokenPipeError:
            os._exit(EXIT_ORPHANED)
        except Exception:
            log.exception("the control thread failed. This is a bug. The worker ends and is started again")
            os._exit(EXIT_BUG)

    def _obey(self, line: str) -> None:
        if not line:
            os._exit(EXIT_ORPHANED)
        if json.loads(line) != {"do": "drain"}:
            return
        if self._worker is None:
            os._exit(0)
        self._worker.drain()

    def tell(self) -> None:
        counts = self._worker.counts() if self._worker else None
        if counts is not None and counts != self._told:
            self._told = counts
            self._status.send("stats", **asdict(counts))


def main() -> int:
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    lines = control_stream()
    config = Config(**json.loads(lines.readline()))
    setup_logging(config.log_level)
    set_title(f"{config.pool} {config.device} loading")
    status = Status(int(os.environ[STATUS_FD]))
    try:
        _serve(config, lines, status)
    except InferenceError as error:
        status.send("failed", error=str(error))
        return CONFIG_EXIT if isinstance(error, ConfigError) else EXIT_FAILED
    return 0


def _serve(config: Config, lines: TextIO, status: Status) -> None:
    control = Control(lines, status)
    control.start()
    started = time.monotonic()
    # Here, and not above: models' libraries take seconds to import, and the supervisor should know of it.
    from inference_worker.loading import find_models, load_models
    from inference_worker.metadata import metadata
    from inference_worker.registry import Registry

    specs = find_models(config.paths, config.models_pool)
    found_s = time.monotonic() - started
    registry = Registry()
    times = load_models(specs, registry, config.device, config.threads, status.loading)
    worker = Worker(
        Broker(connect(config.broker), config.pool),
        connect(config.broker),
        config.consumer,
        registry,
        config.max_deliveries,
        config.reply_ttl_s,
    )
    control.rule(worker)
    # What is loaded now lives for ever: the collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    models = {name: base64.b64encode(data).decode() for name, data in metadata(registry).items()}
    status.send("ready", models=models, import_s=found_s + times.import_s, load_s=times.load_s, warm_s=times.warm_s)
    set_title(f"{config.pool} {config.device} {' '.join(sorted(models))}")
    worker.run()
    control.tell()
    for loaded in registry.list():
        loaded.backend.close()


if __name__ == "__main__":
    sys.exit(main())
