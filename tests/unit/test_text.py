"""Foreign text is one plain line before it reaches a log, a reply or a terminal."""

from __future__ import annotations

import pytest

from common.text import MAX_MESSAGE, describe, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shapes differ: (2,) and (3,)", "shapes differ: (2,) and (3,)"),
        ("two\nlines\r\n  and a\ttab ", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m \x07bell \x9b2J", "[31mred[0m bell 2J"),
        ("right \u202eto left, zero\u200b width", "right to left, zero width"),
        ("grüße, 漢字, 🌙", "grüße, 漢字, 🌙"),
        ("not \udcff UTF-8", "not \ufffd UTF-8"),
        ("", ""),
    ],
)
def test_text_becomes_one_line_without_what_a_terminal_would_obey(text, shown):
    assert printable(text) == shown
    assert printable(text).encode("utf-8").decode() == shown


def test_an_exception_is_its_kind_and_what_it_says():
    assert describe(ValueError("bad\n\x1b]0;title\x07value")) == "ValueError: bad ]0;titlevalue"
    assert describe(KeyError()) == "KeyError"


def test_a_long_text_is_cut():
    assert describe(ValueError("x" * 10_000_000)) == "ValueError: " + "x" * MAX_MESSAGE


def test_an_exception_whose_text_fails_is_told_all_the_same():
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text either")

    assert describe(Broken()) == "Broken (its text cannot be made)"
