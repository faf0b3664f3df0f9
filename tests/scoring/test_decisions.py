"""What is decided without I/O: chunks, pace, shards, samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.scoring.chunks import Sizes, cut, padding
from inference_worker.scoring.facts import Cut
from inference_worker.scoring.pace import LEAST_S, Pace
from inference_worker.scoring.shards import Ledger
from inference_worker.scoring.sources import Source
from inference_worker.scoring.tally import SAMPLES, Samples


def sizes(lengths: list[int], shapes: list[int] | None = None) -> Sizes:
    length = np.array(lengths, np.int64)
    return Sizes(length, np.array(shapes or [0] * len(lengths), np.int64), length)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 2)), min_size=1, max_size=200),
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(1, 1000)),
    st.booleans(),
)
def test_each_row_is_in_one_chunk_and_each_chunk_within_its_limits(rows, most, length, pads) -> None:
    of = sizes([one for one, _ in rows], [shape for _, shape in rows])

    chunks = list(cut(np.arange(len(rows)), of, Cut(most, length), pads))

    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(rows)))
    assert all(len(set(of.shape[chunk])) == 1 for chunk in chunks)
    if pads:
        assert all(len(chunk) <= most for chunk in chunks)
    if pads and length is not None:
        assert all(len(chunk) == 1 or of.length[chunk].max() * len(chunk) <= length for chunk in chunks)


def test_rows_of_like_length_run_together() -> None:
    of = sizes([1, 100] * 50)

    chunks = list(cut(np.arange(100), of, Cut(10, None), True))

    assert padding(chunks, of) == 1.0
    assert len(chunks) == 10


def test_a_window_grows_while_nobody_online_waits_and_closes_when_somebody_does() -> None:
    pace = Pace(4)
    for _ in range(5):
        pace.seen(0)
    assert pace.allows(3, 10.0)
    assert not pace.allows(4, 10.0)

    pace.seen(1)

    assert not pace.allows(0, 10.1)
    assert pace.allows(0, 10.0 + LEAST_S)
    pace.seen(0)
    assert pace.allows(0, 10.1 + LEAST_S)


def test_a_source_without_a_known_end_has_shards_until_it_is_told() -> None:
    ledger = Ledger((Source("a.csv", "a", "csv", None, 9, ""),), 10)
    shards = ledger.left(0)
    assert [next(shards).name for _ in range(3)] == ["a-00000", "a-00001", "a-00002"]

    ledger.ends(0, 15)
    ledger.finished |= {"a-00000"}

    assert [one.start for one in ledger.left(0)] == [10]
    assert not ledger.complete()
    ledger.finished |= {"a-00001"}
    assert ledger.complete()
    assert ledger.total() == 15


def test_a_sample_of_any_stream_stays_small_and_even() -> None:
    samples = Samples()
    for number in range(20_000):
        samples.add(number)

    assert SAMPLES / 2 <= len(samples.values) <= SAMPLES
    assert abs(float(np.mean(samples.values)) - 10_000) < 100
