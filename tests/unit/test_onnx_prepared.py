"""The host's converted ONNX files: made once, kept while in use, removed when old. The conversion is a copy here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from inference_worker.backends.onnx_prepared import KEEP_S, Prepared, open_prepared


class Converter:
    """Copies, and counts."""

    def __init__(self) -> None:
        self.made: list[Path] = []

    def __call__(self, source: Path, target: Path) -> None:
        self.made.append(source)
        shutil.copy(source, target)


class Host:
    """Processes of a host, with what they have opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.convert = Converter()
        self.opened: list[Prepared] = []

    def open(self, source: Path, library: str = "lib 1") -> Path:
        self.opened.append(open_prepared(source, self.root, library, self.convert))
        return self.opened[-1].path

    def close(self) -> None:
        for one in self.opened:
            one.close()

    def age(self) -> None:
        """As if nothing there had been used for too long."""
        long_ago = time.time() - KEEP_S - 1
        for path in self.root.iterdir():
            os.utime(path, (long_ago, long_ago))

    def converted(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if path.is_dir())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "cache")
    yield host
    host.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "a" / "m.onnx", b"weights")


def write(path: Path, contents: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(contents)
    return path


def test_two_models_with_the_same_contents_share_one_conversion(host: Host, tmp_path: Path, source: Path) -> None:
    twin = write(tmp_path / "b" / "other.onnx", b"weights")

    paths = {host.open(one) for one in (source, twin, source)}

    assert host.convert.made == [source]
    assert [path.read_bytes() for path in paths] == [b"weights"]


def test_other_contents_and_another_version_of_the_library_are_converted_anew(host: Host, source: Path) -> None:
    paths = [host.open(source, library) for library in ("lib 1", "lib 2")]
    source.write_bytes(b"others")
    paths.append(host.open(source))

    assert len(set(paths)) == len(host.convert.made) == 3


def test_weights_in_a_file_beside_it_are_part_of_the_contents(host: Host, tmp_path: Path) -> None:
    source = write(tmp_path / "a" / "m.onnx", b"\x0a\x08location\x12\x05m.bin")
    weights = write(tmp_path / "a" / "m.bin", b"1")
    first = host.open(source)
    weights.write_bytes(b"22")

    assert host.open(source) != first


def test_however_many_ask_at_once_one_converts(host: Host, source: Path) -> None:
    together = Barrier(4)

    def ask() -> None:
        together.wait()
        host.open(source)

    for size in range(1, 31):  # each another file: who waits for whom is a matter of luck
        source.write_bytes(b"w" * size)
        threads = [Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert len(host.convert.made) == size
    assert len(host.opened) == 120


def test_a_conversion_that_fails_leaves_nothing_and_is_tried_again(host: Host, source: Path) -> None:
    def fail(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        open_prepared(source, host.root, "lib 1", fail)
    assert host.converted() == []
    assert host.open(source).read_bytes() == b"weights"


def test_what_nobody_has_opened_for_long_goes_when_the_next_one_is_made(
    host: Host, tmp_path: Path, source: Path
) -> None:
    host.open(source)
    host.close()
    (host.root / "unfinished-of-a-killed-process").mkdir()
    host.age()

    new = host.open(write(tmp_path / "b" / "m.onnx", b"others"))

    assert host.converted() == [new.parent.name]


def test_what_is_in_use_stays_however_old_it_is(host: Host, tmp_path: Path, source: Path) -> None:
    used = host.open(source)
    host.age()

    host.open(write(tmp_path / "b" / "m.onnx", b"others"))

    assert used.is_file()
