"""Redis under Sentinel and as a Cluster: another server takes over, or the pool moves, under load."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.keys import PoolKeys
from gateway import Client
from tests.faults.stage import stage_on
from tests.support.deployments import Cluster, Deployment, Sentinels
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

POOL = "faults"


class Load:
    """Requests one after the other, from a thread, until the block ends; each answer is checked."""

    def __init__(self, client: Client) -> None:
        self.answered = 0
        self._client = client
        self._over = threading.Event()
        self._wrong: list[int] = []

    @contextmanager
    def going_on(self) -> Iterator[Load]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            self.goes_on()
            yield self
        finally:
            self._over.set()
            thread.join()
        assert self._wrong == []

    def goes_on(self) -> None:
        """Until more is answered than now, by requests that are sent from now on."""
        enough = self.answered + 2
        wait_until(lambda: self.answered >= enough, "requests are answered", 60)

    def _run(self) -> None:
        numbers = iter(range(1_000_000))
        while not self._over.is_set():
            number = next(numbers)
            value = int(self._client.infer("work", {"n": number, "act": ""})["value"])
            if value != 2 * number:
                self._wrong.append(number)
            self.answered += 1


def survive(
    deployment: Deployment, folder: Path, fault: Callable[[], object], recovered: Callable[[float], None]
) -> None:
    """A host and a client under load go through the fault."""
    with stage_on(deployment.url, folder, POOL) as stage:
        stage.host(lease_s=5)
        with stage.client() as client, Load(client).going_on() as load:
            fell_s = time.monotonic()
            fault()
            load.goes_on()
            recovered(fell_s)
        assert stage.letters() == []
        # What the old master had not passed on is sent and computed again.
        assert stage.again() <= 1


def test_a_master_under_sentinel_that_is_killed_is_followed_by_its_replica(
    tmp_path: Path, recovered: Callable[[float], None]
) -> None:
    with Sentinels() as servers:
        survive(servers, tmp_path, lambda: servers.lose_primary(signal.SIGKILL), recovered)


def test_a_pool_that_moves_in_a_cluster_is_followed_and_then_the_replica_of_its_killed_master(
    tmp_path: Path, recovered: Callable[[float], None]
) -> None:
    with Cluster(PoolKeys(POOL).leases) as servers:

        def fault() -> None:
            # MOVED and ASK first, since they need all three masters
            servers.move()
            servers.lose_primary(signal.SIGKILL)

        survive(servers, tmp_path, fault, recovered)
