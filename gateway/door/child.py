"""A process of a door: python -m gateway.door.child, started by processes.py.

Standard input holds its settings in one line, and then stays open for as long as its parent lives; standard output
gets one JSON line: that it is ready, or why it is not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from threading import Thread

from common.errors import ConfigError, InferenceError
from common.logs import setup_logging
from gateway.door.openfiles import raise_open_files
from gateway.door.service import Service
from gateway.door.serving import Entrance, serve
from gateway.door.settings import DoorSettings

FAILED = 1


def main() -> int:
    settings = DoorSettings.from_json(sys.stdin.readline())
    raise_open_files()
    setup_logging(settings.log_level, form=settings.log_format)
    Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    try:
        import uvloop

        uvloop.run(serve(settings, lambda service: entrances(settings, service), lambda: _tell(ready=True)))
    except ModuleNotFoundError as error:
        extra = "http" if settings.grpc is None else "grpc" if settings.http is None else "http,grpc"
        told = f"the gateway needs the package '{error.name}', not installed: pip install 'inference-worker[{extra}]'"
        _tell(error=told, code=ConfigError.code)
        return FAILED
    except InferenceError as error:
        _tell(error=error.message, code=error.code)
        return FAILED
    return 0


def entrances(settings: DoorSettings, service: Service) -> list[Entrance]:
    """One for each address. Imports only what they need: each has an extra of its own."""
    found: list[Entrance] = []
    if settings.http is not None:
        from gateway.http.server import HttpEntrance

        found.append(HttpEntrance(service, settings, settings.http))
    if settings.grpc is not None:
        from gateway.grpc.server import GrpcEntrance

        found.append(GrpcEntrance(service, settings, settings.grpc))
    return found


def _tell(**message: object) -> None:
    print(json.dumps(message), flush=True)


def _end_with_parent() -> None:
    # Not by sys.stdin: its lock, held in a thread, would break the interpreter's end.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
