"""How the demo looks: in colour and with bars on a terminal, plain lines where it is piped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.brokerurl import hide_password
from inference_worker.cli.demo_pass import Pass
from inference_worker.supervision import events

T = TypeVar("T")

NEIGHBOURS = 5


class DemoView:
    """Prints results to standard output, bars to standard error."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def broker(self, url: str) -> None:
        self._err.print(f"embedded Redis at {hide_password(url)}")

    @contextmanager
    def loading(self) -> Iterator[Callable[[events.Event], None]]:
        """While it lasts, give it the supervisor's events."""
        with self._bar() as bar:
            task = bar.add_task("loading models", total=None)

            def show(event: events.Event) -> None:
                if isinstance(event, events.Loading):
                    bar.update(task, description=f"loading {event.model}", completed=event.done, total=event.of)
                    self._say_plainly(f"loading {event.model} ({event.done + 1} of {event.of})")
                elif isinstance(event, events.Ready):
                    bar.update(task, description="models ready", completed=len(event.models), total=len(event.models))
                    times = f"imports {event.import_s:.1f} s, code and weights {event.load_s:.1f} s"
                    self._err.print(f"worker ready: {times}, warm-up {event.warm_s:.1f} s")

            yield show

    def progress(self, what: str, items: Iterable[T], total: int) -> Iterator[T]:
        """`items`, with a bar that follows them."""
        with self._bar() as bar:
            task = bar.add_task(what, total=total)
            for item in items:
                bar.advance(task)
                yield item
        self._say_plainly(f"{what}: done")

    def neighbours(self, question: str, ranked: Sequence[tuple[float, str]]) -> None:
        table = Table(title=f"Nearest to: {question}", title_style="bold", title_justify="left")
        table.add_column("cosine", justify="right", style="cyan")
        table.add_column("sentence")
        for score, sentence in ranked[:NEIGHBOURS]:
            table.add_row(f"{score:.3f}", sentence)
        self._print(table)

    def sentiments(self, best: Sequence[tuple[float, str]], worst: Sequence[tuple[float, str]]) -> None:
        for title, style, rows in (("Most positive", "green", best), ("Most negative", "red", worst)):
            table = Table(title=title, title_style=f"bold {style}", title_justify="left")
            table.add_column("score", justify="right", style=style)
            table.add_column("sentence")
            for score, sentence in rows:
                table.add_row(f"{score:+.3f}", sentence)
            self._print(table)

    def passes(self, title: str, passes: Iterable[Pass]) -> None:
        table = Table(title=title, title_style="bold", title_justify="left")
        table.add_column("model")
        for heading in ("answered", "sentences/s", "from the cache"):
            table.add_column(heading, justify="right")
        table.add_column("batches that formed (rows x times)")
        for one in passes:
            batches = ", ".join(f"{rows} x {times}" for rows, times in one.batches().items())
            share = f"{one.cached / len(one.results):.0%}"
            table.add_row(one.model, str(len(one.results)), f"{one.per_second:,.0f}", share, batches or "none")
        self._print(table)

    def speedup(self, first: Sequence[Pass], second: Sequence[Pass]) -> None:
        for before, after in zip(first, second, strict=True):
            times = after.per_second / before.per_second
            self._out.print(f"[bold]{before.model}[/]: the second pass was [bold]{times:,.1f}[/] times as fast")

    def _bar(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._err, transient=True, disable=not self._err.is_terminal)

    def _say_plainly(self, text: str) -> None:
        if not self._err.is_terminal:
            self._err.print(text)

    def _print(self, table: Table) -> None:
        self._out.print()
        if self._out.is_terminal:
            self._out.print(table)
            return
        # Piped: one line for each row, its cells separated by tabs.
        click.echo(table.title)
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            # Not by rich, which makes spaces of tabs.
            click.echo("\t".join(str(cell) for cell in cells))
