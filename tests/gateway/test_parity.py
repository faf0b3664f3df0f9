"""Both clients have the same verbs with the same signatures, and one import gives them quickly."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any, get_overloads

import pytest

import gateway
from gateway import AsyncClient, AsyncHandle, Client, Handle

#: What differs by nature: what is awaited, and what can be iterated over.
AWAITED = {
    "Handle": "AsyncHandle",
    "Iterator[Result | InferenceError]": "AsyncIterator[Result | InferenceError]",
    "Iterable[object]": "Iterable[object] | AsyncIterable[object]",
}


#: A thread that waits holds a lock; a task needs none.
ONLY_FOR_THREADS = {"block"}


def verbs(kind: type[Any]) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def signature(function: Any) -> list[tuple[str, str, object]]:
    """Name, annotation and default of each parameter, and the annotation of what is returned."""
    found = inspect.signature(function)
    parameters = [(one.name, str(one.annotation), one.default) for one in found.parameters.values()]
    return [*parameters, ("return", str(found.return_annotation), None)]


def as_awaited(signature: list[tuple[str, str, object]]) -> list[tuple[str, str, object]]:
    return [(name, AWAITED.get(annotation, annotation), default) for name, annotation, default in signature]


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Handle, AsyncHandle)])
def test_both_kinds_have_the_same_verbs(one: type[Any], other: type[Any]) -> None:
    assert verbs(one) - ONLY_FOR_THREADS == verbs(other)


@pytest.mark.parametrize("verb", ["__init__", "infer", "submit", "map", "close"])
def test_both_clients_take_the_same_arguments(verb: str) -> None:
    assert as_awaited(signature(getattr(Client, verb))) == signature(getattr(AsyncClient, verb))


@pytest.mark.parametrize("verb", ["result", "done", "cancel"])
def test_both_handles_take_the_same_arguments(verb: str) -> None:
    assert as_awaited(signature(getattr(Handle, verb))) == signature(getattr(AsyncHandle, verb))


@pytest.mark.parametrize(("client", "gives"), [(Client, "Iterator"), (AsyncClient, "AsyncIterator")])
def test_map_gives_errors_only_where_it_was_asked_to(client: type[Any], gives: str) -> None:
    """For a type checker: whoever lets errors be raised need not look for them among the results."""
    whole = signature(client.map)
    said = {}
    for one in get_overloads(client.map):
        *arguments, (_, returned, _) = signature(one)
        assert [name for name, *_ in arguments] == [name for name, *_ in whole[:-1]]
        said[inspect.signature(one).parameters["on_error"].annotation] = returned

    assert said == {
        "Literal['raise']": f"{gives}[Result]",
        "Literal['return']": f"{gives}[Result | InferenceError]",
    }


def test_map_takes_what_infer_takes() -> None:
    infer, through = inspect.signature(Client.infer).parameters, inspect.signature(Client.map).parameters

    assert infer.keys() - {"inputs"} < through.keys()
    assert all(infer[name].default == through[name].default for name in infer)


def test_the_exported_names_are_these() -> None:
    assert sorted(gateway.__all__) == [
        "AsyncClient", "AsyncHandle", "BrokerUnavailable", "Cancelled", "Client", "ConfigError", "DeadlineExceeded",
        "Handle", "InferenceError", "InternalError", "InvalidRequest", "ModelError", "ModelNotFound",
        "ModelUnavailable", "Overloaded", "PayloadTooLarge", "Result", "Routes", "Timings", "WorkerLost",
        "load_ensembles", "load_routes",
    ]  # fmt: skip
    assert all(hasattr(gateway, name) for name in gateway.__all__)


def test_importing_the_client_loads_neither_redis_nor_asyncio_nor_a_model_library() -> None:
    script = "import sys, gateway; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    heavy = {"redis", "asyncio", "torch", "onnxruntime", "transformers", "inference_worker", "click", "rich"}
    assert heavy & set(loaded.stdout.split()) == set()
