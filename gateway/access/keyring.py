"""All keys and tenants of a deployment, as one value: read from a store, and asked for each request. Pure.

A store holds text under names: `key/<id>`, `tenant/<name>` and `claim/<claim>=<value>`, each a JSON map.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from common.errors import ConfigError, InvalidRequest, Unauthenticated
from common.keys import PRIORITIES
from common.names import check_name, check_pool, shorten
from gateway.access.apikey import KeyRecord, split_key
from gateway.access.claims import check_rule, tenant_name
from gateway.access.tenant import Tenant

log = logging.getLogger(__name__)

KEY, TENANT, CLAIM = "key/", "tenant/", "claim/"
_HINT = "make one by `inference-worker keys create TENANT`"
#: Compared with where no such key is known, so that its absence takes as long to find.
_NOBODY = KeyRecord("", "", "00" * 16, "", 0)


@dataclass(frozen=True, slots=True)
class Keyring:
    """`keys` by id, `tenants` by name, `claims` the tenants' names by the rule that leads to them."""

    keys: Mapping[str, KeyRecord] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)

    def identify(self, text: str | None, now_s: float) -> Tenant:
        """Whose key this is. Raises Unauthenticated, which tells nothing of the keys that there are."""
        if text is None:
            raise Unauthenticated(f"a key is needed: send `Authorization: Bearer <key>`; {_HINT}")
        id, secret = split_key(text) or ("", "")
        record = self.keys.get(id, _NOBODY)
        if not record.matches(secret):
            raise Unauthenticated(f"the key is not known, or revoked; {_HINT}")
        if record.expired(now_s):
            raise Unauthenticated(f"the key {record.id} has expired; {_HINT}")
        return self._tenant(record.tenant)

    def of_claims(self, claims: Mapping[str, Any], tenant_claim: str | None) -> Tenant:
        """Whose token this is. Raises PermissionDenied where nothing leads to a tenant."""
        return self._tenant(tenant_name(claims, self.claims, tenant_claim))

    def _tenant(self, name: str) -> Tenant:
        return self.tenants.get(name) or Tenant(name)


def read_keyring(raw: Mapping[str, str]) -> Keyring:
    """What cannot be read is passed over, and said: one bad record must not lock everybody out."""
    keys: dict[str, KeyRecord] = {}
    tenants: dict[str, Tenant] = {}
    claims: dict[str, str] = {}
    for name, text in raw.items():
        try:
            if name.startswith(KEY):
                keys[name.removeprefix(KEY)] = _key(json.loads(text))
            elif name.startswith(TENANT):
                tenants[name.removeprefix(TENANT)] = _tenant(json.loads(text))
            elif name.startswith(CLAIM):
                claims[check_rule(name.removeprefix(CLAIM))] = check_name("tenant", json.loads(text)["tenant"])
        except (ValueError, TypeError, KeyError, RecursionError, InvalidRequest, ConfigError) as error:
            log.warning("the access record %s is passed over: %s", shorten(name), error)
    return Keyring(keys, tenants, claims)


def key_entry(record: KeyRecord) -> tuple[str, str]:
    """(name, text) for a store."""
    return KEY + record.id, json.dumps(asdict(record))


def tenant_entry(tenant: Tenant) -> tuple[str, str]:
    return f"{TENANT}{tenant.name}", json.dumps(asdict(tenant))


def claim_entry(rule: str, tenant: str) -> tuple[str, str]:
    return CLAIM + check_rule(rule), json.dumps({"tenant": check_name("tenant", tenant)})


def check_tenant(tenant: Tenant) -> Tenant:
    """Raises InvalidRequest, ConfigError for what no tenant can be."""
    check_name("tenant", tenant.name)
    if tenant.pool is not None:
        check_pool(tenant.pool)
    if tenant.priority not in PRIORITIES:
        raise ConfigError(f"priority must be one of {', '.join(PRIORITIES)}; got {shorten(tenant.priority)}")
    if tenant.concurrency is not None and (type(tenant.concurrency) is not int or tenant.concurrency < 1):
        raise ConfigError(f"concurrency must be at least 1; got {shorten(tenant.concurrency)}")
    return tenant


def _key(record: dict[str, Any]) -> KeyRecord:
    found = KeyRecord(**record)
    if len(bytes.fromhex(found.salt)) != len(_NOBODY.salt) // 2:
        raise ValueError("the salt must have 16 bytes")
    check_name("tenant", found.tenant)
    return found


def _tenant(record: dict[str, Any]) -> Tenant:
    return check_tenant(Tenant(**{**record, "models": tuple(record.get("models", ("*",)))}))
