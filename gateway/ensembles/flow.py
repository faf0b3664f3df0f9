"""One run of an ensemble, as bookkeeping: which steps may go now, with what, and what comes out. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from common.errors import ConfigError, InferenceError, InvalidRequest
from common.names import shorten
from common.protocol import Timings
from common.tensor import Tensor, to_tensor
from gateway.call import Call
from gateway.ensembles.ensemble import Ensemble, Source, Step
from gateway.result import Result

_NO_PARAMETERS: Mapping[str, Any] = {}


class Flow:
    """From a request's inputs to the ensemble's outputs. Only the steps that the wanted outputs need are run.

    Raises InvalidRequest for a call that the ensemble does not take.
    """

    def __init__(self, ensemble: Ensemble, call: Call, inputs: object) -> None:
        self.ensemble = ensemble
        self._call = call
        self._wanted = _wanted(ensemble, call.outputs)
        self._steps = ensemble.needed(self._wanted)
        self._values = {Source(None, name): value for name, value in _named(ensemble, inputs).items()}
        self._parameters = _by_step(ensemble, call.parameters)
        if call.version is not None:
            raise InvalidRequest(f"ensemble '{ensemble.name}' has no versions; got {shorten(call.version)}")
        self._versions: dict[str, str] = {}
        self._timings: list[Timings] = []
        self._cached = True
        self._graph = TopologicalSorter({name: step.needs() for name, step in self._steps.items()})
        self._graph.prepare()

    @property
    def steps(self) -> Iterable[Step]:
        """Those that are run."""
        return self._steps.values()

    @property
    def done(self) -> bool:
        return not self._graph.is_active()

    def ready(self) -> list[Step]:
        """Steps that may go from now on; each is told once."""
        return [self._steps[name] for name in self._graph.get_ready()]

    def call(self, step: Step) -> Call:
        """What to ask of the step's model: no outputs but those that somebody takes."""
        return self._call._replace(
            model=step.model,
            version=step.version,
            parameters={**step.parameters, **self._parameters.get(step.name, _NO_PARAMETERS)},
            outputs=self._taken(step),
            priority=step.priority or self._call.priority,
        )

    def inputs(self, step: Step) -> dict[str, object]:
        """The step's inputs by name: the request's values, and outputs just as they came, not decoded."""
        return {name: self._values[source] for name, source in step.inputs.items()}

    def answered(self, step: Step, result: Result) -> None:
        """Raises ConfigError where the model gave less than the ensemble takes of it."""
        for name in self._taken(step):
            self._values[Source(step.name, name)] = _tensor(result, name)
        self._versions[step.name] = result.version
        self._timings.append(result.timings)
        self._cached = self._cached and result.cached
        self._graph.done(step.name)

    def result(self) -> Result:
        """The ensemble's answer, once it is done. `version` names each step's; its timings are sums of theirs."""
        result = Result(
            {
                "model": self.ensemble.name,
                "version": " ".join(f"{name}={version}" for name, version in sorted(self._versions.items())),
                "outputs": {
                    name: to_tensor(self._values[self.ensemble.outputs[name]]).to_wire() for name in self._wanted
                },
                "timings": _added(self._timings),
            }
        )
        result.cached = self._cached
        return result

    def _taken(self, step: Step) -> list[str]:
        """The step's outputs that others take, or that are wanted."""
        sources = [source for other in self._steps.values() for source in other.inputs.values()]
        sources += [self.ensemble.outputs[name] for name in self._wanted]
        return list(dict.fromkeys(source.name for source in sources if source.step == step.name))


def at_step(error: InferenceError, step: str, ensemble: str) -> InferenceError:
    """The same error, code and all, that says in which step it happened."""
    named = copy.copy(error)
    named.args = (f"step '{step}' of ensemble '{ensemble}': {error.message}",)
    named.__cause__ = error
    return named


def _wanted(ensemble: Ensemble, outputs: Sequence[str] | None) -> tuple[str, ...]:
    if outputs is None:
        return tuple(ensemble.outputs)
    unknown = [name for name in outputs if name not in ensemble.outputs]
    if isinstance(outputs, str) or not outputs or unknown:
        there = ", ".join(ensemble.outputs)
        raise InvalidRequest(f"outputs must be some of those of ensemble '{ensemble.name}', {there}; got {outputs!r}")
    return tuple(outputs)


def _named(ensemble: Ensemble, inputs: object) -> Mapping[str, object]:
    names = ensemble.inputs
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InvalidRequest(f"ensemble '{ensemble.name}' takes the inputs {', '.join(names)}; got a bare value")
        return {names[0]: inputs}
    if inputs.keys() != set(names):
        got = ", ".join(sorted(map(str, inputs))) or "none"
        raise InvalidRequest(f"ensemble '{ensemble.name}' takes the inputs {', '.join(names)}; got {got}")
    return inputs


def _by_step(ensemble: Ensemble, parameters: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, Any]]:
    names = [step.name for step in ensemble.steps]
    for step, own in (parameters or {}).items():
        if step not in names or not isinstance(own, Mapping):
            raise InvalidRequest(
                f"parameters of ensemble '{ensemble.name}' must be a map for each step that gets some, of "
                f"{', '.join(names)}; got {shorten(step)}: {shorten(own)}"
            )
    return parameters or {}


def _tensor(result: Result, name: str) -> Tensor:
    try:
        return result.tensor(name)
    except KeyError as error:
        raise ConfigError(str(error.args[0])) from None


def _added(timings: Sequence[Timings]) -> dict[str, int]:
    return {
        "queue_us": sum(one.queue_us for one in timings),
        "wait_us": sum(one.wait_us for one in timings),
        "compute_us": sum(one.compute_us for one in timings),
        "batch_rows": max(one.batch_rows for one in timings),
    }
