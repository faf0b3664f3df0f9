"""The registry: names, versions, aliases."""

from __future__ import annotations

import threading

import pytest

from common.errors import ConfigError, ModelNotFound
from inference_worker.models.registry import Registry, Title
from inference_worker.models.spec import ModelSpec


def registry_of(*models: str, **aliases: str) -> Registry:
    """A registry of `name:version` models; `prod="2"` makes prod an alias of version 2."""
    registry = Registry()
    for model in models:
        name, _, version = model.partition(":")
        labels = tuple(alias for alias, labelled in aliases.items() if labelled == version)
        add(registry, ModelSpec(name, version, "python", aliases=labels))
    return registry


def add(registry: Registry, spec: ModelSpec) -> None:
    registry.replace(spec.name, [*registry.versions(spec.name), Title(spec, "")])


def found(registry: Registry, name: str, version: str | None = None) -> str:
    spec = registry.get(name, version).spec
    return f"{spec.name}:{spec.version}"


def test_the_newest_version_is_the_default() -> None:
    registry = registry_of("m:9", "m:10", "m:1.5", "m:beta")
    assert found(registry, "m") == "m:10"
    assert found(registry, "m", "beta") == "m:beta"


def test_an_alias_is_a_label_of_one_version() -> None:
    registry = registry_of("m:3", "m:2", prod="2", stable="2", canary="3")
    assert found(registry, "m") == "m:3"
    assert [found(registry, "m", alias) for alias in ("prod", "stable", "canary")] == ["m:2", "m:2", "m:3"]


def test_an_alias_is_no_name_of_a_model() -> None:
    with pytest.raises(ModelNotFound, match="no model 'prod' is served here; there is m"):
        registry_of("m:1", prod="1").get("prod")


def test_two_models_may_have_the_same_alias() -> None:
    registry = registry_of("a:1", "b:1", prod="1")
    assert (found(registry, "a", "prod"), found(registry, "b", "prod")) == ("a:1", "b:1")


def test_an_unknown_version_is_told_with_those_that_are_there_and_their_aliases() -> None:
    with pytest.raises(ModelNotFound, match=r"model 'm' has no version 'prd' here; there is 9, 10 \(prod, stable\)"):
        registry_of("m:10", "m:9", prod="10", stable="10").get("m", "prd")


def test_all_models_are_listed_once_by_name_and_version() -> None:
    registry = registry_of("b:10", "b:9", "a:1", first="1", best="1")
    assert [f"{one.spec.name}:{one.spec.version}" for one in registry.list()] == ["a:1", "b:9", "b:10"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (ModelSpec("m", "1", "python"), "model 'm:1' is declared twice; give one another version"),
        (
            ModelSpec("m", "2", "python", aliases=("canary", "prod")),
            "versions '1' and '2' of model 'm' both have the alias 'prod'; it must lead to one of them",
        ),
        (
            ModelSpec("m", "prod", "python"),
            "version '1' of model 'm' has the alias 'prod', which is another version of it; give it another alias",
        ),
        (
            ModelSpec("m", "2", "python", aliases=("1",)),
            "version '2' of model 'm' has the alias '1', which is another version of it; give it another alias",
        ),
    ],
)
def test_a_label_leads_to_one_version_only(spec: ModelSpec, told: str) -> None:
    registry = registry_of("m:1", prod="1")
    with pytest.raises(ConfigError) as caught:
        add(registry, spec)
    assert str(caught.value) == told
    assert len(registry.list()) == 1, "nothing of it is registered"


def test_an_unknown_model_is_told_with_at_most_ten_that_are_there() -> None:
    registry = registry_of(*(f"m{number:02}:1" for number in range(12)))
    with pytest.raises(ModelNotFound) as caught:
        registry.get("x")
    assert str(caught.value) == (
        "no model 'x' is served here; there is m00, m01, m02, m03, m04, m05, m06, m07, m08, m09 and 2 more"
    )


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(ModelNotFound, match="no model 'x' is served here; there is none"):
        Registry().get("x")


def test_what_replaces_a_model_replaces_all_of_its_versions_at_once() -> None:
    registry = registry_of("m:1", "m:2", "other:1", prod="1")

    registry.replace("m", [Title(ModelSpec("m", "3", "python", aliases=("prod",)), "")])

    assert found(registry, "m", "prod") == "m:3"
    assert [title.key for title in registry.list()] == [("m", "3"), ("other", "1")]


def test_without_versions_a_model_is_gone() -> None:
    registry = registry_of("m:1", "other:1")

    registry.replace("m", [])

    assert registry.versions("m") == ()
    with pytest.raises(ModelNotFound, match="no model 'm' is served here; there is other"):
        registry.get("m")


def test_threads_may_replace_while_others_look() -> None:
    # Given one thread that looks all the time
    registry = registry_of("m:0")
    stop = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            seen.append(int(registry.get("m").spec.version))
            registry.list()

    looking = threading.Thread(target=look)
    looking.start()
    # When another one adds versions
    for version in range(1, 200):
        add(registry, ModelSpec("m", str(version), "python"))
    stop.set()
    looking.join()
    # Then the default never went back, and nothing is lost
    assert seen == sorted(seen)
    assert len(registry.list()) == 200
