"""Python files that break while their models, and those of other files, are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.orders import Order
from inference_worker.models.carrier import Carrier
from inference_worker.models.library import Library
from inference_worker.models.loading import Opener, find_models
from inference_worker.models.registry import Title
from inference_worker.models.rollout import Rollout
from inference_worker.models.scope import Scope
from inference_worker.models.spec import ModelSpec

MODEL = """
from inference_worker import model

@model(name="{name}", version="{version}")
def run(x):
    return x
"""


class Repository:
    """Two files of one model each, and a worker that offers both."""

    def __init__(self, folder: Path, second: str = "m:2") -> None:
        self.files = [folder / "first.py", folder / "second.py"]
        for file, label in zip(self.files, ("m:1", second), strict=True):
            name, _, version = label.partition(":")
            file.write_text(MODEL.format(name=name, version=version))
        self.library = Library()
        specs = self.find(lambda name, version, aliases: True)
        for name in {spec.name for spec in specs}:
            self.library.offer(name, [Title(spec, "w") for spec in specs if spec.name == name])
        self._rollout = Rollout(self.library, Carrier(self.library, Opener("cpu", 1)), self.find)

    def find(self, scope: Scope) -> list[ModelSpec]:
        return find_models([str(file) for file in self.files], None, scope)

    def obey(self, do: str, model: str, version: str | None = None) -> list[str]:
        done = self._rollout.obey(Order("id", do, model, version=version))
        return [f"{name}:{version}" for name, version in done.keys]

    @property
    def offered(self) -> list[str]:
        return [f"{title.spec.name}:{title.spec.version}" for title in self.library.registry.list()]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path, second="other:1")


def test_an_order_about_a_model_is_obeyed_whatever_is_wrong_with_another_file(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    repository.files[1].write_text("this is no Python")

    assert repository.obey("reload", "m") == ["m:1"]

    assert "second.py:1 cannot be imported: SyntaxError" in caplog.text
    assert repository.offered == ["m:1", "other:1"]


def test_an_order_about_a_model_that_is_in_no_whole_file_names_the_broken_one(repository: Repository) -> None:
    repository.files[1].write_text("raise OSError('no disk')")

    for version in ("1", None):
        with pytest.raises(ConfigError, match=r"second\.py:1 cannot be imported: OSError: no disk"):
            repository.obey("reload", "other", version)

    assert repository.offered == ["m:1", "other:1"]


def test_a_reload_takes_no_version_away_whose_file_is_broken(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.files[1].write_text("this is no Python")

    with pytest.raises(ConfigError, match=r"second\.py:1 cannot be imported"):
        repository.obey("reload", "m")

    assert repository.offered == ["m:1", "m:2"]


def test_a_version_whose_file_declares_another_one_now_is_taken_away(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.files[1].write_text(MODEL.format(name="m", version="3"))

    assert sorted(repository.obey("reload", "m")) == ["m:1", "m:2", "m:3"]

    assert repository.offered == ["m:1", "m:3"]


def test_at_a_first_start_every_file_must_be_whole(repository: Repository) -> None:
    repository.files[1].write_text("this is no Python")
    with pytest.raises(ConfigError, match=r"second\.py"):
        find_models([str(file) for file in repository.files], None)
