"""What an error of a device means, by its type and its words."""

from __future__ import annotations

import pytest
import torch

from common.errors import ModelError
from inference_worker.devices.faults import (
    DeviceFailed,
    Fault,
    fatal_fault,
    fault_of,
    is_out_of_memory,
    raise_if_fatal,
)

# As onnxruntime names its exceptions, which are no RuntimeErrors.
OnnxFailure = type("RuntimeException", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state"})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried to"),
        OnnxFailure("Failed to allocate memory for requested buffer of size 1073741824"),
        OnnxFailure("BFCArena: Available memory of 4194304 is smaller than requested bytes of 8388608"),
        OnnxFailure("CUDA failure 2: out of memory ; GPU=0 ; hostname=host"),
    ],
)
def test_memory_that_does_not_suffice_asks_for_a_smaller_batch(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert fatal_fault(error) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        OnnxFailure("CUDA failure 700: an illegal memory access was encountered ; GPU=0"),
        OnnxFailure("CUDA failure 719: words that nobody knows yet"),
    ],
)
def test_a_dead_context_asks_for_a_new_process(error: Exception) -> None:
    assert fault_of(error) is Fault.STICKY


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: GPU has fallen off the bus (Xid 79)"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("CUDA error: invalid device ordinal"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        OnnxFailure("CUDA failure 100: no CUDA-capable device is detected"),
    ],
)
def test_a_device_that_is_gone_asks_to_be_fenced_off(error: Exception) -> None:
    assert fault_of(error) is Fault.LOST


def test_the_number_that_torch_gives_tells_more_than_its_words() -> None:
    error = torch.AcceleratorError("CUDA error: in words that nobody knows yet")
    error.error_code = 719  # type: ignore[attr-defined]

    assert fault_of(error) is Fault.STICKY


@pytest.mark.parametrize(
    "error",
    [
        ValueError("illegal instruction in the program that you sent"),
        RuntimeError("illegal instruction in the program that you sent"),
        RuntimeError("CUDA error: invalid configuration argument"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        KeyError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_what_a_models_own_code_raises_is_no_devices_fault(error: Exception) -> None:
    assert fault_of(error) is None


def test_an_error_means_what_its_cause_means() -> None:
    wrapped = ModelError("infer of model 'm:1' failed: RuntimeError: CUDA error: device-side assert triggered")
    wrapped.__cause__ = RuntimeError("CUDA error: device-side assert triggered")

    assert fault_of(wrapped) is Fault.STICKY


def test_a_fatal_fault_is_raised_as_one_that_ends_the_process_and_others_pass() -> None:
    raise_if_fatal(ValueError("no"))
    raise_if_fatal(MemoryError())
    with pytest.raises(DeviceFailed, match="device is lost: CUDA error: GPU has fallen off the bus") as caught:
        raise_if_fatal(RuntimeError("CUDA error: GPU has fallen off the bus"))
    with pytest.raises(DeviceFailed) as again:
        raise_if_fatal(caught.value)
    assert again.value is caught.value
