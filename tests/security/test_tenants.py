"""A tenant can neither read, join, cancel nor guess another's results: shown at each entrance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import msgpack
import numpy as np
import pytest
from redis.exceptions import NoPermissionError

from common.broker import Broker
from common.connect import connect
from common.digest import request_digest
from common.errors import InferenceError
from common.protocol import Request, encode_request
from common.scripts import Admitted, Submission
from common.tensor import Tensor, from_numpy
from gateway import AsyncClient, Client
from gateway.composer import Composer
from gateway.routing import Routes
from tests.security.guarded import POOL, Guarded
from tests.support.operations import finish, inbox, lease, replies, submit, take
from tests.support.running import workers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis

#: Each computation of `noted` leaves a line, so that the test sees what was computed and for whom.
MODEL = """
import os
import time
from pathlib import Path
from inference_worker import model

FOLDER = Path(__file__).parent


@model(inputs={"x": "FP32[]"}, cache_ttl=60)
def noted(x):
    while (FOLDER / "hold").exists():
        time.sleep(0.01)
    with (FOLDER / "computed").open("a") as file:
        file.write("x\\n" * len(x))
    return x * 2
"""


class Noted:
    """A pool that serves `noted`, and how often it was computed."""

    def __init__(self, url: str, pool: str, folder: Path) -> None:
        self.url = url
        self.pool = pool
        self.folder = folder
        self.client = connect(url)
        self.broker = Broker(self.client, pool)

    def computed(self) -> int:
        path = self.folder / "computed"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is computed meanwhile."""
        hold = self.folder / "hold"
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def digest(self, tenant: str, x: float) -> str:
        """The id of `noted(x)` for a tenant, as anybody can compute it who may read what workers publish."""
        weights = msgpack.unpackb(self.broker.models()["noted:1"])["weights"]
        return request_digest(tenant, "noted", "1", weights, {}, {"x": tensor(x)}, None)

    def raw(self, request_id: str, tenant: str, x: float, reply_to: str | None = None) -> bytes:
        return encode_request(Request(request_id, "noted", {"x": tensor(x)}, "1", tenant, reply_to=reply_to))

    def add(self, data: bytes) -> None:
        self.client.execute_command("XADD", self.broker.keys.streams[1], "*", "d", data)

    def answer(self, name: str) -> dict[str, object]:
        found = self.client.blpop([self.broker.keys.inbox(name)], 20)
        assert found is not None
        answer: dict[str, object] = msgpack.unpackb(found[1])
        return answer


def tensor(x: float) -> Tensor:
    return from_numpy(np.float32(x).reshape(()))


@pytest.fixture
def noted(redis_url: str, pool: str, tmp_path: Path) -> Iterator[Noted]:
    (tmp_path / "noted.py").write_text(MODEL)
    it = Noted(redis_url, pool, tmp_path)
    with closing(it.client), workers(redis_url, pool, tmp_path / "noted.py"):
        # What the warm-up computed does not count.
        (tmp_path / "computed").unlink(missing_ok=True)
        yield it


# -- our clients ------------------------------------------------------------------------------------------------------


def test_a_cached_result_is_its_own_tenants_alone(noted: Noted) -> None:
    with (
        Client(noted.url, pool=noted.pool, tenant="acme") as acme,
        Client(noted.url, pool=noted.pool, tenant="beta") as beta,
        Client(noted.url, pool=noted.pool) as nobody,
    ):
        assert acme.infer("noted", 3.0).cached is False
        assert acme.infer("noted", 3.0).cached is True
        assert beta.infer("noted", 3.0).cached is False
        assert nobody.infer("noted", 3.0).cached is False

    assert noted.computed() == 3


def test_so_it_is_for_the_asyncio_client(noted: Noted) -> None:
    async def ask(tenant: str) -> bool:
        async with AsyncClient(noted.url, pool=noted.pool, tenant=tenant) as client:
            return (await client.infer("noted", 3.0)).cached

    assert [asyncio.run(ask(tenant)) for tenant in ("acme", "acme", "beta")] == [False, True, False]


def test_a_request_in_flight_is_joined_by_its_own_tenant_alone(noted: Noted) -> None:
    with (
        Client(noted.url, pool=noted.pool, tenant="acme") as acme,
        Client(noted.url, pool=noted.pool, tenant="beta") as beta,
    ):
        with noted.held():
            handles = [client.submit("noted", 4.0) for client in (acme, acme, beta)]
            wait_until(lambda: sum(map(noted.client.xlen, noted.broker.keys.streams)) == 2, "two entries for three")
        assert [handle.result()["output"].item() for handle in handles] == [8.0] * 3

    assert noted.computed() == 2


