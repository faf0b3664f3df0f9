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
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NoReturn

from common.broker import Broker
from common.connect import connect
from common.errors import ConfigError, InferenceError
from common.logs import setup_logging
from common.orders import ERRANDS, Order
from common.tracing import SERVICE, open_tracing
from inference_worker.devices.faults import Fault, fault_of
from inference_worker.errands import Errands
from inference_worker.exitcodes import Exit
from inference_worker.lifeline import die_with_parent
from inference_worker.supervision.child import STATUS_FD
from inference_worker.supervision.placement import check_seat
from inference_worker.threads import start_thread
from inference_worker.title import set_title
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


def control_stream() -> FileIO:
    """Standard input, moved away: a program that a model starts must not read the supervisor's lines.

    Unbuffered: of two lines that come at once, a buffer would hide the second one from `select`.
    """
    stream = FileIO(os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    return stream


class Control(Thread):
    """Obeys the supervisor's lines, and tells it once a second what was done and what runs: one that is silent hangs.

    It starts before the models load: a child that loads must notice too that its supervisor is gone.
    """

    def __init__(self, lines: FileIO, status: Status, consumer: str = "") -> None:
        super().__init__(name="control", daemon=True)
        self._lines = lines
        self._status = status
        self._errands = Errands(consumer, self._told)
        self._lock = Lock()
        self._worker: Worker | None = None
        self._library: Library | None = None
        self._early: list[Order] = []

    def rule(self, worker: Worker, library: Library) -> None:
        """From now on there is work to hand back, and a library that obeys: also what was ordered before."""
        with self._lock:
            self._worker, self._library = worker, library
            for order in self._early:
                library.order(order)

    def run(self) -> None:
        try:
            while True:
                readable, _, _ = select.select([self._lines], [], [], 1.0)
                if readable:
                    self._obey(self._lines.readline())
                self.tell()
        except BrokenPipeError:
            os._exit(Exit.ORPHANED)
        except Exception:
            log.exception("the control thread failed. This is a bug. The worker ends and is started again")
            os._exit(Exit.BUG)

    def _obey(self, line: bytes) -> None:
        if not line:
            os._exit(Exit.ORPHANED)
        match json.loads(line):
            case {"do": "drain"}:
                self._drain()
            case {"do": "obey", "order": order}:
                self._order(Order(**order))

    def _drain(self) -> None:
        if self._worker is None:
            os._exit(0)
        self._worker.drain()

    def _order(self, order: Order) -> None:
        if order.do in ERRANDS:
            self._errands.obey(order)
            return
        with self._lock:
            if self._library is None:
                self._early.append(order)
            else:
                self._library.order(order)

    def _told(self, order: Order, ok: bool, what: str, seconds: float, memory: int) -> None:
        said = {"error": "", "note": what} if ok else {"error": what, "note": ""}
        self._status.send("obeyed", order=order.id, ok=ok, models=(), seconds=seconds, memory=memory, **said)

    def tell(self) -> None:
        if self._worker is not None:
            self._status.send("stats", **asdict(self._worker.counts()))


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
    from inference_worker.tracing import WorkerSpans

    meter = _meter(config)
    tracing = open_tracing(config.tracing, os.environ, f"{SERVICE}-worker", config.consumer)
    library = Library(config.memory_budget)
    offer = Offer(config, library, status)

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
    worker = Worker(
        (Broker if meter is None else meter.broker.metered)(connect(config.broker), config.pool),
        connect(config.broker),
        config.consumer,
        library,
        config.max_deliveries,
        config.reply_ttl_s,
        None if tracing is None else WorkerSpans(tracing, config.pool),
        meter,
    )
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


def _meter(config: Config) -> Meter | None:
    """Raises ConfigError where there is no room for its file."""
    if config.metrics is None:
        return None
    from inference_worker.metrics.meter import Meter

    try:
        return Meter(Path(config.metrics), config.pool, config.siblings[config.seat])
    except OSError as error:
        raise ConfigError(f"the metrics cannot be kept: {error}; make room there, or leave out --metrics") from error


class Offer:
    """What the process says that it serves: to its supervisor, and in its title."""

    def __init__(self, config: Config, library: Library, status: Status) -> None:
        self._config = config
        self._library = library
        self._status = status
        self._lock = Lock()

    def ready(self, **seconds: float) -> None:
        self._status.send("ready", models=self._models(), **seconds)

    def changed(self) -> None:
        """Other versions are offered, or the same with other weights. What is said last is what holds."""
        with self._lock:
            self._status.send("models", models=self._models())

    def _models(self) -> dict[str, str]:
        from inference_worker.models.metadata import metadata

        models = {name: base64.b64encode(data).decode() for name, data in metadata(self._library.registry).items()}
        set_title(f"{self._config.pool} {self._config.device} {' '.join(sorted(models))}")
        return models


if __name__ == "__main__":
    run()
