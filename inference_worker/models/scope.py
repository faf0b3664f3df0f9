"""Which models somebody looks for in a repository: these must be sound there, and others may be broken."""

from __future__ import annotations

from collections.abc import Callable, Collection

from inference_worker.models.spec import ModelSpec

#: (name, version, aliases) -> whether it is looked for. Of a broken declaration no alias is known.
Scope = Callable[[str, str, Collection[str]], bool]


def everything(name: str, version: str, aliases: Collection[str]) -> bool:
    """The scope of a first start."""
    return True


def is_in(scope: Scope, spec: ModelSpec) -> bool:
    return scope(spec.name, spec.version, spec.aliases)
