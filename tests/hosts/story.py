"""What happens to the hosts: a third one joins, one is cut off, it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.hosts.network import Namespace
from tests.hosts.scene import LEASE_S, WITHIN_S, Scene
from tests.support.waiting import wait_until

#: Over so long shares are counted.
LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in seconds after what caused them; shares of all answers in the two seconds that began there."""

    answered: int
    joined_s: float
    share: float
    #: From the cut until the last request is answered that was under way then.
    moved_s: float
    #: The share of each host that answers once that is so.
    without: Mapping[str, float]
    back_s: float
    share_of_back: float

    def __str__(self) -> str:
        then = f"then {{:.0%}} of all answers over {LOOK_S:g} s"
        return "\n".join(
            (
                f"{self.answered:,} requests, each answered once; lease {LEASE_S} s",
                f"a third host joins   first answer {self.joined_s:.1f} s after its command, {then.format(self.share)}",
                f"a host is cut off    all that was under way was answered within {self.moved_s:.1f} s",
                f"it comes back        first answer {self.back_s:.1f} s after its link was up, "
                f"{then.format(self.share_of_back)}",
            )
        )


def run(scene: Scene, tell: Callable[[str], None] = lambda line: None) -> Figures:
    """Models from a shared folder for the first two, from the web server for the third. Raises AssertionError."""
    first, second = (scene.serve(name, scene.shared) for name in ("first", "second"))
    wait_until(lambda: scene.ready(first) and scene.ready(second), "two hosts serve", WITHIN_S)
    tell("two hosts serve")
    with scene.asked():
        for host in (first, second):
            scene.wait_for(host)
        joined_s, share = _join(scene)
        tell("a third one joined")
        moved_s, without = _cut(scene, second)
        tell("the second one was cut off")
        back_s, share_of_back = _mend(scene, second)
        tell("it came back")
    numbers = [one.number for one in scene.answers]
    assert scene.failed == []
    assert sorted(numbers) == list(range(len(numbers))), "each request was answered once"
    return Figures(len(numbers), joined_s, share, moved_s, without, back_s, share_of_back)


def _join(scene: Scene) -> tuple[float, float]:
    began_s = time.monotonic()
    third = scene.serve("third", scene.remote)
    first_s = scene.wait_for(third, began_s)
    return first_s - began_s, scene.shares(first_s, LOOK_S).get(third.name, 0.0)


def _cut(scene: Scene, host: Namespace) -> tuple[float, Mapping[str, float]]:
    """All that was asked before the cut is answered, by whomever."""
    cut_s = time.monotonic()
    scene.network.cut(host)
    last_s = scene.wait_for_all(scene.asked_for)
    return last_s - cut_s, scene.shares(last_s, LOOK_S)


def _mend(scene: Scene, host: Namespace) -> tuple[float, float]:
    mended_s = time.monotonic()
    scene.network.mend(host)
    first_s = scene.wait_for(host, mended_s)
    return first_s - mended_s, scene.shares(first_s, LOOK_S).get(host.name, 0.0)
