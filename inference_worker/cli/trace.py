"""inference-worker trace ID"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from common.text import printable, visible
from common.versions import label_of
from gateway.admin.life import ENDS, Answered, Asked, Died, Held, InStream, Life, Lives
from inference_worker.cli.options import answering, broker_option, json_option
from inference_worker.processes.exitcodes import Exit


@click.command("trace")
@click.argument("id")
@click.option("--pool", help="Only this pool. [default: all of them]")
@json_option
@broker_option
def command(id: str, pool: str | None, as_json: bool, broker: str) -> None:
    """Show one request's life: when it was added, who holds it, what became of it.

    ID is a request's id, or the trace id that log lines and spans have. What is told is what Redis still holds: an
    entry until it is answered, a reply until it expires, a dead letter until it is purged.

    \b
    Example:
      inference-worker trace order-4711
      inference-worker trace 4bf92f3577b34da6a3ce929d0e0e4736
    """
    found = Lives(answering(broker)).find(id, pool)
    if as_json:
        click.echo(json.dumps([_jsonable(life) for life in found]))
    for life in () if as_json else found:
        for line in lines(life):
            click.echo(visible(line))
    if not found:
        where = f"pool '{pool}' knows" if pool else "no pool on this broker knows"
        click.echo(
            f"{where} {'nothing of ' if pool else ''}'{printable(id)}': it was never sent here, or it was answered and "
            "its reply has expired (--reply-ttl), or it was cancelled before it ran",
            err=True,
        )
        click.echo(
            f"a request of a client that is none of ours is looked for among the first and last {ENDS} of each stream",
            err=True,
        )
        raise click.exceptions.Exit(Exit.NOT_FOUND)


def lines(life: Life) -> Iterator[str]:
    """One request, from its beginning to its end."""
    yield f"request {life.id} in pool {life.pool}: {_state(life)}"
    if life.entry:
        yield from _entry(life, life.entry)
    if life.held:
        yield from _held(life.held)
    elif life.entry:
        yield "  held      by nobody yet"
    if life.waiting:
        yield f"  waiting   {life.waiting} {'client' if life.waiting == 1 else 'clients'}"
    if life.died:
        yield from _died(life.died)
    if life.reply:
        yield from _reply(life.reply)


def _state(life: Life) -> str:
    if life.entry:
        if life.entry.cancelled:
            return "cancelled, to be passed over"
        return "in a worker's hands" if life.held and not life.held.handed_back else "waits in its stream"
    if life.died:
        return "given up"
    return "failed" if life.reply and life.reply.error else "answered"


def _asked(asked: Asked) -> str:
    size = "its payload key has expired" if asked.size is None else f"{asked.size:,} bytes"
    tenant = f", tenant {asked.tenant}" if asked.tenant else ""
    trace = f", trace {asked.trace}" if asked.trace else ""
    return f"model {label_of(asked.model or '?', asked.version or None)}, {size}{tenant}{trace}"


def _entry(life: Life, entry: InStream) -> Iterator[str]:
    age_ms = life.now_ms - entry.added_ms
    lane = f"{entry.priority}{', bulk lane' if entry.bulk else ''}"
    yield f"  added     {_time(entry.added_ms)}, {_span(age_ms)} ago, as entry {entry.entry} of {lane}"
    yield f"  asks      {_asked(entry.asked)}"
    timeout_ms = entry.asked.timeout_ms
    if timeout_ms is not None:
        left_ms = timeout_ms - age_ms
        told = f"in {_span(left_ms)}" if left_ms > 0 else f"{_span(-left_ms)} ago: what has not begun is refused"
        yield f"  deadline  {told}"


def _held(held: Held) -> Iterator[str]:
    if held.handed_back:
        yield f"  held      by nobody: a worker that drained handed it back {_span(held.since_ms)} ago"
        return
    deaths = held.deliveries - 1
    before = f"; {deaths} {'worker' if deaths == 1 else 'workers'} died with it before" if deaths > 0 else ""
    yield f"  held      by {held.consumer} for {_span(held.since_ms)}{before}"
    worker = held.worker
    if worker is None:
        yield "  worker    no lease is known: another worker takes the entry over"
    elif not worker.live:
        yield f"  worker    its lease ran out {_span(-worker.lease_left_ms)} ago: another worker takes the entry over"
    else:
        about = worker.about
        runs = f", runs {about['running']} for {_span(about.get('busy_ms', 0))}" if about.get("running") else ""
        yield f"  worker    {about.get('state', '?')} on {about.get('device', '?')} of {about.get('host', '?')}{runs}"


def _reply(reply: Answered) -> Iterator[str]:
    version = f":{reply.version}" if reply.version else ""
    what = f"{reply.error.code}: {reply.error.message}" if reply.error else f"{reply.size:,} bytes"
    yield f"  reply     by {reply.model or '?'}{version}: {what}"
    times = reply.timings
    if times.batch_rows:
        yield (
            f"  took      queue {_micro(times.queue_us)}, wait {_micro(times.wait_us)}, compute "
            f"{_micro(times.compute_us)} in a batch of {times.batch_rows} {'row' if times.batch_rows == 1 else 'rows'}"
        )
    yield f"  kept      for another {_span(reply.left_ms)}" if reply.left_ms is not None else "  kept      for ever"


def _died(died: Died) -> Iterator[str]:
    yield f"  asked     {_asked(died.asked)}"
    yield f"  given up  {_time(died.died_ms)} after {died.deliveries} deliveries: {died.reason}"
    yield f"  letter    {died.letter}: `inference-worker dead show {died.letter}`, `dead retry {died.letter}`"


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _span(ms: float) -> str:
    return f"{ms:.0f} ms" if abs(ms) < 1000 else f"{ms / 1000:.1f} s"


def _micro(us: int) -> str:
    return f"{us} µs" if us < 1000 else _span(us / 1000) if us >= 10_000 else f"{us / 1000:.1f} ms"


def _jsonable(life: Life) -> dict[str, Any]:
    reply, held = life.reply, life.held
    error = {"code": reply.error.code, "message": reply.error.message} if reply and reply.error else None
    return {
        **{name: value for name, value in _plain(life).items() if name not in ("reply", "held")},
        "state": _state(life),
        "held": None if held is None else {**_plain(held), "worker": held.worker and asdict(held.worker)},
        "reply": None if reply is None else {**_plain(reply), "error": error},
    }


def _plain(value: Any) -> dict[str, Any]:
    return {
        name: asdict(one) if hasattr(one := getattr(value, name), "__dataclass_fields__") else one
        for name in value.__dataclass_fields__
    }
