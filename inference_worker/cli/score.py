"""inference-worker score MODEL INPUT... --to FOLDER; score status | cancel"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.keys import DEFAULT_POOL
from common.text import visible
from inference_worker.cli.fetching import Place, repository_options
from inference_worker.cli.infer import parse_pair
from inference_worker.cli.options import FiniteRange, answering, broker_option, json_option, together

if TYPE_CHECKING:
    from inference_worker.scoring.members import JobStatus
    from inference_worker.scoring.run import Options

READ_AS = ("parquet", "arrow", "csv", "tsv", "jsonl", "text", "npy", "npz", "files")
FORMATS = ("parquet", "arrow", "jsonl", "csv", "npy")
RUN = "run"


class Group(click.Group):
    """`score MODEL ...` is `score run MODEL ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [RUN, *args]
        return super().parse_args(ctx, args)


class Names(click.ParamType[tuple[str, ...]]):
    """`a,b`, as a tuple."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(one.strip() for one in value.split(",") if one.strip())


@click.group("score", cls=Group)
def command() -> None:
    """Score a whole data set: files in, files out, resumable.

    \b
    Example:
      inference-worker score minilm reviews.parquet --to embedded --input text=review_body --keep id
      inference-worker score minilm 'data/*.jsonl' --to embedded --local examples/models
      inference-worker score status nightly
    """


#: What the results depend on, and where they go.
job_options = together(
    click.option("--to", required=True, metavar="FOLDER", help="Where results go: a folder or an fsspec URL."),
    click.option(
        "--input",
        "mapping",
        multiple=True,
        metavar="INPUT=COLUMN",
        help="Which column is an input of the model.",
    ),
    click.option("--output", "outputs", type=Names(), default=(), help="Only these outputs: a,b. [default: all]"),
    click.option("--keep", type=Names(), default=(), help="Columns of the input to put beside: id,lang or *."),
    click.option("--read-as", type=click.Choice(READ_AS), help="The input's format. [default: by suffix]"),
    click.option(
        "--format",
        "write_as",
        type=click.Choice(FORMATS),
        default="parquet",
        show_default=True,
        help="The output's.",
    ),
    click.option("--param", "parameters", multiple=True, metavar="NAME=JSON", help="A parameter for the model."),
    click.option("--version", help="The model's version or alias. [default: the newest]"),
    click.option(
        "--on-error",
        "errors",
        type=click.Choice(["keep", "skip", "fail"]),
        default="keep",
        show_default=True,
        help="Rows without a result: keep them empty with their error in _errors, leave them out, or end.",
    ),
    click.option("--max-errors", type=click.IntRange(min=0), help="End when more rows than this have failed."),
    click.option("--skip-bad-files", "skip_files", is_flag=True, help="Go on behind a file that cannot be read."),
    click.option(
        "--shard-rows",
        type=click.IntRange(min=1),
        help="Rows of a shard: what a crash costs, and one file of results. [default: 8192, of files 256]",
    ),
    click.option(
        "--batch-rows",
        type=click.IntRange(min=1),
        help="Most rows of a batch. [default: the model's]",
    ),
    click.option(
        "--batch-length",
        type=click.IntRange(min=1),
        help="Most rows of a batch times the longest, in bytes of text or elements. "
        "[default: on CPUs 2048 for text, else 512; none on GPUs]",
    ),
)


@command.command(RUN)
@click.argument("model")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@job_options
@click.option("--local", type=Place(), metavar="PATH", help="Run the model from this repository here, without Redis.")
@click.option("--device", default="cpu", show_default=True, help="With --local: cpu or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, help="With --local: CPU threads. [default: all cores]"
)
@click.option("--name", help="The job's name: processes that have it share its shards, by Redis.")
@click.option("--pool", default=DEFAULT_POOL, show_default=True, help="Whose workers score.")
@click.option("--tenant", help="Whose requests they are.")
@click.option("--window", type=click.IntRange(min=1), help="Most requests under way. [default: 4 for each worker]")
@click.option("--result-cache", "cache", is_flag=True, help="Use and fill the result cache.")
@click.option(
    "--progress", "shown", type=click.Choice(["auto", "bars", "plain", "json", "none"]), default="auto",
    show_default=True, help="auto: bars on a terminal, else a line every 10 s.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures of the run."
)
@click.option("--price-per-hour", type=FiniteRange(min=0), help="Of one worker or this host, for the summary.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=1000, show_default=True, help="With --dry-run: rows to run."
)
@click.option("--dry-run", is_flag=True, help="Score a sample, write nothing, and say what the whole will take.")
@broker_option
@repository_options
def run(**given: Any) -> None:
    """Score INPUT (files, folders, globs in quotes, fsspec URLs, - for standard input) by MODEL.

    The same command goes on where it was stopped or killed.

    \b
    Example:
      inference-worker score minilm reviews.parquet --to embedded --input text=review_body
      inference-worker score sentiment talk.txt --to moods --local examples/models --format jsonl
      inference-worker score run minilm 's3://bucket/*.parquet' --to s3://bucket/embedded --name nightly
    """
    from inference_worker.scoring.estimate import estimate
    from inference_worker.scoring.progress import open_progress
    from inference_worker.scoring.report import write_report
    from inference_worker.scoring.run import run as run_job
    from inference_worker.scoring.summary import estimated, summary

    shown, report, price = given.pop("shown"), given.pop("report"), given.pop("price_per_hour")
    sample, dry_run = given.pop("sample"), given.pop("dry_run")
    options = _options(given)
    if options.local is None or options.name is not None:
        answering(options.broker).close()
    progress = open_progress("none" if dry_run else shown)
    try:
        if dry_run:
            click.echo(estimated(estimate(options, sample), price))
            return
        ended = run_job(options, progress)
    finally:
        progress.close()
    if report is not None:
        write_report(report, ended)
    click.echo(summary(ended, options.to, price))


def _options(given: dict[str, Any]) -> Options:
    from inference_worker.scoring.run import Options

    given["mapping"] = dict(_mapped(one) for one in given["mapping"])
    given["parameters"] = dict(parse_pair("--param", one) for one in given["parameters"])
    return Options(**given)


def _mapped(argument: str) -> tuple[str, str]:
    name, equals, column = argument.partition("=")
    if not equals or not column:
        raise click.BadParameter(f"must be INPUT=COLUMN; got '{argument}'", param_hint="--input")
    return name, column


@command.command("status")
@click.argument("name", required=False)
@json_option
@broker_option
def status(name: str | None, as_json: bool, broker: str) -> None:
    """How far a job is, and who works at it; without NAME, all jobs of the last week.

    \b
    Example:
      inference-worker score status nightly
    """
    from dataclasses import asdict

    from inference_worker.scoring.members import jobs
    from inference_worker.scoring.members import status as status_of

    client = answering(broker)
    if name is None:
        click.echo(json.dumps(jobs(client)) if as_json else "\n".join(jobs(client)) or "no jobs")
        return
    found = status_of(client, name)
    click.echo(json.dumps(asdict(found)) if as_json else visible_lines(found))


@command.command("cancel")
@click.argument("name")
@broker_option
def cancel(name: str, broker: str) -> None:
    """Stop all processes of a job, on any host. What is finished stays; the same command goes on with it.

    \b
    Example:
      inference-worker score cancel nightly
    """
    from inference_worker.scoring.members import cancel as cancel_job

    cancel_job(answering(broker), name)
    click.echo(f"job '{name}' is told to stop")


def visible_lines(found: JobStatus) -> str:
    of = "" if found.total is None else f" of {found.total:,}"
    cancelled = ", cancelled" if found.cancelled else ""
    lines = [
        f"{found.name}: {found.model} into {found.folder}{cancelled}",
        f"  {found.rows:,}{of} rows, {found.errors:,} errors, {found.rows_per_s:,.0f} rows/s",
    ]
    for one in found.processes:
        state = one.state if one.live or one.state != "runs" else "gone"
        lines.append(f"  {one.host} {one.pid}: {state}, {one.rows:,} rows, seen {one.seen_s:.0f} s ago")
    return "\n".join(map(visible, lines))
