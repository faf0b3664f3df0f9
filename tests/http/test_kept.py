"""Results that are kept: a hit, its tag, and 304 for whoever has it already."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateways import Gateway
from tests.support.http import ask

#: The same request in each dialect; `kept` is a model that caches.
CALLS = [
    ("/models/kept", {"x": [4, 5, 6]}),
    ("/v2/models/kept/infer", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [7, 8, 9]}]}),
    ("/v1/embeddings", {"model": "kept-embed", "input": "abc"}),
]


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_whoever_has_a_kept_result_gets_304(door: Gateway, worker: Any, path: str, body: Any) -> None:
    first = ask(door.address, "POST", path, body)
    tag, before = first.headers["etag"], len(worker.seen)

    again = ask(door.address, "POST", path, body, if_none_match=f'"other", {tag}')

    assert (first.status, again.status, again.body) == (200, 304, b"")
    assert (again.headers["etag"], again.headers["x-cache"]) == (tag, "hit")
    assert "content-length" not in again.headers
    assert len(worker.seen) == before


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_no_cache_computes_it_anew_whatever_the_client_has(door: Gateway, worker: Any, path: str, body: Any) -> None:
    tag, before = ask(door.address, "POST", path, body).headers["etag"], len(worker.seen)

    anew = ask(door.address, "POST", path, body, if_none_match=tag, cache_control="no-cache")

    assert (anew.status, "x-cache" in anew.headers, "etag" in anew.headers) == (200, False, False)
    assert len(worker.seen) == before + 1


def test_another_request_or_form_has_another_tag(door: Gateway) -> None:
    def tag(**more: Any) -> str:
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]
        return ask(door.address, "POST", "/v2/models/kept/infer", {"inputs": inputs, **more}).headers["etag"]

    tags = {tag(), tag(parameters={"binary_data_output": True}), tag(parameters={"top_k": 1})}

    assert len(tags) == 3
    assert all(one.startswith('W/"') for one in tags)


def test_a_model_that_keeps_nothing_has_no_tags(door: Gateway) -> None:
    said = ask(door.address, "POST", "/models/echo", {"x": [1.0]}, if_none_match="*")

    assert (said.status, "etag" in said.headers) == (200, False)
