"""One self-contained page with pictures of a run: no script, no network, nothing to install."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from inference_worker.scoring.progress import duration
from inference_worker.scoring.run import Ended
from inference_worker.scoring.tally import Tally, histogram

WIDTH, HEIGHT, EDGE = 360, 150, 34
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #1d2733 }
section { display: flex; flex-wrap: wrap; gap: 1.5em } figure { margin: 0 } figcaption { font-weight: 600 }
svg text { font-size: 11px; fill: #5b6773 } td { padding: .15em 1em .15em 0; vertical-align: top }
"""


def write_report(path: Path, ended: Ended) -> None:
    """Of this process's part in the job. Raises OSError."""
    path.write_text(page(ended), "utf-8")


def page(ended: Ended) -> str:
    """The page's HTML."""
    tally, plan = ended.tally, ended.manifest["plan"]
    title = f"{ended.facts.label}: {ended.manifest['rows']:,} rows"
    facts = (
        f"{tally.rows:,} of them in this run, in {duration(tally.elapsed_s)}; {ended.manifest['errors']:,} errors; "
        f"batches of at most {plan['cut']['rows']} rows, {100 * tally.padding_ratio:.1f} % of them no padding"
    )
    pictures = [
        figure("Rows a second over time", curve(*_rates(tally)), "seconds"),
        figure("Rows of a batch", bars(tally.batch_rows.values), "rows"),
        figure("From handing a batch in to its answer", bars(tally.latency_ms.values), "ms"),
        figure("Length of rows", bars(tally.lengths.values), "bytes of text, or elements"),
        *(figure(f"Output {name}", bars(one.values), name) for name, one in sorted(tally.distributions.items())),
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(facts)}</p><section>{''.join(pictures)}</section>{_errors(tally)}</html>\n"
    )


def figure(title: str, picture: str, unit: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}<br><small>{escape(unit)}</small></figure>"


def bars(values: Sequence[float]) -> str:
    """A histogram."""
    counts, edges = histogram(list(values))
    if not counts:
        return "<p>nothing to show</p>"
    step, most = (WIDTH - EDGE) / len(counts), max(counts)
    shapes = "".join(
        f'<rect x="{EDGE + index * step:.1f}" y="{_y(count / most):.1f}" width="{step - 1:.1f}" '
        f'height="{max(0.0, HEIGHT - EDGE / 2 - _y(count / most)):.1f}" fill="#3b82c4"><title>{count}</title></rect>'
        for index, count in enumerate(counts)
    )
    return _svg(shapes, edges[0], edges[-1], most)


def curve(xs: Sequence[float], ys: Sequence[float]) -> str:
    """A line over time."""
    if len(xs) < 2:
        return "<p>nothing to show</p>"
    most, last = max(ys) or 1.0, xs[-1] or 1.0
    points = " ".join(f"{EDGE + x / last * (WIDTH - EDGE):.1f},{_y(y / most):.1f}" for x, y in zip(xs, ys, strict=True))
    return _svg(f'<polyline points="{points}" fill="none" stroke="#3b82c4" stroke-width="2"/>', 0.0, last, most)


def _svg(shapes: str, first: float, last: float, most: float) -> str:
    base = HEIGHT - EDGE / 2
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">'
        f'<path d="M{EDGE},6V{base}H{WIDTH}" fill="none" stroke="#c3ccd5"/>{shapes}'
        f'<text x="{EDGE - 4}" y="14" text-anchor="end">{most:.3g}</text>'
        f'<text x="{EDGE}" y="{HEIGHT - 3}">{first:.3g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 3}" text-anchor="end">{last:.3g}</text></svg>'
    )


def _y(share: float) -> float:
    return 6 + (1 - share) * (HEIGHT - EDGE / 2 - 6)


def _rates(tally: Tally) -> tuple[list[float], list[float]]:
    """(seconds, rows a second) between marks of the run, at most a hundred."""
    marks = tally.timeline[:: max(1, len(tally.timeline) // 100)]
    pairs = list(pairwise(marks))
    return [to[0] for _, to in pairs], [(to[1] - at[1]) / max(1e-9, to[0] - at[0]) for at, to in pairs]


def _errors(tally: Tally) -> str:
    if not tally.messages:
        return "<p>No row failed.</p>"
    rows = "".join(f"<tr><td>{count:,}<td>{escape(why)}" for why, count in tally.messages.most_common())
    return f"<h2>Errors</h2><table>{rows}</table>"
