"""OpenAI's embeddings: its request to one of ours, a result to its response, and the calls under /v1.

https://platform.openai.com/docs/api-reference/embeddings. Its Python client asks for base64 unless it is told
otherwise, and retries 408, 409, 429 and from 500 on, as retry-after-ms, retry-after and x-should-retry say.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.routing import Route

from common.errors import InvalidRequest, ModelError
from common.names import check_name, shorten
from common.tensor import Array, Tensor, to_tensor
from gateway.call import Call
from gateway.catalog import ModelInfo
from gateway.door.directory import Served
from gateway.http import etag, jsontensors
from gateway.http.endpoint import JSON, Answer, Door, Endpoint, Request
from gateway.http.status import Trouble
from gateway.result import Result

#: OpenAI's own bound.
MAX_INPUTS = 2048
#: Tokens are counted in the worker alone. OpenAI's own rule of thumb for English.
BYTES_PER_TOKEN = 4

_FORMATS = ("float", "base64")
_INTEGERS = ("INT32", "INT64")
_TYPES = {
    "unauthenticated": "authentication_error",
    "permission_denied": "permission_error",
    "model_not_found": "not_found_error",
    "overloaded": "rate_limit_error",
}
_CODES = {"unauthenticated": "invalid_api_key", "overloaded": "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One embeddings request. `texts` are its rows, `tokens` what is told of their size."""

    model: str
    version: str | None
    texts: list[str] | list[list[int]]
    tokens: int
    base64: bool
    dimensions: int | None


def parse(body: bytes) -> Ask:
    """Raises InvalidRequest naming the field."""
    message = jsontensors.parse("the request", body)
    if not isinstance(message, dict):
        raise InvalidRequest(f"the request must be a JSON object; got {shorten(message)}")
    name, colon, version = _model(message.get("model")).partition(":")
    form = message.get("encoding_format", "float")
    if form not in _FORMATS:
        raise InvalidRequest(f"encoding_format must be float or base64; got {shorten(form)}")
    dimensions = message.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InvalidRequest(f"dimensions must be an integer from 1; got {shorten(dimensions)}")
    texts = _rows(message.get("input"))
    return Ask(
        check_name("model", name), check_name("model's version", version) if colon else None,
        texts, _tokens(texts), form == "base64", dimensions,
    )  # fmt: skip


def inputs(ask: Ask, info: ModelInfo) -> Mapping[str, Tensor]:
    """The model's only input, with a row for each text or token list. Raises InvalidRequest where there is none."""
    if len(info.inputs) != 1:
        raise InvalidRequest(f"model '{info.name}' makes no embeddings: it takes {len(info.inputs)} inputs, not one")
    [one] = info.inputs
    takes = "text" if (one.dtype, one.shape) == ("BYTES", ()) else "tokens" if one.dtype in _INTEGERS else "neither"
    sent = "text" if isinstance(ask.texts[0], str) else "tokens"
    if takes != sent:
        raise InvalidRequest(
            f"input must be what model '{info.name}' takes, {takes}; got {sent}"
            + (" (in LangChain: check_embedding_ctx_length=False)" if takes == "text" else "")
        )
    if takes == "text":
        return {one.name: to_tensor(ask.texts)}
    if len({len(row) for row in ask.texts}) != 1:
        raise InvalidRequest("input: token lists of one request must have one length; send a request for each")
    return {one.name: jsontensors.tensor_of("input", one.dtype, [len(ask.texts), len(ask.texts[0])], ask.texts)}


def form_of(ask: Ask) -> str:
    """How `encode` says it."""
    return f"o{'b' if ask.base64 else 'f'}{ask.dimensions or ''}"


