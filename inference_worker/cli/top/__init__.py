"""inference-worker top"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import click
from rich.console import Console, RenderableType
from rich.live import Live

from common.brokerurl import hide_password
from common.errors import BrokerUnavailable
from gateway.admin.pools import Admin, Snapshot
from inference_worker.cli.options import answering, broker_option, look_options
from inference_worker.cli.top.figures import figures
from inference_worker.cli.top.frame import frame
from inference_worker.cli.top.keyboard import Keyboard, keyboard

#: Each pool takes some twenty commands of Redis in one round trip: no more are read at a time.
MOST_POOLS = 50
QUIT = "q"
#: Where output is no terminal, frames are as wide as they need to be.
PIPE_WIDTH = 160


@click.command("top")
@look_options
@click.option("--once", is_flag=True, help="Print one frame, taken over one interval, and end.")
@broker_option
def command(pools: tuple[str, ...], interval_s: float, once: bool, broker: str) -> None:
    """Watch pools, workers and models: backlog, rates, times and how busy they are. q ends it.

    Reads from Redis alone, a few commands for each pool and look: it costs workers nothing.

    \b
    Example:
      inference-worker top
      inference-worker top --once > frame.txt
    """
    view = View(Admin(answering(broker)), hide_password(broker), pools, "" if once else "q quits")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    view.look()
    if once:
        time.sleep(interval_s)
        console.print(view.look())
        return
    with keyboard() as keys, Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        _watch(view, keys, interval_s, lambda shown: live.update(shown, refresh=True))


class View:
    """Takes a look at the pools, and shows what has changed since the last one."""

    def __init__(self, admin: Admin, broker: str, pools: tuple[str, ...], keys: str) -> None:
        self._admin = admin
        self._broker = broker
        self._wanted = pools
        self._keys = keys
        self._before: Snapshot | None = None

    def look(self) -> RenderableType:
        """Raises BrokerUnavailable."""
        names = list(self._wanted) or self._admin.pools()
        after = self._admin.snapshot(names[:MOST_POOLS])
        found = figures(self._before or after, after, max(0, len(names) - MOST_POOLS))
        self._before = after
        return frame(found, self._broker, after.memory, f"{datetime.now():%H:%M:%S}", self._keys)


def _watch(view: View, keys: Keyboard, interval_s: float, show: Callable[[RenderableType], None]) -> None:
    with suppress(KeyboardInterrupt):
        while True:
            try:
                show(view.look())
            except BrokerUnavailable as error:
                show(f"{datetime.now():%H:%M:%S}  {error.message}; tried again each {interval_s:g} s. q quits")
            until_s = time.monotonic() + interval_s
            while (left_s := until_s - time.monotonic()) > 0:
                if QUIT in keys.wait(left_s).lower():
                    return
