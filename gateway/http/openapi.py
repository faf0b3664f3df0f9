"""The OpenAPI document of this door, and a page that shows it and sends requests. Needs no other site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.routing import Route

from gateway.http import jsontensors, oip
from gateway.http.endpoint import JSON, Answer, Door, Endpoint, Request
from gateway.oip.models import release

_HTML = (b"content-type", b"text/html; charset=utf-8")
#: The page runs its own script, and may ask this server only.
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'",
)
_FILES = {"docs.js": b"text/javascript; charset=utf-8", "docs.css": b"text/css; charset=utf-8"}
_FOLDER = Path(__file__).parent / "page"

#: Method, path, what it does, an example of its body, the statuses beside 200 that it can have.
_MODEL_ERRORS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
_CALLS: tuple[tuple[str, str, str, Any, tuple[int, ...]], ...] = (
    ("post", "/models/{model}", "Ask a model in plain JSON: its inputs by name, or the value of its only one.",
     {"text": "hello"}, _MODEL_ERRORS),
    ("get", "/models", "The models that you may ask.", None, (401, 503)),
    ("get", "/models/{model}", "One model, its inputs and outputs.", None, (401, 403, 404, 503)),
    ("post", "/jobs", "Ask a model and fetch the result later.",
     {"model": "minilm", "inputs": {"text": "hello"}}, (202, *_MODEL_ERRORS)),
    ("get", "/jobs/{id}", "A job's state, and its result once it is done.", None, (401, 404, 503)),
    ("delete", "/jobs/{id}", "Cancel a job.", None, (204, 401, 404, 503)),
    ("post", "/v1/embeddings", "OpenAI's embeddings.", {"model": "minilm", "input": ["hello"]}, _MODEL_ERRORS),
    ("get", "/v1/models", "OpenAI's list of models.", None, (401, 503)),
    ("get", "/v1/models/{model}", "OpenAI's description of one.", None, (401, 403, 404, 503)),
    ("get", "/v2", "Open Inference Protocol: the server.", None, (401,)),
    ("get", "/v2/health/live", "Whether the process lives.", None, ()),
    ("get", "/v2/health/ready", "Whether it wants requests.", None, (503,)),
    ("get", "/v2/models/{model}", "A model's metadata.", None, (401, 403, 404, 503)),
    ("get", "/v2/models/{model}/ready", "Whether a worker lives that serves it.", None, (401, 403, 404, 503)),
    ("get", "/v2/models/{model}/config", "A model's configuration.", None, (401, 403, 404, 503)),
    ("get", "/v2/models/{model}/stats", "What this process counted of it.", None, (401, 403, 404, 503)),
    ("post", "/v2/models/{model}/infer", "Open Inference Protocol: infer, in JSON or with binary data.",
     {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hello"]}]}, _MODEL_ERRORS),
    ("post", "/v2/models/{model}/versions/{version}/infer", "The same of one version.",
     {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hello"]}]}, _MODEL_ERRORS),
    ("post", "/v2/repository/index", "The models and their states.", {}, (400, 401, 415, 503)),
    ("post", "/v2/repository/models/{model}/load", "Load a model in its pool's workers; for operators.", {},
     (400, 401, 403, 415, 503)),
    ("post", "/v2/repository/models/{model}/unload", "Unload it there; for operators.", {}, (400, 401, 403, 415, 503)),
)  # fmt: skip


def routes(door: Door) -> list[Route]:
    return [
        Route("/openapi.json", Endpoint(door, show_document, oip.shape_error, open=True), methods=["GET"]),
        Route("/docs", Endpoint(door, show_page, oip.shape_error, open=True), methods=["GET"]),
        *(
            Route(f"/{name}", Endpoint(door, File(name, kind), oip.shape_error, open=True), methods=["GET"])
            for name, kind in _FILES.items()
        ),
    ]


async def show_document(request: Request) -> Answer:
    return Answer(200, [JSON], jsontensors.dump(document()))


async def show_page(request: Request) -> Answer:
    return Answer(200, [_HTML, _POLICY], (_FOLDER / "docs.html").read_bytes())


class File:
    """A file of the page."""

    def __init__(self, name: str, kind: bytes) -> None:
        self._path = _FOLDER / name
        self._kind = kind

    async def __call__(self, request: Request) -> Answer:
        return Answer(200, [(b"content-type", self._kind)], self._path.read_bytes())


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, example, statuses in _CALLS:
        paths.setdefault(path, {})[method] = _operation(path, summary, example, statuses)
    return {
        "openapi": "3.1.0",
        "info": {"title": "inference-worker", "version": release()},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _operation(path: str, summary: str, example: Any, statuses: Iterable[int]) -> dict[str, Any]:
    good = [one for one in statuses if one < 300] or [200]
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {str(one): {"description": _described(one)} for one in (*good, *statuses)},
    }
    names = [piece[1:-1] for piece in path.split("/") if piece.startswith("{")]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if example is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": {}, "example": example}}}
    return operation


def _described(status: int) -> str:
    return "It went well." if status < 300 else "An error, in the call's own shape; docs/http.md lists them."
