"""inference-worker keys create | list | revoke | map | unmap | claims"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from common.errors import ConfigError
from common.keys import PRIORITIES
from common.names import check_name
from gateway.access.apikey import KeyRecord, new_key
from gateway.access.keyring import (
    CLAIM,
    KEY,
    Keyring,
    check_tenant,
    claim_entry,
    key_entry,
    read_keyring,
    tenant_entry,
)
from gateway.access.store import BrokerStore, FileStore, Store
from gateway.access.tenant import Tenant
from gateway.door.settings import BROKER_KEYS
from inference_worker.cli.options import answering, broker_option, json_option, together

_DAY_S = 86_400


_store_options = together(
    click.option(
        "--keys",
        default=BROKER_KEYS,
        show_default=True,
        metavar=f"FILE|{BROKER_KEYS}",
        help=f"Where keys are kept: a file, or the broker ({BROKER_KEYS}); the same as the gateway's --keys.",
    ),
    broker_option,
)

#: What a tenant may do.
_tenant_options = together(
    click.option("--model", "models", multiple=True, metavar="GLOB", help="It may use this. [default: any]"),
    click.option("--concurrency", type=click.IntRange(min=1), help="Its requests at a time in one gateway process."),
    click.option("--priority", type=click.Choice(PRIORITIES), help="The most urgent that its requests can be."),
    click.option("--pool", help="Where its requests go that no route takes."),
    click.option("--operator/--no-operator", default=None, help="It may load and unload models."),
)


@click.group("keys")
def command() -> None:
    """API keys of the gateway, and what their tenants may do. Gateways that run know of a change within seconds.

    \b
    Example:
      inference-worker keys create acme --model "minilm*"
      inference-worker keys list
    """


@command.command("create")
@click.argument("tenant")
@_tenant_options
@click.option("--days", type=click.IntRange(min=1), help="The key expires after so many days. [default: never]")
@_store_options
def create(
    tenant: str,
    days: int | None,
    keys: str,
    broker: str,
    **said: Any,
) -> None:
    """Make a key for TENANT and print it, this once: only its hash is kept.

    What is said of the tenant holds for all of its keys; what is not said stays as it is.

    \b
    Example:
      inference-worker keys create acme --model "minilm*" --concurrency 32 --priority normal
      inference-worker keys create ops --operator --keys keys.json
    """
    store = _store(keys, broker)
    after = _tenant_after(store, tenant, said)
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


@command.command("map")
@click.argument("rule", metavar="CLAIM=VALUE")
@click.argument("tenant")
@_tenant_options
@_store_options
def map_(rule: str, tenant: str, keys: str, broker: str, **said: Any) -> None:
    """Lead tokens with CLAIM=VALUE to TENANT, where the gateway accepts an issuer's tokens (--jwt-issuer).

    The claim may be a list or words, as `scope` is, and hold VALUE among others. Of several rules that hold the first
    one by its name counts. What is said of the tenant holds for its keys, too.

    \b
    Example:
      inference-worker keys map groups=research acme --model "minilm*" --priority normal
    """
    store = _store(keys, broker)
    entry = claim_entry(rule, tenant)
    store.put(*tenant_entry(_tenant_after(store, tenant, said)))
    store.put(*entry)
    click.echo(f"tokens with {rule} are of tenant '{tenant}'", err=True)


@command.command("unmap")
@click.argument("rule", metavar="CLAIM=VALUE")
@_store_options
def unmap(rule: str, keys: str, broker: str) -> None:
    """Take a rule of `keys map` back.

    \b
    Example:
      inference-worker keys unmap groups=research
    """
    if not _store(keys, broker).remove(CLAIM + rule):
        raise ConfigError(f"there is no rule '{rule}'; `inference-worker keys claims` shows those that there are")
    click.echo(f"tokens with {rule} are of no tenant any more", err=True)


@command.command("claims")
@json_option
@_store_options
def claims(as_json: bool, keys: str, broker: str) -> None:
    """List which claims of tokens lead to which tenant, in the order in which they are tried.

    \b
    Example:
      inference-worker keys claims --json
    """
    rules = dict(sorted(read_keyring(_store(keys, broker).read()).claims.items()))
    if as_json:
        click.echo(json.dumps(rules))
        return
    for rule, tenant in rules.items():
        click.echo(f"{rule}  {tenant}")


def _tenant_after(store: Store, name: str, said: dict[str, Any]) -> Tenant:
    """The tenant as it is, with what is said of it."""
    before = read_keyring(store.read()).tenants.get(name, Tenant(check_name("tenant", name)))
    told = {option: value for option, value in said.items() if value not in (None, ())}
    return check_tenant(replace(before, **told))


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
