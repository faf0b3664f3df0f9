"""docs/ as a site: each page is in its navigation, each link leads somewhere, and each command is one of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from inference_worker.cli import cli
from inference_worker.cli.config import load_config
from tests.site.pages import pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: What has "..." or a name in capitals in it is a command's form.
FORM = re.compile(r"\.\.\.|…|\b[A-Z]{3,}\b")


def test_the_site_builds_with_each_page_in_it_and_each_link_leading_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "tutorial.html").exists()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_a_link_from_outside_leads_to_a_page_and_a_heading(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", (ROOT / page).read_text("utf-8"))

    for path, heading in links:
        target = ROOT / (path or page)
        assert target.exists(), path
        assert not heading or heading in anchors(target), f"{path}#{heading}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", ["cli.md", "errors.md"])
def test_what_is_made_from_the_code_is_as_the_code_is(page: str) -> None:
    [(path, text)] = [(path, text) for path, text in pages().items() if path.name == page]

    assert path.read_text("utf-8") == text + "\n", "run `make docs`"


def shown() -> list[tuple[str, str]]:
    """Each command of ours in an indented block of a page: (page, command)."""
    found = [
        (path.name, line)
        for path in sorted(DOCS.glob("*.md"))
        for line in re.findall(r"^ +(inference-worker [^\n|]*?)(?: +#.*)?$", _unbroken(path), re.M)
    ]
    return [(page, command) for page, command in found if not FORM.search(command)]


def _unbroken(page: Path) -> str:
    """A page whose commands are on one line each, as a shell reads them."""
    return re.sub(r"\\\n +", "", page.read_text("utf-8"))


@pytest.mark.parametrize(("page", "command"), shown(), ids=lambda one: one)
def test_a_command_that_a_page_shows_is_one_that_the_program_takes(page: str, command: str) -> None:
    words = re.findall(r"""'[^']*'|"[^"]*"|[^\s&]+""", command)
    arguments = [re.sub(r"""^(['"])(.*)\1$""", r"\2", one) for one in words[1:]]

    parse(cli, "inference-worker", arguments)


def parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None) -> None:
    """Raises click.UsageError; a path that is not on this machine is none."""
    try:
        context = command.make_context(name, list(arguments), parent=parent)
    except click.BadParameter as error:
        if "does not exist" not in error.message:
            raise
        return
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        with context:
            _, inner, arguments = command.resolve_command(context, rest)
            assert inner is not None
            parse(inner, str(inner.name), arguments, context)


def test_the_configuration_files_example_is_taken(tmp_path: Path) -> None:
    page = (DOCS / "reference" / "configuration.md").read_text("utf-8")
    [example] = re.findall(r"```toml\n(# inference-worker\.toml\n.*?)```", page, re.S)
    path = tmp_path / "inference-worker.toml"
    path.write_text(example)
    with click.Context(cli, info_name="inference-worker") as context:
        assert load_config(path, context)["worker"]["pool"] == "gpu-pool-a"
