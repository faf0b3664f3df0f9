"""deploy/systemd: units that systemd takes, and that give their services no more than they need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import UNITS, unit

#: systemd-analyze's own scale ends at 10; below 2.5 it calls a service OK.
EXPOSURE = 25
PROGRAM = "/opt/inference-worker/bin/inference-worker"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt-get install systemd"
)


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units as an operator has them: an instance of each template, and the program where they say that it is."""
    program = tmp_path / "inference-worker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    paths = [tmp_path / path.name.replace("@.", "@gpu0.") for path in UNITS]
    for source, path in zip(UNITS, paths, strict=True):
        path.write_text(source.read_text("utf-8").replace(PROGRAM, str(program)))
    return paths


@needs_systemd
def test_systemd_takes_them(installed: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *installed], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, [line for line in done.stderr.splitlines() if "inference-" in line]) == (0, [])


@needs_systemd
def test_they_are_not_exposed(installed: list[Path]) -> None:
    for path in installed:
        arguments = ["--no-pager", "--offline=yes", f"--threshold={EXPOSURE}", path]
        done = subprocess.run(
            ["systemd-analyze", "security", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_stop_drains_first_and_a_lack_of_memory_ends_one_process_only(path: Path) -> None:
    service = unit(path)["Service"]

    # SIGTERM reaches who drains the others, and them not.
    assert service["KillMode"] == "mixed"
    assert service["OOMPolicy"] == "continue"
    assert service["RestartPreventExitStatus"] == "2"
