"""Ensembles: models chained into one, as values, and what may be wrong with them. Pure.

A step's input is an input of the request or an output of another step; so the steps are a graph without
cycles, and those that do not need each other run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from common.errors import ConfigError, InferenceError, ModelNotFound
from gateway.catalog import Catalog, Declared, ModelInfo

#: Where a request's own inputs are named: `request.x`. No step may have this name.
REQUEST = "request"
MAX_STEPS = 64
#: A BF16 tensor is taken where FP32 is declared, and the other way round.
_SAME_DTYPE = {"BF16": "FP32"}


class Source(NamedTuple):
    """Where a value comes from: an output of `step`, or, where that is None, an input of the request."""

    step: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.step or REQUEST}.{self.name}"


@dataclass(frozen=True, slots=True)
class Step:
    """One request to one model. What is None is as in the request to the ensemble; `pool` None: by the routes."""

    name: str
    model: str
    inputs: Mapping[str, Source]
    version: str | None = None
    pool: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    priority: str | None = None

    def needs(self) -> set[str]:
        """The steps whose outputs it takes."""
        return {source.step for source in self.inputs.values() if source.step is not None}


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Steps, and where the outputs come from. Raises ConfigError where `flaw` finds one."""

    name: str
    steps: tuple[Step, ...]
    outputs: Mapping[str, Source]

    def __post_init__(self) -> None:
        found = flaw(self.steps, self.outputs)
        if found is not None:
            raise ConfigError(f"ensemble '{self.name}': {found.problem}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a request must hold, in the order in which the steps name it."""
        sources = [source for step in self.steps for source in step.inputs.values()]
        return tuple(dict.fromkeys(source.name for source in sources if source.step is None))

    def needed(self, outputs: Iterable[str]) -> dict[str, Step]:
        """The steps that these outputs are made of, by name."""
        by_name = {step.name: step for step in self.steps}
        found: dict[str, Step] = {}
        left = [self.outputs[name].step for name in outputs]
        while left:
            name = left.pop()
            if name is not None and name not in found:
                found[name] = by_name[name]
                left += by_name[name].needs()
        return found

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.inputs)}) -> {', '.join(self.outputs)}"


Ensembles = Mapping[str, Ensemble]


class Flaw(NamedTuple):
    """Something wrong with a graph: the keys that lead to it in its table, and the problem."""

    place: tuple[str, ...]
    problem: str


def flaw(steps: Sequence[Step], outputs: Mapping[str, Source]) -> Flaw | None:
    """The first thing that is wrong with such an ensemble, whatever models there are."""
    return next(_flaws(steps, outputs), None)


def _flaws(steps: Sequence[Step], outputs: Mapping[str, Source]) -> Iterator[Flaw]:
    names = [step.name for step in steps]
    if not 1 <= len(steps) <= MAX_STEPS:
        yield Flaw(("steps",), f"it must have 1 to {MAX_STEPS} steps; got {len(steps)}")
    if not outputs:
        yield Flaw(("outputs",), "it has no outputs")
    for step in steps:
        if step.name == REQUEST or names.count(step.name) > 1:
            yield Flaw(("steps", step.name), f"'{step.name}' is the name of the request, or of another step")
        if not step.inputs:
            yield Flaw(("steps", step.name), f"step '{step.name}' has no inputs")
    yield from _unknown(steps, outputs, set(names))
    yield from _cycle(steps)
    used = {source.step for source in outputs.values()}.union(*(step.needs() for step in steps))
    for name in names:
        if name not in used:
            yield Flaw(("steps", name), f"nothing takes an output of step '{name}'")


def _unknown(steps: Sequence[Step], outputs: Mapping[str, Source], names: set[str]) -> Iterator[Flaw]:
    there = ", ".join(sorted(names))
    for step in steps:
        for name, source in step.inputs.items():
            if source.step is not None and source.step not in names:
                place = ("steps", step.name, "inputs", name)
                yield Flaw(place, f"step '{step.name}' takes '{source}', and there is no such step; there is {there}")
    for name, source in outputs.items():
        if source.step not in names:
            yield Flaw(("outputs", name), f"output '{name}' is '{source}', and there is no such step; there is {there}")


