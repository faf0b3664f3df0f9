"""What a caller does with an answer."""

from __future__ import annotations

import numpy as np
import pytest

from common.tensor import to_tensor
from gateway.result import Result


@pytest.fixture
def result() -> Result:
    outputs = {name: to_tensor(np.float32(1)).to_wire() for name in ("label", "score")}
    return Result({"model": "m", "version": "1", "outputs": outputs})


def test_it_names_its_outputs_as_a_map_does(result: Result) -> None:
    assert list(result) == ["label", "score"]
    assert "score" in result
    assert "logits" not in result


def test_an_output_that_is_not_there_is_told_with_those_that_are(result: Result) -> None:
    with pytest.raises(KeyError, match="no output 'logits'; the model answered label, score"):
        result["logits"]
