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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError, InvalidRequest
from common.keys import DEFAULT_POOL
from common.names import check_pool, shorten
from common.tomlfile import TomlFile
from common.versions import version_number
from gateway.routing import Condition, Route, Routes

_CONDITION = re.compile(r"(==|=|!=|<=|<|>=|>)\s*([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")
_KEYS = ("model", "version", "tenant", "pool")
_CONDITIONS = ("model", "version", "tenant")


def load_routes(path: str | Path) -> Routes:
    """The rules in a file. Raises ConfigError: `routes.toml:LINE: ...`."""
    return _Reader(TomlFile.of(path)).read()


def parse_routes(text: str, file: str = "routes.toml") -> Routes:
    """The rules in `text`; `file` names it in errors. Raises ConfigError."""
    return _Reader(TomlFile(file, text)).read()


class _Reader:
    """Checks a file's tables one by one."""

    def __init__(self, file: TomlFile) -> None:
        self._file = file
        self._data = file.read()
        self._lines = file.lines()

    def read(self) -> Routes:
        for name in self._data.keys() - {"default", "route"}:
            problem = f"unknown key {shorten(name)}; known are default and [[route]]"
            raise self._wrong(name, problem)
        tables = self._data.get("route", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._wrong("route", "each rule is a table: [[route]]")
        return Routes([self._route(index, table) for index, table in enumerate(tables)], self._default())

    def _default(self) -> str:
        try:
            return check_pool(self._data.get("default", DEFAULT_POOL))
        except InvalidRequest as error:
            raise self._wrong("default", f"default: {error.message}") from None

    def _route(self, index: int, table: Mapping[str, Any]) -> Route:
        rule = f"route[{index}]"

        def wrong(key: str, problem: str) -> ConfigError:
            return self._wrong(f"{rule}.{key}", problem)

        for key, value in table.items():
            if key not in _KEYS:
                raise wrong(key, f"unknown key {shorten(key)}; a rule has {', '.join(_KEYS)}")
            if not isinstance(value, str):
                raise wrong(key, f"{key} must be a string; got {shorten(value)}")
            if key in ("model", "tenant") and not _GLOB.fullmatch(value):
                raise wrong(key, f'{key} must be a name or a glob such as "gpt*"; got {shorten(value)}')
        if "pool" not in table:
            raise self._wrong(rule, "the rule has no pool")
        if not any(key in table for key in _CONDITIONS):
            raise self._wrong(rule, f'the rule takes every request; write: default = "{table["pool"]}"')
        try:
            pool, versions = check_pool(table["pool"]), _conditions(table.get("version"))
        except InvalidRequest as error:
            raise wrong("pool", error.message) from None
        except ConfigError as error:
            raise wrong("version", error.message) from None
        return Route(pool, table.get("model"), versions, table.get("tenant"), self._lines[rule])

    def _wrong(self, path: str, problem: str) -> ConfigError:
        return self._file.wrong_at(self._lines[path], problem)


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
