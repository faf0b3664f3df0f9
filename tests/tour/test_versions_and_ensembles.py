"""docs/ensembles.md and docs/versions.md, run: the file, the Python and the commands, against one `up`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.support.command import ROOT, CommandLine, command_line
from tests.tour.pages import printed

ENSEMBLES = (ROOT / "docs" / "ensembles.md").read_text("utf-8")
VERSIONS = (ROOT / "docs" / "versions.md").read_text("utf-8")
MODELS = """
from inference_worker import Model, model


@model(inputs={"text": "BYTES[]"}, outputs={"vector": "BYTES[]"})
def embed(text):
    return text


class Rank(Model):
    name = "rank"
    inputs = {"query": "BYTES[]", "passages": "BYTES[-1]"}
    outputs = {"best": "BYTES[-1]"}

    def preprocess(self, request):
        top_k = int(request.parameters.get("top_k", 9))
        found = [
            [one for one in passages if query in one][:top_k]
            for query, passages in zip(request.inputs["query"], request.inputs["passages"], strict=True)
        ]
        return {"best": [np.array(one, dtype=object) for one in found]}

    def infer(self, batch):
        return batch["best"]


@model(name="minilm", version="1", inputs={"x": "FP32[]"})
def first(x):
    return x


@model(name="minilm", version="2", inputs={"x": "FP32[]"})
def second(x):
    return x
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    with command_line(tmp_path_factory.mktemp("versions")) as it:
        (it.folder / "mymodels.py").write_text("import numpy as np\n" + MODELS)
        (it.folder / "ensembles.toml").write_text(block("toml"))
        with it.running("up", "mymodels.py", "--device", "cpu") as up:
            up.wait_for(" serves ")
            yield it
            assert up.stop() == 0, up.printed


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", ENSEMBLES, re.S)
    return str(found)


def commands(page: str) -> list[list[str]]:
    """The page's indented commands, without the program's name."""
    return [shlex.split(line)[1:] for line in re.findall(r"^    (inference-worker .*)$", page, re.M)]


def test_the_ensemble_answers_as_the_page_says(shell: CommandLine) -> None:
    assert printed(shell, block("python")) == ("['moon rise', 'a moon']\n", "")


def test_its_command_and_the_check_run(shell: CommandLine) -> None:
    [ask] = commands(ENSEMBLES)

    assert "best [1]: ['a moon']" in shell.run(*ask).out
    assert shell.run("ensembles", "check", "ensembles.toml").code == 0


def test_the_commands_of_the_versions_page_run_one_after_the_other(shell: CommandLine) -> None:
    told = [shell.run(*one) for one in commands(VERSIONS)]

    assert [one.code for one in told] == [0] * 5
    assert [one.out.partition(": ")[2] for one in told] == [
        "canary -> 2; prod -> 1\n",
        "canary -> 2; prod -> 1; prod 95 %, canary 5 % by tenant\n",
        "canary -> 2; prod -> 1; 1 90 %, 2 10 % by key\n",
        "prod -> 1; 1 90 %, 2 10 % by key\n",
        "prod -> 1\n",
    ]
