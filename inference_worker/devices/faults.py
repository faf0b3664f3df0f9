"""What an error of a device means for the worker. Told by types and words, so that no library is loaded here.

The numbers are CUDA's (cudaError_t); torch gives them as `error_code` of its AcceleratorError, ONNX Runtime
in its text ("CUDA failure 700: ...").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

from common.errors import InferenceError


class Fault(StrEnum):
    """What to do about it.

    OUT_OF_MEMORY: run less at once. STICKY: the process's context on the device is dead, and each further call
    fails as well; a new process works. LOST: the device itself is gone or broken; no process works on it.
    """

    OUT_OF_MEMORY = "out of memory"
    STICKY = "device context is dead"
    LOST = "device is lost"


class DeviceFailed(InferenceError):
    """The device failed in a way that this process does not survive; other workers take over what it ran."""

    code = "internal_error"
    retryable = True

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


_BY_NUMBER = {
    **dict.fromkeys((2,), Fault.OUT_OF_MEMORY),
    **dict.fromkeys((700, 702, 710, 714, 715, 716, 717, 718, 719, 999), Fault.STICKY),
    **dict.fromkeys((46, 100, 101, 214, 220, 802), Fault.LOST),
}
#: Words of CUDA, cuBLAS, cuDNN, torch's CPU allocator and ONNX Runtime, in lower case.
_BY_WORDS = {
    Fault.OUT_OF_MEMORY: (
        "out of memory",
        "status_alloc_failed",
        "allocation_failed",
        "can't allocate memory",
        "not enough memory",
        "failed to allocate memory",
        "smaller than requested bytes",
        "bad_alloc",
        "bad allocation",
    ),
    Fault.LOST: (
        "fallen off the bus",
        "gpu is lost",
        "device lost",
        "no cuda-capable device",
        "no cuda gpus are available",
        "invalid device ordinal",
        "busy or unavailable",
        "uncorrectable ecc",
        "uncorrectable nvlink",
        "system not yet initialized",
        "unable to determine the device handle",
    ),
    Fault.STICKY: (
        "illegal memory access",
        "illegal instruction",
        "misaligned address",
        "device-side assert",
        "unspecified launch failure",
        "launch timed out",
        "hardware stack error",
        "invalid program counter",
        "operation not supported on global/shared address space",
        "status_execution_failed",
        "cuda error: unknown error",
    ),
}
#: Who may say so. A model's own ValueError about an "illegal instruction" is no device's.
_DEVICE_WORDS = re.compile(r"\bcuda|\bcu(blas|dnn|fft|sparse)|\bhip\b|\bnvml|\bgpu\b|\bxid\b", re.IGNORECASE)
_NUMBER = re.compile(r"CUDA (?:failure|error) (\d+)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """A smaller batch may fit: MemoryError, CUDA's and torch's out of memory, ONNX Runtime's failed allocations."""
    return fault_of(error) is Fault.OUT_OF_MEMORY


def fatal_fault(error: BaseException) -> Fault | None:
    """STICKY or LOST where this process cannot go on, else None."""
    fault = fault_of(error)
    return None if fault is Fault.OUT_OF_MEMORY else fault


def raise_if_fatal(error: Exception) -> None:
    """Raises DeviceFailed where the process must end: running a part of the batch again would fail as well."""
    if isinstance(error, DeviceFailed):
        raise error
    if (fault := fatal_fault(error)) is not None:
        raise DeviceFailed(f"{fault.value}: {error}", fault) from error


def fault_of(error: BaseException) -> Fault | None:
    """What an error means, or what the error that it was made of means; None for one of no device."""
    for one in _chain(error):
        if (fault := _fault(one)) is not None:
            return fault
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _fault(error: BaseException) -> Fault | None:
    if isinstance(error, DeviceFailed):
        return error.fault
    if isinstance(error, MemoryError) or _is_named(error, "OutOfMemoryError"):
        return Fault.OUT_OF_MEMORY
    if not isinstance(error, RuntimeError) and not _is_onnx_runtime(error):
        return None
    text = str(error)
    number = getattr(error, "error_code", None) or _number_in(text)
    return _BY_NUMBER.get(number or 0) or _by_words(text, from_device=bool(_DEVICE_WORDS.search(text)))


def _by_words(text: str, from_device: bool) -> Fault | None:
    text = text.lower()
    for fault, words in _BY_WORDS.items():
        # Memory of the host runs out too, and then nobody speaks of a device.
        if (from_device or fault is Fault.OUT_OF_MEMORY) and any(one in text for one in words):
            return fault
    return None


def _number_in(text: str) -> int | None:
    found = _NUMBER.search(text)
    return int(found[1]) if found else None


def _is_named(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)


def _is_onnx_runtime(error: BaseException) -> bool:
    return any(kind.__module__.startswith("onnxruntime") for kind in type(error).__mro__)
