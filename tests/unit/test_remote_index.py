"""The index of a repository: written the same each time, and refused before anything is fetched by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from inference_worker.remote import index
from inference_worker.remote.index import Entry, below, check_entries, index_folder, parse_index, print_index
from tests.support.repositories import write_repository

DIGEST = "0" * 64


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_index(text.encode(), "https://host/models.index.json")
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_files(*files: object) -> str:
    return json.dumps({"version": 1, "files": files})


def file(path: str, size: object = 1) -> dict[str, object]:
    return {"path": path, "size": size, "blake2b_256": DIGEST}


def test_it_is_the_same_for_the_same_files_and_reads_back(tmp_path: Path) -> None:
    one = print_index(index_folder(write_repository(tmp_path / "one")))
    write_repository(tmp_path / "two", b"other")
    two = print_index(index_folder(write_repository(tmp_path / "two")))

    assert one == two
    assert print_index(parse_index(one.encode(), "here")) == one
    assert [entry.path for entry in parse_index(one.encode(), "here")] == ["m/1/model.toml", "m/1/w.bin"]


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", "a/", "a\\b", "a\0b", "a\nb", "\ud800"),
        *(".ssh/x", "a/.b", "models.index.json", "a/__pycache__/b"),
        *("a/" * 16 + "b", "a" * 256, "/".join(["a" * 200] * 6)),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    assert "https://host/models.index.json: the file '" in refusal(with_files(file("m/1/w.bin"), file(path)))


@pytest.mark.parametrize("size", [-1, (1 << 40) + 1, 10**30])
def test_an_absurd_size_is_refused(size: int) -> None:
    assert "it must be 0 to 1099511627776" in refusal(with_files(file("m", size)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", 'must be a map with "version": 1'),
        ('{"version": 2, "files": []}', 'must be a map with "version": 1'),
        ('{"version": 1, "files": 3}', "files must be a list; got 3"),
        (with_files({"path": "a", "size": 1}), "files[0] must hold path, size and blake2b_256"),
        (with_files(file("a", True)), "files[0] must hold path, size and blake2b_256"),
        (with_files(file("a", "1")), "files[0] must hold path, size and blake2b_256"),
        (with_files(file("a"), file("a")), "the file 'a' is there twice"),
        (with_files(file("a/b"), file("a")), "'a' cannot be both a file and a folder"),
    ],
)
def test_what_is_no_index_is_told(text: str, told: str) -> None:
    assert told in refusal(text)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MOST_FILES", 2)

    assert "holds 3 files; at most 2 are fetched" in refusal(with_files(file("a"), file("b"), file("c")))


def test_a_link_out_of_the_repository_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden")
    folder = write_repository(tmp_path / "models")
    (folder / "m" / "1" / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(ConfigError, match="'m/1/link' leads out of"):
        index_folder(folder)


def test_a_folder_of_an_index_has_paths_of_its_own() -> None:
    entries = check_entries([Entry("m/1/w", 1), Entry("m/10/w", 2), Entry("n/1/w", 3)], "here")

    assert below(entries, "m/1") == (Entry("w", 1),)
    assert [one.path for one in below(entries, "m")] == ["1/w", "10/w"]
