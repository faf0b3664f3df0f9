"""Text that somebody else wrote, made safe for a log line, a reply and a terminal."""

from __future__ import annotations

#: Characters of a foreign message that are passed on: more is a dump, not a reason.
MAX_MESSAGE = 300

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """`text` on one line: without what steers a terminal or hides (control and format characters), and encodable."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(map(_shown, line))


def visible(text: str) -> str:
    """`text` as it may be shown on a line of its own layout: as `printable`, with the spaces that it has."""
    return text if text.isprintable() else "".join(" " if one.isspace() else _shown(one) for one in text)


def describe(error: BaseException) -> str:
    """An exception of somebody else's code on one line: its kind, and what it says of itself."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return f"{kind} (its text cannot be made)"
    # Cut before it is looked at, and again as its spaces go.
    text = printable(text[: 4 * MAX_MESSAGE])[:MAX_MESSAGE]
    return f"{kind}: {text}" if text else kind


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    # A lone surrogate stood for a byte or a character that could not be read; UTF-8 cannot hold it.
    return _REPLACEMENT if "\ud800" <= character <= "\udfff" else ""
