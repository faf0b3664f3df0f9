"""Models that go out of memory."""

from __future__ import annotations

import pytest

from inference_worker.models.carrier import Carrier
from inference_worker.models.library import Library
from inference_worker.models.loading import Opener
from inference_worker.models.registry import Loaded, Title
from inference_worker.models.spec import ModelSpec
from tests.support.items import FunctionBackend


class Closing(FunctionBackend):
    """A backend whose close fails."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(lambda batch: batch)
        self._error = error

    def close(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(4)])
def test_a_model_that_does_not_close_is_dropped_and_said(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a model that is in memory and offered no more
    library = Library()
    spec = ModelSpec("stubborn", "1", "python")
    library.arrived(Loaded(spec, Closing(error)), 1)
    library.offer("stubborn", [Title(spec, "w")])
    library.offer("stubborn", [])
    # When it is closed
    Carrier(library, Opener("cpu", 1)).close_free()
    # Then the worker goes on without it
    assert library.size == 0
    assert "model 'stubborn:1' did not close; it is dropped" in caplog.text
