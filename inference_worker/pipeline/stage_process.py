"""A process that runs one stage of one model for its worker.

    python -m inference_worker.pipeline.stage_process SOCKET MEMORY STAGE

It loads the code of [processing] and no weights, and answers one call after the other until its worker is gone.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from common.errors import ConfigError, InferenceError
from common.text import describe
from inference_worker.backends.base import Context
from inference_worker.models.code import load_object
from inference_worker.pipeline.channel import Channel
from inference_worker.processes.lifeline import die_with_parent
from inference_worker.processes.title import set_title

#: Whether it went well, and the value; else an error of ours, or what foreign code raised, in one line.
Answer = tuple[bool, Any]


def main() -> None:
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(Connection(int(sys.argv[1])), int(sys.argv[2]))
    try:
        serve(channel, sys.argv[3])
    except (EOFError, OSError):
        return  # The worker is gone.


def serve(channel: Channel, step: str) -> None:
    """Load what the first message tells, then answer calls. Raises EOFError or OSError when the other side is gone."""
    context: Context = channel.receive()
    set_title(f"{context.spec.name}:{context.spec.version} {step}")
    good, method = attempt(load_method, context, step)
    _send(channel, (good, None if good else method))
    while good:
        _send(channel, attempt(method, *channel.receive()))


def load_stages(context: Context) -> Any:
    """The object that `processing.code` makes, with its `load` done."""
    stages = load_object(context.spec.processing["code"], context.spec.folder)()
    if hasattr(stages, "load"):
        stages.load(context)
    return stages


def load_method(context: Context, step: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(load_stages(context), step, None)
    if method is None:
        code = context.spec.processing["code"]
        raise ConfigError(f"[stages.{step}] has workers, and processing.code '{code}' defines no method {step}")
    return method


def attempt(call: Callable[..., Any], *arguments: Any) -> Answer:
    try:
        return True, call(*arguments)
    except InferenceError as error:
        return False, error
    except BaseException as error:
        return False, describe(error)


def _send(channel: Channel, answer: Answer) -> None:
    try:
        channel.send(answer)
    except OSError:
        raise
    except Exception as error:
        # It was refused before any of it was sent.
        channel.send((False, f"what it returned cannot be sent to the worker: {describe(error)}"))


if __name__ == "__main__":
    main()
