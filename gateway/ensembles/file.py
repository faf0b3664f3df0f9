"""Reads ensembles from a file, ensembles.toml, and finds the line of whatever is wrong in it.

[answer.steps.embed]
model = "minilm"
version = "prod"                       # left out: whichever version answers
pool = "gpu-pool-a"                    # left out: by the client's routes
inputs.text = "request.question"       # request.INPUT or STEP.OUTPUT

[answer.steps.rank]
model = "ranker"
inputs.query = "embed.embedding"
inputs.passages = "request.passages"
parameters.top_k = 3
priority = "high"                      # left out: the request's own

[answer.outputs]
scores = "rank.scores"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import InvalidRequest
from common.names import check_name, check_pool, shorten
from common.protocol import check_parameters
from common.tomlfile import TomlFile
from gateway.composer import stream_of
from gateway.ensembles.ensemble import REQUEST, Ensemble, Source, Step, flaw

#: A step's name stands before the dot of a reference: it holds none.
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_STEP_KEYS = ("model", "version", "pool", "inputs", "parameters", "priority")
_EXAMPLE = f'a reference such as "{REQUEST}.text" or "embed.embedding"'


def load_ensembles(path: str | Path) -> dict[str, Ensemble]:
    """The ensembles in a file, by name. Raises ConfigError: `ensembles.toml:LINE: ...`."""
    return _read(TomlFile.of(path))


def parse_ensembles(text: str, file: str = "ensembles.toml") -> dict[str, Ensemble]:
    """The ensembles in `text`; `file` names it in errors. Raises ConfigError."""
    return _read(TomlFile(file, text))


def _read(file: TomlFile) -> dict[str, Ensemble]:
    return {name: _Reader(file, name).read(table) for name, table in file.read().items()}


class _Reader:
    """Checks one ensemble's tables. Every error is told with the line of its key."""

    def __init__(self, file: TomlFile, name: str) -> None:
        self._file = file
        self._name = name

    def read(self, table: object) -> Ensemble:
        self._check(check_name, "an ensemble's name", self._name)
        table = self._table(table)
        for key in table.keys() - {"steps", "outputs"}:
            raise self._wrong(f"unknown key {shorten(key)}; an ensemble has steps and outputs", key)
        steps = tuple(
            self._step(name, self._table(one, "steps", name))
            for name, one in self._table(table.get("steps", {}), "steps").items()
        )
        outputs = self._sources(table.get("outputs", {}), "outputs")
        found = flaw(steps, outputs)
        if found is not None:
            raise self._wrong(found.problem, *found.place)
        return Ensemble(self._name, steps, outputs)

    def _step(self, name: str, table: Mapping[str, Any]) -> Step:
        place = ("steps", name)
        if not _STEP.fullmatch(name):
            raise self._wrong(f"a step's name is 1 to 64 letters, digits, '_' or '-'; got {shorten(name)}", *place)
        for key in table.keys() - set(_STEP_KEYS):
            raise self._wrong(f"unknown key {shorten(key)}; a step has {', '.join(_STEP_KEYS)}", *place, key)
        if "model" not in table:
            raise self._wrong(f"step '{name}' has no model", *place)
        self._check(check_name, "model", table["model"], place=(*place, "model"))
        if "version" in table:
            self._check(check_name, "version", table["version"], place=(*place, "version"))
        for key, check in (("pool", check_pool), ("priority", stream_of), ("parameters", check_parameters)):
            if key in table:
                self._check(check, table[key], place=(*place, key))
        return Step(
            name,
            table["model"],
            self._sources(table.get("inputs", {}), *place, "inputs"),
            table.get("version"),
            table.get("pool"),
            table.get("parameters", {}),
            table.get("priority"),
        )

    def _sources(self, table: object, *place: str) -> dict[str, Source]:
        found = {}
        for name, reference in self._table(table, *place).items():
            self._check(check_name, f"the name in {place[-1]}", name, place=(*place, name))
            found[name] = self._source(reference, *place, name)
        return found

    def _source(self, reference: object, *place: str) -> Source:
        step, dot, name = reference.partition(".") if isinstance(reference, str) else ("", "", "")
        if not dot:
            raise self._wrong(f"'{place[-1]}' must be {_EXAMPLE}; got {shorten(reference)}", *place)
        self._check(check_name, f"what '{place[-1]}' takes", name, place=place)
        return Source(None if step == REQUEST else step, name)

    def _table(self, value: object, *place: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(f"{'.'.join((self._name, *place))} must be a table; got {shorten(value)}", *place)
        return value

    def _check(self, check: Callable[..., object], *arguments: object, place: tuple[str, ...] = ()) -> None:
        try:
            check(*arguments)
        except InvalidRequest as error:
            raise self._wrong(error.message, *place) from None

    def _wrong(self, problem: str, *place: str) -> Exception:
        lines, keys = self._file.lines(), [self._name, *place]
        # What is missing is told at the table that it is missing from.
        while ".".join(keys) not in lines and len(keys) > 1:
            keys.pop()
        return self._file.wrong_at(lines.get(".".join(keys)), f"ensemble '{self._name}': {problem}")
