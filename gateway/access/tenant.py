"""What a tenant may do: which models, how much at a time, how urgently, in which pool. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from common.errors import PermissionDenied
from common.keys import PRIORITIES
from gateway.routing import Route, Routes


@dataclass(frozen=True, slots=True)
class Tenant:
    """`models` are names or globs; `concurrency` None: no bound of its own; `pool` where no route takes its request.

    `name` None is whoever asks a door that has no keys.
    """

    name: str | None
    models: tuple[str, ...] = ("*",)
    concurrency: int | None = None
    priority: str = "high"
    pool: str | None = None
    operator: bool = False

    def may_use(self, model: str) -> bool:
        return "*" in self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def check_model(self, model: str) -> None:
        """Raises PermissionDenied."""
        if not self.may_use(model):
            raise PermissionDenied(f"tenant '{self.name}' may not use model '{model}'; it may use {self._shown()}")

    def check_operator(self, what: str) -> None:
        """Raises PermissionDenied for whoever may not load and unload models."""
        if not self.operator:
            raise PermissionDenied(
                f"tenant '{self.name}' may not {what}: make its key by `inference-worker keys create --operator`"
            )

    def priority_of(self, asked: str) -> str:
        """What was asked for, or the tenant's ceiling where that is lower. A name that is none stays as it is."""
        if asked not in PRIORITIES or PRIORITIES.index(asked) >= PRIORITIES.index(self.priority):
            return asked
        return self.priority

    def _shown(self) -> str:
        return ", ".join(self.models) or "none"


#: Whoever asks where no keys are asked for.
ANYBODY = Tenant(None, operator=True)


def with_pools(routes: Routes, tenants: Iterable[Tenant]) -> Routes:
    """These rules, and behind them each tenant's own pool in the default's place."""
    own = [Route(one.pool, tenant=one.name) for one in tenants if one.pool is not None]
    return Routes((*routes.routes, *own), routes.default)
