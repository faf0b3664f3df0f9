"""A supervisor that runs in a thread of the test, with all that it said."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from threading import Condition, Thread
from typing import TypeVar

from common.backoff import Backoff
from inference_worker.supervision.events import Event
from inference_worker.supervision.placement import place
from inference_worker.supervision.restarts import Restarts
from inference_worker.supervision.settings import FleetSettings
from inference_worker.supervision.slot import ChildPlan
from inference_worker.supervision.supervisor import Supervisor

E = TypeVar("E", bound=Event)

FAKE_CHILD = str(Path(__file__).with_name("fake_child.py"))


def fake(manner: str, folder: Path | None = None) -> list[str]:
    """The command of a fake child of that manner."""
    return [sys.executable, FAKE_CHILD, manner, *([str(folder)] if folder else [])]


def plans(pool: str, procs: int = 1, paths: tuple[str, ...] = ()) -> list[ChildPlan]:
    return [ChildPlan(pool, paths, placement) for placement in place("cpu", procs, [0, 1], [])]


def quick_restarts() -> Restarts:
    return Restarts(Backoff(0.02, 0.05))


class Supervised:
    """`with Supervised(url, plans, command=fake("good")) as it:` runs it, and at the block's end kills what is left.

    Options are those of the supervisor and the fields of FleetSettings.
    """

    def __init__(self, url: str, groups: list[ChildPlan], **options: object) -> None:
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.ended = False
        self._said = Condition()
        told = {field.name: options.pop(field.name) for field in fields(FleetSettings) if field.name in options}
        settings = FleetSettings(**told)  # type: ignore[arg-type]
        self.supervisor = Supervisor(url, groups, self._hear, settings, **{"restarts": quick_restarts, **options})  # type: ignore[arg-type]
        self._thread = Thread(target=self._run, name="supervisor")

    def __enter__(self) -> Supervised:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.supervisor.kill()
        self._thread.join()

    def wait_for(self, kind: type[E], times: int = 1, within_s: float = 15.0) -> E:
        """The `times`-th event of that kind."""
        with self._said:
            came = self._said.wait_for(lambda: len(self.of(kind)) >= times or self.ended, within_s)
            found = self.of(kind)
        if not came or len(found) < times:
            raise AssertionError(f"no {times} {kind.__name__} within {within_s} s; said {self.events}, {self.error!r}")
        return found[times - 1]

    def wait_for_end(self, within_s: float = 15.0) -> None:
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"the supervisor still runs after {within_s} s; said {self.events}"

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def _hear(self, event: Event) -> None:
        with self._said:
            self.events.append(event)
            self._said.notify_all()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except BaseException as error:
            self.error = error
        with self._said:
            self.ended = True
            self._said.notify_all()


def alive(pid: int) -> bool:
    """Whether a process with that id runs: neither gone nor a zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
