"""The Open Inference Protocol's calls under /v2, with Triton's extensions. Decides nothing: see oip.py."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

from starlette.routing import Route

from common.errors import InvalidRequest
from common.orders import LOAD, UNLOAD
from gateway.door.directory import Served
from gateway.http import etag, jsontensors, oip
from gateway.http.endpoint import JSON, Answer, Door, Endpoint, Handler, Request
from gateway.http.status import Headers, Refusal
from gateway.oip import models
from gateway.oip.parameters import UNSUPPORTED, ordered

_HEADER_LENGTH = b"inference-header-content-length"
_BINARY = (b"content-type", b"application/octet-stream")
#: Below, what compression saves is not worth its time.
_COMPRESS_FROM = 1024
_FASTEST = 1

_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"


def routes(door: Door) -> list[Route]:
    """Infer first: routes are tried in order."""

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, Endpoint(door, handler, oip.shape_error), methods=[method])

    return [
        route(f"{_MODEL}/infer", infer, "POST"),
        route(f"{_VERSION}/infer", infer, "POST"),
        route("/v2", server_metadata),
        route("/v2/models/stats", all_statistics),
        *(
            route(f"{path}{suffix}", handler)
            for path in (_MODEL, _VERSION)
            for suffix, handler in (
                ("", metadata),
                ("/ready", model_ready),
                ("/config", config),
                ("/stats", statistics),
            )
        ),
        route("/v2/repository/index", repository_index, "POST"),
        route("/v2/repository/models/{model}/load", load, "POST"),
        route("/v2/repository/models/{model}/unload", unload, "POST"),
        *(
            Route(f"/v2/{name}{rest}", Endpoint(door, Unsupported(why), oip.shape_error), methods=["GET", "POST"])
            for name, why in UNSUPPORTED.items()
            for rest in ("", "/{rest:path}")
        ),
    ]


async def infer(request: Request) -> Answer:
    body = await request.body()
    model, version = request.path["model"], request.path.get("version")
    header_length = request.headers.get(_HEADER_LENGTH)
    if header_length == b"0":
        declared = (await request.service.find(request.tenant, model, version)).info.inputs
        ask = oip.parse_raw(model, version, body, declared, request.cacheable)
    else:
        ask = oip.parse(model, version, body, header_length, request.cacheable)
    result = await request.service.infer(request.tenant, ask.call, ask.inputs)
    tag = etag.tag_of(result, oip.form_of(ask, result))
    if etag.is_known(request.headers, tag):
        return Answer(304, etag.headers_of(result, tag))
    told = oip.encode(ask, result)
    headers: Headers = [JSON if told.json_bytes is None else _BINARY, *etag.headers_of(result, tag)]
    if told.json_bytes is not None:
        headers.append((_HEADER_LENGTH, str(told.json_bytes).encode()))
    return _compressed(request, told.body, headers)


async def server_metadata(request: Request) -> Answer:
    return _json(models.server())


async def metadata(request: Request) -> Answer:
    return _json(models.metadata(await _served(request)))


async def config(request: Request) -> Answer:
    return _json(models.config(await _served(request)))


async def model_ready(request: Request) -> Answer:
    """503 with the reason where a request would only wait."""
    served = await _served(request)
    if served.live:
        return Answer()
    return Answer(503, [JSON], jsontensors.dump({"error": f"pool '{served.pool}' has no live worker"}))


async def statistics(request: Request) -> Answer:
    served = await _served(request)
    versions = [request.path["version"]] if "version" in request.path else served.versions
    counts = request.service.statistics
    return _json(models.statistics((served.info.name, one, counts.of(served.info.name, one)) for one in versions))


async def all_statistics(request: Request) -> Answer:
    counts = request.service.statistics
    titles = [(one.info.name, one.info.version) for one in await request.service.models(request.tenant)]
    return _json(models.statistics((*title, counts.of(*title)) for title in titles))


async def repository_index(request: Request) -> Answer:
    message = await _message(request)
    served = await request.service.models(request.tenant)
    return _json(models.index(served, message.get("ready") is True))


async def load(request: Request) -> Answer:
    return await _order(request, LOAD)


async def unload(request: Request) -> Answer:
    return await _order(request, UNLOAD)


class Unsupported:
    """A call of Triton's that there is nothing for, answered with the reason."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def __call__(self, request: Request) -> Answer:
        raise Refusal(501, self._why)


async def _order(request: Request, do: str) -> Answer:
    parameters = (await _message(request)).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters must be an object")
    await request.service.order(request.tenant, do, *ordered(request.path["model"], parameters))
    return Answer()


async def _message(request: Request) -> dict[str, Any]:
    body = await request.body()
    message = jsontensors.parse("the request", body) if body else {}
    if not isinstance(message, dict):
        raise InvalidRequest("the request must be a JSON object")
    return message


async def _served(request: Request) -> Served:
    return await request.service.find(request.tenant, request.path["model"], request.path.get("version"))


def _json(value: object) -> Answer:
    return Answer(200, [JSON], jsontensors.dump(value))


def _compressed(request: Request, body: bytes, headers: Headers) -> Answer:
    accepted = request.headers.get(b"accept-encoding", b"")
    if len(body) < _COMPRESS_FROM or not accepted:
        return Answer(200, headers, body)
    if b"gzip" in accepted:
        return Answer(200, [*headers, (b"content-encoding", b"gzip")], gzip.compress(body, _FASTEST))
    if b"deflate" in accepted:
        return Answer(200, [*headers, (b"content-encoding", b"deflate")], zlib.compress(body, _FASTEST))
    return Answer(200, headers, body)
