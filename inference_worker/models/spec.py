"""What a model declares, as values: name, inputs, outputs, limits. Checked in manifest.py, read in repository.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from common.keys import DEFAULT_POOL

if TYPE_CHECKING:
    from inference_worker.remote.snapshot import Snapshot

#: Of a request, and so of a batch. More hold up all other requests; and rows of no elements cost their sender nothing.
MAX_ROWS = 65_536
#: What may be done around a model, request by request, before and after it runs.
PREPROCESS, POSTPROCESS = STAGES = "preprocess", "postprocess"
#: A model folder's declaration.
MANIFEST = "model.toml"
#: A model that says nothing of its time may take so long for one batch. Longer than any caller who waits for an answer
#: will, and short enough that a device on which something hangs is free again without a person.
BATCH_LIMIT_S = 300.0


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
    those whose sizes may differ inside a batch, each with the value that fills it up. `bytes` bounds the inputs
    after padding; without it and without `padded` they may have padding.MOST_BYTES.
    `linger_ms` is how long an idle device waits for more. Batches that take longer than `target_ms` become smaller.
    """

    rows: int = 64
    padded: int | None = None
    bytes: int | None = None
    target_ms: float | None = None
    linger_ms: float = 0.0
    pad: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Residence:
    """Where a loaded model lives, and what it needs there.

    `device` ("cpu", "cuda", "cuda:1") is the only one that it may be loaded on, None any. At most `replicas`
    processes of a host load it, None all. `memory` is its need in bytes where its files do not tell. A `pinned`
    one is loaded at start and never evicted.
    """

    device: str | None = None
    replicas: int | None = None
    memory: int | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class StageLimits:
    """A stage around a model that has `workers` threads of its own, or, with `processes`, as many processes."""

    workers: int
    processes: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from. `url` is empty for a local path; it shows no credentials.

    `trusted`: its Python may run here. `snapshot` is what was fetched: it stays in the cache while this lives.
    """

    url: str = ""
    trusted: bool = True
    snapshot: Snapshot | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of a model, as its author declared it, checked.

    Without `inputs` anything is taken, one request as one row. `options` is the backend's own table of
    model.toml, `processing` the table of the stages around it, `stages` has those of them that run beside the
    model (the others run in line); `sample` holds the inputs of one item.
    `aliases` are labels of this version, such as "prod": it can be asked for by each of them.
    A model that is not `deterministic` has no `cache_ttl_s`: no two requests share a result of it.
    A worker in which one batch takes longer than `timeout_s` is killed and started again.
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
    deterministic: bool = True
    check_finite: bool = False
    timeout_s: float | None = None
    residence: Residence = field(default_factory=Residence)
    origin: Origin = field(default_factory=Origin)
    folder: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    processing: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, StageLimits] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limit_s(self) -> float:
        """Seconds that one batch may take."""
        return BATCH_LIMIT_S if self.timeout_s is None else self.timeout_s


@lru_cache(maxsize=4096)
def fits(declared: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether one item's shape is a declared one, of which -1 is any size."""
    return len(shape) == len(declared) and all(want in (-1, size) for want, size in zip(declared, shape, strict=True))


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
