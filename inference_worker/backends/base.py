"""The one interface of every backend, and the values that cross it. Knows no library that runs models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from common.errors import ConfigError, InferenceError, ModelError
from common.records import record
from common.text import describe
from inference_worker.models.spec import ModelSpec
from inference_worker.models.weights import resolve

if TYPE_CHECKING:
    from common.tensor import Array
    from inference_worker.pipeline.stages import Stage


@dataclass(frozen=True, slots=True)
class Context:
    """What a model may know when it loads: its declaration, its device ("cpu", "cuda:0"), its CPU threads."""

    spec: ModelSpec
    device: str
    threads: int

    def path(self, reference: str) -> Path:
        """A file of the model's folder, or one of an installed package (`package://name/path`). Raises ConfigError."""
        return resolve(reference, self.spec.folder)


@record(eq=False)
class ModelRequest:
    """What pre- and postprocess see of one request: its inputs with `rows` first, and its parameters."""

    inputs: Mapping[str, Array]
    rows: int
    parameters: Mapping[str, Any]


class Landed(NamedTuple):
    """A batch's outputs, and the seconds that its device spent on it; None where that is what passed meanwhile."""

    outputs: Mapping[str, Array]
    seconds: float | None = None


#: Waits for a batch that was begun. Called once, in any thread; raises what went wrong with that batch.
Finish = Callable[[], Landed]


class Backend(ABC):
    """One loaded model. `load` comes first, `close` last; `infer` runs in one thread at a time.

    Each may raise what it likes: `open_model` wraps a backend so that it becomes one line for a person.
    """

    #: Hexadecimal digest of weights and code, a part of every cache key. `open_model` sets it.
    weights: str = ""
    #: "preprocess" and "postprocess", where they have threads of their own: their calls may then come at once.
    stages: Mapping[str, Stage] = MappingProxyType({})
    #: So many batches may be begun before the first of them is finished; above 1 only where `begin` does not wait.
    depth: int = 1

    @abstractmethod
    def load(self, context: Context) -> None:
        """Read weights, move them to the device."""

    @abstractmethod
    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name for inputs by name; every array has the rows first, as many as came in."""

    def begin(self, batch: Mapping[str, Array]) -> Finish:
        """`infer` for a device that works beside its process: what gives the outputs when they are there."""
        landed = Landed(self.infer(batch))
        return lambda: landed

    def preprocess(self, request: ModelRequest) -> Mapping[str, Array | list[Array]]:
        """What of one request goes into a batch: arrays with rows first, or lists of one array per row."""
        return request.inputs

    def postprocess(self, outputs: Mapping[str, Array], request: ModelRequest) -> Mapping[str, Array]:
        """What one request gets, from its rows of the outputs."""
        return outputs

    def has_stage(self, name: str) -> bool:
        """Whether "preprocess" or "postprocess" does anything but pass on what comes. Once it is loaded."""
        return getattr(type(self), name) is not getattr(Backend, name)

    @abstractmethod
    def close(self) -> None:
        """Give back memory and device. May be called twice."""


def name_outputs(spec: ModelSpec, result: Any) -> Mapping[str, Any]:
    """What a model returned, by output name: a map as it is, one value, or a tuple in the declared order.

    Without declared outputs a single value is called `output`. Raises ModelError where the numbers differ.
    """
    if isinstance(result, Mapping):
        return result
    names = [one.name for one in spec.outputs] or ["output"]
    values = result if isinstance(result, tuple) else (result,)
    if len(values) == len(names):
        return dict(zip(names, values, strict=True))
    if "code" in spec.processing:
        # The declared outputs are those of a postprocess stage, which makes other ones of these.
        return {f"output_{index}" if len(values) > 1 else "output": value for index, value in enumerate(values)}
    raise ModelError(
        f"model '{spec.name}:{spec.version}' returned {len(values)} outputs where {len(names)} are declared "
        f"({', '.join(names)}); declare each, or return a map"
    )


@contextmanager
def readable(reference: str) -> Iterator[None]:
    """Whatever is wrong with the contents of a model's file, as a ConfigError."""
    try:
        yield
    except InferenceError:
        raise
    except Exception as error:
        raise ConfigError(f"'{reference}' cannot be read: {describe(error)}") from error
