"""What a worker process makes of its repository at its start."""

from __future__ import annotations

import pytest

from common.errors import ConfigError, ModelUnavailable
from inference_worker.models.library import Library
from inference_worker.models.loader import Loader
from inference_worker.models.loading import Opener
from inference_worker.models.scope import Scope
from inference_worker.models.spec import ModelSpec


def loader_of_a_broken_repository() -> Loader:
    def find(scope: Scope) -> list[ModelSpec]:
        raise ConfigError("models/new/1/model.toml:1: this is not TOML")

    return Loader(Library(), Opener("cpu", 1), find, lambda: None, lambda obeyed: None)


def test_a_broken_repository_is_a_wrong_configuration_for_the_first_process() -> None:
    with pytest.raises(ConfigError, match="this is not TOML"):
        loader_of_a_broken_repository().begin(False, None, lambda *progress: None)


def test_one_that_broke_since_is_no_reason_to_give_a_worker_up() -> None:
    with pytest.raises(ModelUnavailable, match="cannot be found again: models/new/1"):
        loader_of_a_broken_repository().begin(False, ["old:1"], lambda *progress: None)
