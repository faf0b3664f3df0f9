"""The short chaos run. The long one: python -m tests.chaos."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.run import SHORT, run
from tests.support.deployments import Single


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whatever_dies_each_request_is_answered_once_and_rightly(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}: python -m tests.chaos --short --seed {seed}")

    verdict = run(SHORT, seed, Single, tmp_path, print)

    print(verdict)
    assert verdict.lost == 0
    assert verdict.wrong == []
    # Six times as many faults for each request as in the long run, where it is under 1 %.
    assert verdict.again_share < 0.03
