"""The asyncio twin of lean.py: redis-py's client with less Python between a command and its socket.

redis-py sends each command in a task of its own with a timer, and packs it in Python: for a call that carries twenty
requests that is as much work as all the rest. Its own methods, which come with options, go its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from hiredis import pack_command
from redis.exceptions import ResponseError

from common.halfopen import DOUBTS

#: A longer command waits until its socket takes it, for as long as redis-py lets it; a shorter one fits its buffer.
_WRITE_UP_TO = 64 * 1024


class AsyncLeanRedis(redis.asyncio.Redis):
    """For one event loop. A connection that broke raises once, and connects again with its next command.

    Where a command is cancelled its connection is cut: nobody reads another one's reply.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The pool knows them as in use, so it can cut them.
        self._kept: list[Any] = []
        self._doubts = DOUBTS.count

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        if options or " " in command[0]:
            return await super().execute_command(*command, **options)  # type: ignore[no-untyped-call]
        [response] = await self._exchange((command,))
        if isinstance(response, ResponseError):
            raise response
        callback = self.response_callbacks.get(command[0])
        return response if callback is None else callback(response)

    async def execute_together(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """All commands in one write, their bare responses in one read. Raises the first error among them."""
        responses = await self._exchange(commands)
        for response in responses:
            if isinstance(response, ResponseError):
                raise response
        return responses

    async def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        connection = await self._connection()
        try:
            packed = b"".join([pack_command(tuple(command)) for command in commands])
            if len(packed) > _WRITE_UP_TO:
                await connection.send_packed_command(packed, check_health=False)
            else:
                connection._writer.write(packed)
            return [await _response(connection) for _ in commands]
        except BaseException as error:
            await connection.disconnect(nowait=True)
            DOUBTS.raised_by(error)
            raise
        finally:
            self._kept.append(connection)

    async def _connection(self) -> Any:
        if self._doubts != DOUBTS.count:
            await self._trust_none()
        if not self._kept:
            return await self.connection_pool.get_connection()
        connection = self._kept.pop()
        try:
            if connection.is_connected and connection._reader.at_eof():
                await connection.disconnect(nowait=True)  # the server has closed it while nobody used it
            if not connection.is_connected:
                # Left to itself it would go back to where it was: under Sentinel `connect` asks who is the master now.
                await connection.connect()
        except BaseException:
            self._kept.append(connection)
            raise
        return connection

    async def _trust_none(self) -> None:
        """A connection of this process was found dead: the idle ones may be as dead, and connect again."""
        self._doubts = DOUBTS.count
        for connection in self._kept:
            await connection.disconnect(nowait=True)
        await self.connection_pool.disconnect(inuse_connections=False)


async def _response(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
