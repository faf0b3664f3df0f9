"""Many requests through a bounded window, in order or as they come. Reads its input as the window has room."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from common.errors import InferenceError
from gateway.handle import Handle
from gateway.result import Result

#: Hands one input in; the handle goes to the second argument when it is settled.
Submit = Callable[[object, Callable[[Handle], None] | None], Handle]

Answers = Iterator[Result | InferenceError]


def in_order(submit: Submit, inputs: Iterable[object], window: int, keep_errors: bool) -> Answers:
    """The answers in the order of the inputs; at most `window` of them under way or not yet taken."""
    under_way: deque[Attempt] = deque()
    try:
        for one in inputs:
            under_way.append(_attempt(submit, one, None, keep_errors))
            while under_way and (len(under_way) >= window or under_way[0].answer is not None):
                yield _answer(under_way.popleft(), keep_errors)
        while under_way:
            yield _answer(under_way.popleft(), keep_errors)
    finally:
        _give_up(under_way)


def as_completed(submit: Submit, inputs: Iterable[object], window: int, keep_errors: bool) -> Answers:
    """The answers as they come."""
    finished: SimpleQueue[Handle] = SimpleQueue()
    under_way: set[Attempt] = set()
    try:
        for one in inputs:
            attempt = _attempt(submit, one, finished.put, keep_errors)
            if isinstance(attempt, Refused):
                yield attempt.answer
                continue
            under_way.add(attempt)
            while len(under_way) >= window or not finished.empty():
                yield _answer(_next(finished, under_way), keep_errors)
        while under_way:
            yield _answer(_next(finished, under_way), keep_errors)
    finally:
        _give_up(under_way)


class Refused:
    """An input that could not even be handed in; it fails in its own place."""

    __slots__ = ("answer",)

    def __init__(self, error: InferenceError) -> None:
        self.answer = error

    def cancel(self) -> bool:
        return False


Attempt = Handle | Refused


def _attempt(submit: Submit, one: object, finished: Callable[[Handle], None] | None, keep_errors: bool) -> Attempt:
    try:
        return submit(one, finished)
    except InferenceError as error:
        if not keep_errors:
            raise
        return Refused(error)


def _answer(attempt: Attempt, keep_errors: bool) -> Result | InferenceError:
    if isinstance(attempt, Refused):
        return attempt.answer
    try:
        return attempt.result()
    except InferenceError as error:
        if not keep_errors:
            raise
        return error


def _next(finished: SimpleQueue[Handle], under_way: set[Attempt]) -> Handle:
    while True:
        with suppress(Empty):
            handle = finished.get(timeout=1.0)
            under_way.discard(handle)
            return handle
        # The receiver watches deadlines too, unless a broker that hangs holds it up.
        for one in list(under_way):
            if isinstance(one, Handle):
                one.done()


def _give_up(under_way: Iterable[Attempt]) -> None:
    for attempt in under_way:
        attempt.cancel()
