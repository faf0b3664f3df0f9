"""Which broker is found on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.local import announced, local_broker


@pytest.mark.parametrize("name", ["99999999999999999999", "2147483648", "²", "notes"])
def test_a_file_that_is_named_after_no_process_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    # Given a file between the announcements whose name no process can have
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with announced("redis://here", _fail):
        [announcement] = tmp_path.rglob(str(os.getpid()))
        (announcement.parent / name).write_text("redis://nowhere")
        # When a broker is looked for, then it is the one that was announced
        assert local_broker() == "redis://here"
    # And the next one cleans up behind those that are gone, and is announced as well
    with announced("redis://there", _fail):
        assert local_broker() == "redis://there"


def _fail(error: OSError) -> None:
    raise error
