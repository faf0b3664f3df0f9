"""Models with weights in a file, each of which multiplies by a factor of its own: an answer tells who gave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CODE = """
import numpy as np
from inference_worker import Model

class Scale(Model):
    def load(self, context):
        self.weights = np.load(context.path("weights.npy"))

    def infer(self, batch):
        return batch["x"] * self.weights[0]
"""


def write_scaling(
    models: Path, pool: str, version: str, factor: float, name: str = "scale", size: int = 8, more: str = ""
) -> Path:
    """models/<name>/<version>, or other weights for it, of `size` bytes. `more` is added to its model.toml."""
    folder = models / name / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(CODE)
    aside = folder / ".weights.npy"
    with aside.open("wb") as file:
        np.save(file, np.full(max(1, size // 4), factor, np.float32))
    aside.replace(folder / "weights.npy")
    (folder / "model.toml").write_text(
        f'backend = "python"\npool = "{pool}"\n{more}\n[python]\ncode = "model.py:Scale"\n'
        '[[inputs]]\nname = "x"\ndtype = "FP32"\nshape = []\n'
    )
    return folder
