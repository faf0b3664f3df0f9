"""The document and its page: what they name is there, and nothing that is sent by them breaks the door."""

from __future__ import annotations

import re
from typing import Any

import hypothesis
import pytest
import schemathesis

from gateway.http.openapi import document
from tests.support.gateways import Gateway
from tests.support.http import ask

#: Orders are for real workers: test_repository.py.
ORDERS = "/v2/repository/models"
OPERATIONS = [
    (method, path) for path, methods in document()["paths"].items() for method in methods if not path.startswith(ORDERS)
]


def test_the_document_and_the_page_are_shown_and_need_no_other_site(door: Gateway) -> None:
    assert ask(door.address, "GET", "/openapi.json").json == document()
    page = ask(door.address, "GET", "/docs")
    told = page.body.decode() + "".join(ask(door.address, "GET", f"/docs.{one}").body.decode() for one in ("js", "css"))
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert re.findall(r"https?://", told) == []


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_call_is_there_and_answers_with_a_status_of_the_document(door: Gateway, method: str, path: str) -> None:
    operation = document()["paths"][path][method]
    at = path.replace("{model}", "embed").replace("{version}", "1").replace("{id}", "00")
    body = operation["requestBody"]["content"]["application/json"]["example"] if "requestBody" in operation else None

    said = ask(door.address, method.upper(), at, body)

    assert str(said.status) in operation["responses"]


def test_random_requests_of_the_document_never_make_the_door_fail(door: Gateway) -> None:
    schema = schemathesis.openapi.from_url(f"{door.url}/openapi.json")

    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith(ORDERS):
            continue

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(max_examples=10, deadline=None, database=None, derandomize=True)
        def sends(case: Any) -> None:
            assert case.call(timeout=20).status_code < 500

        sends()
