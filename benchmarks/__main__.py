"""Figures, one after the other: python -m benchmarks [PART ...], by default all of the main job."""

from __future__ import annotations

import subprocess
import sys

PARTS = ("echo", "minilm", "idle", "startup", "backlog", "recovery")

for part in sys.argv[1:] or PARTS:
    # A process each: what one leaves in memory must not slow the next.
    subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], check=True)
