"""The supervisor over real processes and a real Redis; the children are fakes that speak the protocol."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import msgpack
import pytest

from common.backoff import Backoff
from common.connect import connect
from common.errors import BrokerUnavailable, ConfigError
from inference_worker.supervision.events import Draining, Exited, Loading, Ready, Started
from inference_worker.supervision.restarts import Restarts
from tests.support.supervised import Supervised, alive, fake, plans
from tests.support.waiting import wait_until


@pytest.fixture
def known(broker, redis_url):
    """What Redis knows of the pool: live leases, descriptions of workers, models."""
    client = connect(redis_url)

    class Known:
        def leases(self):
            seconds, microseconds = client.time()
            now_ms = seconds * 1000 + microseconds // 1000
            leases = client.zrange(broker.keys.leases, 0, -1, withscores=True)
            return {name.decode() for name, end_ms in leases if end_ms > now_ms}

        def workers(self):
            return {n.decode(): msgpack.unpackb(d) for n, d in client.hgetall(broker.keys.workers).items() if d}

        def states(self):
            return sorted(worker["state"] for worker in self.workers().values())

    yield Known()
    client.close()


def test_a_child_is_reported_from_its_start_until_it_is_ready(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for(Ready)

    (pid,) = [event.pid for event in it.of(Started)]
    assert it.events[:3] == [
        Started(0, pool, "cpu", pid),
        Loading(0, "echo:1", 0, 1),
        Ready(0, pool, ("echo:1",), 0.3, 0.2, 0.1),
    ]


def test_a_child_gets_its_configuration_through_its_standard_input(redis_url, pool, tmp_path):
    groups = plans(pool, 2, ("models",))

    with Supervised(redis_url, groups, command=fake("good", tmp_path), max_deliveries=5, reply_ttl_s=9.0) as it:
        it.wait_for(Ready, 2)

    second = json.loads((tmp_path / f"{it.of(Started)[1].pid}.json").read_text())
    host_and_pid, index, generation = second.pop("consumer").rsplit("-", 2)
    assert second == {
        "broker": redis_url,
        "pool": pool,
        "paths": ["models"],
        "device": "cpu",
        "threads": 1,
        "models_pool": None,
        "siblings": ["cpu", "cpu"],
        "seat": 1,
        "serves": None,
        "lazy": False,
        "memory_budget": None,
        "max_deliveries": 5,
        "reply_ttl_s": 9.0,
        "log_level": "warning",
        "log_format": "text",
        "tracing": False,
        "metrics": None,
    }
    assert host_and_pid.endswith(f"-{os.getpid()}")
    assert (index, generation) == ("1", "0")


def test_the_brokers_url_is_neither_in_a_childs_arguments_nor_in_its_environment(redis_url, pool, monkeypatch):
    monkeypatch.setenv("INFERENCE_WORKER_BROKER", redis_url)

    with Supervised(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for(Ready)
        process = Path("/proc", str(it.of(Started)[0].pid))
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()

    assert redis_url.encode() not in shown


def test_a_child_has_the_environment_and_the_cores_of_its_placement(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for(Ready)
        pid = it.of(Started)[0].pid
        environ = Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
        cores = os.sched_getaffinity(pid)

    assert {b"CUDA_VISIBLE_DEVICES=", b"OMP_NUM_THREADS=2"} <= set(environ)
    assert cores == {0, 1}


def test_a_ready_child_has_a_lease_a_description_and_its_models_in_redis(redis_url, pool, broker, known):
    with Supervised(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for(Ready)

        (consumer,) = known.leases()
        description = known.workers()[consumer]
        assert description["pid"] == it.of(Started)[0].pid
        assert description["models"] == ["echo:1"]
        assert (description["state"], description["device"], description["restarts"]) == ("ready", "cpu", 0)
        assert broker.models() == {"echo:1": b"metadata"}


def test_a_lease_outlives_its_length_while_the_child_lives(redis_url, pool, known):
    with Supervised(redis_url, plans(pool), command=fake("good"), lease_s=0.6) as it:
        it.wait_for(Ready)
        end = time.monotonic() + 2.0

        wait_until(lambda: time.monotonic() > end or not known.leases(), "two seconds, or the loss of the lease")

        assert known.leases()


def test_a_crashed_child_loses_its_lease_at_once_and_is_started_again_under_another_name(redis_url, pool, known):
    with Supervised(redis_url, plans(pool), command=fake("good"), lease_s=60.0) as it:
        it.wait_for(Ready)
        (first,) = known.leases()

        os.kill(it.of(Started)[0].pid, signal.SIGKILL)

        it.wait_for(Ready, 2)
        wait_until(lambda: first not in known.leases(), "the dead child's lease has ended", 1.0)
        assert it.of(Exited)[0].code == -signal.SIGKILL
        (second,) = known.leases()
        assert known.workers()[second]["restarts"] == 1


def test_a_childs_crash_leaves_the_others_alone(redis_url, pool):
    with Supervised(redis_url, plans(pool, 2), command=fake("good")) as it:
        it.wait_for(Ready, 2)
        victim, other = (event.pid for event in it.of(Started))

        os.kill(victim, signal.SIGKILL)
        it.wait_for(Ready, 3)

        assert alive(other)
        assert [event.worker for event in it.of(Exited)] == [it.of(Started)[0].worker]


def test_five_crashes_without_being_ready_show_as_crash_looping(redis_url, pool, known):
    with Supervised(redis_url, plans(pool), command=fake("crashing")) as it:
        assert [it.wait_for(Exited, n).looping for n in range(1, 7)] == [False, False, False, False, True, True]

        wait_until(lambda: known.states() == ["crash looping"], "the state in Redis")


def test_a_program_that_cannot_be_started_is_tried_again(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=["/nowhere/python"]) as it:
        second = it.wait_for(Exited, 2)

    assert second.code == 127
    assert "/nowhere/python" in second.error


def test_a_misconfigured_only_child_ends_the_supervisor_with_the_childs_words(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("misconfigured")) as it:
        it.wait_for_end()

    assert it.of(Exited)[0].will_restart_in_s is None
    assert isinstance(it.error, ConfigError)
    assert str(it.error) == "model folder '/none' does not exist"


def test_a_drain_lets_children_end_by_themselves_and_takes_their_leases_back(redis_url, pool, known):
    with Supervised(redis_url, plans(pool, 2), command=fake("good")) as it:
        it.wait_for(Ready, 2)

        it.supervisor.stop()
        it.wait_for_end()

    assert it.of(Draining) == [Draining(2, 30.0)]
    assert [event.code for event in it.of(Exited)] == [0, 0]
    assert it.error is None
    assert known.leases() == set()


def test_a_child_keeps_its_lease_while_it_drains(redis_url, pool, known):
    with Supervised(redis_url, plans(pool), command=fake("deaf"), lease_s=0.6) as it:
        it.wait_for(Ready)

        it.supervisor.stop()

        wait_until(lambda: known.states() == ["draining"], "the state in Redis")
        end = time.monotonic() + 1.2
        wait_until(lambda: time.monotonic() > end or not known.leases(), "two leases, or the loss of the lease")
        assert known.leases()


def test_a_child_that_does_not_drain_in_time_is_killed(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("deaf"), drain_s=0.3) as it:
        it.wait_for(Ready)

        it.supervisor.stop()
        it.wait_for_end()

    assert it.of(Exited)[0].code == -signal.SIGKILL


def test_a_child_that_still_loads_holds_no_work_and_is_not_waited_for(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("loading")) as it:
        it.wait_for(Loading)

        it.supervisor.stop()
        it.wait_for_end(3.0)

    assert it.of(Draining) == [Draining(0, 30.0)]


def test_a_place_that_waits_for_its_restart_does_not_start_any_more_once_stopped(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("crashing"), restarts=slow_restarts) as it:
        it.wait_for(Exited)

        it.supervisor.stop()
        it.wait_for_end(3.0)

    assert len(it.of(Started)) == 1


def slow_restarts():
    return Restarts(Backoff(60.0, 60.0))


def test_a_stop_before_the_start_starts_nothing(redis_url, pool):
    it = Supervised(redis_url, plans(pool), command=fake("good"))
    it.supervisor.stop()

    with it:
        it.wait_for_end()

    assert it.of(Started) == []


def test_a_killed_child_takes_along_the_processes_that_it_started(redis_url, pool, tmp_path):
    with Supervised(redis_url, plans(pool), command=fake("breeding", tmp_path)) as it:
        it.wait_for(Ready)
        grandchild = int((tmp_path / "grandchild").read_text())
        assert alive(grandchild)

        it.supervisor.kill()
        it.wait_for_end()

    wait_until(lambda: not alive(grandchild), "the child's own child has ended")


def test_a_crashed_child_takes_along_the_processes_that_it_started(redis_url, pool, tmp_path):
    with Supervised(redis_url, plans(pool), command=fake("breeding", tmp_path), restarts=slow_restarts) as it:
        it.wait_for(Ready)
        grandchild = int((tmp_path / "grandchild").read_text())

        os.kill(it.of(Started)[0].pid, signal.SIGKILL)

        it.wait_for(Exited)
        wait_until(lambda: not alive(grandchild), "the child's own child has ended")


def test_a_drained_child_takes_along_the_processes_that_it_started(redis_url, pool, tmp_path):
    with Supervised(redis_url, plans(pool), command=fake("breeding", tmp_path)) as it:
        it.wait_for(Ready)
        grandchild = int((tmp_path / "grandchild").read_text())

        it.supervisor.stop()
        it.wait_for_end()

    assert it.of(Exited)[0].code == 0
    wait_until(lambda: not alive(grandchild), "the child's own child has ended")


def test_a_child_whose_batch_takes_longer_than_its_model_may_is_killed_and_started_again(redis_url, pool, known):
    with Supervised(redis_url, plans(pool), command=fake("stuck")) as it:
        ended = it.wait_for(Exited)
        it.wait_for(Started, 2)

    assert ended.code == -signal.SIGKILL
    assert ended.error.startswith("model 'echo:1' had run one batch for 31 s, and its timeout is 30 s; ")


def test_a_child_that_says_nothing_for_too_long_is_killed_even_if_it_is_stopped(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("silent")) as it:
        it.wait_for(Ready)
        os.kill(it.of(Started)[0].pid, signal.SIGSTOP)

        ended = it.wait_for(Exited)

    assert ended.code == -signal.SIGKILL
    assert ended.error.startswith("it has said nothing for 1 s, and no model of it may take longer than ")


def test_a_child_that_alone_is_stopped_by_a_signal_is_killed_within_seconds_and_another_one_starts(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for(Ready)
        os.kill(it.of(Started)[0].pid, signal.SIGSTOP)

        ended = it.wait_for(Exited, within_s=30)

        it.wait_for(Ready, 2)
    assert ended.code == -signal.SIGKILL
    assert "a signal had stopped it for " in ended.error


def test_an_abort_ends_the_children_and_is_raised(redis_url, pool):
    with Supervised(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for(Ready)

        it.supervisor.abort(BrokerUnavailable("gone"))
        it.wait_for_end()

    assert str(it.error) == "gone"
    assert not alive(it.of(Started)[0].pid)


def test_what_a_child_prints_goes_to_standard_error(redis_url, pool, capfd):
    with Supervised(redis_url, plans(pool), command=fake("printing")) as it:
        it.wait_for(Ready)

    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "a model's words\n")


def test_an_event_that_cannot_be_shown_leaves_no_child_behind(redis_url, pool):
    class UnshownError(Exception):
        pass

    class Blind(Supervised):
        def _hear(self, event):
            super()._hear(event)
            if isinstance(event, Ready):
                raise UnshownError

    with Blind(redis_url, plans(pool), command=fake("good")) as it:
        it.wait_for_end()

    assert isinstance(it.error, UnshownError)
    assert not alive(it.of(Started)[0].pid)


def test_two_children_with_one_index_are_refused(redis_url, pool):
    with pytest.raises(ConfigError, match=r"each with an index of its own; got \[0, 0\]"):
        Supervised(redis_url, plans(pool) + plans(pool), command=fake("good"))
