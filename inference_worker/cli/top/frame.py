"""One frame of `top`: figures as tables that fit a terminal. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from common.keys import PRIORITIES
from common.memory import Level, Memory
from common.text import visible
from inference_worker.cli.top.figures import Figures, ModelLine, PoolLine, WorkerLine
from inference_worker.devices.memory import show_bytes

#: A request that waits longer is worth a colour.
OLD_MS, VERY_OLD_MS = 1_000, 10_000
_LEVELS = {Level.ROOM: "", Level.NEARLY_FULL: "yellow", Level.FULL: "bold red"}


def frame(figures: Figures, broker: str, memory: Memory | None, clock: str, keys: str = "") -> RenderableType:
    """`clock` is the time to show; `keys` what the keyboard does."""
    parts: list[RenderableType] = [_head(broker, memory, clock, keys), _pools(figures.pools)]
    if figures.workers:
        parts.append(_workers(figures.workers))
    if figures.models:
        parts.append(_models(figures.models))
    if figures.left_out:
        parts.append(Text(f"and {figures.left_out} pools more: name those to see by --pool", "yellow"))
    return Group(*parts)


def _head(broker: str, memory: Memory | None, clock: str, keys: str) -> Text:
    head = Text(f"{clock}  {visible(broker)}", no_wrap=True, overflow="ellipsis")
    if memory is not None:
        told = str(memory) if memory.limit else show_bytes(memory.used)
        head.append(f"  redis {told}", _LEVELS[memory.level])
    return head.append(f"  {keys}", "dim") if keys else head


def _pools(lines: Iterable[PoolLine]) -> Table:
    heads = (
        "workers",
        *PRIORITIES,
        "in flight",
        "oldest",
        "done/s",
        "failed/s",
        "rows/batch",
        "wait",
        "compute",
        "busy",
    )
    table = _table("POOL", heads)
    for line in lines:
        pool, work = line.status, line.work
        oldest = pool.oldest_ms
        table.add_row(
            visible(pool.name),
            _ready(pool.serving, len(pool.workers)),
            *(_backlog(pool.backlog[priority]) for priority in PRIORITIES),
            str(pool.in_flight),
            Text("-" if oldest is None else _span(oldest), _age_style(oldest or 0)),
            _rate(work.finished),
            Text(_rate(work.failed), "red" if work.failed else ""),
            _number(work.rows_a_batch),
            _span(work.wait_ms),
            _span(work.compute_ms),
            f"{work.busy:.0%}",
        )
        if pool.dead_letters:
            table.add_row(Text(f"  {pool.dead_letters} dead letters", "red"))
    if not table.row_count:
        table.add_row(Text("none was ever started on this broker", "yellow"))
    return table


def _workers(lines: Iterable[WorkerLine]) -> Table:
    heads = ("device", "state", "done/s", "rows/batch", "wait", "compute", "busy", "runs", "restarts", "lease")
    table = _table("WORKER", heads, left=("device", "state", "runs"))
    for line in lines:
        about, work, worker = line.status.about, line.work, line.status
        running, restarts = about.get("running"), about.get("restarts", 0)
        table.add_row(
            visible(worker.name),
            visible(str(about.get("device", "?"))),
            Text(visible(str(about.get("state", "?"))), "" if worker.serves else "yellow"),
            _rate(work.finished),
            _number(work.rows_a_batch),
            _span(work.wait_ms),
            _span(work.compute_ms),
            f"{work.busy:.0%}",
            visible(f"{running} {_span(about.get('busy_ms', 0))}") if running else "-",
            Text(str(restarts), "yellow" if restarts else ""),
            _span(worker.lease_left_ms) if worker.live else Text("run out", "bold red"),
        )
    return table


def _models(lines: Iterable[ModelLine]) -> Table:
    table = _table("MODEL", ("pool", "serves", "offered", "loaded", "memory"), left=("pool", "serves"))
    for line in lines:
        labels = (*(("default",) if line.default else ()), *line.aliases)
        table.add_row(
            visible(f"{line.name}:{line.version}"),
            visible(line.pool),
            visible(", ".join(labels)) or "-",
            str(line.workers),
            str(line.loaded),
            show_bytes(line.size) if line.size else "-",
        )
    return table


def _table(first: str, heads: Iterable[str], left: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True, overflow="ellipsis", min_width=8)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", no_wrap=True, overflow="ellipsis")
    return table


def _ready(ready: int, there: int) -> Text:
    return Text(f"{ready}/{there}", "" if ready and ready == there else "yellow" if ready else "bold red")


def _backlog(waiting: int) -> Text:
    return Text(f"{waiting:,}", "bold" if waiting else "dim")


def _age_style(age_ms: float) -> str:
    return "bold red" if age_ms >= VERY_OLD_MS else "yellow" if age_ms >= OLD_MS else ""


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 10 or not per_second else f"{per_second:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _span(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
