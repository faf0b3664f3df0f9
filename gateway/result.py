"""What a model answered: arrays by name, and where the time went."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from common.digest import PREFIX, is_digest
from common.errors import InferenceError, InternalError
from common.protocol import Timings, error_of, timings_of
from common.tensor import Array, Tensor, from_wire
from common.wire import unpack_map

log = logging.getLogger(__name__)


class Result:
    """`result["name"]` is a read-only numpy array; strings come as an object array.

    `cached`: the result was there when the request was submitted, computed for an earlier one.
    Outputs are decoded when they are looked at; InternalError where they cannot be.
    """

    __slots__ = ("_arrays", "_message", "cached")

    def __init__(self, message: Mapping[str, Any]) -> None:
        """`message` is a reply's map as it came."""
        self._message = message
        self._arrays: dict[str, Array] | None = None
        self.cached = False

    @property
    def outputs(self) -> Mapping[str, Array]:
        """All outputs by name, views of the bytes that came."""
        if self._arrays is None:
            self._arrays = _decoded(self._message)
        return self._arrays

    def tensor(self, name: str) -> Tensor:
        """An output as it came, for whoever sends it on. Raises KeyError, InternalError."""
        if name not in self._message["outputs"]:
            raise KeyError(_no_output(name, self._message["outputs"]))
        try:
            return from_wire(f"outputs.{name}", self._message["outputs"][name])
        except InferenceError as wrong:
            raise _unreadable(wrong) from wrong

    def names(self) -> tuple[str, ...]:
        """The outputs' names, in the model's order. Decodes nothing."""
        return tuple(self._message["outputs"])

    @property
    def model(self) -> str:
        return str(self._message.get("model", ""))

    @property
    def version(self) -> str:
        """The version that answered."""
        return str(self._message.get("version", ""))

    @property
    def digest(self) -> str | None:
        """Names a result that is kept by all that it depends on; None where its model, or its caller, keeps none."""
        id = str(self._message.get("id", ""))
        return id.removeprefix(PREFIX) if is_digest(id) else None

    @property
    def timings(self) -> Timings:
        """Of the computation: for a cached result, of the earlier one."""
        return timings_of(self._message.get("timings", {}))

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(_no_output(name, self.outputs)) from None

    def __iter__(self) -> Iterator[str]:
        """The outputs' names, as of a map: without it `in` and `for` would ask for the outputs 0, 1, ..."""
        return iter(self.names())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.outputs.items())
        return f"Result({self.model}:{self.version}, {shapes}{', cached' if self.cached else ''})"


Answer = Result | InferenceError


def read_reply(data: bytes) -> tuple[str, Answer]:
    """The id and the answer in a reply. One that cannot be read is an error for whoever waits for its id."""
    request_id = ""
    try:
        message = unpack_map("the reply", data)
        if type(message["id"]) is not str:
            raise TypeError("id must be a string")
        request_id = message["id"]
        error = message.get("error")
        if error is not None:
            return request_id, error_of(error)
        if type(message["model"]) is not str or type(message["version"]) is not str:
            raise TypeError("model and version must be strings")
        if type(message["outputs"]) is not dict or type(message.get("timings", {})) is not dict:
            raise TypeError("outputs and timings must be maps")
        return request_id, Result(message)
    except (InferenceError, KeyError, TypeError, AttributeError) as wrong:
        log.warning("a reply of %d bytes cannot be read: %r", len(data), wrong)
        return request_id, _unreadable(wrong)


def _decoded(message: Mapping[str, Any]) -> dict[str, Array]:
    try:
        return {name: from_wire(f"outputs.{name}", one).numpy() for name, one in message["outputs"].items()}
    except (InferenceError, KeyError, TypeError, AttributeError) as wrong:
        raise _unreadable(wrong) from wrong


def _no_output(name: str, there: Iterable[str]) -> str:
    return f"no output '{name}'; the model answered {', '.join(sorted(there))}"


def _unreadable(wrong: Exception) -> InternalError:
    return InternalError(f"the reply cannot be read ({wrong}); are client and worker of one release?")
