"""Names that somebody hopes will become a path, a key, a second log line or an order to a terminal."""

from __future__ import annotations

#: None of these is a name: no check may let one through.
NAMES = {
    "empty": "",
    "parent": "..",
    "path": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "windows": "..\\..\\x",
    "hidden": ".ssh",
    "option": "--help",
    "slot": "a}:reply:x{b",
    "colon": "iw:pools",
    "glob": "*",
    "nul": "a\0b",
    "newline": "a\nERROR all is lost",
    "return": "a\r\nb",
    "line separator": "a\u2028b",
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "backspace": "a\b\b\b",
    "right to left": "a\u202etxt.exe",
    "zero width": "mini\u200blm",
    "look-alike": "minil\u043c",  # a Cyrillic м
    "full width": "\uff4dinilm",
    "accent": "modèle",
    "surrogate": "a\udc80",
    "space": "a b",
    "quote": "a'b",
    "format": "{0.__class__}%s%n",
    "10 kB": "x" * 10_000,
}
#: What must not reach a log, a terminal or a message as it is.
FORBIDDEN = ("\0", "\n", "\r", "\x1b", "\b", "\u2028", "\u202e", "\u200b", "\udc80")
#: Longer is no message for a person.
LONGEST = 1000


def is_harmless(text: str) -> bool:
    """Whether `text`, one line of a log or a message, is one line and steers nothing."""
    return not any(one in text for one in FORBIDDEN) and len(text) <= LONGEST
