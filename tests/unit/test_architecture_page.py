"""docs/architecture.md leads to every module: each is named in a row of its room, and what is named there exists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from inference_worker.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "gateway", "inference_worker")
#: These need no name: what makes a folder a package or runs it, and what a tool has written.
UNNAMED = ("__init__", "__main__")
GENERATED = "gateway/grpc/pb"


class Row(NamedTuple):
    """One row of the tables: the folders that it speaks of, and what it names."""

    rooms: list[str]
    names: set[str]


def rows() -> Iterator[Row]:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ""
    for line in page.partition("\n## Rooms\n")[2].splitlines():
        first, bar, second = line.strip("| ").partition(" | ")
        if header := re.fullmatch(r"room of `(\w+)/`", first):
            package = header[1]
        elif first.startswith("top: "):
            yield Row([package], set(re.findall(r"`(\w+)`", line)))
        elif rooms := re.findall(r"`([\w/]+)/`", first) if bar else []:
            yield Row([f"{package}/{room}" for room in rooms], set(re.findall(r"`(\w+)`", second)))


def modules() -> dict[str, set[str]]:
    """Of each folder with code."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found[path.parent.relative_to(ROOT).as_posix()].add(path.stem)
    del found[GENERATED]
    return found


def test_every_module_is_named_in_a_row_of_its_room() -> None:
    named: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows():
        for room in row.rooms:
            named[room] |= row.names
    # A command is found by its own name.
    named["inference_worker/cli"] |= COMMANDS.keys()

    unnamed = {room: there - named[room] - set(UNNAMED) for room, there in modules().items()}
    assert {room: missing for room, missing in unnamed.items() if missing} == {}


def test_what_a_row_names_is_in_its_rooms() -> None:
    there = modules()
    strangers = {
        " ".join(row.rooms): gone
        for row in rows()
        if (gone := row.names - COMMANDS.keys() - set().union(*(there[room] for room in row.rooms)))
    }
    assert strangers == {}
