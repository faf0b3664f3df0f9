"""The worker process: one device, ruled by its supervisor.

    python -m inference_worker.process

Reads its configuration and then control lines as JSON from standard input; the end of that input
means that the supervisor is gone, and ends the process at once. Writes status lines as JSON to the
file descriptor in INFERENCE_WORKER_STATUS_FD. Only control lines and SIGKILL end it: the terminal's
Ctrl-C is for the supervisor, which drains.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common.broker import Broker
from common.connect import connect
from common.errors import ConfigError, InferenceError
from common.logs import setup_logging
from common.tracing import SERVICE, Tracing, open_tracing
from inference_worker.devices.faults import Fault, fault_of
from inference_worker.processes.control import Control, control_stream
from inference_worker.processes.exitcodes import Exit
from inference_worker.processes.lifeline import die_with_parent
from inference_worker.processes.status import Offer, Status
from inference_worker.processes.threads import start_thread
from inference_worker.processes.title import set_title
from inference_worker.supervision.child import STATUS_FD
from inference_worker.supervision.placement import check_seat
from inference_worker.worker import Worker

if TYPE_CHECKING:
    from inference_worker.metrics.meter import Meter
    from inference_worker.models.library import Library
    from inference_worker.models.scope import Scope
    from inference_worker.models.spec import ModelSpec

log = logging.getLogger(__name__)


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
    siblings: list[str]
    seat: int
    log_level: str = "INFO"
    log_format: str = "text"
    tracing: bool = False
    lazy: bool = False
    memory_budget: int | None = None
    #: The file for its metrics; None: nothing is measured.
    metrics: str | None = None
    #: What a child before this one offered, as `name:version`: nothing else is offered. None for the first.
    serves: list[str] | None = None


def run() -> NoReturn:
    """`main`, and at once the end of the process.

    Python would first wait for every thread that a model started and left running. What a model must put in order
    at the end belongs into its `close`: exit handlers do not run.
    """
    code: int = Exit.FAILED
    try:
        code = main()
    except Exception:
        log.exception("the worker failed. This is a bug")
    finally:
        with suppress(OSError):  # Nobody may read there any more.
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> int:
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    lines = control_stream()
    config = Config(**json.loads(lines.readline()))
    setup_logging(config.log_level, config.consumer, config.log_format)
    set_title(f"{config.pool} {config.device} loading")
    status = Status(int(os.environ[STATUS_FD]))
    try:
        _serve(config, lines, status)
    except InferenceError as error:
        status.send("failed", error=str(error))
        return _exit_code(error)
    return 0


def _exit_code(error: InferenceError) -> int:
    if fault_of(error) is Fault.LOST:
        return Exit.UNAVAILABLE
    return Exit.CONFIG if isinstance(error, ConfigError) else Exit.FAILED


def _serve(config: Config, lines: FileIO, status: Status) -> None:
    control = Control(lines, status, config.consumer)
    control.start()
    started = time.monotonic()
    # Here, and not above: models' libraries take seconds to import, and the supervisor should know of it.
    from inference_worker.models.library import Library
    from inference_worker.models.loader import LOADERS, Loader, Obeyed
    from inference_worker.models.loading import Opener, find_models
    from inference_worker.models.unloads import Unloads

    meter = _meter(config)
    tracing = open_tracing(config.tracing, os.environ, f"{SERVICE}-worker", config.consumer)
    library = Library(config.memory_budget)
    offer = Offer(config.pool, config.device, library, status)

    def obeyed(what: Obeyed) -> None:
        status.send("obeyed", **asdict(what))

    def find(scope: Scope) -> list[ModelSpec]:
        specs = find_models(config.paths, config.models_pool, scope)
        check_seat(specs, config.siblings, config.seat, scope)
        return specs

    opener = (Opener if meter is None else meter.opener)(config.device, config.threads)
    loader = Loader(library, opener, find, offer.changed, obeyed)
    unloads = Unloads(partial(connect, config.broker), config.pool)
    times = loader.begin(config.lazy, config.serves, status.loading, unloads.known())
    loader.hold_back(unloads.wait())
    rest_s = time.monotonic() - started - times.load_s - times.warm_s
    worker = _worker(config, library, meter, tracing)
    if tracing is not None:
        log.info("requests whose traces are recorded have their spans")
    # What is loaded now lives long: the collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    offer.ready(import_s=rest_s, load_s=times.load_s, warm_s=times.warm_s)
    control.rule(worker, library)
    control.tell()
    for number in range(LOADERS):
        start_thread(f"loader {number}", loader.run)
    try:
        worker.run()
    finally:
        if tracing is not None:
            tracing.close()
    control.tell()
    for loaded in library.loaded.values():
        loaded.close()


def _worker(config: Config, library: Library, meter: Meter | None, tracing: Tracing | None) -> Worker:
    """With a connection for its blocking reads alone."""
    from inference_worker.tracing import WorkerSpans

    return Worker(
        (Broker if meter is None else meter.broker.metered)(connect(config.broker), config.pool),
        connect(config.broker),
        config.consumer,
        library,
        config.max_deliveries,
        config.reply_ttl_s,
        None if tracing is None else WorkerSpans(tracing, config.pool),
        meter,
    )


def _meter(config: Config) -> Meter | None:
    """Raises ConfigError where there is no room for its file."""
    if config.metrics is None:
        return None
    from inference_worker.metrics.meter import Meter

    return Meter(Path(config.metrics), config.pool, config.siblings[config.seat])


if __name__ == "__main__":
    run()
