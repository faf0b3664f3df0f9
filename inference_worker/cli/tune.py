"""What `models check --tune` prints: a table for a person, or one JSON map for a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from inference_worker.models.spec import ModelSpec
from inference_worker.models.tuning import Measured, Proposal, Tuned, tune

_HEADS = ("", "rows", "latency ms", "rows/s", "differs from fp32 by")


def print_tuning(
    spec: ModelSpec, device: str, threads: int, sizes: tuple[int, ...], seconds: float, as_json: bool
) -> None:
    """Measure one model and print what was found. Raises as `tune` does."""
    found = tune(spec, device, threads, sizes or doubled(spec.batch.rows), seconds)
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(lines(found)))


def doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most`."""
    return (*(1 << power for power in range(most.bit_length()) if 1 << power < most), most)


def lines(found: Tuned) -> Iterator[str]:
    """One model's table, what was not possible, and what is proposed."""
    yield click.style(found.model, bold=True)
    rows = [_HEADS, *(_cells(one) for one in found.measured)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    for name, *cells in rows:
        yield "  ".join(
            [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        )
    for variant, why in found.impossible.items():
        yield f"{variant}: not possible here: {why}"
    if found.proposal is not None:
        yield from _proposed(found.proposal)


def _cells(one: Measured) -> tuple[str, ...]:
    difference = "-" if one.difference is None else f"{one.difference:.2g}"
    return one.variant, str(one.rows), f"{one.latency_ms:.2f}", f"{one.rows_per_s:.1f}", difference


def _proposed(proposal: Proposal) -> Iterator[str]:
    gain = f"{proposal.speedup:.2f} times the throughput of the model as it is"
    differs = "" if proposal.difference is None else f", outputs differ by {proposal.difference:.2g}"
    yield f"fastest: {proposal.variant} ({gain}{differs}); for model.toml:"
    yield "[batch]"
    yield f"rows = {proposal.rows}"
    if proposal.padded is not None:
        yield f"padded = {proposal.padded}"
