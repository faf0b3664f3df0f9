"""Items and parts as the worker's stages see them, without Redis: for tests of what decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from common.protocol import Request
from common.scripts import Entry
from common.tensor import Array, to_tensor
from inference_worker.backends.base import Backend, Context, ModelRequest
from inference_worker.item import Item, Part
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import BatchLimits, ModelSpec, TensorSpec
from inference_worker.prepare import check_inputs, parts_of, preprocess

Infer = Callable[[Mapping[str, Array]], Mapping[str, Any]]


class FunctionBackend(Backend):
    """A backend that runs a function of the test's own."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self.weights = "w"

    def load(self, context: Context) -> None:
        """There is nothing to load."""

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        return self._infer(batch)

    def close(self) -> None:
        """There is nothing to give back."""


def model(
    infer: Infer = lambda batch: {"output": batch["x"]},
    shape: tuple[int, ...] = (-1,),
    cache_ttl_s: float = 0.0,
    check_finite: bool = False,
    **limits: Any,
) -> Loaded:
    """A loaded model with one FP32 input `x`; `limits` are those of BatchLimits."""
    spec = ModelSpec(
        "m",
        "1",
        "python",
        inputs=(TensorSpec("x", "FP32", shape),),
        batch=BatchLimits(**limits),
        cache_ttl_s=cache_ttl_s,
        check_finite=check_finite,
    )
    return Loaded(spec, FunctionBackend(infer))


def item(
    loaded: Loaded,
    x: Any,
    taken_s: float = 0.0,
    stream: int = 1,
    deliveries: int = 0,
    deadline_ms: int | None = None,
    timeout_ms: int | None = None,
    number: int = 0,
    tenant: str | None = None,
) -> Item:
    """A request for `loaded` with the input `x`."""
    tensor = to_tensor(np.asarray(x, dtype=np.float32))
    checked = check_inputs(loaded.spec, {"x": tensor.numpy()})
    entry = Entry(stream, f"{number}-0".encode(), b"", None, b"", deliveries)
    if deadline_ms is not None and timeout_ms is None:
        timeout_ms = 1
    request = Request(f"id{number}", loaded.spec.name, {"x": tensor}, timeout_ms=timeout_ms, tenant=tenant)
    model_request = ModelRequest(checked.arrays, checked.rows, {})
    return Item(entry, request, loaded, model_request, checked.single, 1000, deadline_ms, taken_s, 0)


def parts(loaded: Loaded, x: Any, **more: Any) -> list[Part]:
    one = item(loaded, x, **more)
    return parts_of(one, preprocess(loaded, one.model_request))


def part(loaded: Loaded, length: int = 1, **more: Any) -> Part:
    """The one part of a request whose input is `length` zeros."""
    return parts(loaded, np.zeros(length), **more)[0]
