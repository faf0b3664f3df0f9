"""The id of a cacheable request: a digest of everything that its result depends on.

Known caches leave out the shape, the model, the tenant or the weights and answer with another
request's result; here each part is framed by its length, so no two different requests meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgpack

from common.tensor import Tensor

#: Ids that start so are digests; a client's own ids do not.
PREFIX = "b2:"


def request_digest(
    tenant: str | None,
    model: str,
    version: str,
    weights: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Tensor],
    outputs: tuple[str, ...] | None,
) -> str:
    """`b2:` and 40 hexadecimal digits (160 bits) of BLAKE2b over all of the arguments.

    `version` is the version that answers, `weights` that model's digest: a reload changes every id.
    The order of inputs and parameters does not matter.
    """
    digest = blake2b(digest_size=20)
    head = (
        tenant,
        model,
        version,
        weights,
        _ordered(parameters),
        outputs,
        [(name, inputs[name].dtype, inputs[name].shape) for name in sorted(inputs)],
    )
    digest.update(msgpack.packb(head))
    for name in sorted(inputs):
        data = inputs[name].data
        # msgpack frames each string by its type and length: ["ab", "c"] differs from ["a", "bc"].
        digest.update(msgpack.packb(data) if isinstance(data, list) else data)
    return PREFIX + digest.hexdigest()


def is_digest(request_id: str) -> bool:
    return request_id.startswith(PREFIX)


def _ordered(value: object) -> object:
    """A canonical form: the names of maps in order at every level."""
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(one) for one in value]
    return value