def encode(ask: Ask, result: Result) -> bytes:
    """Raises ModelError where the answer is not a row for each input, InvalidRequest for too many dimensions."""
    rows = _vectors(ask, result)
    if ask.dimensions is not None:
        rows = _shortened(rows, ask.dimensions)
    data = [
        {"object": "embedding", "index": index, "embedding": b64encode(row).decode() if ask.base64 else row}
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": ask.tokens, "total_tokens": ask.tokens}
    return jsontensors.dump({"object": "list", "data": data, "model": result.model, "usage": usage})


def shape_error(trouble: Trouble) -> bytes:
    """`param` is left empty: the message names the field."""
    kind = _TYPES.get(trouble.code) or ("server_error" if _is_ours(trouble) else "invalid_request_error")
    error = {"message": trouble.message, "type": kind, "param": None, "code": _CODES.get(trouble.code, trouble.code)}
    return jsontensors.dump({"error": error})


def routes(door: Door) -> list[Route]:
    return [
        Route("/v1/embeddings", Endpoint(door, embeddings, shape_error), methods=["POST"]),
        Route("/v1/models", Endpoint(door, models, shape_error), methods=["GET"]),
        Route("/v1/models/{model}", Endpoint(door, model, shape_error), methods=["GET"]),
    ]


async def embeddings(request: Request) -> Answer:
    ask = parse(await request.body())
    served = await request.service.find(request.tenant, ask.model, ask.version)
    call = Call(ask.model, ask.version, cache=request.cacheable)
    result = await request.service.infer(request.tenant, call, inputs(ask, served.info))
    tag = etag.tag_of(result, form_of(ask))
    if etag.is_known(request.headers, tag):
        return Answer(304, etag.headers_of(result, tag))
    return Answer(200, [JSON, *etag.headers_of(result, tag)], encode(ask, result))


async def models(request: Request) -> Answer:
    names = sorted({one.info.name for one in await request.service.models(request.tenant)})
    return Answer(200, [JSON], jsontensors.dump({"object": "list", "data": [_told(name) for name in names]}))


async def model(request: Request) -> Answer:
    served: Served = await request.service.find(request.tenant, request.path["model"])
    return Answer(200, [JSON], jsontensors.dump(_told(served.info.name)))


def _told(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "inference-worker"}


def _model(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"model must be a string; got {shorten(value)}")
    return value


def _rows(value: Any) -> list[str] | list[list[int]]:
    """A string, strings, tokens, or lists of tokens, as a list of rows."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest(f"input must be a string, a list of strings, or tokens; got {shorten(value)}")
    if all(type(one) is int for one in rows):
        rows = [rows]
    if len(rows) > MAX_INPUTS:
        raise InvalidRequest(f"input must hold at most {MAX_INPUTS} strings; got {len(rows)}")
    strings = all(isinstance(one, str) for one in rows)
    if not strings and not all(isinstance(one, list) and one and all(type(t) is int for t in one) for one in rows):
        raise InvalidRequest("input must hold strings only, or lists of integers only")
    if strings and not all(rows):
        raise InvalidRequest("input must hold no empty string")
    return rows


def _tokens(rows: list[str] | list[list[int]]) -> int:
    """Of token lists their number; of text an estimate."""
    return sum(-(-len(row.encode()) // BYTES_PER_TOKEN) if isinstance(row, str) else len(row) for row in rows)


def _vectors(ask: Ask, result: Result) -> Array:
    """[texts, dimensions] as float32, from the output named embedding, or from the only one."""
    names = result.names()
    name = "embedding" if "embedding" in names else names[0]
    array = result[name]
    if array.dtype.kind != "f" or array.ndim != 2 or len(array) != len(ask.texts):
        raise ModelError(
            f"model '{result.model}' makes no embeddings: output '{name}' is {array.dtype} {list(array.shape)}, "
            f"not {len(ask.texts)} rows of numbers"
        )
    if not np.isfinite(array).all():
        raise ModelError(f"output '{name}' of model '{result.model}' holds NaN or infinity")
    return np.ascontiguousarray(array, dtype="<f4")


def _shortened(rows: Array, dimensions: int) -> Array:
    """The first dimensions, of length 1 again, as OpenAI does; worth it for models trained so (Matryoshka)."""
    if dimensions > rows.shape[1]:
        raise InvalidRequest(f"dimensions must be at most the model's {rows.shape[1]}; got {dimensions}")
    cut = rows[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.ascontiguousarray(cut / np.where(lengths == 0, 1, lengths), dtype="<f4")


def _is_ours(trouble: Trouble) -> bool:
    return trouble.code in (
        "internal_error", "config_error", "worker_lost", "broker_unavailable", "model_unavailable",
        "repository_unavailable", "deadline_exceeded", "model_error",
    )  # fmt: skip
