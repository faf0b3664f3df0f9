"""Each decoder of foreign bytes against its corpus: as it is, mutated by hypothesis, and fuzzed by coverage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import CORPUS, fuzz
from tests.fuzz.targets import TARGETS
from tests.support.mutations import mutated

#: So that all of them together take half a minute; `make fuzz` takes a minute for each.
SECONDS = 1


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What is passed over is logged, for each of thousands of inputs."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_corpus_holds_is_decoded_or_refused(target: str) -> None:
    for data in seeds(target):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=150)
@given(data=st.data())
def test_mutations_of_it_are_decoded_or_refused(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(mutated(seeds(target)) | st.binary(max_size=64)))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no build for this Python; see the test above")
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_it_finds_nothing(target: str) -> None:
    assert fuzz(target, SECONDS) == 0
