"""Models for tests of what becomes of work when its worker ends."""

import os
import signal
import time
from pathlib import Path

from inference_worker import model


@model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"})
def double(x):
    return {"y": 2 * x}


@model(inputs={"marker": "BYTES[]"}, outputs={"pid": "INT64[]"}, sample={"marker": ""})
def dies_once(marker):
    """Kills its process the first time it is given a path, and leaves a file there so as to know."""
    path = Path(marker[0])
    if marker[0] and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": [os.getpid()] * len(marker)}


@model(inputs={"gate": "BYTES[]"}, outputs={"pid": "INT64[]"}, sample={"gate": ""}, rows=1)
def waits(gate):
    """Makes the file `<gate>.entered`, then waits until the file `gate` is there."""
    if gate[0]:
        Path(gate[0] + ".entered").touch()
        while not Path(gate[0]).exists():
            time.sleep(0.01)
    return {"pid": [os.getpid()] * len(gate)}