def test_no_two_clients_ids_can_meet_or_be_guessed() -> None:
    ids = {Composer(Routes()).client_id for _ in range(50)}

    assert len(ids) == 50
    assert all(len(one) == 24 for one in ids)  # 96 bits


# -- scripts, as anybody with our client's permissions may call them --------------------------------------------------


def test_who_does_not_wait_for_a_request_cannot_cancel_it(broker: Broker, redis_client: redis.Redis) -> None:
    submit(broker, "id", client="acme")

    assert broker.cancel(inbox(broker, "beta"), ["id"]) == 0
    [entry] = take(broker)
    assert broker.complete([finish(entry, "id", b"reply")]) == 1
    assert replies(redis_client, broker, "acme") == [b"reply"]
    assert replies(redis_client, broker, "beta") == []


def test_nor_one_that_an_operator_put_back_for_whom_nobody_waits(broker: Broker) -> None:
    broker.submit([Submission("id", 1, "", "d", b"request")], "", 60_000)

    assert broker.cancel(inbox(broker, "beta"), ["id"]) == 0
    lease(broker, "worker")
    assert broker.take("worker", (10, 10, 10)).cancelled == frozenset()


def test_who_joins_and_withdraws_takes_nothing_from_the_others(broker: Broker, redis_client: redis.Redis) -> None:
    submit(broker, "id", client="acme")
    assert submit(broker, "id", client="beta") == [Admitted.JOINED]

    assert broker.cancel(inbox(broker, "beta"), ["id"]) == 0
    [entry] = take(broker)
    broker.complete([finish(entry, "id", b"reply")])
    assert replies(redis_client, broker, "acme") == [b"reply"]


# -- a raw producer ---------------------------------------------------------------------------------------------------


def test_no_result_can_be_planted_under_anothers_digest(noted: Noted) -> None:
    # Given the id under which acme's result for 5 will be looked for
    wanted = noted.digest("acme", 5.0)
    # When somebody has another computation answered under it
    noted.add(noted.raw(wanted, "acme", 6.0, noted.broker.keys.inbox("beta")))
    noted.add(noted.raw(wanted, "beta", 5.0, noted.broker.keys.inbox("beta")))
    planted = [noted.answer("beta"), noted.answer("beta")]
    # Then nothing stands there
    assert all(one["id"] == wanted for one in planted)
    assert noted.client.get(noted.broker.keys.reply(wanted)) is None
    with Client(noted.url, pool=noted.pool, tenant="acme") as acme:
        answer = acme.infer("noted", 5.0)
    assert (answer.cached, answer["output"].item()) == (False, 10.0)


def test_nor_an_error(noted: Noted) -> None:
    wanted = noted.digest("acme", 5.0)
    broken = msgpack.unpackb(noted.raw(wanted, "acme", 5.0, noted.broker.keys.inbox("beta")))
    noted.add(msgpack.packb(broken | {"inputs": {}}))

    assert "error" in noted.answer("beta")
    assert noted.client.get(noted.broker.keys.reply(wanted)) is None


def test_nor_while_the_real_one_is_in_flight(noted: Noted) -> None:
    wanted = noted.digest("acme", 7.0)
    with Client(noted.url, pool=noted.pool, tenant="acme") as acme:
        with noted.held():
            handle = acme.submit("noted", 7.0)
            wait_until(lambda: noted.client.exists(noted.broker.keys.waiters(wanted)), "it is in flight")
            noted.add(noted.raw(wanted, "acme", 8.0, noted.broker.keys.inbox("beta")))
        assert noted.answer("beta")["id"] == wanted
        assert handle.result()["output"].item() == 14.0
        again = acme.infer("noted", 7.0)

    assert (again.cached, again["output"].item()) == (True, 14.0)


def test_an_id_that_is_in_flight_used_by_a_raw_producer_changes_nothing_for_its_owner(noted: Noted) -> None:
    with Client(noted.url, pool=noted.pool, timeout_s=20) as acme:
        with noted.held():
            handle = acme.submit("noted", 1.0, cache=False)
            wait_until(lambda: noted.client.exists(noted.broker.keys.waiters(handle.request_id)), "it is in flight")
            noted.add(noted.raw(handle.request_id, "beta", 100.0))
        assert handle.result()["output"].item() == 2.0


