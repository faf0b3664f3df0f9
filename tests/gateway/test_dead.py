"""Dead letters: found by what they are, put back with a fresh count, dropped."""

from __future__ import annotations

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.errors import InvalidRequest, WorkerLost
from common.protocol import Reply, Request, Timings, encode_reply, encode_request
from common.scripts import Finish
from common.tensor import from_numpy
from gateway.admin.dead import PAGE, DeadLetters, Filter
from gateway.result import Result, read_reply
from tests.support.echo_worker import EchoWorker
from tests.support.operations import HIGH, LONG_MS, NORMAL, request, submit, take
from tests.support.waiting import wait_until

INPUTS = {"input": from_numpy(np.ones(3, "f4"))}


@pytest.fixture
def letters(redis_client: redis.Redis, pool: str) -> DeadLetters:
    return DeadLetters(redis_client, pool)


def bury(broker: Broker, request_id: str, model: str = "echo", tenant: str = "", stream: int = NORMAL) -> None:
    """A request that workers died of: taken, given up, its error stored under its id."""
    payload = encode_request(Request(request_id, model, INPUTS, tenant=tenant or None))
    submit(broker, request(request_id, stream, tenant, payload))
    [entry] = take(broker)
    error = WorkerLost("3 workers died while they ran this request")
    reply = encode_reply(Reply(request_id, model, None, {}, error, Timings()))
    broker.complete([Finish(entry, request_id, reply, LONG_MS, "", error.message)])


def found(letters: DeadLetters, wanted: Filter) -> list[str]:
    return [letter.request_id for letter in letters.find(wanted)]


def test_letters_are_found_by_model_tenant_reason_and_age(broker: Broker, letters: DeadLetters) -> None:
    bury(broker, "one", model="echo", tenant="acme")
    bury(broker, "two", model="other", tenant="acme")
    bury(broker, "three", model="echo")

    assert found(letters, Filter()) == ["one", "two", "three"]
    assert found(letters, Filter(model="echo")) == ["one", "three"]
    assert found(letters, Filter(model="echo", tenant="acme")) == ["one"]
    assert found(letters, Filter(reason="workers died")) == ["one", "two", "three"]
    assert found(letters, Filter(reason="another reason")) == []
    assert found(letters, Filter(older_than_ms=60_000)) == []
    assert found(letters, Filter(younger_than_ms=60_000)) == ["one", "two", "three"]


def test_more_letters_than_one_page_are_all_found(broker: Broker, letters: DeadLetters) -> None:
    ids = [f"r{number}" for number in range(2 * PAGE + 1)]
    for request_id in ids:
        bury(broker, request_id)

    assert found(letters, Filter()) == ids


def test_a_letter_that_is_put_back_runs_again_in_its_priority_and_for_its_tenant(
    broker: Broker, letters: DeadLetters, redis_client: redis.Redis
) -> None:
    bury(broker, "again", tenant="acme", stream=HIGH)
    [letter] = letters.find(Filter())

    letters.retry(letter)

    assert found(letters, Filter()) == []
    assert redis_client.hget(broker.keys.tenants, "acme") == b"1"
    [entry] = take(broker)
    assert (entry.stream, entry.counted, entry.deliveries) == (HIGH, b"acme", 0)


def test_its_result_takes_the_place_of_the_error(
    broker: Broker, letters: DeadLetters, redis_url: str, pool: str
) -> None:
    bury(broker, "again")
    [letter] = letters.find(Filter())

    letters.retry(letter)

    with EchoWorker(redis_url, pool):
        stored = wait_until(lambda: broker.fetch(broker.keys.reply("again")), "the result is there")
    _, answer = read_reply(stored)
    assert isinstance(answer, Result)
    np.testing.assert_array_equal(answer["output"], np.ones(3))


def test_putting_a_letter_back_twice_computes_it_once(broker: Broker, letters: DeadLetters) -> None:
    bury(broker, "again")
    [letter] = letters.find(Filter())

    letters.retry(letter)
    letters.retry(letter)

    assert len(take(broker)) == 1


def test_a_payload_of_its_own_key_is_kept_while_the_request_waits_again(
    broker: Broker, letters: DeadLetters, redis_client: redis.Redis
) -> None:
    key = broker.store_payload("large", encode_request(Request("large", "echo", INPUTS)), 20_000)
    submit(broker, request("large")._replace(field="r", value=key))
    [entry] = take(broker)
    broker.complete([Finish(entry, "large", b"", 0, "", "died")])
    [letter] = letters.find(Filter(model="echo"))

    letters.retry(letter)

    assert redis_client.pttl(key) > 20_000
    [entry] = take(broker)
    assert entry.reference == key.encode()


def test_a_letter_whose_payload_has_expired_stays_and_says_so(
    broker: Broker, letters: DeadLetters, redis_client: redis.Redis
) -> None:
    key = broker.store_payload("large", encode_request(Request("large", "echo", INPUTS)), LONG_MS)
    submit(broker, request("large")._replace(field="r", value=key))
    [entry] = take(broker)
    broker.complete([Finish(entry, "large", b"", 0, "", "died")])
    [letter] = letters.find(Filter())
    redis_client.delete(key)

    with pytest.raises(InvalidRequest, match="its payload key has expired"):
        letters.retry(letter)

    assert len(found(letters, Filter())) == 1


def test_one_that_cannot_be_read_can_be_looked_at_and_dropped_but_not_put_back(
    broker: Broker, letters: DeadLetters
) -> None:
    submit(broker, request("torn", payload=b"\xc1"))
    [entry] = take(broker)
    broker.complete([Finish(entry, "-", b"", 0, "", "unreadable: it is no msgpack")])
    [letter] = letters.find(Filter())

    with pytest.raises(InvalidRequest, match="cannot be put back: unreadable"):
        letters.retry(letter)
    letters.drop([letter])

    assert found(letters, Filter()) == []


def test_a_letter_that_is_not_there_is_told_by_its_id(letters: DeadLetters, pool: str) -> None:
    with pytest.raises(InvalidRequest, match=f"no dead letter 1-0 in pool '{pool}'"):
        letters.get("1-0")
