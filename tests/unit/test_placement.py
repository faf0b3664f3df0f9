"""Devices and cores to placements, and the environment that a placement means."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from inference_worker.devices.memory import Memory
from inference_worker.models.spec import ModelSpec, Residence
from inference_worker.supervision.placement import check_memory, check_seat, environment, fits, place


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
        ("cuda", None, [], "device 'cuda' needs a GPU; found none (the driver lists none"),
        ("cuda:2", None, ["GPU-aaaa"], "device 'cuda:2' is not there; found 1: cuda:0 is GPU-aaaa"),
        ("cpu", 0, [], "procs must be 1 or more; got 0"),
        ("cuda", 2, ["0"], "procs counts CPU processes, of which device 'cuda' has none here; got 2"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_what_was_found(device, procs, gpus, message):
    with pytest.raises(ConfigError) as refused:
        place(device, procs, range(4), gpus)

    assert message in str(refused.value)


def spec(name="m", **residence):
    return ModelSpec(name, "1", "torch", pool="p", residence=Residence(**residence))


@pytest.mark.parametrize(
    ("wanted", "device", "allowed"),
    [
        (None, "cpu", True),
        (None, "cuda:1", True),
        ("cpu", "cpu", True),
        ("cpu", "cuda:0", False),
        ("cuda", "cuda:3", True),
        ("cuda", "cpu", False),
        ("cuda:1", "cuda:1", True),
        ("cuda:1", "cuda:0", False),
    ],
)
def test_a_model_runs_only_where_its_device_allows(wanted, device, allowed):
    assert fits(wanted, device) is allowed


def test_placements_know_their_pools_processes_on_this_host():
    placements = place("cuda,cpu", 2, range(8), ["0"])

    assert [(one.siblings, one.seat) for one in placements] == [(("cuda:0", "cpu", "cpu"), seat) for seat in range(3)]


def loading(specs, siblings):
    """The seats that load the models, and why the first of the others does not."""
    seats, reasons = [], []
    for seat in range(len(siblings)):
        try:
            check_seat(specs, siblings, seat)
            seats.append(seat)
        except ConfigError as error:
            reasons.append(str(error))
    return seats, reasons


def test_no_more_processes_of_a_host_than_its_replicas_load_a_model():
    seats, reasons = loading([spec(), spec("one", replicas=2)], ["cpu"] * 4)

    assert seats == [0, 1]
    assert reasons[0] == (
        "model 'one:1' is wanted in 2 processes of a host (placement.replicas), and of the 4 of pool 'p' those before "
        "number 2 serve it; this one is not needed"
    )


def test_replicas_are_counted_among_the_processes_whose_device_fits():
    assert loading([spec(device="cuda", replicas=1)], ["cpu", "cuda:0", "cuda:1"])[0] == [1]
    assert loading([spec(replicas=1), spec("b", device="cuda")], ["cuda:0", "cuda:1", "cpu"])[0] == [0]


def test_a_device_that_does_not_fit_is_told_with_the_next_step():
    seats, reasons = loading([spec(device="cuda")], ["cpu"])

    assert seats == []
    assert reasons == [
        "model 'm:1' is to run on 'cuda' (placement.device) and this process of pool 'p' is on 'cpu'; start the pool "
        "with --device cuda, or give the model a pool of its own"
    ]


def test_models_that_together_declare_more_than_is_free_are_refused_with_the_figures():
    specs = [spec("a", memory=3 << 30), spec("b", memory=2 << 30), spec("c")]

    check_memory(specs, "cuda:0", Memory(5 << 30, 80 << 30))
    with pytest.raises(ConfigError) as refused:
        check_memory(specs, "cuda:0", Memory(4 << 30, 80 << 30))

    assert str(refused.value) == (
        "the models declare 5.0 GiB of memory (placement.memory: a:1 3.0 GiB, b:1 2.0 GiB), and 'cuda:0' has "
        "4.0 GiB free of 80.0 GiB; serve some of them elsewhere, or free memory there"
    )
