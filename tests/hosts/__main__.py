"""Three hosts as network namespaces on this machine, and the figures of what happens to them. Needs root.

python -m tests.hosts
"""

from __future__ import annotations

import sys

from tests.hosts.network import missing
from tests.hosts.scene import scene
from tests.hosts.story import run


def main() -> int:
    if why := missing():
        print(why, file=sys.stderr)
        return 69
    with scene() as hosts:
        print(run(hosts, lambda line: print(line, flush=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
