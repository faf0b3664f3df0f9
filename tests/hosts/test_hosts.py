"""Three hosts: network namespaces with names of their own, and cables that can be pulled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.network import missing
from tests.hosts.scene import Scene, scene
from tests.hosts.story import Figures, run

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
#: Of three hosts, one that takes more than half of a third takes part.
HALF_A_SHARE = 1 / 6


@pytest.fixture(scope="module")
def hosts() -> Iterator[Scene]:
    with scene() as it:
        yield it


@pytest.fixture(scope="module")
def told(hosts: Scene) -> Figures:
    """The story; it fails where a request does, or is answered twice, or a host's work does not move."""
    return run(hosts)


def test_a_third_host_joins_by_one_command_and_takes_its_share(told: Figures) -> None:
    assert told.share > HALF_A_SHARE


def test_what_a_host_held_that_is_cut_off_is_answered_by_others(told: Figures) -> None:
    assert told.without.keys() == {"first", "third"}


def test_a_host_that_was_cut_off_comes_back_and_takes_its_share(told: Figures) -> None:
    assert told.share_of_back > HALF_A_SHARE


@pytest.mark.usefixtures("told")
def test_a_probe_speaks_of_its_own_host(hosts: Scene) -> None:
    assert not hosts.ready(hosts.broker_host)
