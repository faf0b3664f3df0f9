"""What the code of a model may raise: anything, and none of it may end the process that runs it."""

from __future__ import annotations

import signal


def is_failure(error: BaseException) -> bool:
    """Whether an exception out of a model's code is that model's failure: sys.exit and a native library's panic too.

    All but a Ctrl-C that this process listens to, as a command does and a worker does not.
    """
    return not isinstance(error, KeyboardInterrupt) or signal.getsignal(signal.SIGINT) is signal.SIG_IGN
