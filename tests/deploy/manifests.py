"""What stands in deploy/, read: its YAML, its units, and the commands of ours that it runs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from configparser import RawConfigParser
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMMAND = "inference-worker"


class Command(NamedTuple):
    """One of ours, as it is written down in `place`, without the program's name.

    `grace_s` is what it has between SIGTERM and SIGKILL; None for a probe.
    """

    place: str
    arguments: tuple[str, ...]
    grace_s: float | None = None

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.arguments)}"

    def seconds(self, option: str) -> float:
        """The value of an option that it names, as `--drain 30` or `--drain=30`; 0 where it does not."""
        words = [word for argument in self.arguments for word in argument.split("=", 1)]
        return float(words[words.index(option) + 1]) if option in words else 0.0


@cache
def documents(folder: str) -> tuple[dict[str, Any], ...]:
    """The Kubernetes objects of deploy/kubernetes/`folder`."""
    files = (path for path in sorted((KUBERNETES / folder).glob("*.yaml")) if path.name != "kustomization.yaml")
    return tuple(one for path in files for one in yaml.safe_load_all(path.read_text("utf-8")))


def workloads() -> list[dict[str, Any]]:
    return [one for one in documents("base") if one["kind"] in ("Deployment", "StatefulSet")]


def of_kind(kind: str, folder: str = "base") -> list[dict[str, Any]]:
    return [one for one in documents(folder) if one["kind"] == kind]


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


@cache
def unit(path: Path) -> RawConfigParser:
    """A systemd unit; of a key that is there several times, such as Environment, the last."""
    parser = RawConfigParser(strict=False, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    return parser


def commands() -> Iterator[Command]:
    """All of ours in deploy/ and the Procfile."""
    yield from _of_procfile()
    yield from _of_units()
    yield from _of_compose()
    yield from _of_kubernetes()
    yield from _of_image()


def _of_procfile() -> Iterator[Command]:
    for line in (ROOT / "Procfile").read_text("utf-8").splitlines():
        name, _, text = line.partition(": ")
        _exec, program, *arguments = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
        if program == COMMAND:
            yield Command(f"Procfile, {name}", tuple(arguments))


def _of_units() -> Iterator[Command]:
    for path in UNITS:
        service = unit(path)["Service"]
        program, *arguments = shlex.split(service["ExecStart"].replace("$MODELS", "/models"))
        assert Path(program).name == COMMAND
        yield Command(path.name, tuple(arguments), float(service["TimeoutStopSec"]))


def _of_compose() -> Iterator[Command]:
    for name, service in compose()["services"].items():
        if str(service.get("image")).startswith(COMMAND):
            grace = service.get("stop_grace_period")
            yield Command(f"compose.yaml, {name}", tuple(service["command"]), float(grace[:-1]) if grace else None)


def _of_kubernetes() -> Iterator[Command]:
    for workload in workloads():
        spec = workload["spec"]["template"]["spec"]
        for container in spec["containers"]:
            if not container["image"].startswith(COMMAND):
                continue
            name = workload["metadata"]["name"]
            yield Command(name, tuple(container["args"]), float(spec["terminationGracePeriodSeconds"]))
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "exec" in container[probe]:
                    yield Command(f"{name}, {probe}", tuple(container[probe]["exec"]["command"][1:]))


def _of_image() -> Iterator[Command]:
    [probe] = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    yield Command("Dockerfile, HEALTHCHECK", tuple(json.loads(probe)[1:]))
