"""(d) What an idle worker costs: CPU of its processes, and commands on Redis, per second.

python -m benchmarks.idle [--seconds N]
"""

from __future__ import annotations

import argparse
import time

from benchmarks.echo import ECHO
from benchmarks.harness import cpu_seconds, table, workers
from common.connect import connect
from common.embedded import EmbeddedRedis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with EmbeddedRedis() as server, workers(server.url, "idle", ECHO) as pid:
        client = connect(server.url)
        time.sleep(2)
        before = cpu_seconds(pid), _commands(client.info("stats"))
        time.sleep(options.seconds)
        after = cpu_seconds(pid), _commands(client.info("stats"))
    share = (after[0] - before[0]) / options.seconds
    commands = (after[1] - before[1]) / options.seconds
    table(
        f"(d) one supervisor and one worker, idle for {options.seconds:.0f} s",
        ["CPU of one core", "Redis commands/s"],
        [[f"{share:.2%}", f"{commands:.1f}"]],
    )


def _commands(info: dict[str, int]) -> int:
    return info["total_commands_processed"]


if __name__ == "__main__":
    main()
