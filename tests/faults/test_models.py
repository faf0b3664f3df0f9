"""Models that end, crash, hang or blow up their process: who suffers, and who does not."""

from __future__ import annotations

import re
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from common.errors import ModelError, WorkerLost
from gateway import Client, Handle
from gateway.admin.pools import Admin
from inference_worker.supervision.child import COMMAND
from inference_worker.supervision.events import Exited, Started
from tests.faults.stage import WITHIN_S, Stage
from tests.support.supervised import Supervised, plans
from tests.support.waiting import wait_until

BATCH = 16
POISON = 5
#: A batch-mate that shared a second crash would be given up.
MAX_DELIVERIES = 2
#: Enough for Python, numpy and all its threads, and far less than the model asks for.
ADDRESS_SPACE = 8 << 30


def submit_batch(stage: Stage, client: Client, act: str) -> list[Handle]:
    """A batch of 16 with one item that does `act`, held back until all of it is there; the gate opens then."""
    gate = stage.gate()
    client.submit("gate", {"n": 1000, "gate": str(gate)})
    stage.entered(gate)
    handles = [client.submit("work", {"n": number, "act": act if number == POISON else ""}) for number in range(BATCH)]
    wait_until(lambda: len(stage.pending()) == BATCH + 1, "the worker holds them all", WITHIN_S)
    gate.touch()
    return handles


def answered_without_poison(handles: list[Handle]) -> list[int]:
    return [int(handle.result()["value"]) for number, handle in enumerate(handles) if number != POISON]


DOUBLES = [2 * number for number in range(BATCH) if number != POISON]


@pytest.mark.slow
@pytest.mark.parametrize("act", ["exit", "crash", "loop"])
def test_an_item_that_kills_its_process_takes_down_only_itself(
    stage: Stage, act: str, recovered: Callable[[float], None]
) -> None:
    # Given a batch of 16, one of which ends, crashes or hangs its process
    host = stage.host(options=("--max-deliveries", str(MAX_DELIVERIES)))
    [first] = host.workers()
    counts: Counter[bytes] = Counter()
    with stage.client() as client:
        handles = submit_batch(stage, client, act)
        # When it has killed the worker as often as it may
        wait_until(lambda: not host.runs(first), "the worker dies", WITHIN_S)
        died_s = time.monotonic()
        wait_until(lambda: _watched(stage, counts) or all(one.done() for one in handles), "all are done", WITHIN_S)
        recovered(died_s)
        # Then the other 15 are answered, and it alone is an error and a dead letter
        assert answered_without_poison(handles) == DOUBLES
        with pytest.raises(WorkerLost, match=rf"^{MAX_DELIVERIES} workers died while they ran this request"):
            handles[POISON].result()
    [letter] = stage.letters()
    assert letter[b"deliveries"] == b"%d" % MAX_DELIVERIES
    # And their counts are not used up: one more for the crash that they shared, none for those that followed
    assert max(count for entry, count in counts.items() if entry != letter[b"entry"]) <= MAX_DELIVERIES
    assert {stage.computed()[number] for number in range(BATCH) if number != POISON} == {1}


def _watched(stage: Stage, counts: Counter[bytes]) -> bool:
    """Notes the delivery counts; always False."""
    for entry in stage.pending():
        counts[entry["message_id"]] = max(counts[entry["message_id"]], entry["times_delivered"])
    return False


def test_an_item_that_asks_for_more_memory_than_there_is_fails_alone(stage: Stage) -> None:
    # Given a process that may not have all memory
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    host = stage.host(before=limit)
    workers = host.workers()
    with stage.client() as client:
        # When one of a batch asks for more
        handles = submit_batch(stage, client, "grow")
        # Then it alone is an error, and the process lives
        assert answered_without_poison(handles) == DOUBLES
        with pytest.raises(ModelError, match=r"ran out of memory on one row"):
            handles[POISON].result()
    assert host.workers() == workers
    assert stage.letters() == []


def test_a_model_that_never_loads_is_started_more_and_more_seldom_and_shows_as_crash_looping(
    redis_url: str, redis_client: redis.Redis, pool: str, tmp_path: Path
) -> None:
    path = tmp_path / "models.py"
    path.write_text("import os\nos._exit(7)\n")
    with Supervised(redis_url, plans(pool, 1, (str(path),)), command=COMMAND) as it:
        it.wait_for(Exited, 5, WITHIN_S)

        def states() -> set[object]:
            [status] = Admin(redis_client).snapshot([pool]).pools
            return {worker.about.get("state") for worker in status.workers}

        wait_until(lambda: "crash looping" in states(), "status says so", WITHIN_S)
        waits = [event.will_restart_in_s or 0.0 for event in it.of(Exited)]
        assert len(it.of(Started)) <= len(waits) + 1
    assert all(wait > 0 for wait in waits)
    assert it.of(Exited)[4].looping


def test_a_batch_with_an_item_that_raises_answers_the_others(stage: Stage) -> None:
    stage.host()
    with stage.client() as client:
        handles = submit_batch(stage, client, "raise")

        assert answered_without_poison(handles) == DOUBLES
        with pytest.raises(ModelError, match=re.escape("this item is bad")):
            handles[POISON].result()
