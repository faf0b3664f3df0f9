"""A torch model on a real CUDA device, where there is one: what the stand-in cannot tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_worker.backends import open_model
from inference_worker.backends.base import Backend
from tests.support.model_folders import torch_safetensors


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return open_model(torch_safetensors(tmp_path), "cuda:0", 1)


def test_two_batches_under_way_each_have_their_own_outputs_and_device_time(backend: Backend) -> None:
    inputs = [np.full((rows, 3), float(rows), np.float32) for rows in (2, 5)]
    flights = [backend.begin({"x": x}) for x in inputs]

    landed = [finish() for finish in flights]

    assert [one.outputs["y"].tolist() for one in landed] == [(2 * x).tolist() for x in inputs]
    assert all((one.seconds or 0) > 0 for one in landed)


def test_a_batch_that_is_waited_for_gives_the_same(backend: Backend) -> None:
    assert backend.infer({"x": np.ones((4, 3), np.float32)})["y"].tolist() == [[2, 2, 2]] * 4
