"""What a model's author writes in Python: a function under `@model`, or a subclass of Model.

    from inference_worker import model

    @model
    def shout(text):
        return [one.upper() for one in text]

Or a folder with a model.toml, which may name either of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, TypeVar, Unpack, overload

from inference_worker.backends.base import Context, ModelRequest

if TYPE_CHECKING:
    from common.tensor import Array

F = TypeVar("F", bound=Callable[..., Any])

#: The attribute in which a decorated function carries what was declared about it.
DECLARATION = "__inference_model__"


class Declaration(TypedDict, total=False):
    """What may be declared about a model in Python; the same keys as in model.toml, those of [batch] beside the others.

    `name` is the function's or class's own by default, `version` "1". Inputs and outputs map names to
    forms of one item: "FP32[-1, 3]", "BYTES[]". `cache_ttl` is in seconds. `aliases` are labels of the
    version, such as "prod", by which it can be asked for too. A worker in which one batch takes longer
    than `timeout` seconds is killed and started again. `stages` gives a stage threads of its own:
    {"preprocess": {"workers": 2}}.
    """

    name: str
    version: str
    pool: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    rows: int
    padded: int
    bytes: str
    target_ms: float
    linger_ms: float
    pad: Mapping[str, float]
    cache_ttl: float
    aliases: Sequence[str]
    deterministic: bool
    check_finite: bool
    timeout: float
    stages: Mapping[str, Mapping[str, Any]]
    sample: Mapping[str, Any]


@overload
def model(function: F, /) -> F: ...


@overload
def model(**declared: Unpack[Declaration]) -> Callable[[F], F]: ...


def model(function: F | None = None, /, **declared: Unpack[Declaration]) -> F | Callable[[F], F]:
    """Declare a function as a model, bare or with keywords of Declaration; the function stays as it is.

    Its parameters are the model's inputs: each gets an array with rows first. It returns an array or a
    list with one element per row, or a map of them by output name.
    """

    def declare(one: F) -> F:
        setattr(one, DECLARATION, {"name": one.__name__, **declared})
        return one

    return declare if function is None else declare(function)


class Model(ABC):
    """A model with something to load or stages of its own. One instance serves one worker process.

    Class attributes declare what `Declaration` lists; in a folder with a model.toml that file alone does.
    `infer` runs in one thread; `preprocess` in another one, at the same time; `postprocess` in a third. Where `stages`
    gives a stage workers, it runs in so many threads at once.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    pool: ClassVar[str]
    inputs: ClassVar[Mapping[str, str]]
    outputs: ClassVar[Mapping[str, str]]
    rows: ClassVar[int]
    padded: ClassVar[int]
    bytes: ClassVar[str]
    target_ms: ClassVar[float]
    linger_ms: ClassVar[float]
    pad: ClassVar[Mapping[str, float]]
    cache_ttl: ClassVar[float]
    aliases: ClassVar[Sequence[str]]
    deterministic: ClassVar[bool]
    check_finite: ClassVar[bool]
    timeout: ClassVar[float]
    stages: ClassVar[Mapping[str, Mapping[str, Any]]]
    sample: ClassVar[Mapping[str, Any]]

    def load(self, context: Context) -> None:  # noqa: B027 (few models need it)
        """Get ready: read weights, warm caches. Called once, before all else."""

    @abstractmethod
    def infer(self, batch: Mapping[str, Array]) -> Any:
        """Outputs for inputs with rows first: an array or a list with one element per row, or a map of them by name."""

    def preprocess(self, request: ModelRequest) -> Mapping[str, Array | list[Array]]:
        """What of one request goes into a batch: arrays with rows first, or lists of one array per row."""
        return request.inputs

    def postprocess(self, outputs: Mapping[str, Array], request: ModelRequest) -> Mapping[str, Array]:
        """What one request gets, from its rows of the outputs."""
        return outputs

    def close(self) -> None:  # noqa: B027
        """Give back what `load` took."""


def declaration_of(value: object) -> dict[str, Any] | None:
    """What a function or a subclass of Model declares, with its name; None for anything else."""
    if isinstance(value, type) and issubclass(value, Model) and value is not Model:
        attributes = {key: getattr(value, key) for key in Declaration.__annotations__ if hasattr(value, key)}
        return {"name": value.__name__, **attributes}
    declared = getattr(value, DECLARATION, None)
    return dict(declared) if isinstance(declared, dict) else None
