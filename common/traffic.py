"""Which version of a model answers a request: aliases and weighted splits that an operator sets at run time. Pure.

Clients decide when they compose a request, workers for raw producers that name no version: both by this file.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, cast

import msgpack

from common.errors import ConfigError, InferenceError, InvalidRequest
from common.names import check_name, shorten
from common.wire import unpack_map

log = logging.getLogger(__name__)

#: What requests of one version have in common: their tenant, their affinity key, or nothing.
SUBJECTS = ("tenant", "key", "request")
#: Each share costs each request a hash.
MAX_SHARES = 16
MAX_ALIASES = 64
#: So that no sum of weights is infinite.
MAX_WEIGHT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operator says of one model's versions.

    `aliases`: label -> version. `split`: version or label -> its weight, for requests that name no version.
    `by`: whose requests go one way, one of SUBJECTS.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, float] = field(default_factory=dict)
    by: str = SUBJECTS[0]

    def encode(self) -> bytes:
        """The msgpack map in the pool's `traffic` hash (docs/protocol.md); empty where the plan says nothing."""
        if not self.aliases and not self.split:
            return b""
        return cast(bytes, msgpack.packb({"aliases": self.aliases, "split": self.split, "by": self.by}))

    def with_aliases(self, changes: Mapping[str, str]) -> Plan:
        """These labels moved; one with an empty version is removed. Raises ConfigError."""
        aliases = {label: version for label, version in {**self.aliases, **changes}.items() if version}
        return _checked(replace(self, aliases=aliases))

    def with_split(self, split: Mapping[str, float], by: str) -> Plan:
        """Another split in the old one's place; an empty one ends it. Raises ConfigError."""
        return _checked(replace(self, split=dict(split), by=by))

    def version(self, label: str, served: Mapping[str, str]) -> str:
        """The version that `label` leads to: a version stays itself, an alias of ours goes before model.toml's."""
        target = label if served.get(label) == label else self.aliases.get(label, label)
        return served.get(target, target)

    def shares(self, served: Mapping[str, str]) -> dict[str, float]:
        """The split as far as its versions are served: label -> weight. The others' share falls to these."""
        return {
            label: weight
            for label, weight in self.split.items()
            if weight > 0 and served.get(self.version(label, served)) is not None
        }

    def unserved(self, served: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """(label, version) of what leads to no version that is served."""
        for label in (*self.aliases, *self.split):
            version = self.version(label, served)
            if version not in served:
                yield label, version

    def __str__(self) -> str:
        told = [f"{label} -> {version}" for label, version in sorted(self.aliases.items())]
        total = sum(self.split.values())
        if total > 0:
            shares = ", ".join(f"{label} {100 * weight / total:.4g} %" for label, weight in self.split.items())
            told.append(f"{shares} by {self.by}")
        return "; ".join(told) or "no aliases, no split"


def choose(
    plan: Plan,
    model: str,
    asked: str | None,
    served: Mapping[str, str],
    tenant: str | None,
    affinity: str | None,
    request_id: str,
) -> str | None:
    """The version that answers; None: the default one.

    `asked` is the version or alias that the request names, `served` every version and alias of model.toml that
    workers serve -> its version. Where the plan's subject is missing from the request, its id stands for it.
    """
    if asked is not None:
        return plan.version(asked, served)
    shares = plan.shares(served)
    if not shares:
        return None
    subject = {"tenant": tenant, "key": affinity}.get(plan.by)
    return plan.version(draw(model, request_id if subject is None else subject, shares), served)


def draw(model: str, subject: str, weights: Mapping[str, float]) -> str:
    """One of `weights`, always the same for one subject; each for its share of all subjects.

    Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): each label draws -ln(u)/weight, u a hash of
    model, label and subject, and the least wins. So a label that gains weight only takes subjects from others,
    and one that goes leaves its own to the rest: nobody else moves. The order of `weights` does not matter.
    """
    return min(sorted(weights), key=lambda label: _drawn(model, label, subject) / weights[label])


def _drawn(model: str, label: str, subject: str) -> float:
    """-ln(u): names hold no NUL, so that no two triples meet."""
    digest = blake2b(f"{model}\0{label}\0{subject}".encode(errors="surrogatepass"), digest_size=8).digest()
    return -math.log(((int.from_bytes(digest, "big") >> 11) + 0.5) / 2**53)


def read_plans(raw: Mapping[str, bytes]) -> dict[str, Plan]:
    """The pool's `traffic` hash, model -> msgpack map; what cannot be read is passed over, and said."""
    plans: dict[str, Plan] = {}
    for model, data in raw.items():
        try:
            plans[model] = read_plan(data)
        except InferenceError as error:
            log.warning("the traffic plan of model %s is passed over: %s", shorten(model), error)
    return plans


def read_plan(data: bytes | None) -> Plan:
    """One model's plan; None is the one that says nothing. Fields of newer releases are passed over.

    Raises ConfigError, InvalidRequest.
    """
    if not data:
        return Plan()
    message = unpack_map("the traffic plan", data)
    aliases, split = message.get("aliases", {}), message.get("split", {})
    if not isinstance(aliases, dict) or not isinstance(split, dict):
        raise ConfigError("aliases and split must be maps")
    return _checked(Plan(aliases, split, message.get("by", SUBJECTS[0])))


def _checked(plan: Plan) -> Plan:
    try:
        for label, version in plan.aliases.items():
            check_name("an alias", label)
            check_name(f"the version of alias '{label}'", version)
        for label, weight in plan.split.items():
            check_name("a split's version", label)
            _check_weight(label, weight)
    except InvalidRequest as error:
        raise ConfigError(error.message) from None
    if len(plan.aliases) > MAX_ALIASES or len(plan.split) > MAX_SHARES:
        raise ConfigError(
            f"a model has at most {MAX_ALIASES} aliases and a split over {MAX_SHARES} versions; "
            f"got {len(plan.aliases)} and {len(plan.split)}"
        )
    if plan.split and not any(plan.split.values()):
        raise ConfigError("at least one weight of a split must be over 0")
    if plan.by not in SUBJECTS:
        raise ConfigError(f"a split is by {', '.join(SUBJECTS)}; got {shorten(plan.by)}")
    return plan


def _check_weight(label: str, weight: Any) -> None:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= MAX_WEIGHT:
        raise ConfigError(
            f"the weight of version '{label}' must be a number from 0 to {MAX_WEIGHT}; got {shorten(weight)}"
        )
