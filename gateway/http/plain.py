"""The door for people: plain JSON in, plain JSON out; now, or later as a job.

POST /models/NAME {"text": "..."}            the inputs by name; a bare value for a model's only input
POST /jobs {"model": "NAME", "inputs": ...}  202, and the result at GET /jobs/ID
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import Route

from common.errors import InvalidRequest
from common.names import shorten
from gateway.call import Call
from gateway.catalog import Declared
from gateway.door.directory import Served
from gateway.door.jobs import Job
from gateway.http import etag, jsontensors
from gateway.http.endpoint import JSON, Answer, Door, Endpoint, Request
from gateway.http.status import Refusal, Trouble, status_of
from gateway.result import Result

#: In an ETag: the one way in which a result is told here.
_FORM = "p"
#: What may stand behind the ? of a model, and in a job beside model and inputs.
OPTIONS = ("version", "parameters", "outputs", "priority", "timeout", "affinity")


def shape_error(trouble: Trouble) -> bytes:
    return jsontensors.dump({"error": {"code": trouble.code, "message": trouble.message}})


def routes(door: Door) -> list[Route]:
    return [
        Route("/models/{model}", Endpoint(door, infer, shape_error), methods=["POST"]),
        Route("/models", Endpoint(door, models, shape_error), methods=["GET"]),
        Route("/models/{model}", Endpoint(door, model, shape_error), methods=["GET"]),
        Route("/jobs", Endpoint(door, submit, shape_error), methods=["POST"]),
        Route("/jobs/{id}", Endpoint(door, look, shape_error), methods=["GET"]),
        Route("/jobs/{id}", Endpoint(door, cancel, shape_error), methods=["DELETE"]),
    ]


async def infer(request: Request) -> Answer:
    inputs = jsontensors.parse("the body", await request.body())
    call = call_of(request.path["model"], options_of(request.scope["query_string"]), request.cacheable)
    result = await request.service.infer(request.tenant, call, natural(inputs))
    tag = etag.tag_of(result, _FORM)
    if etag.is_known(request.headers, tag):
        return Answer(304, etag.headers_of(result, tag))
    return Answer(200, [JSON, *etag.headers_of(result, tag)], jsontensors.dump(told(result)))


async def models(request: Request) -> Answer:
    return _json(200, {"models": [_model(one) for one in await request.service.models(request.tenant)]})


async def model(request: Request) -> Answer:
    return _json(200, _model(await request.service.find(request.tenant, request.path["model"])))


async def submit(request: Request) -> Answer:
    message = jsontensors.parse("the body", await request.body())
    if not isinstance(message, dict) or not isinstance(message.get("model"), str) or "inputs" not in message:
        raise InvalidRequest('a job must be an object such as {"model": "minilm", "inputs": {"text": "hello"}}')
    options = {name: value for name, value in message.items() if name not in ("model", "inputs")}
    call = call_of(message["model"], options, request.cacheable)
    job = await request.service.submit(request.tenant, call, natural(message["inputs"]))
    status = _json(202, {"id": job.id, "status": "waiting", "model": job.model})
    return status._replace(headers=[*status.headers, (b"location", f"/jobs/{job.id}".encode())])


async def look(request: Request) -> Answer:
    job = await _job(request)
    outcome = await request.service.jobs.outcome(job)
    found: dict[str, Any] = {"id": job.id, "model": job.model}
    if outcome is None:
        return _json(200, {**found, "status": "waiting"})
    if isinstance(outcome, Result):
        return _json(200, {**found, "status": "done", "result": told(outcome)})
    if job.cancelled:
        return _json(200, {**found, "status": "cancelled"})
    error = {"code": outcome.code, "message": outcome.message, "status": status_of(outcome)}
    return _json(200, {**found, "status": "failed", "error": error})


async def cancel(request: Request) -> Answer:
    await request.service.jobs.cancel(await _job(request))
    return Answer(204)


def options_of(query: bytes) -> dict[str, Any]:
    """Of a query string: `parameters` is JSON, `outputs` names with commas, `timeout` seconds."""
    options: dict[str, Any] = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if "parameters" in options:
        options["parameters"] = jsontensors.parse("parameters", options["parameters"].encode())
    if "outputs" in options:
        options["outputs"] = options["outputs"].split(",")
    if "timeout" in options:
        try:
            options["timeout"] = float(options["timeout"])
        except ValueError:
            raise InvalidRequest(f"timeout must be a number of seconds; got {shorten(options['timeout'])}") from None
    return options


def call_of(model: str, options: Mapping[str, Any], cacheable: bool) -> Call:
    """Raises InvalidRequest for an option that is none."""
    for name in options:
        if name not in OPTIONS:
            raise InvalidRequest(f"{shorten(name)} is no option; known are {', '.join(OPTIONS)}")
    priority = options.get("priority", "normal")
    return Call(
        model, options.get("version"), options.get("parameters"), options.get("outputs"), priority,
        options.get("timeout"), cache=cacheable, affinity=options.get("affinity"),
    )  # fmt: skip


def natural(inputs: Any) -> Any:
    """What a caller of the client would give. Raises InvalidRequest for what no input can be."""
    values = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    for one in values:
        if one is None or isinstance(one, dict):
            raise InvalidRequest(f"an input must be a string, a number, true, false or a list; got {shorten(one)}")
    return inputs


def told(result: Result) -> dict[str, Any]:
    """A result in lists of its outputs' shapes. Raises ModelError for what JSON cannot hold."""
    outputs = {name: jsontensors.nested_of(name, result.tensor(name)) for name in result.names()}
    return {"model": result.model, "version": result.version, "outputs": outputs}


async def _job(request: Request) -> Job:
    id = request.path["id"]
    job = await request.service.jobs.find(id, request.tenant.name)
    if job is None:
        raise Refusal(404, f"there is no job {shorten(id)}, or it was forgotten an hour after its deadline")
    return job


def _model(served: Served) -> dict[str, Any]:
    info = served.info
    return {
        "name": info.name,
        "version": info.version,
        "default": info.default,
        "aliases": info.aliases,
        "ready": served.live,
        "inputs": {one.name: _type(one) for one in info.inputs},
        "outputs": {one.name: _type(one) for one in info.outputs},
    }


def _type(one: Declared) -> str:
    """`FP32[-1]`, as a model's author writes it."""
    return f"{one.dtype}[{', '.join(map(str, one.shape))}]"


def _json(status: int, value: object) -> Answer:
    return Answer(status, [JSON], jsontensors.dump(value))
