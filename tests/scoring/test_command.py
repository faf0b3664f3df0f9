"""What the command prints: progress, summary, estimate, report, and its one-line errors."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from tests.scoring.conftest import MODELS, write
from tests.support.command import CommandLine


def score(shell: CommandLine, *more: str, **environment: str):
    arguments = ("score", "square", "data.parquet", "--to", "out", "--local", MODELS, "--threads", "1", *more)
    return shell.run(*arguments, **environment)


def test_a_summary_says_what_it_came_to(shell: CommandLine) -> None:
    write(shell.folder / "data.parquet", number=[*range(50), -1])

    done = score(shell, "--price-per-hour", "2")

    assert done.code == 0, done.err
    assert done.out.startswith("51 rows in out, 1 of them with errors\n")
    assert "cost at 2 an hour" in done.out


def test_progress_comes_as_lines_of_json(shell: CommandLine) -> None:
    (shell.folder / "pace").write_text("0.1")
    (shell.folder / "data.txt").write_text("x\n" * 200)
    arguments = ("score", "mates", "data.txt", "--to", "out", "--local", MODELS, "--progress", "json")

    done = shell.run(*arguments, SCORING_PACE=str(shell.folder / "pace"))

    assert done.code == 0, done.err
    states = [json.loads(line) for line in done.err.splitlines()]
    assert states
    assert states[-1].keys() == {"rows", "total", "errors", "rows_per_s", "elements_per_s", "left_s"}
    assert [state["rows"] for state in states] == sorted(state["rows"] for state in states)


def test_a_dry_run_says_what_the_whole_will_take_and_writes_nothing(shell: CommandLine) -> None:
    write(shell.folder / "data.parquet", number=list(range(1000)))

    done = score(shell, "--dry-run", "--sample", "100")

    assert done.code == 0, done.err
    assert "100 rows took" in done.out
    assert "\n1,000 rows will take" in done.out
    assert not (shell.folder / "out").exists()


def test_a_report_is_one_page_with_its_pictures_in_it(shell: CommandLine) -> None:
    write(shell.folder / "data.parquet", number=[*range(500), -1])

    done = score(shell, "--report", "report.html")

    page = (shell.folder / "report.html").read_text()
    assert done.code == 0, done.err
    assert "Output square" in page
    assert "a negative number is refused" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    for picture in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + picture.partition("</svg>")[0] + "</svg>")


def test_an_error_is_one_line(shell: CommandLine) -> None:
    write(shell.folder / "data.parquet", number=[1])

    assert score(shell, "--input", "number=n").error.startswith(
        "inference-worker: there is no column 'n' for the input"
    )
    assert "got 'number'" in score(shell, "--input", "number").error
    assert "no model 'cube'" in shell.run("score", "cube", "data.parquet", "--to", "o", "--local", MODELS).error


def test_the_group_has_its_own_help(shell: CommandLine) -> None:
    assert "cancel" in shell.run("score", "--help").out
    assert "--max-errors" in shell.run("score", "run", "--help").out
