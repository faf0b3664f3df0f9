"""How what workers answer to an order is shown, and what it makes of the command's exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

import click

from common.orders import Report
from common.text import visible

#: A worker failed to do it, or did not answer.
EXIT_NOT_ALL = 1


def show(
    what: str,
    pool: str,
    reports: Sequence[Report],
    as_json: bool,
    outcome: Callable[[Report], str],
    warn_of_notes: bool = False,
) -> None:
    """One line for each worker. Raises click's Exit where not all have done it."""
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports]))
    else:
        for report in reports:
            text = visible(f"{report.worker}: {outcome(report) if report.ok else report.error}")
            warns = warn_of_notes and report.note
            click.secho(text, fg=("yellow" if warns else None) if report.ok else "red")
        done = sum(report.ok for report in reports)
        click.echo(f"{what} in pool '{pool}': {done} of {len(reports)} workers", err=True)
    if not all(report.ok for report in reports):
        raise click.exceptions.Exit(EXIT_NOT_ALL)
