"""From a URL to models that run: only what is wanted is fetched, and code only where it is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from inference_worker.backends import open_model
from inference_worker.models.loading import find_models
from inference_worker.models.repository import discover, fetch_model, models_at
from inference_worker.models.spec import Origin
from inference_worker.models.trust import check_trust, code_in
from inference_worker.remote.options import RemoteOptions
from tests.support.command import CommandLine, command_line
from tests.support.model_folders import KINDS, make_model, onnx, python_function
from tests.support.model_server import ModelServer, model_server
from tests.support.repositories import LARGE, write_index

#: Needs no trust, whatever its files hold.
DATA_KINDS = {"onnx"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    """One model of ONNX, and one of Python beside it."""
    folder = tmp_path / "models"
    onnx(folder)
    (folder / "double").rename(folder / "graph")
    python_function(folder)
    (folder / "double").rename(folder / "python")
    with model_server(write_index(folder)) as it:
        yield it


@pytest.fixture
def options(tmp_path: Path) -> RemoteOptions:
    return RemoteOptions(tmp_path / "cache", LARGE)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[CommandLine]:
    (tmp_path / "home").mkdir()
    with command_line(tmp_path / "home") as it:
        yield it


def test_models_at_a_url_are_those_of_its_folder_and_only_their_declarations_are_fetched(
    server: ModelServer, options: RemoteOptions
) -> None:
    found = models_at(server.url, options)

    there = discover(server.folder)
    assert [replace(spec, origin=Origin(), folder=None) for spec in found] == [
        replace(spec, folder=None) for spec in there
    ]
    assert not [path for path in server.asked if path.endswith((".onnx", ".py"))]


def test_a_model_runs_from_a_url_as_it_does_from_its_folder(server: ModelServer, options: RemoteOptions) -> None:
    [spec] = models_at(f"{server.url}/graph", options)
    fetch_model(spec)

    opened = open_model(spec, "cpu", 1)

    assert opened.infer({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2.0, 2.0, 2.0]]
    assert opened.weights == open_model(discover(server.folder / "graph")[0], "cpu", 1).weights
    assert not [path for path in server.asked if "python" in path]


def test_a_model_with_code_is_refused_before_it_is_fetched(
    server: ModelServer, options: RemoteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_WORKER_CACHE", str(options.cache))

    with pytest.raises(ConfigError) as caught:
        find_models([f"{server.url}/python"], None)

    assert str(caught.value) == (
        f"model 'python:1' of {server.url}/python would run code, 'm.py:double' (python.code): whoever may write there "
        "may do anything here. Give --trust-code (INFERENCE_WORKER_TRUST_CODE=1) if you trust them, or publish the "
        "model as ONNX, which needs no trust"
    )
    assert server.asked["python/1/m.py"] == 0


def test_trusted_code_runs(server: ModelServer, options: RemoteOptions) -> None:
    [spec] = models_at(f"{server.url}/python", replace(options, trust_code=True))
    fetch_model(spec)

    assert open_model(spec, "cpu", 1).infer({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_but_data_needs_trust_also_where_it_is_opened(tmp_path: Path, kind: str) -> None:
    spec = replace(KINDS[kind][0](tmp_path), origin=Origin("https://host/models", trusted=False))

    if kind in DATA_KINDS:
        assert code_in(spec) == ""
        open_model(spec, "cpu", 1).close()
        return
    with pytest.raises(ConfigError, match=r"model 'double:1' of https://host/models would run code"):
        open_model(spec, "cpu", 1)


def test_a_stage_around_data_is_code(tmp_path: Path) -> None:
    spec = make_model(tmp_path, 'backend = "onnx"\n[onnx]\nfile = "m.onnx"\n[processing]\ncode = "s.py:Stage"\n')

    with pytest.raises(ConfigError, match=r"would run code, 's\.py:Stage' \(processing\.code\)"):
        check_trust(replace(spec, origin=Origin("https://host/models", trusted=False)))
    check_trust(spec)


def test_the_command_line_indexes_fetches_checks_and_clears(server: ModelServer, shell: CommandLine) -> None:
    (server.folder / "graph/1/new").write_text("not yet in the index")
    indexed = shell.run("models", "index", server.folder)
    assert (indexed.code, indexed.err) == (0, "")
    assert " 6 files, " in indexed.out

    assert shell.run("models", "list", server.url).out.startswith("graph:1  pool default-pool")
    refused = shell.run("models", "check", server.url)
    assert (refused.code, "model 'python:1'" in refused.error) == (78, True)
    checked = shell.run("models", "check", server.url, "--model", "python", "--trust-code")
    assert (checked.code, checked.out.count("loaded in")) == (0, 1), checked.err
    fetched = shell.run("models", "fetch", server.url)
    assert (Path(fetched.out.strip()) / "graph/1/new").read_text() == "not yet in the index"

    listed = shell.run("models", "cache")
    assert listed.out.startswith(f"{server.url}  0.0 MB  used ")
    cleared = shell.run("models", "cache", "clear")
    assert cleared.code == 0
    assert not Path(fetched.out.strip()).exists()


def test_the_cache_may_be_named_before_and_after_clear(shell: CommandLine) -> None:
    folder = str(shell.folder / "elsewhere")
    for arguments in (("--cache", folder, "clear"), ("clear", "--cache", folder)):
        done = shell.run("models", "cache", *arguments)

        assert done.code == 0
        assert done.out.startswith(f"0.0 MB removed from {folder}/")


def test_a_folder_that_is_not_mounted_ends_the_worker_with_a_code_that_says_try_again(shell: CommandLine) -> None:
    done = shell.run("worker", f"file://{shell.folder}/missing")

    assert done.code == 69
    assert "there are no files at file://" in done.error


def test_the_command_line_tells_a_url_that_is_none_in_one_line(shell: CommandLine) -> None:
    done = shell.run("models", "list", "https://me:hunter2@host/a?token=topsecret&b=c d")

    assert done.code == 78
    assert done.error == (
        "inference-worker: the repository 'https://***@host/a?token=***&b=***' cannot be used: "
        "it holds spaces or control characters; write them as %20"
    )
