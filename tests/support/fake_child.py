"""A child that speaks the worker process's protocol and serves nothing, so that a supervisor can be tested alone.

    python fake_child.py MANNER [FOLDER]

MANNER: `good`; `deaf` to being told to drain; `crashing` before it is ready; `misconfigured`; `loading` without end;
`stopped`, as by SIGSTOP, once it is ready; `breeding`, with a process of its own whose pid is in FOLDER/grandchild;
`printing` to standard output; `slow` to drain, until FOLDER/gate is there; `silent` after it has said that this may
last a second in all; `stuck` in a batch, by its own word. In FOLDER it keeps a file with its configuration, named by
its pid.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from inference_worker.processes.lifeline import die_with_parent
from inference_worker.supervision.watchdog import SILENT_S


def main(manner: str, folder: str | None = None) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    config = json.loads(sys.stdin.readline())
    if folder:
        Path(folder, f"{os.getpid()}.json").write_text(json.dumps(config))
    if manner == "crashing":
        return 1
    if manner == "misconfigured":
        say(status="failed", error="model folder '/none' does not exist")
        return 78
    if manner == "breeding" and folder:
        Path(folder, "grandchild").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    if manner == "printing":
        print("a model's words", flush=True)
    say(status="loading", model="echo:1", done=0, of=1)
    if manner != "loading":
        models = {"echo:1": base64.b64encode(b"metadata").decode()}
        say(status="ready", models=models, import_s=0.3, load_s=0.2, warm_s=0.1)
    if manner == "silent":
        say(status="stats", running="", busy_ms=0, limit_s=0.0, longest_s=1.0 - SILENT_S)
    if manner == "stuck":
        say(status="stats", running="echo:1", busy_ms=31_000, limit_s=30.0, longest_s=300.0)
    if manner == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    return obey(manner, folder)


def obey(manner: str, folder: str | None) -> int:
    for line in sys.stdin:
        if json.loads(line) == {"do": "drain"} and manner != "deaf":
            while manner == "slow" and folder and not Path(folder, "gate").exists():
                time.sleep(0.01)
            return 0
    return 3


def say(status: str, **facts: object) -> None:
    os.write(int(os.environ["INFERENCE_WORKER_STATUS_FD"]), json.dumps({"is": status, **facts}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
