"""Reads the rules of routing.py from a file, routes.toml, and finds the line of whatever is wrong in it.

default = "default-pool"

[[route]]
model = "gpt*"      # a name or a glob; left out: any
version = ">= 4"    # any of = == != < <= > >= and a version; a comma joins two conditions
tenant = "acme*"    # a name or a glob
pool = "gpu-pool-a"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError, InvalidRequest
from common.keys import DEFAULT_POOL
from common.names import check_pool, shorten
from common.versions import version_number
from gateway.routing import Condition, Route, Routes

_CONDITION = re.compile(r"(==|=|!=|<=|<|>=|>)\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")
_SYNTAX_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_KEYS = ("model", "version", "tenant", "pool")
_CONDITIONS = ("model", "version", "tenant")


def load_routes(path: str | Path) -> Routes:
    """The rules in a file. Raises ConfigError: `routes.toml:LINE: ...`."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_routes(text, str(path))


def parse_routes(text: str, file: str = "routes.toml") -> Routes:
    """The rules in `text`; `file` names it in errors. Raises ConfigError."""
    return _Reader(text, file).read()


class _Reader:
    """Checks a file's tables one by one, and finds the line of whatever is wrong."""

    def __init__(self, text: str, file: str) -> None:
        self._lines = text.splitlines()
        self._file = file
        self._data = self._parse(text)

    def read(self) -> Routes:
        for name in self._data.keys() - {"default", "route"}:
            problem = f"unknown key {shorten(name)}; known are default and [[route]]"
            raise self._error(self._line_of_key(0, name), problem)
        tables = self._data.get("route", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._error(self._line_where(lambda data: "route" in data), "each rule is a table: [[route]]")
        return Routes([self._route(index, table) for index, table in enumerate(tables)], self._default())

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = _SYNTAX_LINE.search(str(error))
            line = int(place[1]) if place else max(1, len(self._lines))
            raise self._error(line, f"this is not TOML: {_SYNTAX_LINE.sub('', str(error)).strip()}") from error

    def _default(self) -> str:
        try:
            return check_pool(self._data.get("default", DEFAULT_POOL))
        except InvalidRequest as error:
            raise self._error(self._line_of_key(0, "default"), f"default: {error.message}") from None

    def _route(self, index: int, table: Mapping[str, Any]) -> Route:
        start = self._line_of_route(index)

        def wrong(key: str, problem: str) -> ConfigError:
            return self._error(self._line_of_key(start, key), problem)

        for key, value in table.items():
            if key not in _KEYS:
                raise wrong(key, f"unknown key {shorten(key)}; a rule has {', '.join(_KEYS)}")
            if not isinstance(value, str):
                raise wrong(key, f"{key} must be a string; got {shorten(value)}")
            if key in ("model", "tenant") and not _GLOB.fullmatch(value):
                raise wrong(key, f'{key} must be a name or a glob such as "gpt*"; got {shorten(value)}')
        if "pool" not in table:
            raise self._error(start, "the rule has no pool")
        if not any(key in table for key in _CONDITIONS):
            raise self._error(start, f'the rule takes every request; write: default = "{table["pool"]}"')
        try:
            pool, versions = check_pool(table["pool"]), _conditions(table.get("version"))
        except InvalidRequest as error:
            raise wrong("pool", error.message) from None
        except ConfigError as error:
            raise wrong("version", error.message) from None
        return Route(pool, table.get("model"), versions, table.get("tenant"), start)

    def _error(self, line: int, problem: str) -> ConfigError:
        return ConfigError(f"{self._file}:{line}: {problem}")

    def _line_of_route(self, index: int) -> int:
        def has_it(data: Mapping[str, Any]) -> bool:
            tables = data.get("route")
            return isinstance(tables, list) and len(tables) > index

        return self._line_where(has_it)

    def _line_of_key(self, start: int, key: str) -> int:
        """The line from `start` on that sets `key`; `start` itself where none does."""
        pattern = re.compile(rf"""[\s\[{{,]*["']?{re.escape(key)}["']?\s*[=.\]]""")
        for number, line in enumerate(self._lines[max(0, start - 1) :], max(1, start)):
            if pattern.match(line):
                return number
        return max(1, start)

    def _line_where(self, holds: Callable[[Mapping[str, Any]], bool]) -> int:
        """The first line with which `holds` is true of the file so far: tomllib tells no positions."""
        for number in range(1, len(self._lines) + 1):
            try:
                if holds(tomllib.loads("\n".join(self._lines[:number]))):
                    return number
            except tomllib.TOMLDecodeError:
                continue
        return 1


def _conditions(text: str | None) -> tuple[Condition, ...]:
    return () if text is None else tuple(_condition(part.strip()) for part in text.split(","))


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(f'version must be conditions such as ">= 4, < 5"; got {shorten(text)}')
    operator, version = match.groups()
    if operator in ("<", "<=", ">", ">=") and version_number(version) is None:
        raise ConfigError(f"only numbers have an order: '{version}' can be compared with = and != alone")
    return Condition(operator, version)
