"""inference-worker logs level POOL LEVEL"""

from __future__ import annotations

import click

from common.logs import LEVELS
from common.orders import LOG, Order, check_log
from inference_worker.cli.options import answering, broker_option, json_option
from inference_worker.cli.orders import show

#: Workers answer at once; one that stands still is no reason to wait for long.
TIMEOUT_S = 10.0


@click.group("logs")
def command() -> None:
    """Change what a pool's workers log, while they run.

    \b
    Example:
      inference-worker logs level default-pool debug
    """


@command.command("level")
@click.argument("pool")
@click.argument("level", type=click.Choice(LEVELS, case_sensitive=False))
@click.option("--logger", default="", metavar="NAME", help="Only this logger and those below it. [default: all]")
@json_option
@broker_option
def level(pool: str, level: str, logger: str, as_json: bool, broker: str) -> None:
    """Let each worker of POOL log from LEVEL on, until it is told otherwise or ends.

    \b
    Example:
      inference-worker logs level default-pool debug --logger inference_worker.intake
    """
    from gateway.admin.manage import Manager

    check_log(level, logger)
    order = Order("", LOG, "", level=level, logger=logger)
    reports = Manager(answering(broker)).tell(pool, order, TIMEOUT_S)
    show(order.what, pool, reports, as_json, lambda report: f"logs from {level} on ({report.note})")
