"""The folder in which an `up` announces its broker: one that another user could write to is not looked into."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import MODELS, CommandLine

CPU = ("--device", "cpu")
#: What an attacker would announce.
EVIL = "redis://127.0.0.1:1/0"


def folder_of(shell: CommandLine) -> Path:
    return shell.temporary / f"inference-worker-{os.getuid()}"


def announce(folder: Path) -> None:
    """The announcement of a process that runs: ours."""
    file = folder / str(os.getpid())
    file.write_text(EVIL)
    file.chmod(0o600)


def open_to_others(shell: CommandLine) -> str:
    folder = folder_of(shell)
    folder.mkdir()
    folder.chmod(0o777)
    announce(folder)
    return "is open to other users (mode 777)"


def a_link(shell: CommandLine) -> str:
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    announce(elsewhere)
    folder_of(shell).symlink_to(elsewhere)
    return "is no folder"


def a_file(shell: CommandLine) -> str:
    folder_of(shell).touch(mode=0o600)
    return "is no folder"


def anothers(shell: CommandLine) -> str:
    if os.getuid() != 0:
        pytest.skip("only root can make a folder for another user")
    folder = folder_of(shell)
    folder.mkdir(mode=0o700)
    announce(folder)
    os.chown(folder, 65534, 65534)
    return "belongs to another user (id 65534)"


@pytest.mark.parametrize("plant", [open_to_others, a_link, a_file, anothers])
def test_a_folder_that_is_not_ours_alone_is_not_believed_and_told_to_whom_it_concerns(
    shell: CommandLine, redis_url: str, pool: str, plant: Callable[[CommandLine], str]
) -> None:
    why = plant(shell)
    try:
        # A command that is told its broker does not need the folder
        told = shell.run("status", "--broker", redis_url, "--pool", pool)
        assert (told.code, told.err) == (0, "")
        # One that is not does not believe what stands there, and says why
        untold = shell.run("status")
        assert untold.code == 69
        assert "no broker answers at redis://127.0.0.1:6379" in untold.error
        assert f"{folder_of(shell)} {why}" in untold.error
        # `up` serves, and says that nobody will find it
        with shell.running("up", MODELS, *CPU) as up:
            up.wait_for("warning: other commands must name this broker")
            up.wait_for(" serves ")
            assert up.stop() == 0
        assert f"{folder_of(shell)} {why}" in up.printed
    finally:
        _remove(folder_of(shell))


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_file_that_others_can_write_is_not_believed(shell: CommandLine) -> None:
    folder = folder_of(shell)
    folder.mkdir(mode=0o700)
    announce(folder)
    (folder / str(os.getpid())).chmod(0o666)

    done = shell.run("status")

    assert "no broker answers at redis://127.0.0.1:6379" in done.error
    _remove(folder)
