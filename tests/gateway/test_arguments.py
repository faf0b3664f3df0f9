"""Whatever a caller hands in, wrong types too, both clients refuse it in one way, naming the field and the value."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.errors import ConfigError, InvalidRequest
from gateway import AsyncClient, Client

#: Field, value, how the message begins, how it shows the value.
WRONG = [
    ("model", ["a"], "model must be", "a list of 1"),
    ("model", None, "model must be", "None"),
    ("version", 1.5, "version must be", "1.5"),
    ("version", {}, "version must be", "a dict of 0"),
    ("tenant", [], "tenant must be", "a list of 0"),
    ("tenant", "no name", "tenant must be", "'no name'"),
    ("priority", ["x"], "priority must be", "a list of 1"),
    ("priority", "urgent", "priority must be", "'urgent'"),
    ("outputs", 5, "outputs must be", "5"),
    ("outputs", "y", "outputs must be", "'y'"),
    ("outputs", [], "outputs must be", "a list of 0"),
    ("outputs", [["y"]], "an output name must be", "a list of 1"),
    ("parameters", 5, "parameters must be", "5"),
    ("parameters", [], "parameters must be", "a list of 0"),
    ("timeout", "5", "timeout must be", "'5'"),
    ("inputs", None, "inputs.input: value must hold strings", "None"),
    ("inputs", {5: 1.0}, "an input name must be", "5"),
]


def arguments(field: str, value: object) -> dict[str, Any]:
    return {"model": "echo", "inputs": 1.0, field: value}


@pytest.mark.parametrize(("field", "value", "says", "shown"), WRONG)
def test_a_wrong_argument_is_an_invalid_request_that_names_it(
    field: str, value: object, says: str, shown: str, redis_url: str, pool: str
) -> None:
    with Client(redis_url, pool=pool) as client, pytest.raises(InvalidRequest) as refused:
        client.infer(**arguments(field, value))

    assert refused.value.message.startswith(says)
    assert refused.value.message.endswith(f"got {shown}")


@pytest.mark.parametrize(("field", "value", "says", "shown"), WRONG)
def test_it_is_the_same_for_asyncio(
    field: str, value: object, says: str, shown: str, redis_url: str, pool: str
) -> None:
    async def ask() -> None:
        async with AsyncClient(redis_url, pool=pool) as client:
            await client.infer(**arguments(field, value))

    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(ask())

    assert refused.value.message.startswith(says)
    assert refused.value.message.endswith(f"got {shown}")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("window", [0, "8", 2.5, None])
def test_map_names_a_window_that_is_none(kind: type[Client] | type[AsyncClient], window: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^window must be at least 1; got "):
        kind().map("echo", [1.0], window=window)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "setting", [{"max_in_flight": "8"}, {"max_in_flight": 0}, {"tenant": []}, {"pool": 5}, {"timeout_s": "60"}]
)
def test_a_wrong_setting_of_a_client_is_a_config_error(
    kind: type[Client] | type[AsyncClient], setting: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="must be "):
        kind(**setting)
