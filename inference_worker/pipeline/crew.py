"""Processes of their own for one stage of a model: for Python code that would hold the runner's interpreter.

Not concurrent.futures: there the end of one process fails the calls of all, and whose request it was is not told.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from queue import LifoQueue
from typing import Any

from common.errors import ConfigError, InferenceError, ModelError
from inference_worker.backends.base import Context
from inference_worker.pipeline.channel import Channel, open_memory
from inference_worker.supervision.child import STDERR

#: A process that closes its socket has so long to end by itself, so that its own exit code is told.
END_S = 1.0
COMMAND = (sys.executable, "-m", "inference_worker.pipeline.stage_process")

log = logging.getLogger(__name__)


class ProcessEndedError(Exception):
    """The process ended before it answered; its text says how."""


class StageProcess:
    """One process, one call at a time. It ends with this one, whatever that dies of (lifeline.py)."""

    def __init__(self, context: Context, step: str) -> None:
        """Start it; `greet` then tells whether its code loads."""
        self._model = f"model '{context.spec.name}:{context.spec.version}'"
        self._step = step
        self._limit_s = context.spec.limit_s
        self.ended = False
        ours, theirs = Pipe()
        memory = open_memory()
        self._channel = Channel(ours, memory)
        try:
            # A new program, and no fork: the libraries that models use have threads and devices open here.
            self._process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), str(memory), step],
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=(theirs.fileno(), memory),
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        # One that has ended already cannot read it: `greet` sees that.
        with suppress(OSError):
            self._channel.send(context)

    def greet(self) -> None:
        """Wait until its code is loaded. Raises ConfigError, ModelError or ProcessEndedError where it does not load."""
        try:
            self._answer(f"load of {self._model}")
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """What the stage returns. Raises its error, ModelError past the model's timeout, and ProcessEndedError."""
        try:
            self._channel.send(arguments)
            if self._channel.wait(self._limit_s):
                return self._answer(f"{self._step} of {self._model}")
        except InferenceError:
            raise
        except (EOFError, OSError) as error:
            raise self._lost() from error
        except BaseException:
            self.close()  # Whether it still answers this call is not known, and the next must not get that.
            raise
        self.close()
        raise ModelError(f"{self._step} of {self._model} took longer than the model's timeout of {self._limit_s:g} s")

    def _answer(self, what: str) -> Any:
        good, value = self._channel.receive()
        if good:
            return value
        raise value if isinstance(value, InferenceError) else ModelError(f"{what} failed: {value}")

    def close(self) -> None:
        """End it at once. May be called twice."""
        if self.ended:
            return
        self.ended = True
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def _lost(self) -> ProcessEndedError:
        # Its socket is closed: it ends, or never answers again.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self.close()
        code = self._process.returncode
        return ProcessEndedError(f"signal {-code}" if code < 0 else f"exit code {code}")


class Crew:
    """`size` processes for one step of a model. One that ends is started again, and its call tried once more there.

    Once, since what ended it may have come from outside, such as the system short of memory; a request that ends two
    fails alone. Thread-safe: a caller waits while all are at work.
    """

    def __init__(self, context: Context, step: str, size: int, unchanged: Callable[[], bool]) -> None:
        """`unchanged` tells whether the model's files are those that it was loaded from."""
        # A snapshot holds locks, which stay here.
        origin = replace(context.spec.origin, snapshot=None)
        self._context = replace(context, spec=replace(context.spec, origin=origin))
        self._step = step
        self._size = size
        self._unchanged = unchanged
        # The last one used comes next: its memory is warm, and what is needed less than `size` at once sleeps.
        self._idle = LifoQueue[StageProcess | None]()

    def start(self) -> None:
        """Start all and wait until their code is loaded. Raises ConfigError or ModelError where it does not load."""
        starting: list[StageProcess] = []
        try:
            while len(starting) < self._size:
                starting.append(self._start())
            for process in starting:
                self._greet(process)
        except BaseException:
            for process in starting:
                process.close()
            raise
        for process in starting:
            self._idle.put(process)

    def call(self, *arguments: Any) -> Any:
        """What the step returns. Raises InferenceError: the code's own, or ModelError for all else that goes wrong."""
        process = self._idle.get()
        try:
            for tries_left in (1, 0):
                if process is None:
                    process = self._restarted()
                try:
                    return process.call(arguments)
                except ProcessEndedError as error:
                    log.warning("a process of %s ended with %s; another is started", self._what, error)
                    if not tries_left:
                        raise ModelError(
                            f"{self._what} failed: its process ended with {error}, twice with this request"
                        ) from error
                    process = None
        finally:
            self._idle.put(None if process is None or process.ended else process)

    def close(self) -> None:
        """End all processes, which must be idle. May be called twice."""
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                process.close()

    @property
    def _what(self) -> str:
        return f"{self._step} of model '{self._context.spec.name}:{self._context.spec.version}'"

    def _start(self) -> StageProcess:
        return StageProcess(self._context, self._step)

    def _greet(self, process: StageProcess) -> None:
        try:
            process.greet()
        except ProcessEndedError as error:
            raise ModelError(f"{self._what} failed: its process ended with {error} while its code loaded") from error

    def _restarted(self) -> StageProcess:
        if not self._unchanged():
            raise ModelError(
                f"{self._what} failed: its process ended, and the model's files have changed since it was loaded; "
                "reload the model"
            )
        try:
            process = self._start()
            self._greet(process)
        except ConfigError as error:
            raise ModelError(f"{self._what} failed: its process ended and does not start again: {error}") from error
        return process
