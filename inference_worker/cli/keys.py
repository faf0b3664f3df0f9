"""inference-worker keys create | list | revoke"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from common.errors import ConfigError
from common.keys import PRIORITIES
from common.names import check_name
from gateway.access.apikey import KeyRecord, new_key
from gateway.access.keyring import KEY, Keyring, check_tenant, key_entry, read_keyring, tenant_entry
from gateway.access.store import BrokerStore, FileStore, Store
from gateway.access.tenant import Tenant
from gateway.door.settings import BROKER_KEYS
from inference_worker.cli.options import answering, broker_option, json_option

Command = TypeVar("Command", bound=Callable[..., Any])

_DAY_S = 86_400


def _store_options(command: Command) -> Command:
    command = broker_option(command)
    return click.option(
        "--keys",
        default=BROKER_KEYS,
        show_default=True,
        metavar=f"FILE|{BROKER_KEYS}",
        help=f"Where keys are kept: a file, or the broker ({BROKER_KEYS}); the same as the gateway's --keys.",
    )(command)


@click.group("keys")
def command() -> None:
    """API keys of the gateway, and what their tenants may do. Gateways that run know of a change within seconds."""


@command.command("create")
@click.argument("tenant")
@click.option("--model", "models", multiple=True, metavar="GLOB", help="A model that it may use. [default: any]")
@click.option("--concurrency", type=click.IntRange(min=1), help="Its requests at a time in one gateway process.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="The most urgent that its requests can be.")
@click.option("--pool", help="Where its requests go that no route takes.")
@click.option("--operator/--no-operator", default=None, help="It may load and unload models.")
@click.option("--days", type=click.IntRange(min=1), help="The key expires after so many days. [default: never]")
@_store_options
def create(
    tenant: str,
    models: tuple[str, ...],
    concurrency: int | None,
    priority: str | None,
    pool: str | None,
    operator: bool | None,
    days: int | None,
    keys: str,
    broker: str,
) -> None:
    """Make a key for TENANT and print it, this once: only its hash is kept.

    What is said of the tenant holds for all of its keys; what is not said stays as it is.

    \b
    Example:
      inference-worker keys create acme --model "minilm*" --concurrency 32 --priority normal
      inference-worker keys create ops --operator --keys keys.json
    """
    check_name("tenant", tenant)
    store = _store(keys, broker)
    said: dict[str, Any] = {
        "models": models or None, "concurrency": concurrency, "priority": priority, "pool": pool, "operator": operator,
    }  # fmt: skip
    before = read_keyring(store.read()).tenants.get(tenant, Tenant(tenant))
    after = check_tenant(replace(before, **{name: value for name, value in said.items() if value is not None}))
    now_s = time.time()
    made = new_key(tenant, now_s, int(now_s) + days * _DAY_S if days else 0)
    store.put(*tenant_entry(after))
    store.put(*key_entry(made.record))
    click.echo(made.text)
    click.echo(f"key {made.record.id} of tenant '{tenant}'; it cannot be shown again", err=True)


@command.command("list")
@json_option
@_store_options
def list_(as_json: bool, keys: str, broker: str) -> None:
    """List the keys, by tenant, and what each tenant may do.

    \b
    Example:
      inference-worker keys list
      inference-worker keys list --keys keys.json --json
    """
    ring = read_keyring(_store(keys, broker).read())
    records = sorted(ring.keys.values(), key=lambda one: (one.tenant, one.created_s))
    if as_json:
        click.echo(json.dumps([_told(one, ring) for one in records]))
        return
    for one in records:
        told = _told(one, ring)
        bounds = f"{told['concurrency']} at a time" if told["concurrency"] else "no limit"
        pool = f", pool {told['pool']}" if told["pool"] else ""
        operator = ", operator" if told["operator"] else ""
        expires = f", until {told['expires']}" if told["expires"] else ""
        click.echo(
            f"{one.id}  {one.tenant}  made {told['created']}{expires}; {', '.join(told['models'])}; {bounds}; "
            f"up to {told['priority']}{pool}{operator}"
        )


@command.command("revoke")
@click.argument("id", metavar="ID")
@_store_options
def revoke(id: str, keys: str, broker: str) -> None:
    """Make a key invalid, by its ID from `keys list`. Requests that it has begun are answered.

    \b
    Example:
      inference-worker keys revoke 0f3a9c52d1e7
    """
    if not _store(keys, broker).remove(KEY + id):
        raise ConfigError(f"there is no key '{id}'; `inference-worker keys list` shows those that there are")
    click.echo(f"key {id} is revoked", err=True)


def _store(keys: str, broker: str) -> Store:
    return BrokerStore(answering(broker)) if keys == BROKER_KEYS else FileStore(keys)


def _told(record: KeyRecord, ring: Keyring) -> dict[str, Any]:
    tenant = ring.tenants.get(record.tenant) or Tenant(record.tenant)
    return {
        "id": record.id,
        "tenant": record.tenant,
        "created": _day(record.created_s),
        "expires": _day(record.expires_s) if record.expires_s else None,
        "models": list(tenant.models),
        "concurrency": tenant.concurrency,
        "priority": tenant.priority,
        "pool": tenant.pool,
        "operator": tenant.operator,
    }


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
