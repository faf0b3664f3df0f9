"""redis-py's client with less Python between a command and its socket. Imported with the first connection.

`redis.Redis.execute_command` spends about as long on retries, metrics and its pool as the server spends
on a command. Here a connection, once taken from the pool, is kept for the next command, and nothing
is tried twice: our callers retry with what they know. redis-py's own methods, which come with options, go
its own way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import ResponseError

from common.halfopen import DOUBTS


class LeanRedis(redis.Redis):
    """Thread-safe. A connection that broke raises once, and connects again with its next command."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # list.append and list.pop are atomic. The pool knows them as in use, so it can cut them.
        self._kept: list[Any] = []
        self._process = os.getpid()
        self._doubts = DOUBTS.count

    def execute_command(self, *command: Any, **options: Any) -> Any:
        if options:
            return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]
        connection = self._connection()
        try:
            connection.send_packed_command(_pack(connection, command))
            response = connection.read_response()
        except ResponseError:
            raise
        except BaseException as error:
            # Stopped between command and reply, as by Ctrl-C: the next command would read this one's reply.
            connection.disconnect()
            DOUBTS.raised_by(error)
            raise
        finally:
            self._kept.append(connection)
        callback = self.response_callbacks.get(command[0])
        return response if callback is None else callback(response)

    def execute_together(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """All commands in one write, their bare responses in one read. Raises the first error among them."""
        connection = self._connection()
        try:
            connection.send_packed_command((b"".join([pack_command(tuple(command)) for command in commands]),))
            responses = [_response(connection) for _ in commands]
        except BaseException as error:
            connection.disconnect()
            DOUBTS.raised_by(error)
            raise
        finally:
            self._kept.append(connection)
        for response in responses:
            if isinstance(response, ResponseError):
                raise response
        return responses

    def _connection(self) -> Any:
        if self._process != os.getpid():
            # A fork: the parent reads from those sockets.
            self._kept, self._process = [], os.getpid()
        if self._doubts != DOUBTS.count:
            self._trust_none()
        try:
            connection = self._kept.pop()
        except IndexError:
            return self.connection_pool.get_connection()
        if connection._sock is None:
            # Left to itself it would go back to where it was: under Sentinel `connect` asks who is the master now.
            _connect(connection, self._kept)
        return connection

    def _trust_none(self) -> None:
        """A connection of this process was found dead: the idle ones may be as dead, and connect again."""
        self._doubts = DOUBTS.count
        idle: list[Any] = []
        with suppress(IndexError):  # Other threads take from the same list.
            while True:
                idle.append(self._kept.pop())
        for connection in idle:
            connection.disconnect()
            self._kept.append(connection)
        self.connection_pool.disconnect(inuse_connections=False)


def _connect(connection: Any, kept: list[Any]) -> None:
    try:
        connection.connect()
    except BaseException:
        kept.append(connection)
        raise


def _pack(connection: Any, command: Sequence[Any]) -> Any:
    # redis-py writes some names as two words, which its own packer takes apart; ours are one word each.
    if " " in command[0]:
        return connection.pack_command(*command)
    return (pack_command(tuple(command)),)


def _response(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
