"""A TOML file with the line of each of its keys, so that an error can say where. tomllib itself tells no positions."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from common.errors import ConfigError

_SYNTAX_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_MAY_END = re.compile(r"[\]}]|\"\"\"|'''")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A file of settings by its name and text; the latter is empty where Python declares them, which has no lines.

    A path names a key as in `batch.rows`, `inputs[1].dtype`.
    """

    file: str
    text: str = ""

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """The file at `path`. Raises ConfigError where it cannot be read."""
        try:
            return cls(str(path), Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def read(self) -> dict[str, Any]:
        """The values. Raises ConfigError with file and line for what is not TOML."""
        try:
            return tomllib.loads(self.text)
        except RecursionError as error:
            raise ConfigError(f"{self.file}: this is not TOML: it nests too deeply") from error
        except ValueError as error:
            # TOMLDecodeError, or an integer with more digits than Python reads.
            place = _SYNTAX_LINE.search(str(error))
            line = int(place[1]) if place else len(self.text.splitlines()) or 1
            problem = _SYNTAX_LINE.sub("", str(error)).strip()
            raise self.wrong_at(line, f"this is not TOML: {problem}") from error

    def wrong(self, path: str, problem: str) -> ConfigError:
        """The error for the key at `path`, with its line where the text has it."""
        return self.wrong_at(self.lines().get(path), f"{path} {problem}")

    def wrong_at(self, line: int | None, problem: str) -> ConfigError:
        return ConfigError(f"{self.file}{f':{line}' if line else ''}: {problem}")

    def lines(self) -> dict[str, int]:
        """path -> the line on which its statement begins, for every key and table of a text that is TOML."""
        found: dict[str, int] = {}
        headers = Counter[str]()
        table = ""
        for number, statement in _statements(self.text.replace("\r\n", "\n")):
            values = tomllib.loads(statement)
            if statement.lstrip().startswith("["):
                table = _enter(values, number, found, headers)
            else:
                for path in _paths(values, table):
                    found.setdefault(path, number)
        return found


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each header, assignment, comment and empty line: the fewest lines that are TOML by themselves."""
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        stop = next((end for end in range(start + 1, len(lines) + 1) if _is_whole(lines[start:end])), None)
        if stop is None:
            return
        yield start + 1, "\n".join(lines[start:stop])
        start = stop


def _is_whole(lines: list[str]) -> bool:
    if len(lines) > 1 and not _MAY_END.search(lines[-1]):
        return False
    try:
        tomllib.loads("\n".join(lines))
    except ValueError:
        return False
    return True


def _enter(values: Mapping[str, Any], number: int, found: dict[str, int], headers: Counter[str]) -> str:
    """The path of the table that a header opens, noted with its line."""
    path = ""
    while values:
        [(key, inner)] = values.items()
        path = join(path, key)
        found.setdefault(path, number)
        if isinstance(inner, list):
            headers[path] += 1
            inner = inner[0]
        if headers[path]:
            # The last of a list of tables is the one that is open.
            path = f"{path}[{headers[path] - 1}]"
            found.setdefault(path, number)
        values = inner
    return path


def _paths(value: object, path: str) -> Iterator[str]:
    """Those of all keys inside `value`, which stands at `path`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield join(path, key)
            yield from _paths(inner, join(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, (Mapping, list)):
                yield f"{path}[{index}]"
                yield from _paths(inner, f"{path}[{index}]")
