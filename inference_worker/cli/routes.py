"""inference-worker routes explain MODEL"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from common.names import check_name
from gateway.routefile import load_routes
from inference_worker.cli.options import EXISTING_FILE, json_option


@click.group("routes")
def command() -> None:
    """Routing rules: which pool takes a model, version and tenant.

    \b
    Example:
      inference-worker routes explain gpt-large --version 4 --routes routes.toml
    """


@command.command("explain")
@click.argument("model")
@click.option("--version", help="The version that is asked for.")
@click.option("--tenant", help="Whose request it is.")
@click.option(
    "--routes",
    "path",
    type=EXISTING_FILE,
    default=Path("routes.toml"),
    show_default=True,
    help="The file with the rules.",
)
@json_option
def explain(model: str, version: str | None, tenant: str | None, path: Path, as_json: bool) -> None:
    """Say which rule takes a request for MODEL, and why those before it do not.

    \b
    Example:
      inference-worker routes explain gpt-large --version 4 --routes routes.toml
    """
    for field, value in (("model", model), ("version", version), ("tenant", tenant)):
        if value is not None:
            check_name(field, value)
    found = load_routes(path).explain(model, version, tenant)
    click.echo(json.dumps(asdict(found)) if as_json else str(found))
