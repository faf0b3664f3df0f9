"""inference-worker dead list | show | retry | purge"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from common.errors import InvalidRequest
from common.keys import DEFAULT_POOL
from common.text import visible
from common.versions import label_of
from gateway.admin.dead import DeadLetters, Filter, Letter
from inference_worker.cli.options import answering, broker_option, json_option, together

#: Datetimes end here; the ids of a stream may go on.
LAST_S = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Age(click.ParamType[int]):
    """`90s`, `10m`, `2h` or `1d`, as milliseconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,9})([smhd])", str(value))
        if found is None:
            self.fail(f"must have a form such as 90s, 10m, 2h or 1d; got {value!r}", param, ctx)
        return int(found[1]) * _UNITS_MS[found[2]]


pool_option = click.option("--pool", default=DEFAULT_POOL, show_default=True, help="The pool whose letters.")

filter_options = together(
    click.option("--model", help="Only those for this model."),
    click.option("--tenant", help="Only this tenant's."),
    click.option("--reason", help="Only those with this text in their reason."),
    click.option("--older-than", "older_than_ms", type=Age(), help="Only those that died before: 90s, 10m, 2h."),
    click.option("--younger-than", "younger_than_ms", type=Age(), help="Only those that died since: 90s, 10m, 2h."),
)

#: Which letters to do something with.
choice_options = together(
    click.argument("ids", nargs=-1, metavar="[ID...]"),
    click.option("--all", "everything", is_flag=True, help="All letters of the pool."),
    filter_options,
    pool_option,
    broker_option,
)


@click.group("dead")
def command() -> None:
    """Look at requests that could not be answered, put them back, or drop them.

    \b
    Example:
      inference-worker dead list --model minilm
      inference-worker dead retry --model minilm --older-than 10m
    """


@command.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most letters shown.")
@filter_options
@pool_option
@json_option
@broker_option
def list_letters(limit: int, pool: str, as_json: bool, broker: str, **wanted: Any) -> None:
    """List dead letters, the oldest first.

    \b
    Example:
      inference-worker dead list --reason "workers died"
    """
    found = DeadLetters(answering(broker), pool).find(Filter(**wanted))
    for _, letter in zip(range(limit), found, strict=False):
        click.echo(json.dumps(_jsonable(letter)) if as_json else visible(_line(letter)))


@command.command("show")
@click.argument("letter_id", metavar="ID")
@pool_option
@broker_option
def show(letter_id: str, pool: str, broker: str) -> None:
    """Show one letter with its request, as JSON; tensors without their bytes.

    \b
    Example:
      inference-worker dead show 1700000000000-0
    """
    letter = DeadLetters(answering(broker), pool).get(letter_id)
    try:
        request: Any = _shown(letter.message)
    except InvalidRequest as error:
        request = error.message
    click.echo(json.dumps({**_jsonable(letter), "request": request}, indent=2))


@command.command("retry")
@choice_options
def retry(ids: tuple[str, ...], everything: bool, pool: str, broker: str, **wanted: Any) -> None:
    """Put letters back into their streams, with a fresh delivery count. Results wait under the requests' ids.

    \b
    Example:
      inference-worker dead retry 1700000000000-0
      inference-worker dead retry --model minilm
    """
    letters = DeadLetters(answering(broker), pool)
    done, kept = 0, []
    for letter in _chosen(letters, ids, everything, wanted):
        try:
            letters.retry(letter)
            done += 1
        except InvalidRequest as error:
            kept.append(error.message)
    for why in kept:
        click.echo(why, err=True)
    click.echo(f"put back {done} of {done + len(kept)} letters")


@command.command("purge")
@choice_options
def purge(ids: tuple[str, ...], everything: bool, pool: str, broker: str, **wanted: Any) -> None:
    """Remove letters for good.

    \b
    Example:
      inference-worker dead purge --older-than 7d
    """
    letters = DeadLetters(answering(broker), pool)
    dropped = 0
    for letter in _chosen(letters, ids, everything, wanted):
        letters.drop([letter])
        dropped += 1
    click.echo(f"removed {dropped} letters")


def _chosen(letters: DeadLetters, ids: tuple[str, ...], everything: bool, wanted: dict[str, Any]) -> Iterator[Letter]:
    """Those named, or those that the filters take. All of them only where that is said."""
    filters = any(value is not None for value in wanted.values())
    if bool(ids) + everything + filters != 1:
        raise click.UsageError("name letters by their ids, or by filters such as --model, or all of them by --all")
    return (letters.get(id) for id in ids) if ids else letters.find(Filter(**wanted))


def _line(letter: Letter) -> str:
    model = label_of(letter.model or "?", letter.version or None)
    tenant = f"  tenant {letter.tenant}" if letter.tenant else ""
    died = datetime.fromtimestamp(min(letter.died_ms / 1000, LAST_S), UTC)
    return f"{letter.id}  {died:%Y-%m-%d %H:%M:%S} UTC  {model}  {letter.priority}{tenant}  {letter.reason}"


def _jsonable(letter: Letter) -> dict[str, Any]:
    names = ("id", "died_ms", "priority", "reason", "deliveries", "tenant", "request_id", "model", "version")
    return {name: getattr(letter, name) for name in names} | {
        "bytes": None if letter.data is None else len(letter.data)
    }


def _shown(value: Any) -> Any:
    """A decoded request as JSON: of bytes their number."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return {str(name): _shown(one) for name, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, list) else value
