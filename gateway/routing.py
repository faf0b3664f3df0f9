"""Which pool takes a request: an ordered list of rules by model, version and tenant. Pure.

The first rule that matches takes the request; the default is last. What a rule asks for must be
there: a request without a version or a tenant passes by every rule that has one, since the pool is
chosen before it is known which version its workers hold to be the newest. Versions of dotted numbers
compare as numbers (1.9 < 1.10, 4 = 4.0); a name such as "latest" is equal to itself and has no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from common.keys import DEFAULT_POOL
from common.versions import version_number


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison with a version."""

    operator: str
    version: str

    def holds(self, version: str) -> bool:
        if self.operator in ("=", "==", "!="):
            return _same(version, self.version) != (self.operator == "!=")
        left, right = version_number(version), version_number(self.version)
        if left is None or right is None:
            return False
        if self.operator in ("<", "<="):
            return left < right or (self.operator == "<=" and left == right)
        return left > right or (self.operator == ">=" and left == right)

    def __str__(self) -> str:
        return f"{self.operator} {self.version}"


@dataclass(frozen=True, slots=True)
class Route:
    """One rule; what is None takes everything. `line` is where it stands in its file."""

    pool: str
    model: str | None = None
    versions: tuple[Condition, ...] = ()
    tenant: str | None = None
    line: int = 0

    def mismatch(self, model: str, version: str | None, tenant: str | None) -> str | None:
        """Why the rule does not take this request; None where it does."""
        if self.model is not None and not fnmatchcase(model, self.model):
            return f"model '{model}' does not match '{self.model}'"
        for condition in self.versions:
            if version is None:
                return f"the request names no version, and the rule asks for {condition}"
            if not condition.holds(version):
                return f"version '{version}' is not {condition}"
        if self.tenant is not None and tenant is None:
            return f"the request names no tenant, and the rule asks for '{self.tenant}'"
        if self.tenant is not None and not fnmatchcase(tenant or "", self.tenant):
            return f"tenant '{tenant}' does not match '{self.tenant}'"
        return None

    def __str__(self) -> str:
        asked = [f"model {self.model}"] if self.model is not None else []
        asked += [f"version {condition}" for condition in self.versions]
        asked += [f"tenant {self.tenant}"] if self.tenant is not None else []
        return f"{', '.join(asked)} -> {self.pool}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The pool that takes a request, by which rule (None: the default), and why the rules before it did not."""

    pool: str
    route: Route | None
    passed: tuple[tuple[Route, str], ...]

    def __str__(self) -> str:
        rule = "the default" if self.route is None else f"line {self.route.line}: {self.route}"
        passed = [f"  not by line {route.line} ({route}): {reason}" for route, reason in self.passed]
        return "\n".join([f"{self.pool}, by {rule}", *passed])


class Routes:
    """An ordered list of rules and a default."""

    def __init__(self, routes: Iterable[Route] = (), default: str = DEFAULT_POOL) -> None:
        self.routes = tuple(routes)
        self.default = default

    def pool(self, model: str, version: str | None = None, tenant: str | None = None) -> str:
        """The pool of the first rule that takes the request."""
        for route in self.routes:
            if route.mismatch(model, version, tenant) is None:
                return route.pool
        return self.default

    def explain(self, model: str, version: str | None = None, tenant: str | None = None) -> Explanation:
        passed: list[tuple[Route, str]] = []
        for route in self.routes:
            reason = route.mismatch(model, version, tenant)
            if reason is None:
                return Explanation(route.pool, route, tuple(passed))
            passed.append((route, reason))
        return Explanation(self.default, None, tuple(passed))

    def pools(self) -> list[str]:
        """Every pool that a request can be led to, the default last."""
        return list(dict.fromkeys([*(route.pool for route in self.routes), self.default]))

    def __repr__(self) -> str:
        return f"Routes({len(self.routes)} rules, default {self.default})"


def _same(left: str, right: str) -> bool:
    numbers: Sequence[tuple[int, ...] | None] = version_number(left), version_number(right)
    return left == right if None in numbers else numbers[0] == numbers[1]
