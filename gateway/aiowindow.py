"""The asyncio twin of window.py: many requests through a bounded window, in order or as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from common.errors import InferenceError
from gateway.handle import AsyncHandle
from gateway.result import Result
from gateway.window import Refused

#: Hands one input in; the handle goes to the second argument when it is settled.
Submit = Callable[[object, Callable[[AsyncHandle], None] | None], Awaitable[AsyncHandle]]
Inputs = Iterable[object] | AsyncIterable[object]
Answers = AsyncIterator[Result | InferenceError]


async def in_order(submit: Submit, inputs: Inputs, window: int, keep_errors: bool) -> Answers:
    """The answers in the order of the inputs; at most `window` of them under way or not yet taken."""
    under_way: deque[Attempt] = deque()
    try:
        async for one in _each(inputs):
            under_way.append(await _attempt(submit, one, None, keep_errors))
            while under_way and (len(under_way) >= window or under_way[0].answer is not None):
                yield await _answer(under_way.popleft(), keep_errors)
        while under_way:
            yield await _answer(under_way.popleft(), keep_errors)
    finally:
        _give_up(under_way)


async def as_completed(submit: Submit, inputs: Inputs, window: int, keep_errors: bool) -> Answers:
    """The answers as they come."""
    finished: asyncio.Queue[AsyncHandle] = asyncio.Queue()
    under_way: set[Attempt] = set()
    try:
        async for one in _each(inputs):
            attempt = await _attempt(submit, one, finished.put_nowait, keep_errors)
            if isinstance(attempt, Refused):
                yield attempt.answer
                continue
            under_way.add(attempt)
            while len(under_way) >= window or not finished.empty():
                yield await _answer(await _next(finished, under_way), keep_errors)
        while under_way:
            yield await _answer(await _next(finished, under_way), keep_errors)
    finally:
        _give_up(under_way)


Attempt = AsyncHandle | Refused


async def _each(inputs: Inputs) -> AsyncIterator[object]:
    if isinstance(inputs, AsyncIterable):
        async for one in inputs:
            yield one
    else:
        for one in inputs:
            yield one


async def _attempt(
    submit: Submit, one: object, finished: Callable[[AsyncHandle], None] | None, keep_errors: bool
) -> Attempt:
    try:
        return await submit(one, finished)
    except InferenceError as error:
        if not keep_errors:
            raise
        return Refused(error)


async def _answer(attempt: Attempt, keep_errors: bool) -> Result | InferenceError:
    if isinstance(attempt, Refused):
        return attempt.answer
    try:
        return await attempt.result()
    except InferenceError as error:
        if not keep_errors:
            raise
        return error


async def _next(finished: asyncio.Queue[AsyncHandle], under_way: set[Attempt]) -> AsyncHandle:
    handle = await finished.get()
    under_way.discard(handle)
    return handle


def _give_up(under_way: Iterable[Attempt]) -> None:
    for attempt in under_way:
        attempt.cancel()
