"""What a worker publishes of a model for clients: enough to route, to check inputs and to name cached results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgpack

from inference_worker.registry import Registry
from inference_worker.spec import TensorSpec


def metadata(registry: Registry) -> dict[str, bytes]:
    """`name:version` -> msgpack map, as it stands in the pool's `models` hash (docs/protocol.md)."""
    published = {}
    for loaded in registry.list():
        spec = loaded.spec
        message: dict[str, Any] = {
            "name": spec.name,
            "version": spec.version,
            "pool": spec.pool,
            "backend": spec.backend,
            "default": registry.get(spec.name).spec.version == spec.version,
            "aliases": spec.aliases,
            "inputs": _declared(spec.inputs),
            "outputs": _declared(spec.outputs),
            "cache_ttl_s": spec.cache_ttl_s,
            "weights": loaded.backend.weights,
            "rows": spec.batch.rows,
        }
        published[f"{spec.name}:{spec.version}"] = cast(bytes, msgpack.packb(message))
    return published


def _declared(tensors: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": one.name, "dtype": one.dtype, "shape": one.shape} for one in tensors]
