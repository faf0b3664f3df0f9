"""Checks of this host's GPUs: whether the driver answers, and whether torch and ONNX Runtime can use them.

The libraries are asked in a process of their own: importing torch takes seconds, and a broken driver may hang it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from common.text import printable
from inference_worker.cli.doctor.finding import Finding, error, note, warning, well
from inference_worker.devices.gpus import Gpu, list_gpus, visible

#: torch is imported within this time on a cold disk, too.
LIBRARIES_TIMEOUT_S = 60.0
#: Free share of a GPU's memory below which somebody else may sit on it.
FREE = 0.1

_ASK = """
import json, sys
found = {}
try:
    import torch
    found["torch"] = torch.__version__
    found["cuda"] = torch.version.cuda
    found["gpus"] = torch.cuda.device_count() if torch.version.cuda else 0
except ImportError: pass
try:
    import onnxruntime
    found["onnxruntime"] = onnxruntime.__version__
    found["providers"] = onnxruntime.get_available_providers()
except ImportError: pass
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Devices:
    """What is looked at. `shown`: GPUs that CUDA_VISIBLE_DEVICES leaves; `libraries` None where they do not load."""

    gpus: Sequence[Gpu]
    shown: Sequence[str]
    mask: str | None
    hardware: bool
    nvml: bool
    libraries: Mapping[str, Any] | None
    trouble: str = ""


def read() -> Devices:
    gpus, mask = list_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    libraries, trouble = _libraries()
    hardware = os.path.exists("/dev/nvidiactl") or shutil.which("nvidia-smi") is not None
    return Devices(gpus, visible(mask, gpus), mask, hardware, find_spec("pynvml") is not None, libraries, trouble)


def findings(devices: Devices) -> Iterator[Finding]:
    yield driver(devices)
    yield from (memory(number, gpu) for number, gpu in enumerate(devices.gpus) if gpu.memory)
    yield from libraries(devices)


def driver(devices: Devices) -> Finding:
    check = "gpus"
    if not devices.gpus:
        if devices.hardware:
            return error(
                check,
                "there is a driver, and it lists no GPU",
                "workers with --device cuda refuse to start, and auto serves on the CPU alone",
                "nvidia-smi tells why; in a container pass the GPUs on (docker run --gpus all)",
            )
        return well(check, "none: models run on the CPU")
    names = ", ".join(gpu.name or gpu.uuid for gpu in devices.gpus)
    if not devices.shown:
        return warning(
            check, names, f"CUDA_VISIBLE_DEVICES={devices.mask} hides all of them", "unset it, or name those to use"
        )
    if not devices.nvml:
        return note(
            check,
            names,
            "without nvidia-ml-py their memory is known only to the process that has them",
            "pip install 'inference-worker[cuda]'",
        )
    return well(check, f"{names}; {len(devices.shown)} to use")


def memory(number: int, gpu: Gpu) -> Finding:
    assert gpu.memory is not None
    check = f"gpu {number} memory"
    if gpu.memory.free < FREE * gpu.memory.total:
        return note(
            check, str(gpu.memory), "where no worker runs on it, a process that is left over holds it", "nvidia-smi"
        )
    return well(check, str(gpu.memory))


def libraries(devices: Devices) -> Iterator[Finding]:
    found = devices.libraries
    if found is None:
        yield error(
            "libraries",
            f"torch or onnxruntime does not load: {devices.trouble}",
            "workers whose models need it do not start",
            "install it anew: pip install 'inference-worker[torch,onnx]'",
        )
        return
    if "torch" in found:
        yield _torch(devices, found)
    if "onnxruntime" in found:
        yield _onnx(devices, found)
    if not found:
        yield note("libraries", "neither torch nor onnxruntime is installed", "only models in plain Python run here")


def _torch(devices: Devices, found: Mapping[str, Any]) -> Finding:
    told = f"{found['torch']}{', CUDA ' + found['cuda'] if found['cuda'] else ''}"
    if devices.shown and not found["cuda"]:
        return error(
            "torch", told, "this build knows no CUDA: GPUs stay idle", "install a build for your CUDA (README)"
        )
    if devices.shown and not found["gpus"]:
        return error(
            "torch",
            f"{told}, and sees none of {len(devices.shown)} GPUs",
            "the driver is too old for this build, or broken",
            "update the driver, or install a build for an older CUDA (README)",
        )
    return well("torch", told)


def _onnx(devices: Devices, found: Mapping[str, Any]) -> Finding:
    if devices.shown and "CUDAExecutionProvider" not in found["providers"]:
        return note(
            "onnxruntime",
            found["onnxruntime"],
            "this build runs models on the CPU alone",
            "pip install onnxruntime-gpu",
        )
    return well("onnxruntime", found["onnxruntime"])


def _libraries() -> tuple[Mapping[str, Any] | None, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=LIBRARIES_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"it hangs for {LIBRARIES_TIMEOUT_S:g} s"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return None, printable(last[0])
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found, ""
