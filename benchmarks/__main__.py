"""All figures of the main job, one after the other: python -m benchmarks"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("echo", "minilm", "idle", "startup", "backlog")

for part in PARTS:
    # A process each: what one leaves in memory must not slow the next.
    subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], check=True)
