"""An operator's limits, to Redis and back."""

from __future__ import annotations

import pytest

from common.errors import InvalidRequest
from common.limits import PoolLimits, TenantLimits, read_limits, tenant_field


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (TenantLimits(), "- - - -"),
        (TenantLimits(4, 500, 100, 200), "4 500 100 200"),
        (TenantLimits(weight=0.5, rate=0.25), "0.5 - 0.25 -"),
        (TenantLimits(in_flight=10**12), "- 1000000000000 - -"),
    ],
)
def test_a_tenants_limits_are_four_numbers(limits: TenantLimits, text: str) -> None:
    assert limits.encode() == text
    assert read_limits({"tenant:acme": text.encode()}).tenants == {"acme": limits}


def test_where_nothing_is_set_the_defaults_hold() -> None:
    assert read_limits({}) == PoolLimits(backlog=100_000, bytes=None, in_flight=50_000, light=32)


def test_what_cannot_be_read_is_left_out() -> None:
    fields = {"backlog": b"many", "light": b"8", "tenant:acme": b"1 2", "tenant:\xff": b"\xff"}

    assert read_limits(fields) == PoolLimits(light=8, tenants={"acme": TenantLimits(), "\xff": TenantLimits()})


def test_a_tenant_needs_a_name_that_can_be_one() -> None:
    with pytest.raises(InvalidRequest, match="tenant must be"):
        tenant_field("a b")
