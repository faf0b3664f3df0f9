"""OpenAI's Python client, unmodified, against a gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from common.errors import Overloaded
from gateway.http.openai import shape_error
from gateway.http.status import headers_of, status_of
from tests.support.gateways import Gateway
from tests.support.http import ask

openai = pytest.importorskip("openai")

ONE_VECTOR = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0]}],"model":"m",'
    b'"usage":{"prompt_tokens":0,"total_tokens":0}}'
)


@pytest.fixture
def client(door: Gateway) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0) as it:
        yield it


def test_texts_become_vectors_in_their_order(client: Any) -> None:
    found = client.embeddings.create(model="embed", input=["ab", "abc"])

    assert [one.embedding[0] for one in found.data] == [2.0, 3.0]
    assert [one.index for one in found.data] == [0, 1]
    assert found.model == "embed"
    assert found.usage.total_tokens == found.usage.prompt_tokens == 2


@pytest.mark.parametrize("form", ["float", "base64"])
def test_floats_and_base64_hold_the_same_numbers(client: Any, form: str) -> None:
    plain = client.embeddings.create(model="embed", input="abc", encoding_format=form)

    told = plain.data[0].embedding
    assert told == [3.0, 4.0, 2.0] if form == "float" else isinstance(told, str)
    assert client.embeddings.create(model="embed:1", input="abc").data[0].embedding == [3.0, 4.0, 2.0]


def test_fewer_dimensions_are_the_first_ones_of_length_one(client: Any) -> None:
    found = client.embeddings.create(model="embed", input="abc", dimensions=2).data[0].embedding

    assert found == pytest.approx([0.6, 0.8])


def test_models_are_listed_and_found(client: Any) -> None:
    assert "embed" in [one.id for one in client.models.list()]
    assert client.models.retrieve("embed").id == "embed"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"model": "nobody", "input": "x"}, "NotFoundError"),
        ({"model": "embed", "input": []}, "BadRequestError"),
        ({"model": "embed", "input": ["a", ""]}, "BadRequestError"),
        ({"model": "embed", "input": "abc", "dimensions": 4}, "BadRequestError"),
        ({"model": "embed", "input": [1, 2]}, "BadRequestError"),
        ({"model": "fails", "input": "abc"}, "BadRequestError"),
    ],
)
def test_an_error_is_the_clients_own_class_for_it(client: Any, request_: Any, error: str) -> None:
    with pytest.raises(getattr(openai, error)) as caught:
        client.embeddings.create(**request_)

    assert caught.value.body["message"]


def test_the_asyncio_client_works_the_same(door: Gateway) -> None:
    async def story() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none") as client:
            asked = [client.embeddings.create(model="embed", input="a" * size) for size in range(1, 9)]
            return [one.data[0].embedding[0] for one in await asyncio.gather(*asked)]

    assert asyncio.run(story()) == list(range(1, 9))


def test_an_overload_is_tried_again_after_the_time_that_we_tell() -> None:
    """Its client reads retry-after-ms and x-should-retry of our answer; the second time it is served."""
    trouble = Overloaded("full", 20)
    answers = [
        (status_of(trouble), headers_of(trouble), shape_error(trouble)),
        (
            200,
            [],
            b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0]}],"model":"m","usage":{"prompt_tokens":0,"total_tokens":0}}',
        ),
    ]
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            status, headers, body = answers[len(asked) - 1]
            self.send_response(status)
            for name, value in [*headers, (b"content-length", str(len(body)).encode())]:
                self.send_header(name.decode(), value.decode())
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing: the test's output is the test's."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none") as client:
            client.embeddings.create(model="m", input="x")
        server.shutdown()

    assert len(asked) == 2


def test_errors_have_openais_shape(door: Gateway) -> None:
    said = ask(door.address, "POST", "/v1/embeddings", {"model": "embed"})

    assert said.status == 400
    assert said.json["error"]["type"] == "invalid_request_error"
    assert said.json["error"]["code"] == "invalid_request"
    assert said.json["error"]["message"].startswith("input must be")
