"""Aliases and splits, set while a real worker serves two versions and clients ask."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgpack
import pytest

from common.broker import Broker
from common.keys import PoolKeys
from common.protocol import Request, encode_request
from common.tensor import to_tensor
from common.traffic import draw
from gateway import Client, InferenceError, ModelNotFound, Result
from gateway.admin.traffic import change_plan
from tests.support.echo_worker import Answer, EchoWorker, echo, model
from tests.support.running import ROOT, workers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

MODELS = ROOT / "tests" / "support" / "models" / "versions.py"
#: Clients know a change after 5 s, workers after 2.
SEEN_S = 6.0


@pytest.fixture(scope="module")
def served_pool(redis_url: str, redis_client: redis.Redis) -> Iterator[str]:
    """A pool whose one worker serves both versions of `which` and of `kept`."""
    pool = f"traffic-{uuid4().hex[:12]}"
    with workers(redis_url, pool, MODELS):
        yield pool
    redis_client.delete(PoolKeys(pool).traffic)


@pytest.fixture
def operator(redis_client: redis.Redis, served_pool: str) -> Iterator[Operator]:
    """Whoever steers the pool; at the end nobody does."""
    redis_client.delete(PoolKeys(served_pool).traffic)
    yield Operator(Broker(redis_client, served_pool))
    redis_client.delete(PoolKeys(served_pool).traffic)


class Operator:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def split(self, by: str, **shares: float) -> None:
        weights = {version.removeprefix("v"): weight for version, weight in shares.items()}
        for name in ("which", "kept"):
            change_plan(self._broker, name, lambda plan: plan.with_split(weights, by))

    def alias(self, **labels: str) -> None:
        change_plan(self._broker, "which", lambda plan: plan.with_aliases(labels))


@pytest.fixture
def client(redis_url: str, served_pool: str, operator: Operator) -> Iterator[Client]:
    """Made after the last test's plan is gone."""
    with Client(redis_url, pool=served_pool, timeout_s=30) as client:
        yield client


def answer(result: Result | InferenceError) -> str:
    assert isinstance(result, Result), result
    return str(result["output"].item())


def ask(client: Client, **more: Any) -> str:
    return answer(client.infer("which", 1.0, **more))


def test_a_split_is_within_statistics(client: Client, operator: Operator) -> None:
    operator.split("request", v1=80, v2=20)

    counts = Counter(map(answer, client.map("which", [1.0] * 2000)))

    # 2,000 draws of 1 in 5: the standard deviation is 18.
    assert abs(counts["2"] - 400) < 5 * 18
    assert counts.total() == 2000


def test_a_tenant_stays_with_its_version(client: Client, operator: Operator) -> None:
    operator.split("tenant", v1=50, v2=50)
    tenants = [f"tenant-{number}" for number in range(30)]

    first, again = ([ask(client, tenant=tenant) for tenant in tenants] for _ in range(2))

    assert first == again
    assert set(first) == {"1", "2"}


def test_a_key_stays_with_its_version_in_every_client(
    redis_url: str, served_pool: str, client: Client, operator: Operator
) -> None:
    operator.split("key", v1=50, v2=50)
    users = [f"user-{number}" for number in range(30)]

    with Client(redis_url, pool=served_pool) as other:
        assert [ask(client, affinity=user) for user in users] == [ask(other, affinity=user) for user in users]
    assert len({ask(client, affinity=user) for user in users}) == 2


def test_a_running_client_sees_a_change_within_seconds_and_no_request_fails(client: Client, operator: Operator) -> None:
    operator.split("request", v1=100)
    answers: list[str] = [ask(client)]
    ended = threading.Event()

    def go_on_asking() -> None:
        while not ended.is_set():
            answers.append(ask(client))

    asking = threading.Thread(target=go_on_asking)
    asking.start()
    try:
        operator.split("request", v2=100)
        wait_until(lambda: answers[-1] == "2", "the client follows", SEEN_S)
        operator.split("request", v1=100)
        wait_until(lambda: answers[-1] == "1", "the client follows back", SEEN_S)
    finally:
        ended.set()
        asking.join()

    # Each move is one: no version answers in between.
    assert [one for at, one in enumerate(answers) if at == 0 or answers[at - 1] != one] == ["1", "2", "1"]


