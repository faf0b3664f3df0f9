"""One connection: HTTP/1.1 as its clients speak it, well and badly, and how long it may take."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from gateway.door.settings import Address, DoorSettings
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway, gateway_process
from tests.support.http import ask
from tests.support.waiting import wait_until

INFER = "/v2/models/echo/infer"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}).encode()
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\n"
ASKED = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = LIVE[:-2] + b"Connection: close\r\n\r\n"


def dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def said(address: str, *pieces: bytes) -> bytes:
    """All that is answered to these pieces, until the connection is closed."""
    with dial(address) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(65_536):
        found += data
    return found


def statuses(answers: bytes) -> list[int]:
    return [int(one[:3]) for one in answers.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture(scope="module")
def hasty(redis_url: str, worker: EchoWorker) -> Iterator[str]:
    """A door where everything must be there within half a second, and idle connections stay for one."""
    settings = DoorSettings(
        Address("127.0.0.1", 0), redis_url, pool=worker.broker.pool, slow_s=0.5, keep_alive_s=1.0
    )  # fmt: skip
    with gateway_process(settings) as address:
        yield address


# As clients speak it


def test_requests_that_are_sent_at_once_are_answered_in_turn(door: Gateway) -> None:
    answers = said(door.address, LIVE + ASKED * 3 + LIVE + LAST)

    assert statuses(answers) == [200] * 6
    assert answers.count(b'"outputs":') == 3
    assert answers.index(b'"outputs":') > answers.index(b"content-length: 0")


def test_a_request_may_come_a_byte_at_a_time(door: Gateway) -> None:
    assert statuses(said(door.address, *(bytes([one]) for one in ASKED), LAST)) == [200, 200]


def test_a_body_may_come_in_chunks(door: Gateway) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (BODY[:7], BODY[7:])) + b"0\r\nx: trailer\r\n\r\n"

    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert statuses(said(door.address, head, chunks, LAST)) == [200, 200]


def test_who_asks_whether_to_go_on_is_told_to(door: Gateway) -> None:
    with dial(door.address) as connection:
        connection.sendall(ASKED[: -len(BODY) - 2] + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY + LAST)
        assert statuses(rest(connection)) == [200, 200]


def test_a_head_is_answered_without_a_body(door: Gateway) -> None:
    head, _, body = said(door.address, LAST.replace(b"GET /v2/health/live", b"HEAD /v2")).partition(b"\r\n\r\n")

    assert (statuses(head), body) == ([200], b"")
    assert b"content-length: 0" not in head


def test_http_1_0_gets_one_answer(door: Gateway) -> None:
    answers = said(door.address, LIVE.replace(b"1.1", b"1.0") + LIVE)

    assert (statuses(answers), b"connection: close" in answers) == ([200], True)


def test_a_path_may_be_a_whole_url_and_escaped(door: Gateway) -> None:
    whole = LAST.replace(b"GET /v2/health", b"GET http://localhost/v2/he%61lth")

    assert statuses(said(door.address, whole)) == [200]


def test_an_upgrade_is_declined_and_the_request_answered(door: Gateway) -> None:
    assert statuses(said(door.address, LIVE[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")) == [200]


# And badly


@pytest.mark.parametrize(
    "told",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        f"{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
        f"{HEAD}Content-Length: x\r\n\r\n".encode(),
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
        "GET /é HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nbad\x00name: x\r\n\r\n",
    ],
)
def test_what_is_no_request_is_400_and_ends_the_connection(door: Gateway, told: bytes) -> None:
    answers = said(door.address, told)

    assert (statuses(answers), b"connection: close" in answers) == ([400], True)


def test_what_was_asked_before_nonsense_is_answered_first(door: Gateway) -> None:
    assert statuses(said(door.address, ASKED + b"nonsense\r\n\r\n")) == [200]


def test_a_head_that_is_too_large_is_refused_however_it_comes(door: Gateway) -> None:
    large = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 70_000 + b"\r\n\r\n"

    assert [statuses(said(door.address, large)), statuses(said(door.address, large[:66_000]))] == [[431], [431]]


def test_a_body_that_is_refused_is_read_so_that_the_answer_arrives(door: Gateway) -> None:
    """Closing at once would reset the connection, and with it the answer that is on its way."""
    with dial(door.address) as connection:
        connection.sendall(f"{HEAD}Content-Length: 70000000\r\n\r\n".encode())
        for _ in range(700):
            connection.sendall(b" " * 100_000)
        answer = rest(connection)

    assert (statuses(answer), b"payload_too_large" in answer) == ([413], True)


def test_who_asks_and_goes_at_once_holds_up_no_drain(redis_url: str, worker: EchoWorker) -> None:
    """A task that is cancelled before it has begun was waited for."""
    with gateway_process(DoorSettings(Address("127.0.0.1", 0), redis_url, pool=worker.broker.pool, drain_s=60.0)) as at:
        assert statuses(said(at, f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode())) == [400]


# How long it may take


def test_a_slow_body_is_408_in_its_dialect(hasty: str) -> None:
    slow = ASKED[:-3].replace(INFER.encode(), b"/v1/embeddings")
    answers = said(hasty, slow)

    assert (statuses(answers), b"connection: close" in answers) == ([408], True)
    assert json.loads(answers.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


def test_a_slow_head_is_408(hasty: str) -> None:
    assert statuses(said(hasty, b"GET /v2 HT")) == [408]


def test_a_refused_body_is_read_no_longer_than_a_wanted_one(hasty: str) -> None:
    answer = said(hasty, f"{HEAD}Content-Length: 100000000\r\n\r\n".encode(), b" " * 100_000)

    assert (statuses(answer), b"payload_too_large" in answer) == ([413], True)


def test_an_idle_connection_is_closed_without_a_word(hasty: str) -> None:
    assert (statuses(said(hasty, LIVE)), said(hasty)) == ([200], b"")


def test_a_body_that_comes_slowly_all_the_time_is_cut_off(hasty: str) -> None:
    """Slow loris: each byte in time, the whole never."""
    with dial(hasty) as connection:
        connection.settimeout(0.1)
        connection.sendall(ASKED[: -len(BODY)])
        for one in BODY:
            try:
                found = connection.recv(100)
                break
            except TimeoutError:
                connection.sendall(bytes([one]))
        assert statuses(found) == [408]


def test_a_reader_who_stops_is_cut_off(hasty: str) -> None:
    size = 40_000_000
    body = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a" * size]}]}).encode()
    with dial(hasty) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: _is_cut(connection), "the connection is cut off")

    assert ask(hasty, "POST", INFER, BODY).status == 200


def _is_cut(connection: socket.socket) -> bool:
    """Whether a reset came, which tells itself by writing, and nothing is read meanwhile."""
    try:
        connection.sendall(b"\r\n")
    except OSError:
        return True
    return False
