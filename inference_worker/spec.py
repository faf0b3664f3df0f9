"""What a model declares, as values: name, inputs, outputs, limits. Checked in manifest.py, read in repository.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.keys import DEFAULT_POOL

#: A model folder's declaration.
MANIFEST = "model.toml"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One declared input or output: the shape of one item, without the rows dimension; -1 is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a micro-batch may become.

    `padded` bounds the rows times the size of the longest row, counted over the arrays in `pad`:
    those whose sizes may differ inside a batch, each with the value that fills it up.
    `linger_ms` is how long an idle device waits for more.
    """

    rows: int = 64
    padded: int | None = None
    linger_ms: float = 0.0
    pad: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of a model, as its author declared it, checked.

    Without `inputs` anything is taken, one request as one row. `options` is the backend's own table of
    model.toml, `processing` the table of the stages around it; `sample` holds the inputs of one item.
    `aliases` are labels of this version, such as "prod": it can be asked for by each of them.
    """

    name: str
    version: str
    backend: str
    pool: str = DEFAULT_POOL
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batch: BatchLimits = field(default_factory=BatchLimits)
    cache_ttl_s: float = 0.0
    aliases: tuple[str, ...] = ()
    check_finite: bool = False
    folder: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    processing: Mapping[str, Any] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=dict)


def check_apart(one: ModelSpec, other: ModelSpec) -> None:
    """Raises ConfigError where a request could mean either: versions of one model that share a number or an alias."""
    if one.name != other.name:
        return
    if one.version == other.version:
        raise ConfigError(f"model '{one.name}:{one.version}' is declared twice; give one another version")
    for alias in one.aliases:
        if alias in other.aliases:
            raise ConfigError(
                f"versions '{one.version}' and '{other.version}' of model '{one.name}' both have the alias '{alias}'; "
                "it must lead to one of them"
            )
    for aliased, versioned in ((one, other), (other, one)):
        if versioned.version in aliased.aliases:
            raise ConfigError(
                f"version '{aliased.version}' of model '{one.name}' has the alias '{versioned.version}', "
                "which is another version of it; give it another alias"
            )
