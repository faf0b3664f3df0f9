"""Devices and cores to placements, and the environment that a placement means."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from inference_worker.placement import environment, place


def threads(placements):
    return [one.threads for one in placements]


@pytest.mark.parametrize(("cores", "expected"), [(1, [1]), (2, [2]), (7, [7]), (8, [4, 4]), (18, [4, 5, 4, 5])])
def test_a_cpu_pool_has_one_process_for_four_cores_and_uses_every_core(cores, expected):
    placements = place("cpu", None, range(cores), [])

    assert threads(placements) == expected
    assert [core for one in placements for core in one.cores] == list(range(cores))


@pytest.mark.parametrize(
    ("device", "procs"),
    [
        *((device, procs) for device in ("cpu", "cuda:0,cpu", "cpu,cuda") for procs in (None, 1, 2, 7, 12)),
        *((device, None) for device in ("auto", "cuda", "cuda:1")),
    ],
)
@pytest.mark.parametrize("cores", [1, 2, 3, 8, 13, 64])
def test_threads_never_exceed_the_cores_unless_there_are_more_processes_than_cores(device, procs, cores):
    placements = place(device, procs, range(cores), ["a", "b"])

    assert all(one.threads >= 1 for one in placements)
    assert sum(threads(placements)) <= max(cores, len(placements))


def test_processes_are_pinned_to_cores_of_their_own():
    placements = place("auto", 3, [4, 5, 6, 7, 12, 13, 14, 15], ["0"])

    pinned = [core for one in placements for core in one.cores]
    assert sorted(pinned) == [4, 5, 6, 7, 12, 13, 14, 15]
    assert [len(one.cores) for one in placements] == threads(placements)


def test_more_processes_than_cores_have_one_thread_each_and_are_left_to_the_scheduler():
    placements = place("cpu", 4, [0, 1], [])

    assert threads(placements) == [1, 1, 1, 1]
    assert all(one.cores == () for one in placements)


def test_under_a_quota_threads_are_counted_but_nothing_is_pinned():
    placements = place("cpu", 2, [0, 1, 2, 3], [], pin=False)

    assert threads(placements) == [2, 2]
    assert all(one.cores == () for one in placements)


def test_a_gpu_has_its_name_outside_and_is_the_only_one_inside():
    (second,) = place("cuda:1", None, range(4), ["GPU-aaaa", "GPU-bbbb"])

    assert (second.device, second.visible, second.inner_device) == ("cuda:1", "GPU-bbbb", "cuda:0")
    assert second.threads == 4


def test_cuda_is_every_gpu_and_shares_the_cores_evenly():
    placements = place("cuda", None, range(8), ["0", "1"])

    assert [(one.device, one.cores) for one in placements] == [("cuda:0", (0, 1, 2, 3)), ("cuda:1", (4, 5, 6, 7))]


def test_auto_is_every_gpu_and_a_cpu_pool_on_the_cores_that_are_left():
    placements = place("auto", None, range(16), ["0"])

    assert [one.device for one in placements] == ["cuda:0", "cpu", "cpu", "cpu"]
    assert placements[0].cores == (0, 1, 2, 3)


def test_auto_without_a_gpu_is_a_cpu_pool():
    assert place("auto", None, range(2), []) == place("cpu", None, range(2), [])


def test_auto_has_no_cpu_pool_where_the_gpus_need_every_core():
    assert [one.device for one in place("auto", None, range(2), ["0", "1"])] == ["cuda:0", "cuda:1"]


def test_several_devices_are_combined_each_once_with_an_index_of_its_own():
    placements = place("cpu, cuda:1, cuda:0, cuda:1", 2, range(8), ["0", "1"])

    assert [(one.index, one.device) for one in placements] == [(0, "cuda:0"), (1, "cuda:1"), (2, "cpu"), (3, "cpu")]


def test_a_cpu_process_sees_no_gpu_and_each_library_gets_the_thread_count():
    (cpu,) = place("cpu", None, range(3), ["0"])

    said = environment(cpu)

    assert said["CUDA_VISIBLE_DEVICES"] == ""
    assert {said[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}
    assert said["TOKENIZERS_PARALLELISM"] == "false"


def test_a_gpu_process_sees_its_gpu():
    (gpu,) = place("cuda:0", None, range(2), ["GPU-aaaa"])

    assert environment(gpu)["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"


@pytest.mark.parametrize(
    ("device", "procs", "gpus", "message"),
    [
        ("tpu", None, [], "device must be cpu, cuda, cuda:N or auto, separated by commas; got 'tpu'"),
        ("", None, [], "device must be cpu, cuda, cuda:N or auto, separated by commas; got ''"),
        ("cuda:x", None, ["0"], "device must be cpu, cuda, cuda:N or auto, separated by commas; got 'cuda:x'"),
        ("cuda", None, [], "device 'cuda' needs a GPU; found none (nvidia-smi lists none"),
        ("cuda:2", None, ["GPU-aaaa"], "device 'cuda:2' is not there; found 1: cuda:0 is GPU-aaaa"),
        ("cpu", 0, [], "procs must be 1 or more; got 0"),
        ("cuda", 2, ["0"], "procs counts CPU processes, of which device 'cuda' has none here; got 2"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_what_was_found(device, procs, gpus, message):
    with pytest.raises(ConfigError) as refused:
        place(device, procs, range(4), gpus)

    assert message in str(refused.value)
