"""An operator's order, obeyed in one process: load, unload or reload versions of one model, all of them or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from common.errors import InferenceError, ModelNotFound
from common.orders import LOAD, RELOAD, UNLOAD, Order
from inference_worker.models.carrier import Carrier
from inference_worker.models.code import import_file, python_file
from inference_worker.models.library import Library
from inference_worker.models.registry import Key, Title, key_of, listed
from inference_worker.models.scope import Scope
from inference_worker.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Done:
    """The versions that an order loaded or took away, and what its operator should know of it."""

    keys: list[Key]
    note: str = ""


class Rollout:
    """New versions are loaded and warmed beside the old ones, and requests change over in one step.

    `find` looks at the repository: orders are obeyed by what is declared there now, whatever state other models are in.
    """

    def __init__(self, library: Library, carrier: Carrier, find: Callable[[Scope], list[ModelSpec]]) -> None:
        self._library = library
        self._carrier = carrier
        self._find = find

    def obey(self, order: Order) -> Done:
        """Raises InferenceError, and what was served is served as before."""
        if order.do == UNLOAD:
            return Done(self._unload(order))
        declared = self._find(partial(_is_meant, order))
        ours = {key_of(spec): spec for spec in declared if spec.name == order.model}
        note = _note(ours.values() or declared)
        chosen = _chosen(order, ours, declared, note)
        if order.do == LOAD:
            chosen = [spec for spec in chosen if key_of(spec) not in self._library.loaded]
        gone = self._undeclared(order, ours)
        self._replace(order, chosen, ours, gone)
        return Done([*map(key_of, chosen), *gone], note)

    def _unload(self, order: Order) -> list[Key]:
        offered = self._library.registry.versions(order.model)
        # Without that model, or that version of it, this raises.
        asked = self._library.registry.get(order.model, order.version)
        gone = [title.key for title in offered if order.version is None or title == asked]
        self._library.offer(order.model, [title for title in offered if title.key not in gone])
        return gone

    def _undeclared(self, order: Order, ours: Mapping[Key, ModelSpec]) -> list[Key]:
        """A reload of all versions takes those away that are no longer in the repository.

        Raises ConfigError where a Python file that declared one is broken: then nobody knows whether it still does.
        """
        if order.do != RELOAD or order.version is not None:
            return []
        gone = [title for title in self._library.registry.versions(order.model) if title.key not in ours]
        for title in gone:
            file = python_file(title.spec)
            if file is not None and file.is_file():
                import_file(file)
        return [title.key for title in gone]

    def _replace(
        self, order: Order, chosen: Sequence[ModelSpec], ours: Mapping[Key, ModelSpec], gone: Collection[Key]
    ) -> None:
        old = [key for key in map(key_of, chosen) if key in self._library.loaded]
        if order.swap:
            self._carrier.retire(old)
        try:
            fresh = [self._carrier.bring(spec, () if order.swap else old)[0] for spec in chosen]
            kept = [title for title in self._library.registry.versions(order.model) if title.key not in gone]
            titles = {title.key: _relabelled(title, ours.get(title.key)) for title in kept}
            self._library.offer(order.model, [*(titles | {title.key: title for title in fresh}).values()])
        except BaseException as error:
            self._carrier.abandon()
            if order.swap and isinstance(error, InferenceError):
                # They are gone: who waits for one is told why.
                for key in old:
                    self._library.failed(key, error)
            raise


def _note(specs: Iterable[ModelSpec]) -> str:
    """Why these may not be what their repositories hold now; empty where they are."""
    snapshots = (spec.origin.snapshot for spec in specs)
    return "; ".join(dict.fromkeys(one.stale for one in snapshots if one is not None and one.stale))


def _chosen(order: Order, ours: Mapping[Key, ModelSpec], declared: Sequence[ModelSpec], note: str) -> list[ModelSpec]:
    """What the order means, by version or alias. Raises ModelNotFound with what is there, and the `note` on that."""
    chosen = [spec for spec in ours.values() if _is_meant(order, spec.name, spec.version, spec.aliases)]
    if chosen:
        return chosen
    more = f" ({note})" if note else ""
    if ours:
        there = listed(version for _, version in ours)
        raise ModelNotFound(
            f"the repository has no version '{order.version}' of '{order.model}'; there is {there}{more}"
        )
    there = listed(sorted({spec.name for spec in declared}))
    raise ModelNotFound(f"the repository has no model '{order.model}'; there is {there}{more}")


def _is_meant(order: Order, name: str, version: str, aliases: Collection[str]) -> bool:
    """Whether an order is about this version."""
    return name == order.model and order.version in (None, version, *aliases)


def _relabelled(title: Title, declared: ModelSpec | None) -> Title:
    """A version that stays as it is loses and gets aliases: one may move to the version that is loaded beside it."""
    return title if declared is None else replace(title, spec=replace(title.spec, aliases=declared.aliases))
