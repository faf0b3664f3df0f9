"""The Procfile, run by honcho: a broker and a worker that answer, and that end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from common.embedded import find_server, free_port
from gateway import Client
from tests.support.command import MODELS, ROOT
from tests.support.waiting import wait_until


def test_honcho_starts_what_serves_and_ends_it(tmp_path: Path) -> None:
    # Given our program and a redis-server on the PATH, as an installation has them
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(find_server())
    ours = programs / "inference-worker"
    ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m inference_worker.cli "$@"\n')
    ours.chmod(0o755)
    port = free_port()
    environment = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "REDIS_PORT": str(port), "DATA": str(tmp_path), "MODELS": str(MODELS),
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as output:
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        # When it has started both
        wait_until(lambda: " serves " in log.read_text() or honcho.poll() is not None, "the worker serves", 30)
        with Client(f"redis://127.0.0.1:{port}", timeout_s=20) as client:
            assert client.infer("shout", "hello")["output"].item() == "HELLO"
    finally:
        honcho.send_signal(signal.SIGTERM)
        code = honcho.wait(20)
    # Then both end by one signal, as they were asked to
    assert code == 128 + signal.SIGTERM
    assert log.read_text().count("stopped (rc=0)") == 2, log.read_text()
