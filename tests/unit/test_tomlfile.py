"""A TOML file's keys and the lines on which they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.tomlfile import TomlFile

TEXT = '''# [[route]]
default = "p"

[batch]  # of all
rows = 4
pad = { ids = 0, "mask" = 0 }
"quoted.key" = 1

[a.b]
c.d = """
[[route]]
e = 1"""

[[route]]
model = "m"

[[route]]
model = [
  "x",  # first
  "y",
]
pool = "p"

[route.more]
deep = [{ x = 1 }, { y = 2 }]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("default", 2),
        ("batch", 4),
        ("batch.rows", 5),
        ("batch.pad", 6),
        ("batch.pad.mask", 6),
        ("batch.quoted.key", 7),
        ("a", 9),
        ("a.b", 9),
        ("a.b.c.d", 10),
        ("route", 14),
        ("route[0]", 14),
        ("route[0].model", 15),
        ("route[1]", 17),
        ("route[1].model", 18),
        ("route[1].pool", 22),
        ("route[1].more", 24),
        ("route[1].more.deep[1].y", 25),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_has_the_line_on_which_its_statement_begins(path: str, line: int, newline: str) -> None:
    assert TomlFile("x.toml", TEXT.replace("\n", newline)).lines()[path] == line


def test_what_only_looks_like_a_key_has_none() -> None:
    assert not {"a.b.e", "route[2]", "e"} & TomlFile("x.toml", TEXT).lines().keys()


def test_an_error_names_the_file_the_line_and_the_key() -> None:
    file = TomlFile("x.toml", TEXT)
    assert str(file.wrong("batch.rows", "is wrong")) == "x.toml:5: batch.rows is wrong"
    assert str(file.wrong("batch.none", "is missing")) == "x.toml: batch.none is missing"
    assert str(TomlFile("m.py: run").wrong("rows", "is wrong")) == "m.py: run: rows is wrong"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\nb = c", "x.toml:2: this is not TOML: Invalid value"),
        ('a = 1\nb = "', "x.toml:2: this is not TOML: Unterminated string (at end of document)"),
        ("a = 1\nb = " + "9" * 5000, "x.toml:2: this is not TOML: Exceeds the limit (4300 digits)"),
        ("a = " + "[" * 5000 + "]" * 5000, "x.toml: this is not TOML: it nests too deeply"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TomlFile("x.toml", text).read()
    assert str(caught.value).startswith(told)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        TomlFile.of(tmp_path / "none.toml")
