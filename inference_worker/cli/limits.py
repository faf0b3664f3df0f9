"""inference-worker limits set | show | clear"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from common.keys import DEFAULT_POOL
from common.limits import PoolLimits, TenantLimits, limits_to_json
from gateway.admin.limits import Limits
from inference_worker.cli.options import FiniteRange, answering, broker_option, json_option, size_of

#: Set for the pool as a whole, and for one tenant.
POOL_ONLY = ("backlog", "bytes", "light")
TENANT_ONLY = ("weight",)
_COUNT = click.IntRange(1, 10**12)
_AMOUNT = FiniteRange(0.001, 1e9)


pool_option = click.option("--pool", default=DEFAULT_POOL, show_default=True, help="The pool whose limits.")


@click.group("limits")
def command() -> None:
    """Bound what a pool and its tenants may have under way, and share it between tenants by weight.

    \b
    Example:
      inference-worker limits set --pool gpu --backlog 20000 --bytes 2GiB
      inference-worker limits set --pool gpu --tenant acme --weight 4 --rate 100 --in-flight 500
      inference-worker limits show --pool gpu
    """


@command.command("set")
@click.option("--tenant", help="For this tenant alone. [default: the pool, and each tenant without its own]")
@click.option("--backlog", type=_COUNT, help="Unfinished requests of all tenants together.")
@click.option("--bytes", callback=size_of, metavar="SIZE", help="Of all unfinished requests together, such as 2GiB.")
@click.option(
    "--light", type=_COUNT, help="Unfinished requests from which a tenant has a backlog: it waits for others."
)
@click.option("--weight", type=_AMOUNT, help="Its parts of what backlogs share, and of --light. [default: 1]")
@click.option("--in-flight", type=_COUNT, help="Unfinished requests of one tenant.")
@click.option("--rate", type=_AMOUNT, help="Requests a second of one tenant.")
@click.option("--burst", type=_AMOUNT, help="So many of them may come at once. [default: those of a second]")
@pool_option
@broker_option
def set_limits(tenant: str | None, pool: str, broker: str, **given: Any) -> None:
    """Set limits; those that are not named stay. They hold from the next request on, for all clients.

    \b
    Example:
      inference-worker limits set --pool gpu --rate 50
      inference-worker limits set --pool gpu --tenant acme --weight 4 --rate 100 --in-flight 500
    """
    values = {name: value for name, value in given.items() if value is not None}
    _check(tenant, values)
    with answering(broker) as client:
        limits = Limits(client, pool)
        if tenant is None:
            limits.set_pool(**values)
        else:
            limits.set_tenant(tenant, **values)
        found = limits.read()
    click.echo("\n".join(lines(pool, found)))


@command.command("show")
@pool_option
@json_option
@broker_option
def show(pool: str, as_json: bool, broker: str) -> None:
    """Show the pool's limits and those of single tenants.

    \b
    Example:
      inference-worker limits show --pool gpu --json
    """
    with answering(broker) as client:
        limits = Limits(client, pool).read()
    click.echo(json.dumps(limits_to_json(limits)) if as_json else "\n".join(lines(pool, limits)))


@command.command("clear")
@click.option("--tenant", help="What was set for this tenant alone. [default: what was set for the pool]")
@pool_option
@broker_option
def clear(tenant: str | None, pool: str, broker: str) -> None:
    """Take limits back: the pool's go back to the defaults, a tenant's to the pool's.

    \b
    Example:
      inference-worker limits clear --pool gpu --tenant acme
    """
    with answering(broker) as client:
        limits = Limits(client, pool)
        limits.clear(tenant)
        found = limits.read()
    click.echo("\n".join(lines(pool, found)))


def lines(pool: str, limits: PoolLimits) -> Iterator[str]:
    """The limits as `show` prints them."""
    size = "unbounded" if limits.bytes is None else f"{limits.bytes:,}"
    yield f"pool {pool}: backlog {limits.backlog:,}, bytes {size}"
    yield f"  each tenant   {_bounds(limits)}, light up to {limits.light:,}"
    for name, tenant in sorted(limits.tenants.items()):
        weight = "" if tenant.weight is None else f", weight {tenant.weight:g}"
        yield f"  {name:<13} {_bounds(tenant)}{weight}"


def _bounds(limits: PoolLimits | TenantLimits) -> str:
    in_flight = "as the others" if limits.in_flight is None else f"{limits.in_flight:,}"
    if limits.rate is None:
        rate = "unbounded" if isinstance(limits, PoolLimits) else "as the others"
    else:
        burst = limits.rate if limits.burst is None else limits.burst
        rate = f"{limits.rate:g}/s, burst {max(1.0, burst):g}"
    return f"in flight {in_flight}, rate {rate}"


def _check(tenant: str | None, values: dict[str, Any]) -> None:
    if not values:
        raise click.UsageError("name at least one limit, such as --backlog or --rate; `limits show` shows what holds")
    for name in TENANT_ONLY if tenant is None else POOL_ONLY:
        if name in values:
            whose = "one tenant's: name it by --tenant" if tenant is None else "the pool's: leave out --tenant"
            raise click.UsageError(f"--{name} is {whose}")
