"""The long chaos run. Prints its seed, which replays the schedule.

python -m tests.chaos [--broker single|sentinel|cluster] [--seed N] [--short]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from common.keys import PoolKeys
from tests.chaos.fleet import POOL
from tests.chaos.run import LONG, SHORT, run
from tests.support.deployments import Cluster, Sentinels, Single

DEPLOYMENTS = {"single": Single, "sentinel": Sentinels, "cluster": lambda: Cluster(PoolKeys(POOL).leases)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=DEPLOYMENTS, default="single")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="iw-chaos-") as folder:
        plan = SHORT if options.short else LONG
        verdict = run(plan, options.seed, DEPLOYMENTS[options.broker], Path(folder), _say)
    print(verdict, *verdict.wrong[:20], sep="\n")
    return 1 if verdict.lost or verdict.wrong or verdict.again_share >= 0.01 else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