def test_an_alias_is_moved_under_a_running_client(client: Client, operator: Operator) -> None:
    with pytest.raises(ModelNotFound, match="no version 'prod'"):
        ask(client, version="prod")

    operator.alias(prod="1", stable="2")
    wait_until(lambda: _or_none(client, "prod") == "1", "prod leads to 1", SEEN_S)
    assert ask(client, version="stable") == "2", "the operator's goes before model.toml's"

    operator.alias(prod="2", stable="")
    wait_until(lambda: ask(client, version="prod") == "2", "prod leads to 2", SEEN_S)
    assert ask(client, version="stable") == "1"


def test_a_kept_result_is_that_of_the_version_that_was_chosen(client: Client, operator: Operator) -> None:
    operator.split("key", v1=50, v2=50)
    users = [f"user-{number}" for number in range(20)]

    computed = [client.infer("kept", 1.0, affinity=user) for user in users]
    again = [client.infer("kept", 1.0, affinity=user) for user in users]

    assert [answer(one) for one in again] == [answer(one) for one in computed]
    assert {answer(one) for one in again} == {"1", "2"}
    assert [one.version for one in again] == [answer(one) for one in again]
    assert all(one.cached for one in again)


def test_a_version_that_nobody_serves_leaves_its_share_to_the_others(client: Client, operator: Operator) -> None:
    operator.split("request", v2=1, v9=99)
    assert {ask(client) for _ in range(20)} == {"2"}


def test_a_version_that_went_since_the_client_looked_fails_no_request(redis_url: str, broker: Broker) -> None:
    def only_the_second(request: Request) -> Answer:
        return ModelNotFound("model 'm' has no version '1' here") if request.version == "1" else echo(request)

    change_plan(broker, "m", lambda plan: plan.with_split({"1": 1}, "request"))

    with (
        EchoWorker(redis_url, broker.pool, answer=only_the_second, models=[model("m", "1")]) as worker,
        Client(redis_url, pool=broker.pool, timeout_s=20) as client,
    ):
        assert client.infer("m", "x")["output"].item() == "x"
        assert [request.version for request in worker.seen] == ["1", None]
        with pytest.raises(ModelNotFound):
            client.infer("m", "x", version="1")


def test_where_nothing_of_a_split_is_served_the_newest_answers(client: Client, operator: Operator) -> None:
    operator.split("request", v9=1)
    assert ask(client) == "2"


def test_a_raw_producer_follows_the_plan_without_knowing_it(
    redis_client: redis.Redis, served_pool: str, operator: Operator
) -> None:
    operator.split("key", v1=50, v2=50)
    users = [f"user-{number}" for number in range(30)]
    expected = {user: draw("which", user, {"1": 50, "2": 50}) for user in users}

    def told() -> bool:
        return {user: _raw(redis_client, served_pool, affinity=user) for user in users} == expected

    wait_until(told, "the worker follows the plan", SEEN_S)
    operator.alias(prod="1")
    wait_until(lambda: _raw(redis_client, served_pool, version="prod") == "1", "and the alias", SEEN_S)
    assert _raw(redis_client, served_pool, version="2", affinity=users[0]) == "2", "a named version is what it says"


def _or_none(client: Client, version: str) -> str | None:
    try:
        return ask(client, version=version)
    except ModelNotFound:
        return None


def _raw(client: redis.Redis, pool: str, **fields: Any) -> str | None:
    """The answer to one XADD; None for an error."""
    keys = PoolKeys(pool)
    inbox = keys.inbox(f"raw-{uuid4().hex}")
    request = Request(uuid4().hex, "which", {"x": to_tensor(1.0)}, reply_to=inbox, **fields)
    client.xadd(keys.streams[1], {"d": encode_request(request)}, nomkstream=True)
    popped = client.blpop([inbox], 20)
    assert popped is not None
    reply = msgpack.unpackb(popped[1])
    return str(reply["outputs"]["output"]["data"][0]) if "outputs" in reply else None
