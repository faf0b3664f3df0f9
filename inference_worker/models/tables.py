"""Tables of a declaration, read with checks: each key is taken once, and what is left over is unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError, InvalidRequest
from common.names import shorten
from common.tomlfile import TomlFile, join

_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key may hold: in words, and as a test."""

    expected: str
    holds: Callable[[Any], bool]


TABLE = Kind("a table", lambda value: isinstance(value, Mapping))
TABLES = Kind("a list of tables", lambda value: isinstance(value, list) and all(map(TABLE.holds, value)))


class Table:
    """One table of a declaration. Every method raises ConfigError that names file, line and key."""

    def __init__(self, source: TomlFile, path: str, values: Mapping[str, Any]) -> None:
        self._source = source
        self._path = path
        self._left = dict(values)
        self._known: list[str] = []

    @property
    def empty(self) -> bool:
        return not self._left

    def take(self, key: str, kind: Kind, default: Any = _MISSING) -> Any:
        """The key's value, checked, or `default`; without a default it must be there."""
        self._known.append(key)
        value = self._left.pop(key, _MISSING)
        if value is not _MISSING:
            if not kind.holds(value):
                raise self.wrong(key, f"must be {kind.expected}; got {shorten(value)}")
            return value
        if default is _MISSING:
            raise self.wrong(key, f"is missing; it must be {kind.expected}")
        return default

    def table(self, key: str) -> Table:
        return Table(self._source, self._path_of(key), self.take(key, TABLE, {}))

    def tables(self, key: str) -> list[Table]:
        values = self.take(key, TABLES, [])
        return [Table(self._source, f"{self._path_of(key)}[{index}]", value) for index, value in enumerate(values)]

    def take_rest(self) -> dict[str, Any]:
        """All keys that nobody has taken, unchecked."""
        rest, self._left = self._left, {}
        return rest

    def end(self) -> None:
        """Refuse the first key that nobody has taken."""
        for key in self._left:
            raise self.wrong(key, f"is unknown; known here: {', '.join(sorted(self._known))}")

    def check(self, key: str, check: Callable[..., Any], *arguments: object) -> Any:
        """What `check` returns, its InvalidRequest told as this key's error."""
        try:
            return check(*arguments)
        except InvalidRequest as error:
            raise self.wrong(key, f"is wrong: {error}") from error

    def wrong(self, key: str, problem: str) -> ConfigError:
        return self._source.wrong(self._path_of(key), problem)

    def _path_of(self, key: str) -> str:
        return join(self._path, key)
