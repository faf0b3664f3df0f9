"""Where the examples are: inside an installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


def examples_folder() -> Path:
    """The folder with `models/` and `sentences.txt`. Raises ConfigError."""
    for folder in (_PACKAGE / "examples", _PACKAGE.parent / "examples"):
        if (folder / "sentences.txt").is_file():
            return folder
    raise ConfigError("the examples are not installed; run this from a checkout of the project")
