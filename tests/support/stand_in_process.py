"""The real worker process on a stand-in for its device, which fails as files in FOLDER say.

    python -m tests.support.stand_in_process FOLDER

FOLDER/sticky: the context dies with the next batch, once: the file is taken away. FOLDER/lost: the device is gone with
the next batch, and while the file stays no process finds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from common.tensor import Array
from inference_worker import process
from inference_worker.devices.accelerator import KINDS, Flight, Tensors
from inference_worker.devices.faults import DeviceFailed, Fault
from tests.support.stand_in_device import LOST, STICKY, StandIn


class Told(StandIn):
    """Looks at the folder before each batch."""

    def __init__(self, folder: Path) -> None:
        if (folder / "lost").exists():
            raise DeviceFailed("there is no device 'cuda:0': torch sees 0 CUDA devices", Fault.LOST)
        super().__init__()
        self._folder = folder

    def begin(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        if (self._folder / "sticky").exists():
            (self._folder / "sticky").unlink()
            self.fail(STICKY)
        if (self._folder / "lost").exists():
            self.fail(LOST)
        return super().begin(arrays, compute)


if __name__ == "__main__":
    KINDS["cpu"] = lambda index: Told(Path(sys.argv[1]))
    process.run()