def _cycle(steps: Sequence[Step]) -> Iterator[Flaw]:
    try:
        TopologicalSorter({step.name: step.needs() for step in steps}).prepare()
    except CycleError as error:
        # graphlib lists each step before the one that needs it.
        cycle = error.args[1]
        yield Flaw(("steps", cycle[0]), f"the steps go in a circle: {' -> '.join(cycle)}")


def mismatches(ensemble: Ensemble, catalogs: Mapping[str, Catalog]) -> Iterator[tuple[str, InferenceError]]:
    """(step, what does not fit) of what workers publish; `catalogs`: the catalog of each step's pool.

    A pool of which nothing is known is passed over, and so is what a model does not declare.
    """
    answering = {step.name: catalogs[step.name].answering(step.model, step.version) for step in ensemble.steps}
    for step in ensemble.steps:
        if not answering[step.name] and catalogs[step.name].models:
            yield step.name, ModelNotFound(_missing(step, catalogs[step.name]))
        for info in answering[step.name]:
            for problem in _wrong_inputs(step, info, answering):
                yield step.name, ConfigError(problem)
    for name, source in ensemble.outputs.items():
        for info in answering[source.step or ""]:
            if info.outputs and _of(source.name, info.outputs) is None:
                yield source.step or "", ConfigError(_lacks(info, source.name, f"output '{name}' of the ensemble"))


def _missing(step: Step, catalog: Catalog) -> str:
    asked = step.model if step.version is None else f"{step.model}:{step.version}"
    there = ", ".join(f"{info.name}:{info.version}" for info in catalog.models)
    return f"no worker of its pool serves model '{asked}'; there is {there}"


def _wrong_inputs(step: Step, info: ModelInfo, answering: Mapping[str, list[ModelInfo]]) -> Iterator[str]:
    if not info.inputs:
        return
    declared = {one.name: one for one in info.inputs}
    if declared.keys() != step.inputs.keys():
        yield (
            f"model '{info.name}:{info.version}' takes the inputs {', '.join(declared)}; "
            f"the step gives {', '.join(step.inputs)}"
        )
    for name, source in step.inputs.items():
        for giver in answering[source.step] if source.step is not None and name in declared else ():
            if giver.outputs:
                yield from _unfit(source, giver, declared[name], info)


def _unfit(source: Source, giver: ModelInfo, wanted: Declared, taker: ModelInfo) -> Iterator[str]:
    given = _of(source.name, giver.outputs)
    taken = f"input '{wanted.name}' of model '{taker.name}:{taker.version}'"
    if given is None:
        yield _lacks(giver, source.name, taken)
    elif _dtype(given) != _dtype(wanted) or not shapes_meet(given.shape, wanted.shape):
        yield (
            f"{taken} is {wanted.dtype}{list(wanted.shape)}, "
            f"and '{source}' of '{giver.name}:{giver.version}' is {given.dtype}{list(given.shape)}"
        )


def shapes_meet(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether some output of shape `given` is an input of shape `wanted`; -1 is any size.

    Both are shapes of one item, and rows may stand in front: a model's rows may be the next one's item, as when
    all embeddings of a request go to one ranking, and an item may be taken as rows. So ranks may differ by one.
    """
    if abs(len(given) - len(wanted)) > 1:
        return False
    pairs = zip(reversed(given), reversed(wanted), strict=False)
    return all(one == other or -1 in (one, other) for one, other in pairs)


def _of(name: str, declared: Iterable[Declared]) -> Declared | None:
    return next((one for one in declared if one.name == name), None)


def _dtype(declared: Declared) -> str:
    return _SAME_DTYPE.get(declared.dtype, declared.dtype)


def _lacks(giver: ModelInfo, output: str, taker: str) -> str:
    there = ", ".join(one.name for one in giver.outputs)
    return f"model '{giver.name}:{giver.version}' gives no output '{output}' for {taker}; it gives {there}"
