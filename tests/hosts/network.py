"""Hosts on one machine: network namespaces with names of their own, each with one link to a switch.

A namespace lives as long as the process that holds it, and that one as long as ours: nothing is left on the machine,
whatever ends us.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "hostname": "hostname"}
#: Nothing outside of these namespaces has such an address, and nothing in them reaches outside.
SUBNET = "10.77.0"
_HOLD = 'hostname "$0" && ip link set lo up && echo held && exec cat'


def missing() -> str:
    """What this machine lacks for it, in words; empty where nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if lacking := sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)}):
        return f"network namespaces need {', '.join(lacking)}: apt-get install {' '.join(lacking)}"
    tried = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True, check=False)
    return f"this kernel gives no network namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class Namespace:
    """A network and a host name of its own, until `close`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", _HOLD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"held\n", f"the network namespace of '{name}' was not made"

    @property
    def pid(self) -> int:
        """Of the process that holds it."""
        return self._holder.pid

    def command(self, *command: str | Path) -> list[str]:
        """A command as one that runs in here."""
        return ["nsenter", "--target", str(self.pid), "--net", "--uts", *map(str, command)]

    def run(self, *command: str | Path) -> str:
        """Run it to its end; its standard output."""
        return subprocess.run(self.command(*command), check=True, capture_output=True, text=True).stdout

    def start(self, command: Sequence[str | Path], log: IO[bytes], cwd: Path) -> subprocess.Popen[bytes]:
        """Start it; `nsenter` becomes the command, so its process is the command's."""
        return subprocess.Popen(
            self.command(*command), cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )

    def close(self) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()


class Network:
    """A switch. `host` adds a host to it, and `cut` and `mend` do what a pulled cable does."""

    def __init__(self) -> None:
        self._after = ExitStack()
        self._switch = self._made("switch")
        self._hosts: list[Namespace] = []
        self._ip("link add switch type bridge")
        self._ip("link set switch up")

    def host(self, name: str) -> Namespace:
        """A new one, on the network. Its name is at most 15 bytes long, as names of links are."""
        host = self._made(name)
        self._hosts.append(host)
        self._ip(f"link add {name} type veth peer name eth0 netns {host.pid}")
        self._ip(f"link set {name} master switch up")
        host.run("ip", "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def address(self, host: Namespace) -> str:
        return f"{SUBNET}.{self._hosts.index(host) + 1}"

    def cut(self, host: Namespace) -> None:
        """Its link is down: packets both ways are lost, and no connection is told."""
        self._ip(f"link set {host.name} down")

    def mend(self, host: Namespace) -> None:
        self._ip(f"link set {host.name} up")

    def _made(self, name: str) -> Namespace:
        made = Namespace(name)
        self._after.callback(made.close)
        return made

    def _ip(self, command: str) -> None:
        self._switch.run("ip", *command.split())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._after.close()
