"""docs/models.md runs: its files are models that load and answer as it says, and its table is that of the code."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError
from gateway import Client
from inference_worker.backends import BACKENDS, open_model
from inference_worker.model import Declaration
from inference_worker.models.manifest import parse_toml
from inference_worker.models.registry import Loaded
from inference_worker.models.repository import discover
from inference_worker.models.sample import run_sample, warm_up
from inference_worker.models.spec import STAGES, BatchLimits, ModelSpec
from tests.support.command import ROOT, command_line

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
PATHS = ("shout.py", "nearest.py", "models")
#: A file's name in backquotes with a colon, and then its text.
FILE = re.compile(r"`([\w/]+\.(?:py|toml))`:\n\n```(?:python|toml)\n(.*?)```", re.S)
ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| (.+?) \| .+ \|$", re.M)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the page's files."""
    for name, text in FILE.findall(PAGE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def client(files: Path) -> Iterator[Client]:
    """A client of an `up` that serves them."""
    with command_line(files) as shell, shell.running("up", *PATHS, "--device", "cpu") as up:
        up.wait_for(" serves ")
        url = re.search(r"broker (\S+);", up.printed)
        assert url is not None
        with Client(url[1], timeout_s=20) as client:
            yield client
        assert up.stop() == 0


def test_every_model_of_the_page_loads_and_runs_its_sample(files: Path) -> None:
    specs = [spec for path in PATHS for spec in discover(files / path)]

    assert [f"{spec.name}:{spec.version}" for spec in specs] == ["shout:1", "nearest:1", "letters:1"]
    for spec in specs:
        loaded = Loaded(spec, open_model(spec, "cpu", 1))
        warm_up(loaded)
        outputs = run_sample(loaded, rows=3)
        assert all(len(array) == 3 for array in outputs.values())
        assert {one.name for one in spec.outputs} in (set(), outputs.keys())
        loaded.backend.close()


def test_the_models_answer_as_the_page_says(client: Client) -> None:
    # A block's end is no part of what is expected.
    text = PAGE.replace("```\n", "\n")
    examples = doctest.DocTestParser().get_doctest(text, {"client": client}, "docs/models.md", None, 0)
    told: list[str] = []

    results = doctest.DocTestRunner().run(examples, out=told.append)

    assert results.attempted >= 7
    assert results.failed == 0, "".join(told)


def test_the_table_has_every_key_of_model_toml_and_no_other() -> None:
    assert {key for key, _, _ in ROW.findall(PAGE)} == keys_of_the_code()


def test_the_tables_defaults_are_those_of_the_code() -> None:
    stated = {key: default.strip("`") for key, _, default in ROW.findall(PAGE)}
    spec, limits = ModelSpec("m", "1", "python"), BatchLimits()

    assert stated["pool"] == spec.pool
    assert float(stated["cache_ttl"]) == spec.cache_ttl_s
    assert stated["check_finite"] == str(spec.check_finite).lower()
    assert int(stated["batch.rows"]) == limits.rows
    assert float(stated["batch.linger_ms"]) == limits.linger_ms
    assert (stated["aliases"], spec.aliases) == ("[]", ())


def test_what_python_may_declare_is_in_the_table() -> None:
    keys = {key.removeprefix("batch.").partition(".")[0] for key, _, _ in ROW.findall(PAGE)} | {"name", "version"}

    assert Declaration.__annotations__.keys() <= keys


def keys_of_the_code() -> set[str]:
    """Every key that the parser knows, as the table names them: `batch.rows`."""
    own = {f"{name}.{option}" for name, kind in BACKENDS.items() for option in kind.options or ("code",)}
    tensor = "name='x'\ndtype='FP32'\nshape=[]"
    tables = {"batch": "[batch]", "placement": "[placement]"}
    tables |= {name: f"[[{name}]]\n{tensor}" for name in ("inputs", "outputs")}
    tables |= {f"stages.{name}": f"[stages.{name}]" for name in STAGES}
    inner = {f"{name}.{key}" for name, text in tables.items() for key in known_keys(f"{text}\nunknown = 1")}
    top = known_keys("") - tables.keys() - {"onnx", "processing", "stages"}
    return top | inner | own | {"processing.code"}


def known_keys(text: str) -> set[str]:
    """What the parser lists where it meets a key that it does not know."""
    start = "" if text else "unknown = 1\n"
    with pytest.raises(ConfigError) as caught:
        parse_toml(f"{start}backend = 'onnx'\n{text}", "model.toml", "m", "1", Path())
    return set(str(caught.value).partition("known here: ")[2].split(", "))
