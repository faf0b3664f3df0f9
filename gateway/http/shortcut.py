"""Leads the calls that are asked most to their endpoints by one look in a table.

The router tries one route after the other, each by a regular expression, which costs as much as parsing the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

#: So many paths are remembered, with their models' names in them: callers make them up.
_MOST_KNOWN = 1024


class _Way(NamedTuple):
    """`literals` are the pieces of the path that must be so, `names` those that are the caller's, by position."""

    literals: tuple[tuple[int, str], ...]
    names: tuple[tuple[int, str], ...]
    endpoint: ASGIApp

    def leads(self, pieces: list[str]) -> bool:
        return all(pieces[at] == piece for at, piece in self.literals) and all(pieces[at] for at, _ in self.names)


class Shortcut:
    """Takes the POST calls among `routes`; everything else, and what is wrong, goes on to `app`."""

    def __init__(self, app: ASGIApp, routes: Iterable[Route]) -> None:
        self._app = app
        self._known: dict[str, tuple[ASGIApp, dict[str, str]]] = {}
        self._ways: dict[tuple[str, int], list[_Way]] = {}
        for route in routes:
            if route.methods == {"POST"}:
                way = _way(route)
                self._ways.setdefault(_key(route.path.split("/")), []).append(way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        found = (self._known.get(path) or self._find(path)) if scope["method"] == "POST" else None
        if found is None:
            return await self._app(scope, receive, send)
        app, scope["path_params"] = found
        return await app(scope, receive, send)

    def _find(self, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        pieces = path.split("/")
        way = next((one for one in self._ways.get(_key(pieces), ()) if one.leads(pieces)), None)
        if way is None:
            return None
        found = (way.endpoint, {name: pieces[at] for at, name in way.names})
        if len(self._known) < _MOST_KNOWN:
            self._known[path] = found
        return found


def _key(pieces: list[str]) -> tuple[str, int]:
    """Of a path that begins with a slash: its first piece, and how many there are."""
    return (pieces[1] if len(pieces) > 1 else "", len(pieces))


def _way(route: Route) -> _Way:
    pieces = list(enumerate(route.path.split("/")))
    return _Way(
        tuple((at, piece) for at, piece in pieces if not piece.startswith("{")),
        tuple((at, piece[1:-1]) for at, piece in pieces if piece.startswith("{")),
        route.endpoint,
    )
