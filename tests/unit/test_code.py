"""A model's code is what its files hold now."""

from __future__ import annotations

import os
from pathlib import Path

from inference_worker.models.code import import_file


def write(path: Path, text: str) -> None:
    """Replace a file as a roll-out does: written aside and renamed, within the same second and of the same size."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    os.utime(aside, (1_000_000_000, 1_000_000_000))
    aside.replace(path)


def test_an_unchanged_file_is_imported_once(tmp_path: Path) -> None:
    write(tmp_path / "m.py", "X = 1\n")

    assert import_file(tmp_path / "m.py") is import_file(tmp_path / "m.py")


def test_a_changed_file_is_imported_again_and_who_has_the_old_one_keeps_it(tmp_path: Path) -> None:
    write(tmp_path / "m.py", "X = 1\n\ndef x():\n    return X\n")
    old = import_file(tmp_path / "m.py")

    write(tmp_path / "m.py", "X = 2\n\ndef x():\n    return X\n")

    assert (old.x(), import_file(tmp_path / "m.py").x()) == (1, 2)


def test_a_changed_file_beside_it_is_imported_again_too(tmp_path: Path) -> None:
    write(tmp_path / "m.py", "from .other import X\n")
    write(tmp_path / "other.py", "X = 1\n")
    assert import_file(tmp_path / "m.py").X == 1

    write(tmp_path / "other.py", "X = 2\n")

    assert import_file(tmp_path / "m.py").X == 2


def test_a_file_of_a_package_beside_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner" / "__init__.py", "from .deep import X\n")
    write(tmp_path / "inner" / "deep.py", "X = 3\n")
    write(tmp_path / "m.py", "from .inner import X\n")

    assert import_file(tmp_path / "m.py").X == 3


def test_nothing_is_written_beside_a_model(tmp_path: Path) -> None:
    write(tmp_path / "m.py", "X = 1\n")

    import_file(tmp_path / "m.py")

    assert [path.name for path in tmp_path.iterdir()] == ["m.py"]
