"""An operator's orders and their answers, as they travel."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from common.errors import InvalidRequest
from common.orders import Order, Report, decode_order, decode_report, encode
from common.wire import pack


def test_an_order_arrives_as_it_was_given() -> None:
    order = Order("id", "reload", "m", "2", True, 500, "iw:{pool}:inbox:me")
    assert decode_order(encode(order)) == order


def test_an_answer_arrives_as_it_was_given() -> None:
    report = Report("id", "host-1-0-0", "host", 0, True, "", ("m:1", "m:2"), 0.5, 1000, "from the cache")
    assert decode_report(encode(report)) == report


def test_what_a_newer_peer_adds_is_passed_over() -> None:
    order = Order("id", "load", "m")
    assert decode_order(pack({**asdict(order), "colour": "red"})) == order


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"do": "dance"}, "an order must be one of load, unload, reload, log, profile; got 'dance'"),
        ({"model": "no name"}, "model must be "),
        ({"version": "../1"}, "version must be "),
        ({"worker": "a b"}, "worker must be "),
        ({"do": "log", "level": "loud"}, "a log level must be one of debug, info, warning, error; got 'loud'"),
        ({"do": "log", "level": "info", "logger": "a\n"}, "a logger's name is up to 128 letters"),
        ({"do": "profile"}, "a profile takes over 0 and at most 600 s; got 0"),
        ({"do": "profile", "seconds": 601.0}, "a profile takes over 0 and at most 600 s; got 601"),
    ],
)
def test_what_is_no_order_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        decode_order(pack({**asdict(Order("id", "load", "m")), **change}))


def test_an_order_without_a_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="the order is malformed"):
        decode_order(pack({"id": "x", "do": "load"}))
