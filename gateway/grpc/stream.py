"""ModelStreamInfer: many requests at a time on one stream, each answered when it is done, errors among the answers.

What is under way on a stream is bounded. Beyond it no request is read, so that gRPC's flow control holds the client
back; and as an answer that is not taken keeps its place, a slow reader holds back himself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc.aio
from grpc import StatusCode

from common.errors import InferenceError, InvalidRequest
from gateway.door.retry import retry_ms
from gateway.door.service import Service
from gateway.grpc.calls import infer_into
from gateway.grpc.endpoint import Context, Request, count, refuse, told_of
from gateway.grpc.pb import inference_pb2 as pb
from gateway.grpc.reading import NOTHING, Arrived
from gateway.grpc.status import STATUS

#: Triton's name for "there is no further answer to this request": here every answer is the last.
_FINAL = "triton_final_response"
_DRAINING = "the gateway is going away: what it had read is answered, send the others to a new stream"


class Streams:
    """All that are open in this process; each has at most `most` requests under way."""

    def __init__(self, service: Service, most: int) -> None:
        self._service = service
        self._most = most
        self._open: set[Stream] = set()
        self._draining = False

    async def answer(self, requests: AsyncIterator[Arrived], context: Context) -> None:
        if self._draining:
            await context.abort(StatusCode.UNAVAILABLE, _DRAINING)
        stream = Stream(self._service, self._most, context)
        try:
            Request(self._service, NOTHING, context).identify()
        except InferenceError as error:
            await refuse(context, error)
        self._open.add(stream)
        try:
            await stream.run()
        finally:
            self._open.discard(stream)

    def drain(self) -> None:
        """Read no more from any of them: each ends when what it has read is answered."""
        self._draining = True
        for stream in self._open:
            stream.drain()


class Stream:
    """One of them. A task that is cancelled while it runs cancels all that is under way."""

    def __init__(self, service: Service, most: int, context: Context) -> None:
        self._service = service
        self._context = context
        self._places = asyncio.Semaphore(most)
        self._writing = asyncio.Lock()
        self._task = asyncio.current_task()
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the client has sent all, and all is answered; or until `drain`."""
        async with asyncio.TaskGroup() as group:
            self._reader = group.create_task(self._read(group), name="stream")
        if self._reader.cancelled():
            await self._context.abort(StatusCode.UNAVAILABLE, _DRAINING)

    def drain(self) -> None:
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._places.acquire()
            arrived = await self._context.read()
            if arrived is grpc.aio.EOF:
                return
            group.create_task(self._answer(arrived))

    async def _answer(self, arrived: Arrived) -> None:
        response = await self._response(arrived)
        async with self._writing:
            try:
                await self._context.write(response)
            except grpc.aio.InternalError:
                # The client is gone: nothing of the stream is wanted any more, and there is nobody to be told.
                if self._task is not None:
                    self._task.cancel()
        self._places.release()

    async def _response(self, arrived: Arrived) -> pb.ModelStreamInferResponse:
        response = pb.ModelStreamInferResponse()
        began_s, status = time.monotonic(), StatusCode.CANCELLED
        try:
            request = Request(self._service, arrived, self._context)
            # Each time: a stream may live longer than its key.
            request.identify()
            await infer_into(response.infer_response, request)
            response.infer_response.parameters[_FINAL].bool_param = True
            status = StatusCode.OK
            return response
        except Exception as error:
            told = told_of(error)
            status = STATUS[told.code]
            return _failed(arrived, told)
        finally:
            count(self._service, status, began_s)


def _failed(arrived: Arrived, error: InferenceError) -> pb.ModelStreamInferResponse:
    """With the request's id, and the code and the wait as parameters, for whoever looks there."""
    response = pb.ModelStreamInferResponse(error_message=error.message)
    told = response.infer_response
    with suppress(InvalidRequest):
        told.id = arrived.message().id
    told.parameters[_FINAL].bool_param = True
    told.parameters["error_code"].string_param = error.code
    if (wait_ms := retry_ms(error)) is not None:
        told.parameters["retry_after_ms"].int64_param = wait_ms
    return response
