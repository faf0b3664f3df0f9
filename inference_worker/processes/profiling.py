"""What this process computes for some seconds, by torch's own profiler, as a trace that a browser opens."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from common.errors import ConfigError

#: Begins the name of the folder that the file is in: nobody else may read that.
PREFIX = "inference-worker-profile-"


def file_name(worker: str) -> str:
    return f"{worker}.json.gz"


def record(name: str, seconds: float) -> Path:
    """The file, in a folder of its own under the host's for temporary files: Chrome's trace format, gzipped.

    All threads' operations, and those of the GPU. Raises ConfigError in a process that runs no torch.
    """
    if "torch" not in sys.modules:
        raise ConfigError("this worker runs no torch, so torch's profiler sees nothing: use --kind py-spy")
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import profile

    # All that this machine has to offer; without the option only this thread's own operations, which are none.
    profiler = profile(experimental_config=_ExperimentalConfig(profile_all_threads=True))
    profiler.start()
    time.sleep(seconds)
    profiler.stop()
    path = Path(tempfile.mkdtemp(prefix=PREFIX)) / file_name(name)
    profiler.export_chrome_trace(str(path))
    return path
