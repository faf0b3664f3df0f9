"""How a door describes an ensemble: as a model whose inputs and outputs are those of its steps' models. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.catalog import Catalog, Declared, ModelInfo
from gateway.ensembles.ensemble import Ensemble, Source

#: An ensemble has one. Its results name those of its steps.
VERSION = "1"

#: By step: what answers it, the first of a split; None where nobody serves it.
Answering = Mapping[str, ModelInfo | None]


def pools_of(ensembles: Iterable[Ensemble]) -> set[str]:
    """Those that steps name, beside the ones that the rules lead to."""
    return {step.pool for one in ensembles for step in one.steps if step.pool is not None}


def answering(ensemble: Ensemble, catalogs: Mapping[str, Catalog | None]) -> Answering:
    """`catalogs`: of each step's pool."""
    found: dict[str, ModelInfo | None] = {}
    for step in ensemble.steps:
        catalog = catalogs[step.name]
        models = [] if catalog is None else catalog.answering(step.model, step.version)
        found[step.name] = models[0] if models else None
    return found


def describe(ensemble: Ensemble, models: Answering) -> ModelInfo:
    """What a model does not declare is left out. As many rows fit as into the step with the fewest."""
    there = [one for one in models.values() if one is not None]
    return ModelInfo(
        ensemble.name, VERSION, True, (), tuple(_inputs(ensemble, models)), tuple(_outputs(ensemble, models)),
        0.0, "", min((one.rows for one in there), default=1),
    )  # fmt: skip


def _inputs(ensemble: Ensemble, models: Answering) -> Iterable[Declared]:
    """As the first step that takes one declares it."""
    for name in ensemble.inputs:
        for step in ensemble.steps:
            taken = next((into for into, source in step.inputs.items() if source == Source(None, name)), None)
            info = models[step.name]
            if taken is not None and info is not None:
                yield from _named(name, taken, info.inputs)
                break


def _outputs(ensemble: Ensemble, models: Answering) -> Iterable[Declared]:
    for name, source in ensemble.outputs.items():
        info = models.get(source.step or "")
        if info is not None:
            yield from _named(name, source.name, info.outputs)


def _named(name: str, declared_as: str, declared: Iterable[Declared]) -> Iterable[Declared]:
    return (Declared(name, one.dtype, one.shape) for one in declared if one.name == declared_as)
