"""What travels between a worker and the process of one of its stages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import Pipe

import numpy as np
import pytest

from common.tensor import Array
from inference_worker.backends.base import ModelRequest
from inference_worker.pipeline.channel import Channel, open_memory
from inference_worker.pipeline.stage_process import attempt


@pytest.fixture
def sides() -> Iterator[tuple[Channel, Channel]]:
    here, there = Pipe()
    memory = open_memory()
    channels = Channel(here, memory), Channel(there, os.dup(memory))
    yield channels
    for channel in channels:
        channel.close()


def test_arrays_arrive_as_they_were_sent(sides: tuple[Channel, Channel]) -> None:
    here, there = sides
    fixed = np.arange(6, dtype=np.int64)
    fixed.flags.writeable = False
    inputs: dict[str, Array] = {
        "large": np.arange(100_000, dtype=np.float32).reshape(100, 1000),
        "turned": np.arange(12, dtype=np.float64).reshape(3, 4).T,
        "empty": np.zeros((0, 3), np.float32),
        "text": np.array(["a", "ü"], dtype=object),
        "fixed": fixed,
    }

    here.send(ModelRequest(inputs, 2, {"top": 3}))
    found = there.receive()

    assert (found.rows, found.parameters) == (2, {"top": 3})
    for name, array in inputs.items():
        np.testing.assert_array_equal(found.inputs[name], array)
        assert found.inputs[name].dtype == array.dtype
    assert not found.inputs["fixed"].flags.writeable


def test_what_was_received_stays_as_it_is_when_the_next_is_sent(sides: tuple[Channel, Channel]) -> None:
    here, there = sides
    here.send(np.ones(5000))
    first = there.receive()
    # An answer that needs more memory, and the next call
    there.send(np.full(50_000, 2.0))
    second = here.receive()
    here.send(np.full(5000, 3.0))
    third = there.receive()

    assert [set(array) for array in (first, second, third)] == [{1.0}, {2.0}, {3.0}]


def test_a_side_that_is_gone_ends_the_wait_of_the_other(sides: tuple[Channel, Channel]) -> None:
    here, there = sides
    there.close()

    assert here.wait(10)
    with pytest.raises((EOFError, OSError)):
        here.receive()


def test_what_foreign_code_raises_becomes_a_line_of_text() -> None:
    def leave() -> None:
        raise SystemExit("bye")

    assert attempt(leave) == (False, "SystemExit: bye")
    assert attempt(lambda: 3) == (True, 3)
