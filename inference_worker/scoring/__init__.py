"""Offline scoring: whole data sets through a model, in this process or through Redis, with results that are resumable.

It sits on top of everything else, as the command line does: nobody below imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_worker.scoring.api import score

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    # Arrow takes longer to import than the command line may take to show its help.
    if name != "score":
        raise AttributeError(f"module 'inference_worker.scoring' has no attribute '{name}'")
    from inference_worker.scoring.api import score

    return score
