"""inference-worker models fetch | index | cache"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from common.errors import ConfigError
from inference_worker.cli.fetching import fetching, repository_options
from inference_worker.cli.options import json_option
from inference_worker.models.repository import open_repository
from inference_worker.models.weights import INDEX_FILE
from inference_worker.remote.cache import Cache, Kept, write_aside
from inference_worker.remote.index import index_folder, print_index
from inference_worker.remote.location import is_url
from inference_worker.remote.options import remote_options


@click.command("fetch")
@click.argument("url")
@repository_options
def fetch(url: str) -> None:
    """Fetch all models at URL into this host's cache, and print the folder that they are in.

    Runs none of their code. Workers fetch by themselves; this one is for images, and for hosts that go offline.

    \b
    Example:
      inference-worker models fetch s3://bucket/models
    """
    if not is_url(url):
        raise click.BadParameter(f"'{url}' is a local path, which is served where it lies", param_hint="URL")
    snapshot = open_repository(url, remote_options())
    with fetching() as tell:
        snapshot.fetch(progress=tell)
    click.echo(str(snapshot.folder))


@click.command("index")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
def index(path: Path) -> None:
    """Write PATH/models.index.json: every file's path, size and digest, by which hosts verify what they fetch.

    Write it again after each change, and upload it last.

    \b
    Example:
      inference-worker models index models && aws s3 sync models s3://bucket/models
    """
    entries = index_folder(path)
    if not entries:
        raise ConfigError(f"there are no files in {path}")
    write_aside(path / INDEX_FILE, print_index(entries).encode())
    size = sum(one.size for one in entries)
    click.echo(f"{path / INDEX_FILE}: {len(entries)} files, {size / 1e6:,.1f} MB")


@click.group("cache", invoke_without_command=True)
@json_option
@repository_options
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """List what is kept of remote repositories: size, last use, and whether a process uses it now.

    \b
    Example:
      inference-worker models cache
      inference-worker models cache clear
    """
    if ctx.invoked_subcommand is not None:
        return
    store = _opened()
    kept = store.kept()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in kept]))
        return
    for one in kept:
        click.echo(_line(one, time.time()))
    click.echo(f"{store.folder}: {store.bytes() / 1e6:,.1f} MB of {store.most_bytes / 1e6:,.1f} MB", err=True)


@cache.command("clear")
@repository_options
def clear() -> None:
    """Remove from the cache all that no process uses now.

    \b
    Example:
      inference-worker models cache clear
    """
    store = _opened()
    before = store.bytes()
    kept = store.clear()
    left = f"; in use and kept: {', '.join(one.name for one in kept)}" if kept else ""
    click.echo(f"{(before - store.bytes()) / 1e6:,.1f} MB removed from {store.folder}{left}")


def _opened() -> Cache:
    options = remote_options()
    return Cache(options.cache, options.most_bytes)


def _line(one: Kept, now_s: float) -> str:
    use = "in use" if one.in_use else f"used {_ago(now_s - one.last_used_s)} ago"
    return f"{one.name}  {one.bytes / 1e6:,.1f} MB  {use}"


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} seconds"
