"""A supervisor as a process of its own, for what only a process can show: signals, and a sudden death.

    python -m tests.support.run_supervisor URL POOL MANNER FOLDER

Prints `started PID`, `ready`, `draining` and `exited CODE` as they come; ends with 0, or with the error as a traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inference_worker.supervision.events import Draining, Event, Exited, Ready, Started
from inference_worker.supervision.supervisor import Supervisor
from tests.support.supervised import fake, plans


def show(event: Event) -> None:
    match event:
        case Started():
            print(f"started {event.pid}", flush=True)
        case Ready():
            print("ready", flush=True)
        case Draining():
            print("draining", flush=True)
        case Exited():
            print(f"exited {event.code}", flush=True)


if __name__ == "__main__":
    url, pool, manner, folder = sys.argv[1:]
    Supervisor(url, plans(pool), show, command=fake(manner, Path(folder))).run()
