"""What each model adds to its process, as far as that was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inference_worker.models.registry import Key


@dataclass(slots=True, eq=False)
class Load:
    """A load under way: bytes that the model needs by its files, and that those need which load beside it."""

    key: Key
    need: int
    resident: int
    beside: int


class Growth:
    """A model counts with its files, or with what the process grew by while it loaded if that is more.

    The least growth ever seen: what other threads take meanwhile, or is imported only once, adds to it. Of what two
    loads at once added each counts its share by need, and that is forgotten when one of them has loaded alone.
    """

    def __init__(self) -> None:
        self._least: dict[Key, int] = {}
        self._under_way: list[Load] = []

    def begin(self, key: Key, need: int, resident: int) -> Load:
        """`resident`: the process's memory now."""
        load = Load(key, need, resident, sum(one.need for one in self._under_way))
        for one in self._under_way:
            one.beside += need
        self._under_way.append(load)
        return load

    def end(self, load: Load, resident: int) -> int:
        """It is loaded; the bytes that it counts with from now on."""
        self._under_way.remove(load)
        grown = resident - load.resident
        if not load.beside:
            grown = self._least[load.key] = min(grown, self._least.get(load.key, grown))
        else:
            grown = self._least.get(load.key, grown * load.need // (load.need + load.beside))
        return max(load.need, grown)

    def give_up(self, load: Load) -> None:
        """It did not load."""
        self._under_way.remove(load)
