"""Models loaded and unloaded by tritonclient, in real workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.command import MODELS
from tests.support.gateways import gateway
from tests.support.running import workers

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")


def test_a_model_is_unloaded_and_loaded_again(redis_url: str, pool: str, tmp_path: Path) -> None:
    text = triton.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array(["hello"], dtype=object))
    with (
        workers(redis_url, pool, MODELS),
        gateway(redis_url, pool, tmp_path) as door,
        triton.InferenceServerClient(door.address) as client,
    ):
        client.unload_model("shout")

        assert not client.is_model_ready("shout")
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("shout", [text])
        assert caught.value.status() == "404"

        client.load_model("shout")

        assert client.is_model_ready("shout")
        assert client.infer("shout", [text]).as_numpy("output").tolist() == [b"HELLO"]


def test_a_model_that_is_nowhere_cannot_be_loaded(redis_url: str, pool: str, tmp_path: Path) -> None:
    with (
        workers(redis_url, pool, MODELS),
        gateway(redis_url, pool, tmp_path) as door,
        triton.InferenceServerClient(door.address) as client,
        pytest.raises(triton.InferenceServerException, match="nobody"),
    ):
        client.load_model("nobody", config=None)
