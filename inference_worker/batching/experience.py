"""What was learned of each model and signature from its batches: what they cost, how large they may be. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from inference_worker.batching.ceiling import Ceiling
from inference_worker.batching.cost import CostModel
from inference_worker.item import Signature
from inference_worker.models.spec import ModelSpec

#: A model whose sizes are free has a signature for each: those that ran last are remembered.
MOST_SIGNATURES = 256


@dataclass(frozen=True, slots=True)
class Experience:
    """Of one model's batches of one signature."""

    spec: ModelSpec
    cost: CostModel = field(default_factory=CostModel)
    ceiling: Ceiling = field(default_factory=Ceiling)


class Experiences:
    """One for each signature, the least recently asked for dropped where there are too many."""

    def __init__(self, most: int = MOST_SIGNATURES) -> None:
        self._most = most
        self._of: OrderedDict[Signature, Experience] = OrderedDict()

    def of(self, signature: Signature, spec: ModelSpec) -> Experience:
        found = self._of.get(signature)
        # A signature names its model by identity, and a new model may get that of one that is gone.
        if found is None or found.spec is not spec:
            found = self._of[signature] = Experience(spec)
            if len(self._of) > self._most:
                self._of.popitem(last=False)
        self._of.move_to_end(signature)
        return found
