"""What a job came to, and what one will come to, in a few lines for a person."""

from __future__ import annotations

from inference_worker.scoring.estimate import Estimate
from inference_worker.scoring.progress import duration
from inference_worker.scoring.run import Ended


def summary(ended: Ended, folder: str, price_per_hour: float | None) -> str:
    """Rows and errors of the whole job; times and rates of this process's part in it."""
    tally, manifest = ended.tally, ended.manifest
    lines = [f"{manifest['rows']:,} rows in {folder}, {manifest['errors']:,} of them with errors"]
    if tally.rows:
        busy = tally.compute_s / tally.elapsed_s / ended.workers
        lines.append(
            f"now: {tally.rows:,} rows in {duration(tally.elapsed_s)}: {tally.rows / tally.elapsed_s:,.1f} rows/s, "
            f"{tally.bytes / tally.elapsed_s / 1e6:,.2f} MB/s of results; {100 * tally.padding_ratio:.0f} % of the "
            f"batches was no padding; devices busy {100 * min(1.0, busy):.0f} %"
        )
        lines += _cost(tally.elapsed_s, tally.rows, ended.workers, price_per_hour)
    for path, why in manifest["unreadable"].items():
        lines.append(f"passed over: {path}: {why}")
    return "\n".join(lines)


def estimated(found: Estimate, price_per_hour: float | None) -> str:
    """What a dry run found."""
    total = "an unknown number of" if found.rows is None else f"{found.rows:,}"
    lines = [f"{found.sampled:,} rows took {duration(found.seconds)}: {found.rows_per_s:,.1f} rows/s"]
    if found.rows is None:
        lines.append("the input has to be read to its end to know how many rows it has")
    else:
        about = "about " if found.guessed else ""
        lines.append(
            f"{about}{total} rows will take {duration(found.whole_s or 0)} and {(found.bytes or 0) / 1e6:,.1f} MB"
        )
        lines += _cost(found.whole_s or 0, found.rows, 1, price_per_hour)
    lines.append(f"{100 * found.padding_ratio:.0f} % of the batches was no padding; {found.errors:,} rows had errors")
    return "\n".join(lines)


def _cost(seconds: float, rows: int, workers: int, price_per_hour: float | None) -> list[str]:
    if price_per_hour is None:
        return []
    cost = seconds / 3600 * price_per_hour * workers
    return [f"cost at {price_per_hour:g} an hour: {cost:.4g}, {1e6 * cost / max(1, rows):.4g} for a million rows"]
