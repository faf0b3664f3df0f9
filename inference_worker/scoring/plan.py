"""What a job's results depend on. A job goes on only where all of that is as it was. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from common.errors import ConfigError
from inference_worker.scoring.facts import Cut
from inference_worker.scoring.sources import Source

#: Of the plan's own form: raised when shards of an older release would not fit to those of this one.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`shard_rows`: rows of a shard. `errors`: keep, skip or fail. `format`: of the output."""

    sources: tuple[Source, ...]
    model: str
    version: str
    weights: str
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    keep: tuple[str, ...]
    shard_rows: int
    format: str
    errors: str
    cut: Cut
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self)
        facts["sources"] = [one.fingerprint() for one in self.sources]
        # As it comes back from a file: lists, and keys that are strings.
        plain: dict[str, Any] = json.loads(json.dumps({"plan": VERSION, **facts}))
        return plain


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Raises ConfigError that says what is another than when the job in `folder` was begun."""
    changes = list(_changes(before, now))
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise ConfigError(
            f"the results in {folder} were begun with something else: {'; '.join(changes[:3])}{more}; "
            "put it back as it was, or choose another folder"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**before, **now}:
        if name == "sources":
            yield from _changed_sources(before.get(name, []), now.get(name, []))
        elif before.get(name) != now.get(name):
            yield f"{name} was {_shown(before.get(name))}, and is {_shown(now.get(name))}"


def _changed_sources(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[str]:
    then, today = ({one["path"]: one for one in sources} for sources in (before, now))
    for path in {**then, **today}:
        if path not in today:
            yield f"the input '{path}' is gone"
        elif path not in then:
            yield f"the input '{path}' is new"
        elif then[path] != today[path]:
            sizes = then[path].get("size"), today[path].get("size")
            how = f"had {sizes[0]} bytes, and has {sizes[1]}" if sizes[0] != sizes[1] else "was written again"
            yield f"the input '{path}' {how}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"
