"""`inference-worker score`, from its options to its summary: finds the model and the data, and runs the job."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from common.connect import connect
from common.errors import Cancelled, ConfigError
from common.keys import DEFAULT_POOL, ScoreKeys
from common.names import check_name
from inference_worker.scoring.engine import Scorer
from inference_worker.scoring.facts import Cut, Facts, default_cut
from inference_worker.scoring.folder import Folder
from inference_worker.scoring.job import Job, Prepared, manifest_of, prepare
from inference_worker.scoring.leases import Leases, OwnLeases, SharedLeases
from inference_worker.scoring.local import open_local
from inference_worker.scoring.members import Member
from inference_worker.scoring.plan import Plan
from inference_worker.scoring.progress import Progress, state_of
from inference_worker.scoring.results import arrow_type
from inference_worker.scoring.sources import FILES, STDIN, Source, find_sources
from inference_worker.scoring.tally import Tally
from inference_worker.scoring.writers import check_format

#: Rows of a shard: at most so much work is done twice after a crash. Files are larger than rows of a table.
SHARD_ROWS, SHARD_FILES = 8192, 256


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; see its help. `local` is a model repository, None for the pool's workers."""

    model: str
    inputs: tuple[str, ...]
    to: str
    local: str | None = None
    version: str | None = None
    device: str = "cpu"
    threads: int = 0
    broker: str = ""
    pool: str = DEFAULT_POOL
    name: str | None = None
    tenant: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    read_as: str | None = None
    write_as: str = "parquet"
    errors: str = "keep"
    max_errors: int | None = None
    skip_files: bool = False
    shard_rows: int | None = None
    batch_rows: int | None = None
    batch_length: int | None = None
    window: int | None = None
    cache: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


def open_scorer(options: Options, tell: Callable[[str], None]) -> Scorer:
    """The model, in this process or behind Redis. Raises ConfigError, ModelNotFound, BrokerUnavailable."""
    if options.local is not None:
        return open_local(
            options.local, options.model, options.version, options.device, options.threads, options.parameters
        )
    # Imported here: a job without Redis needs no client.
    from inference_worker.scoring.queued import QueuedScorer, find_facts

    facts = find_facts(options.broker, options.pool, options.model, options.version)
    return QueuedScorer(
        options.broker, options.pool, facts, options.outputs,
        parameters=options.parameters, tenant=options.tenant, cache=options.cache, window=options.window, tell=tell,
    )  # fmt: skip


def plan_of(options: Options, facts: Facts, sources: Sequence[Source]) -> Plan:
    """All that the results depend on. Raises ConfigError."""
    by = default_cut(facts)
    if options.batch_rows is not None and options.batch_rows > facts.rows:
        raise ConfigError(
            f"--batch-rows {options.batch_rows} is more than the {facts.rows} rows that model '{facts.label}' allows "
            "in a batch; raise [batch] rows in its model.toml"
        )
    files = any(one.format == FILES for one in sources)
    return Plan(
        tuple(sources), facts.name, facts.version, facts.weights, dict(options.mapping), options.outputs, options.keep,
        options.shard_rows or (SHARD_FILES if files else SHARD_ROWS), options.write_as, options.errors,
        Cut(options.batch_rows or by.rows, options.batch_length or by.length), dict(options.parameters),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that is complete: its manifest, and what this process did of it."""

    manifest: Mapping[str, Any]
    tally: Tally
    facts: Facts
    workers: int


def run(options: Options, progress: Progress) -> Ended:
    """Begin the job, or go on with it, until it is complete. Raises whatever ends it before; see `Job.run`."""
    folder, sources = Folder(options.to), find_sources(options.inputs, options.read_as)
    with ExitStack() as stack:
        scorer = open_scorer(options, progress.say)
        stack.callback(scorer.close)
        plan = plan_of(options, scorer.facts, sources)
        prepared = prepare(plan, scorer.facts, options.skip_files)
        _check_output(prepared)
        tally = Tally()
        if (manifest := _begin(folder, plan)) is not None:
            progress.say(f"{options.to} is complete: all of its rows are there already")
            return Ended(manifest, tally, scorer.facts, 1)
        tally.skipped = sum(record["rows"] for record in folder.records())
        leases, member = _together(options, prepared, tally, stack)
        job = Job(
            prepared, folder, scorer, leases, tally,
            tick=_ticker(progress, tally, prepared, member), max_errors=options.max_errors,
            skip_files=options.skip_files,
        )  # fmt: skip
        job.run()
        return Ended(_complete(folder, plan, job), tally, scorer.facts, getattr(scorer, "workers", 1))


def _begin(folder: Folder, plan: Plan) -> Mapping[str, Any] | None:
    """The manifest of a job that is complete already."""
    if plan.sources[0].path == STDIN:
        folder.check_empty("standard input cannot be read again")
    folder.begin(plan)
    return folder.manifest()


def _complete(folder: Folder, plan: Plan, job: Job) -> Mapping[str, Any]:
    """Write the manifest, unless another process of the job was faster."""
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    manifest = manifest_of(plan, list(folder.records()), command, job.unreadable)
    if (there := folder.manifest()) is not None:
        return there
    folder.complete(manifest)
    return manifest


def _check_output(prepared: Prepared) -> None:
    """Raises ConfigError for columns that the output's format cannot hold."""
    encoder = prepared.encoder
    check_format(prepared.plan.format, {one.name: arrow_type(one) for one in encoder.outputs}, encoder.kept)


def _together(options: Options, prepared: Prepared, tally: Tally, stack: ExitStack) -> tuple[Leases, Member | None]:
    """With a name, the job's shards are shared by all processes that have it; without one they are all ours."""
    if options.name is None:
        return OwnLeases(), None
    keys = ScoreKeys(check_name("--name", options.name))
    client = connect(options.broker)
    stack.callback(client.close)
    leases = SharedLeases(client, keys)
    about = {
        "model": prepared.facts.label,
        "folder": options.to,
        "total": prepared.ledger.total(),
        "before": tally.skipped,
    }
    member = Member(client, keys, about, lambda: _counts(tally))

    def leave(kind: object, error: BaseException | None, trace: object) -> None:
        state = "done" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
        leases.close()
        member.close(state)

    stack.push(leave)
    return leases, member


def _counts(tally: Tally) -> dict[str, Any]:
    return {"rows": tally.rows, "errors": tally.errors, "rows_per_s": round(tally.rows_per_s, 1)}


def _ticker(progress: Progress, tally: Tally, prepared: Prepared, member: Member | None) -> Callable[[], None]:
    def tick() -> None:
        if member is not None and member.cancelled:
            raise Cancelled(
                f"the job was cancelled after {tally.rows} rows of this process; the same command goes on with it"
            )
        progress.show(state_of(tally, prepared.ledger.total()))

    return tick
