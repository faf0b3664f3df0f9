"""A rolling upgrade: hosts restarted one after another, and messages of a newer release beside those of this one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from threading import Event, Thread
from typing import Any

import msgpack
import numpy as np
import pytest

from common.errors import InferenceError, InternalError
from common.protocol import Reply, Request, Timings, encode_reply, encode_request
from common.scripts import Entry, Finish
from common.tensor import to_tensor
from gateway import Client, Result
from tests.faults.stage import WITHIN_S, Stage
from tests.support.waiting import wait_until

LEASE_MS = 60_000


def changed(message: bytes, **fields: object) -> bytes:
    """A message as a newer release might write it."""
    return bytes(msgpack.packb({**msgpack.unpackb(message), **fields}))


def request(number: int, **fields: object) -> bytes:
    inputs = {"n": to_tensor(np.array(number)), "act": to_tensor("")}
    return changed(encode_request(Request(f"new-{number}", "work", inputs)), **fields)


def raw_reply(stage: Stage, data: bytes, number: int) -> Mapping[str, Any]:
    """What a producer gets that needs no client of ours."""
    stage.redis.execute_command("XADD", stage.broker.keys.streams[1], "*", "d", data)
    key = stage.broker.keys.reply(f"new-{number}")
    return dict(msgpack.unpackb(wait_until(lambda: stage.redis.get(key), "the reply is there", 30)))


def test_requests_of_a_newer_wire_are_refused_by_name_and_those_beside_them_are_answered(stage: Stage) -> None:
    stage.host()
    with stage.client() as client:
        beside = [client.submit("work", {"n": number, "act": ""}) for number in range(8)]

        version = raw_reply(stage, request(1, v=2), 1)["error"]
        field = raw_reply(stage, request(2, hurry=True), 2)["error"]

        assert [int(one.result()["value"]) for one in beside] == [2 * number for number in range(8)]
    assert (version["code"], version["message"]) == ("invalid_request", "v must be 1; got 2")
    assert (field["code"], field["message"]) == ("invalid_request", "unknown field 'hurry'")
    assert stage.letters() == []


def finish(entry: Entry, **fields: object) -> Finish:
    """A newer worker's reply to it."""
    [name, *_] = [msgpack.unpackb(entry.payload or b"")["id"]]
    reply = encode_reply(Reply(name, "work", "1", {"value": to_tensor(np.array(4))}, None, Timings()))
    return Finish(entry, name, changed(reply, **fields), 60_000)


def answer_as_newer_worker(stage: Stage, **fields: object) -> None:
    broker = stage.broker
    broker.renew(LEASE_MS, [("newer", b"")])
    entries = wait_until(lambda: broker.take("newer", (8, 8, 8)).entries, "the request is taken")
    broker.complete([finish(entry, **fields) for entry in entries])
    broker.renew(0, [("newer", b"")])


def ask(stage: Stage, client: Client, **fields: object) -> int:
    handle = client.submit("work", {"n": 2, "act": ""})
    answer_as_newer_worker(stage, **fields)
    return int(handle.result()["value"])


def test_what_a_newer_worker_says_beyond_what_is_known_is_passed_over(stage: Stage) -> None:
    stage.broker.create_groups()
    with stage.client() as client:
        assert ask(stage, client, energy={"joules": 3.5}) == 4


def test_an_error_code_of_a_newer_worker_is_an_internal_error_with_its_words(stage: Stage) -> None:
    stage.broker.create_groups()
    error = {"code": "too_hot", "message": "the device is at 95 degrees", "retryable": True}
    with stage.client() as client, pytest.raises(InternalError, match="too_hot: the device is at 95 degrees"):
        ask(stage, client, error=error)


def test_hosts_that_are_restarted_one_after_another_fail_no_request(stage: Stage) -> None:
    # Given two hosts, and a client that asks without a pause
    old, over = [stage.host(), stage.host()], Event()
    answered: list[Result | InferenceError] = []

    def ask() -> None:
        inputs = ({"n": number, "act": "slow"} for number in takewhile(lambda _: not over.is_set(), count()))
        with stage.client() as client:
            answered.extend(client.map("work", inputs, window=32, on_error="return"))

    asker = Thread(target=ask)
    asker.start()
    try:
        # When each is drained, and the next one only when another is ready in its place
        for host in old:
            wait_until(lambda: len(stage.pending()) > 0, "requests are under way", WITHIN_S)
            assert host.stop() == 0
            stage.host()
    finally:
        over.set()
        asker.join()
    # Then nobody noticed, and nothing was computed twice
    assert len(answered) > 32
    assert [one for one in answered if isinstance(one, InferenceError)] == []
    assert stage.again() == 0
    assert stage.letters() == []
