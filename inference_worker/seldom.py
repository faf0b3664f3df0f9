"""What happens often and is logged seldom: at most once a minute, with a count. Pure."""

from __future__ import annotations

from collections import Counter

EVERY_S = 60.0


class Seldom:
    """Of each key: the first time, and then once in `every_s` seconds how often it was since."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._said_s: dict[str, float] = {}
        self._since: Counter[str] = Counter()

    def count(self, key: str, now_s: float) -> int:
        """It happened. How often since the last line, this time included, where a line is due; else 0."""
        self._since[key] += 1
        said_s = self._said_s.get(key)
        if said_s is not None and now_s - said_s < self._every_s:
            return 0
        self._said_s[key] = now_s
        return self._since.pop(key)


class Outage:
    """Something is away, and tried again and again: when to say so, and that it is back."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._seldom = Seldom(every_s)
        self._said = False

    def goes_on(self, now_s: float) -> bool:
        """It was tried in vain. Whether to say so: an outage that follows close on another one is no news."""
        due = self._seldom.count("", now_s) > 0
        self._said = self._said or due
        return due

    def over(self) -> bool:
        """It answers. Whether to say so: once, after it was said that it is away."""
        said, self._said = self._said, False
        return said
