"""What a worker publishes of a model for clients: enough to route, to check inputs and to name cached results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgpack

from common.versions import label_of
from inference_worker.models.registry import Registry
from inference_worker.models.spec import TensorSpec


def metadata(registry: Registry) -> dict[str, bytes]:
    """`name:version` -> msgpack map, as it stands in the pool's `models` hash (docs/protocol.md).

    Of all that is offered: what is not in memory now is loaded when it is asked for.
    """
    published = {}
    for title in registry.list():
        spec = title.spec
        message: dict[str, Any] = {
            "name": spec.name,
            "version": spec.version,
            "pool": spec.pool,
            "backend": spec.backend,
            "default": registry.get(spec.name).key == title.key,
            "aliases": spec.aliases,
            "inputs": _declared(spec.inputs),
            "outputs": _declared(spec.outputs),
            "cache_ttl_s": spec.cache_ttl_s,
            "weights": title.weights,
            "rows": spec.batch.rows,
            "pads": bool(spec.batch.pad),
        }
        published[label_of(*title.key)] = cast(bytes, msgpack.packb(message))
    return published


def _declared(tensors: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": one.name, "dtype": one.dtype, "shape": one.shape} for one in tensors]
