"""References to files, and digests over them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.errors import ConfigError
from inference_worker.models.weights import digest, file_digest, files_in, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"1234")
    (folder / "sub" / "vocab.txt").write_text("a b")
    (tmp_path / "secret").write_text("hidden")
    return folder


def test_a_reference_names_a_file_inside_the_folder(folder: Path) -> None:
    assert resolve("weights.bin", folder) == folder / "weights.bin"
    assert resolve("sub/../sub/vocab.txt", folder) == folder / "sub" / "vocab.txt"


def test_a_reference_names_a_file_of_a_package_that_is_not_imported() -> None:
    assert resolve("package://common/errors.py", None).name == "errors.py"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("../secret", "'../secret' leads out of"),
        ("sub/../../secret", "'sub/../../secret' leads out of"),
        ("/etc/passwd", "'/etc/passwd' must be a relative path"),
        ("..\\secret", "must be a relative path with '/' between its parts"),
        ("link", "'link' leads out of"),
        ("", "'' must be a relative path"),
        ("sub", "'sub' is not a file"),
        ("none.bin", "'none.bin' is not a file: there is no "),
        ("package://common/../tests/conftest.py", "leads out of"),
        ("package://common", "'package://common' must be a relative path"),
        ("package://a.b/c", "must have the form package://name/path, with a top-level package's name"),
        ("package://nothing_like_this/c", "needs the package 'nothing_like_this', which is not installed"),
    ],
)
def test_a_reference_never_leads_out_of_its_folder(folder: Path, reference: str, told: str) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    with pytest.raises(ConfigError) as caught:
        resolve(reference, folder)
    assert told in str(caught.value)


def test_the_digest_is_of_names_and_contents_and_of_nothing_else(folder: Path, tmp_path: Path) -> None:
    # Given the same files in another place, with what Python and editors leave there
    first = digest(files_in(folder))
    moved = folder.rename(tmp_path / "moved")
    (moved / "__pycache__").mkdir()
    (moved / "__pycache__" / "model.pyc").write_bytes(b"x")
    (moved / ".model.toml.swp").write_bytes(b"x")
    # Then the digest stays, and is the one that any process computes
    assert digest(files_in(moved)) == first == "743a2c4f78fe24dda1e65758ff8faa0016f464f9"
    # When a name or a content changes, so does the digest
    (moved / "weights.bin").write_bytes(b"1235")
    changed = digest(files_in(moved))
    (moved / "weights.bin").rename(moved / "weights2.bin")
    assert len({first, changed, digest(files_in(moved))}) == 3


def test_a_link_that_leads_out_of_the_folder_is_told_and_one_inside_is_a_file(folder: Path) -> None:
    (folder / "again.bin").symlink_to("weights.bin")
    assert {label for label, _ in files_in(folder)} == {"again.bin", "sub/vocab.txt", "weights.bin"}

    (folder / "outside").symlink_to(folder.parent)
    with pytest.raises(ConfigError, match="'outside' leads out of"):
        list(files_in(folder))


def test_a_file_that_changes_has_another_digest(folder: Path) -> None:
    before = file_digest(folder / "weights.bin")
    (folder / "weights.bin").write_bytes(b"4321")
    assert file_digest(folder / "weights.bin") != before == hashlib.blake2b(b"1234", digest_size=32).digest()
