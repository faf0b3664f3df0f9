"""A supervisor's events as lines on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

import click

from common.logs import JSON, TEXT, say_json
from common.text import visible
from inference_worker.supervision import events

_LEVELS = {"red": "error", "yellow": "warning"}


class EventLines:
    """Called with each event. Says what happened and, where something is wrong, what happens next."""

    def __init__(self, form: str = TEXT) -> None:
        self._form = form
        #: What workers said they ended of.
        self.errors: set[str] = set()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Started(worker, pool, device, pid):
                self._say(f"worker {worker} starts for pool '{pool}' on {device} (process {pid})")
            case events.Loading(worker, model, done, of):
                self._say(f"worker {worker} loads {model} ({done + 1} of {of})")
            case events.Ready(worker, pool, models, import_s, load_s, warm_s):
                times = f"imports {import_s:.1f} s, weights {load_s:.1f} s, warm-up {warm_s:.1f} s"
                self._say(f"worker {worker} serves {', '.join(models)} in pool '{pool}' ({times})", "green")
            case events.Exited(worker, _, code, error, restart_s, looping):
                self.errors.add(error)
                self._say(_ended(worker, code, error, restart_s, looping), None if code == 0 else "red")
            case events.Ordered(pool, order):
                self._say(f"pool '{pool}' is told to {order.what}")
            case events.Obeyed(worker, _, order, report):
                changed = f"{', '.join(report.models) or report.note or 'nothing to do'} ({report.seconds:.1f} s)"
                outcome = changed if report.ok else report.error
                self._say(f"worker {worker} {order.do}: {outcome}", "green" if report.ok else "red")
            case events.Draining(children, within_s):
                self._say(f"draining {children} workers, within {within_s:.0f} s; once more ends them at once")
            case events.BrokerLost(pool, error):
                self._say(f"pool '{pool}' has no broker, tried again each second: {error}", "red")
            case events.BrokerBack(pool, away_s):
                self._say(f"pool '{pool}' has its broker back after {away_s:.1f} s", "green")
            case events.BrokerFull(pool, memory):
                self._say(f"warning: the Redis of pool '{pool}' holds {memory}; raise its maxmemory", "yellow")
            case events.BrokerHasRoom(pool, memory):
                self._say(f"the Redis of pool '{pool}' has room again: {memory}", "green")
            case events.BrokerForgot(pool, gone):
                self._say(f"this Redis is empty: {gone} of pool '{pool}' are gone; set them again, splits first", "red")
            case events.Warned(text):
                self._say(f"warning: {text}", "yellow")

    def _say(self, text: str, colour: str | None = None) -> None:
        say(text, colour, self._form)


def _ended(worker: int, code: int, error: str, restart_s: float | None, looping: bool) -> str:
    how = f"ended by signal {-code}" if code < 0 else f"ended with {code}"
    next_step = "" if restart_s is None else f"; next start in {restart_s:.1f} s"
    loop = " (crash looping: look at its log)" if looping else ""
    return f"worker {worker} {how}{': ' + error if error else ''}{next_step}{loop}"


def say(text: str, colour: str | None = None, form: str = TEXT) -> None:
    """A line on standard error, as log lines of that form are. Red is an error, yellow a warning."""
    if form == JSON:
        say_json(_LEVELS.get(colour or "", "info"), visible(text))
        return
    # A disk that is full, or a reader that has gone, costs the line and not the workers.
    with suppress(OSError):
        click.secho(f"{_stamp()}{visible(text)}", fg=colour, err=True)


def _stamp() -> str:
    """The time, as log lines have it; a terminal's reader knows it."""
    if sys.stderr.isatty():
        return ""
    now_s = time.time()
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now_s))},{int(now_s % 1 * 1000):03d} "
