"""Options from the environment and the configuration file, named as their flags are; unknown names are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from common.tomlfile import TomlFile


def setting_name(parameter: click.Parameter) -> str:
    """`max_deliveries` for the option --max-deliveries; an argument's own name."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).lstrip("-").replace("-", "_")
    return str(parameter.name)


def name_variables(command: click.Command, prefix: str) -> None:
    """Give each option of a command, and of its subcommands, its variable: PREFIX_COMMAND_OPTION.

    One that all commands share, such as the broker's, is asked for after it.
    """
    prefix = f"{prefix}_{command.name}".upper()
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not isinstance(parameter.envvar, list):
            own = f"{prefix}_{setting_name(parameter).upper()}"
            parameter.envvar = [own] if parameter.envvar is None else [own, str(parameter.envvar)]
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            name_variables(subcommand, prefix)


def load_config(path: Path, ctx: click.Context) -> dict[str, Any]:
    """A default map: `[worker] pool = "x"` is the default of `worker --pool`. Raises ConfigError with file and line."""
    source = TomlFile.of(path)
    return _Reader(source, ctx).defaults(ctx.command, source.read(), "")


class _Reader:
    """Turns tables named by commands and flags into defaults by parameter names."""

    def __init__(self, source: TomlFile, ctx: click.Context) -> None:
        self._source = source
        self._ctx = ctx

    def defaults(self, command: click.Command, table: Mapping[str, Any], place: str) -> dict[str, Any]:
        # The program's own options are read before the file is.
        options = {setting_name(one): str(one.name) for one in command.params} if place else {}
        subcommands = command.list_commands(self._ctx) if isinstance(command, click.Group) else []
        found: dict[str, Any] = {}
        for key, value in table.items():
            path = f"{place}.{key}" if place else key
            if key in subcommands:
                found[key] = self._subcommand(command, key, value, path)
            elif (name := key.replace("-", "_")) in options:
                found[options[name]] = value
            else:
                raise self._source.wrong(path, f"is unknown{_nearest(key, [*subcommands, *options])}")
        return found

    def _subcommand(self, group: click.Command, name: str, table: object, path: str) -> dict[str, Any]:
        command = group.get_command(self._ctx, name) if isinstance(group, click.Group) else None
        if command is None or not isinstance(table, Mapping):
            raise self._source.wrong(path, f"must be the table [{path}], of the options of that command")
        return self.defaults(command, table, path)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else f"; known here: {', '.join(sorted(known))}"
