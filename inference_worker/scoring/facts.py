"""What scoring must know of a model before it runs, wherever that is, and how its rows are cut into chunks."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import ConfigError
from inference_worker.models.spec import ModelSpec, TensorSpec

#: On CPUs a padded batch is fastest while its activations stay in the cache: that is about 2 KiB of text, or 512
#: elements (`benchmarks/scoring.py`; MiniLM is within 3 % from 1.5 to 4 KiB). Elsewhere the model's own limits hold.
CPU_LENGTH = {True: 2048, False: 512}


@dataclass(frozen=True, slots=True)
class Facts:
    """One version of a model. `weights` is the digest of all that its results depend on.

    `rows`: the most in one of its batches. `pads`: its batches are filled up to their longest row. `device`: what it
    runs on, "cpu" or "cuda".
    """

    name: str
    version: str
    weights: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rows: int
    pads: bool
    device: str

    @property
    def label(self) -> str:
        return f"{self.name}:{self.version}"


def facts_of(spec: ModelSpec, weights: str, device: str) -> Facts:
    """Of a model that this process loads. Raises ConfigError where it declares too little."""
    facts = Facts(
        spec.name, spec.version, weights, spec.inputs, spec.outputs, spec.batch.rows, bool(spec.batch.pad), device
    )
    check_declared(facts)
    return facts


def check_declared(facts: Facts) -> None:
    """Raises ConfigError for a model without declared inputs and outputs: what a column becomes would be a guess."""
    for kind, tensors in (("inputs", facts.inputs), ("outputs", facts.outputs)):
        if not tensors:
            raise ConfigError(
                f"model '{facts.label}' declares no {kind}; scoring needs their names, dtypes and shapes: "
                f"add [[{kind}]] to its model.toml"
            )


@dataclass(frozen=True, slots=True)
class Cut:
    """How a shard's rows are cut: chunks of at most `rows`, and of at most `length` when filled up (None: any)."""

    rows: int
    length: int | None


def default_cut(facts: Facts) -> Cut:
    """By the model's own limits, and on a CPU, where it pads, by what stays in the cache."""
    if not facts.pads:
        return Cut(facts.rows, None)
    text = any(one.dtype == "BYTES" for one in facts.inputs)
    return Cut(facts.rows, CPU_LENGTH[text] if facts.device == "cpu" else None)