def test_a_reply_pushed_into_anothers_inbox_is_passed_over(noted: Noted) -> None:
    with Client(noted.url, pool=noted.pool, timeout_s=20) as acme:
        with noted.held():
            handle = acme.submit("noted", 2.0, cache=False)
            theirs = noted.broker.keys.inbox(handle.request_id.partition(".")[0])
            noted.add(noted.raw("of-beta", "beta", 100.0, theirs))
            noted.client.rpush(theirs, b"\xc1 no reply at all")
        assert handle.result()["output"].item() == 4.0
        assert acme.infer("noted", 9.0)["output"].item() == 18.0


@pytest.mark.parametrize(
    "place",
    [
        *("iw:{other}:inbox:x", "iw:{POOL}:reply:x", "iw:{POOL}:normal", "iw:pools"),
        *("x", "iw:{POOL}:inbox:", "iw:{POOL}:inbox:a b"),
    ],
)
def test_a_reply_goes_to_no_key_but_an_inbox_of_the_pool(place: str, noted: Noted) -> None:
    place = place.replace("POOL", noted.pool)
    noted.add(noted.raw("sound-id", "beta", 1.0, place))
    stored = wait_until(lambda: noted.client.get(noted.broker.keys.reply("sound-id")), "the refusal is stored")

    assert msgpack.unpackb(stored)["error"]["code"] == "invalid_request"
    assert place == noted.broker.keys.streams[1] or not noted.client.exists(place) or place == "iw:pools"


def test_a_reference_to_anothers_payload_is_refused(noted: Noted) -> None:
    # Given a large request of acme under its own key
    key = noted.broker.store_payload("of-acme", noted.raw("of-acme", "acme", 3.0), 60_000)
    # When somebody has it computed, and wants the answer himself
    mine = msgpack.unpackb(noted.raw("of-beta", "beta", 3.0, noted.broker.keys.inbox("beta")))
    noted.broker.store_payload("of-beta", msgpack.packb(mine | {"id": "of-acme"}), 60_000)
    noted.client.execute_command("XADD", noted.broker.keys.streams[1], "*", "r", noted.broker.keys.payload("of-beta"))
    # Then he is told that it is not his, and acme's is still there
    assert "id must be that of the payload key" in str(noted.answer("beta")["error"])
    assert noted.client.exists(key)


@pytest.mark.parametrize("suffix", [b"\xff", "\ufffd".encode(), b"a b", b"x" * 100_000, b"\x1b[2J"])
def test_a_payload_key_that_is_none_ends_as_a_dead_letter_and_no_worker_dies(suffix: bytes, noted: Noted) -> None:
    key = noted.broker.keys.payload("").encode() + suffix
    readable = key.decode(errors="replace").encode()
    noted.client.set(readable, noted.raw("i", "beta", 1.0), px=60_000)
    noted.client.execute_command("XADD", noted.broker.keys.streams[1], "*", "r", key)
    letter = wait_until(lambda: noted.client.xrange(noted.broker.keys.dead), "it is a dead letter")[0][1]

    assert letter[b"reason"].decode().isprintable()
    assert len(letter[b"reason"]) < 1000
    with Client(noted.url, pool=noted.pool, timeout_s=20) as client:
        assert client.infer("noted", 1.0)["output"].item() == 2.0


# -- what Redis itself keeps apart ------------------------------------------------------------------------------------


def test_a_raw_producer_reads_neither_requests_nor_replies_of_others(wiped: Guarded) -> None:
    broker = Broker(wiped.admin, POOL)
    broker.create_groups()
    keys = broker.keys
    wiped.admin.set(keys.reply("beta.1"), b"secret", px=60_000)
    wiped.admin.rpush(keys.inbox("beta.desk"), b"secret")
    with wiped.client("raw-acme") as acme:
        for command in (
            ("XRANGE", keys.streams[1], "-", "+"),
            ("GET", keys.reply("beta.1")),
            ("BLPOP", keys.inbox("beta.desk"), 1),
            ("LPOP", keys.inbox("beta.desk")),
            ("EVAL", "return redis.call('GET', KEYS[1])", 1, keys.reply("beta.1")),
            ("SCAN", 0),
            ("KEYS", "*"),
        ):
            with pytest.raises(NoPermissionError):
                acme.execute_command(*command)


def test_a_client_of_one_pool_gets_nothing_from_another(wiped: Guarded) -> None:
    with Client(wiped.url("producer"), pool="gpu-pool-b", timeout_s=5) as client, pytest.raises(InferenceError):
        client.infer("noted", 1.0)

    assert wiped.admin.keys("iw:{gpu-pool-b}:*") == []
