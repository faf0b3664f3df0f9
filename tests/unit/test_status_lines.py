"""What `status` prints of a pool where something is wrong."""

from __future__ import annotations

from typing import Any

from common.memory import Memory
from gateway.admin.pools import PoolStatus, Rates, WorkerStatus
from inference_worker.cli.status import lines, memory_lines

QUIET = Rates(batches=0.0, rows=0.0, failed=0.0, backlog=0.0)


def printed(rate: Rates = QUIET, **about: Any) -> str:
    """With one worker that says this of itself."""
    worker = WorkerStatus("host-7-0-0", 9_000, {"device": "cpu", **about})
    pool = PoolStatus("gpu", {"normal": 0}, 0, None, {}, 0, (worker,), (), {}, 0)
    return "\n".join(lines(pool, rate))


def test_requests_that_are_answered_with_an_error_show() -> None:
    text = printed(Rates(10.0, 10.0, 2.5, 0.0), failed=7)

    assert "  failed    2.5 requests/s are answered with an error" in text
    assert "answered 7 requests with an error" in text


def test_the_model_that_keeps_a_worker_busy_is_named() -> None:
    assert "ready, busy with slow:1 for 12.5 s" in printed(state="ready", running="slow:1", busy_ms=12_500)


def test_a_worker_that_was_started_again_says_how_often_and_why() -> None:
    text = printed(state="crash looping", restarts=5, error="while it loaded 'boom:1'")

    assert "crash looping" in text
    assert "restarts: 5, the last time: while it loaded 'boom:1'" in text


def test_a_worker_that_drains_says_how_long_it_may() -> None:
    worker = WorkerStatus("host-7-0-0", 9_000, {"device": "cpu", "state": "draining"}, drain_left_ms=12_000)
    pool = PoolStatus("gpu", {"normal": 0}, 0, None, {}, 0, (worker,), (), {}, 0)

    assert "draining for 12 s more" in "\n".join(lines(pool, QUIET))


def test_a_full_redis_shows_before_all_else() -> None:
    [line] = memory_lines(Memory(200_000_000, 200_000_000))

    assert "redis 200 of 200 MB: full, new requests are refused" in line


def test_a_redis_without_a_limit_or_one_that_does_not_tell_takes_no_line() -> None:
    assert [*memory_lines(Memory(200, 0)), *memory_lines(None)] == []


def test_of_a_worker_that_is_well_there_is_one_line() -> None:
    assert len(printed(state="ready", restarts=0, error="", failed=0).splitlines()) == 5


def test_a_pool_whose_load_asks_for_more_workers_than_serve_says_so() -> None:
    worker = WorkerStatus("host-7-0-0", 9_000, {"state": "ready"})
    pool = PoolStatus("gpu", {"normal": 9}, 0, None, {}, 0, (worker,), (), {}, 0)

    assert "wants     3 workers, and 1 serve" in "\n".join(lines(pool, QUIET, wanted=3))
    assert "wants" not in "\n".join(lines(pool, QUIET, wanted=1))
