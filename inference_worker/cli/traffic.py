"""inference-worker models alias | split"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import click

from common.broker import Broker
from common.errors import InvalidRequest
from common.names import check_name
from common.traffic import SUBJECTS, Plan
from gateway.admin.pools import Admin, PoolStatus
from gateway.admin.traffic import change_plan
from gateway.catalog import Catalog, ModelInfo
from inference_worker.cli.options import answering, broker_option

if TYPE_CHECKING:
    import redis

T = TypeVar("T")

pool_option = click.option("--pool", help="The pool to change. [default: the one that serves NAME]")
force_option = click.option("--force", is_flag=True, help="Name versions that no worker serves, too.")


@click.command("alias")
@click.argument("name")
@click.argument("changes", nargs=-1, metavar="[LABEL=VERSION]...")
@pool_option
@force_option
@broker_option
def alias(name: str, changes: tuple[str, ...], pool: str | None, force: bool, broker: str) -> None:
    """Let labels such as prod lead to versions of model NAME; an empty VERSION removes a label.

    Clients and workers follow within seconds. Without changes, show what holds.

    \b
    Example:
      inference-worker models alias minilm prod=2 canary=3
      inference-worker models alias minilm canary=
    """
    with answering(broker) as client:
        pool = pool or _serving(Admin(client), name)
        served = _served(client, pool, name)
        moved = _once(_pair(one, "LABEL=VERSION") for one in changes)
        for label, version in moved.items():
            _check_label(name, label, served)
            if version and not force and served.get(version) != version:
                raise _not_served(name, version, pool, served.values())
        plan = change_plan(Broker(client, pool), name, lambda plan: plan.with_aliases(moved))
    click.echo(f"{name} in pool {pool}: {plan}")


@click.command("split")
@click.argument("name")
@click.argument("shares", nargs=-1, metavar="[VERSION=WEIGHT]...")
@click.option("--by", type=click.Choice(SUBJECTS), default=SUBJECTS[0], show_default=True, help="What stays together.")
@click.option("--clear", is_flag=True, help="End the split: the newest version answers.")
@pool_option
@force_option
@broker_option
def split(name: str, shares: tuple[str, ...], by: str, clear: bool, pool: str | None, force: bool, broker: str) -> None:
    """Share the requests for model NAME that name no version between versions or aliases, by weight.

    All requests of one tenant, or of one key that clients give as `affinity`, go to one version. Where weights
    move, only as many of them change as must. Without shares, show what holds.

    \b
    Example:
      inference-worker models split minilm 1=95 2=5
      inference-worker models split minilm prod=95 canary=5 --by key
      inference-worker models split minilm --clear
    """
    if clear and shares:
        raise click.UsageError("give shares or --clear, not both")
    with answering(broker) as client:
        pool = pool or _serving(Admin(client), name)
        served = _served(client, pool, name)
        wanted = _once(_share(one) for one in shares)

        def change(plan: Plan) -> Plan:
            changed = plan.with_split(wanted, by) if wanted or clear else plan
            for label in wanted:
                if not force and changed.version(label, served) not in served:
                    raise _not_served(name, label, pool or "", served)
            return changed

        plan = change_plan(Broker(client, pool), name, change)
    click.echo(f"{name} in pool {pool}: {plan}")


def labels(model: ModelInfo, plan: Plan) -> list[str]:
    """The aliases by which this version is found: the run-time ones, and of its own those that were not moved."""
    moved = [label for label, version in plan.aliases.items() if version == model.version]
    return [label for label in model.aliases if label not in plan.aliases] + sorted(moved)


def share(model: ModelInfo, pool: PoolStatus) -> float | None:
    """The part of the requests without a version that this one answers; None where no split holds."""
    served = Catalog(pool.models).served(model.name)
    plan = pool.traffic.get(model.name, Plan())
    shares = plan.shares(served)
    if not shares:
        return None
    own = sum(weight for label, weight in shares.items() if plan.version(label, served) == model.version)
    return own / sum(shares.values())


def _serving(admin: Admin, model: str) -> str:
    """The one pool that serves `model`. Raises click.UsageError."""
    pools = admin.snapshot().pools
    found = [pool.name for pool in pools if any(one.name == model for one in pool.models)]
    if len(found) == 1:
        return found[0]
    if found:
        raise click.UsageError(f"model '{model}' is served by the pools {', '.join(found)}: name one by --pool")
    there = ", ".join(sorted({one.name for pool in pools for one in pool.models})) or "none"
    raise click.UsageError(
        f"no worker serves model '{model}' (there is {there}): name a pool by --pool, and --force it"
    )


def _served(client: redis.Redis, pool: str, model: str) -> Mapping[str, str]:
    """Each version and each alias of model.toml -> its version."""
    [status] = Admin(client).snapshot([pool]).pools
    return Catalog(status.models).served(model)


def _check_label(model: str, label: str, served: Mapping[str, str]) -> None:
    if served.get(label) == label:
        raise click.UsageError(f"'{label}' is a version of model '{model}': an alias needs a name of its own")


def _not_served(model: str, version: str, pool: str, there: Iterable[str]) -> click.UsageError:
    return click.UsageError(
        f"pool '{pool}' serves no version '{version}' of model '{model}'; there is "
        f"{', '.join(dict.fromkeys(there)) or 'none'}. --force names it all the same"
    )


def _once(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Raises click.UsageError where one name has two values: nobody can tell which is meant."""
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise click.UsageError(f"'{name}' is given twice")
        found[name] = value
    return found


def _share(text: str) -> tuple[str, float]:
    version, weight = _pair(text, "VERSION=WEIGHT")
    try:
        return version, float(weight)
    except ValueError:
        raise click.UsageError(f"a share is VERSION=WEIGHT, such as 2=5; got '{text}'") from None


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"must be {form}; got '{text}'")
    try:
        return check_name(form.partition("=")[0], name), value
    except InvalidRequest as error:
        raise click.UsageError(error.message) from None
