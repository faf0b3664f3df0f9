"""A process of the HTTP door: python -m gateway.http.child, started by processes.py.

Standard input holds its settings in one line, and then stays open for as long as its parent lives; standard output
gets one JSON line: that it is ready, or why it is not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from threading import Thread

from common.errors import InferenceError
from common.logs import setup_logging
from gateway.door.settings import DoorSettings
from gateway.http.listening import listen
from gateway.http.server import serve

FAILED = 1


def main() -> int:
    settings = DoorSettings.from_json(sys.stdin.readline())
    setup_logging(settings.log_level)
    Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    try:
        serve(settings, listen(settings.http), lambda: _tell(ready=True))
    except InferenceError as error:
        _tell(error=error.message, code=error.code)
        return FAILED
    return 0


def _tell(**message: object) -> None:
    print(json.dumps(message), flush=True)


def _end_with_parent() -> None:
    # Not by sys.stdin: its lock, held in a thread, would break the interpreter's end.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
