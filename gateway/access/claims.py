"""From what a token claims to a tenant: a small table, kept beside the keys. Pure.

A rule is `CLAIM=VALUE`. It holds where the claim is that value, a list with it, or words with it, as `scope` is; a dot
leads into a map (`realm_access.roles=admin`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import InvalidRequest, PermissionDenied
from common.names import check_name, shorten


def check_rule(rule: str) -> str:
    """Raises InvalidRequest for what is no CLAIM=VALUE."""
    claim, equals, value = rule.partition("=")
    if not claim or not equals or not value or len(rule) > 256:
        raise InvalidRequest(f"a rule must be CLAIM=VALUE, of at most 256 characters; got {shorten(rule)}")
    return rule


def tenant_name(claims: Mapping[str, Any], rules: Mapping[str, str], tenant_claim: str | None) -> str:
    """By the first rule that holds, in the order of their names; else what `tenant_claim` says.

    Raises PermissionDenied where nothing leads to a tenant.
    """
    for rule in sorted(rules):
        claim, _, value = rule.partition("=")
        if _holds(_found(claims, claim), value):
            return rules[rule]
    told = _found(claims, tenant_claim) if tenant_claim is not None else None
    try:
        return check_name("tenant", told)
    except InvalidRequest:
        raise PermissionDenied(
            "the token is good, and nothing in it leads to a tenant: `inference-worker keys map CLAIM=VALUE TENANT` "
            "does, or --jwt-tenant CLAIM"
        ) from None


def _holds(claimed: object, value: str) -> bool:
    if isinstance(claimed, str):
        return claimed == value or value in claimed.split()
    if isinstance(claimed, list):
        return value in claimed
    return claimed is not None and not isinstance(claimed, dict) and str(claimed) == value


def _found(claims: Mapping[str, Any], name: str) -> object:
    """The claim of that name; else what its dots lead to."""
    if name in claims:
        return claims[name]
    at: Any = claims
    for piece in name.split("."):
        if not isinstance(at, Mapping) or piece not in at:
            return None
        at = at[piece]
    return at
