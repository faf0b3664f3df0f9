"""Hostile names through each entrance: refused, without a trace in a key, a path, a log line or a terminal."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgpack
import pytest
from click.testing import CliRunner

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import ConfigError, InferenceError, InvalidRequest
from common.keys import PoolKeys
from common.logs import FORMAT, OneLine
from common.names import check_id, check_name, check_pool
from common.orders import Order, Report, decode_order, decode_report, encode
from common.protocol import decode_request, sender_of
from common.text import visible
from common.traffic import Plan, read_plan
from gateway import Client
from gateway.admin.dead import DeadLetters, Filter
from gateway.admin.manage import Manager
from gateway.admin.pools import Admin
from gateway.catalog import read_models
from gateway.composer import Composer
from gateway.ensembles.file import parse_ensembles
from gateway.routefile import parse_routes
from gateway.routing import Routes
from inference_worker.cli import cli
from inference_worker.cli.lines import EventLines
from inference_worker.models.manifest import parse_toml
from inference_worker.models.repository import discover
from inference_worker.remote.index import parse_index
from inference_worker.supervision.events import BrokerLost
from inference_worker.supervision.orderly import Orderly
from tests.security.hostile import NAMES, is_harmless
from tests.support.leaks import keys_of

if TYPE_CHECKING:
    import redis

hostile = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


def refused(call: Callable[[], object], *errors: type[InferenceError]) -> None:
    """Refused with an error that may be printed as it is."""
    with pytest.raises(errors or (InvalidRequest,)) as caught:
        call()
    assert is_harmless(str(caught.value)), str(caught.value)


# -- the checks themselves --------------------------------------------------------------------------------------------


@hostile
@pytest.mark.parametrize("check", [lambda name: check_name("model", name), check_pool, check_id])
def test_no_check_lets_it_through(check: Callable[[str], str], name: str) -> None:
    if check is check_id and name in ("..", ".ssh", "--help", "iw:pools"):
        return  # An id is never a path, and is at the end of its key.
    refused(lambda: check(name))


# -- Python clients ---------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Client, str], Any]] = {
    "model": lambda client, name: client.infer(name, 1),
    "version": lambda client, name: client.infer("m", 1, version=name),
    "tenant": lambda client, name: client.infer("m", 1, tenant=name),
    "input": lambda client, name: client.infer("m", {name: 1}),
    "output": lambda client, name: client.infer("m", 1, outputs=[name]),
    "priority": lambda client, name: client.infer("m", 1, priority=name),
    "submit": lambda client, name: client.submit(name, 1),
    "map": lambda client, name: list(client.map(name, [1])),
}


@pytest.fixture
def client(redis_url: str, pool: str) -> Iterator[Client]:
    with Client(redis_url, pool=pool, timeout_s=5) as client:
        yield client


@hostile
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_client_sends_nothing_under_it(
    call: Callable[[Client, str], Any], name: str, client: Client, redis_client: redis.Redis, pool: str
) -> None:
    refused(lambda: call(client, name))

    assert keys_of(redis_client, pool) == set()


@hostile
def test_a_client_is_not_made_with_it(name: str) -> None:
    refused(lambda: Client("redis://localhost", pool=name), InvalidRequest, ConfigError)
    refused(lambda: Client("redis://localhost", tenant=name), ConfigError)


# -- bytes from anybody: a raw XADD -----------------------------------------------------------------------------------

FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "id": lambda name: {"id": name},
    "model": lambda name: {"model": name},
    "version": lambda name: {"version": name},
    "tenant": lambda name: {"tenant": name},
    "input": lambda name: {"inputs": {name: {"dtype": "INT8", "shape": [], "data": b"x"}}},
    "dtype": lambda name: {"inputs": {"x": {"dtype": name, "shape": [], "data": b"x"}}},
    "tensor's field": lambda name: {"inputs": {"x": {name: 1}}},
    "output": lambda name: {"outputs": [name]},
    "field": lambda name: {name: 1},
    "trace": lambda name: {"trace": {name: "x"}},
}


def message(changes: dict[str, Any]) -> bytes:
    whole = {"v": 1, "id": "i", "model": "m", "inputs": {"x": {"dtype": "INT8", "shape": [], "data": b"x"}}}
    return msgpack.packb(whole | changes, unicode_errors="surrogatepass")


@hostile
@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_a_request_with_it_is_refused(field: Callable[[str], dict[str, Any]], name: str) -> None:
    changes = field(name)
    if changes in ({"id": ".."}, {"id": ".ssh"}, {"id": "--help"}, {"id": "iw:pools"}):
        return  # Sound ids, see above.

    refused(lambda: decode_request(message(changes)))


@hostile
def test_its_sender_is_told_by_sound_names_only(name: str) -> None:
    sender = sender_of(message({"id": name, "model": name}))

    assert sender.request_id in (None, name)
    assert sender.model == ""
    if sender.request_id is not None:
        check_id(sender.request_id)


@hostile
def test_a_reply_goes_to_no_other_key(name: str) -> None:
    keys = PoolKeys("p")

    for place in (name, f"iw:{{p}}:inbox:{name}", f"iw:{{other}}:inbox:{name}", f"iw:{{p}}:reply:{name}"):
        refused(lambda place=place: keys.check_inbox(place))


@hostile
def test_a_payload_key_is_one_of_a_sound_id(name: str) -> None:
    keys = PoolKeys("p")
    found = keys.id_of_payload(f"iw:{{p}}:payload:{name}")

    assert found is None or check_id(found) == found
    assert keys.id_of_payload(name) is None


# -- what stands in Redis, whoever wrote it there ---------------------------------------------------------------------


@hostile
def test_published_models_with_it_are_passed_over(name: str, caplog: pytest.LogCaptureFixture) -> None:
    def about(**changes: Any) -> bytes:
        whole = {"name": "m", "version": "1", "aliases": [], "inputs": [], "outputs": []} | changes
        return msgpack.packb(whole, unicode_errors="surrogatepass")

    tensor = [{"name": name, "dtype": "INT8", "shape": []}]
    for data in (about(name=name), about(version=name), about(aliases=[name]), about(inputs=tensor)):
        assert read_models({name: data}) == []
    assert all(is_harmless(record.getMessage()) for record in caplog.records)


@hostile
def test_a_traffic_plan_with_it_is_refused(name: str) -> None:
    for plan in ({"aliases": {name: "1"}}, {"aliases": {"a": name}}, {"split": {name: 1}}, {"by": name}):
        data = msgpack.packb(plan, unicode_errors="surrogatepass")
        refused(lambda data=data: read_plan(data), ConfigError, InvalidRequest)
    if name:
        refused(lambda: Plan().with_aliases({"a": name}), ConfigError)


@hostile
@pytest.mark.parametrize("field", ["id", "do", "model", "version"])
def test_an_order_with_it_is_refused(field: str, name: str) -> None:
    if field == "id" and name in ("..", ".ssh", "--help", "iw:pools"):
        return
    order = {"id": "i", "do": "load", "model": "m", "version": "1", "inbox": "iw:{p}:inbox:i"} | {field: name}

    refused(lambda: decode_order(msgpack.packb(order, unicode_errors="surrogatepass")))


@pytest.mark.parametrize("value", [None, 5, [], {}, b"x", 1.5, True])
@pytest.mark.parametrize("field", ["id", "do", "model", "version", "swap", "timeout_ms", "inbox"])
def test_an_order_of_other_types_is_refused(field: str, value: object) -> None:
    order = {"id": "i", "do": "load", "model": "m", "version": "1", "inbox": "x"} | {field: value}
    sound = (field, value) in (("version", None), ("swap", True), ("timeout_ms", 5))

    if sound:
        assert decode_order(msgpack.packb(order)).model == "m"
    else:
        refused(lambda: decode_order(msgpack.packb(order)))


@pytest.mark.parametrize("field", ["worker", "host", "index", "ok", "error", "models", "seconds", "memory"])
def test_a_report_of_other_types_is_refused(field: str) -> None:
    report = msgpack.unpackb(encode(Report("o", "w", "h", 0, True))) | {field: {}}

    refused(lambda: decode_report(msgpack.packb(report)))


@hostile
def test_orders_in_redis_with_it_are_passed_over(name: str, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    orderly = Orderly()
    orderly.arrive(broker)
    sound = Order("i", "load", "m", inbox=broker.keys.inbox("i"))
    broker.give_order(msgpack.packb({"id": "i", "do": "load", "model": name}, unicode_errors="surrogatepass"))
    broker.give_order(encode(Order("i", "load", "m", inbox="iw:{other}:inbox:i")))
    broker.give_order(b"\xc1" + name.encode(errors="surrogatepass"))
    broker.give_order(encode(sound))

    assert orderly.read(broker, 0) == [sound]
    assert all(is_harmless(record.getMessage()) for record in caplog.records)


@pytest.fixture
def polluted() -> Iterator[str]:
    """A broker to which somebody who may write anything wrote hostile names wherever one can stand."""
    with EmbeddedRedis() as server:
        client, keys = connect(server.url), PoolKeys("p")
        Broker(client, "p").create_groups()
        for name in (text.encode(errors="surrogatepass") for text in NAMES.values()):
            client.hset(keys.tenants, name, 1)
            client.hset(keys.models, name, name)
            client.hset(keys.traffic, name, name)
            client.hset(keys.workers, name, name)
            client.zadd(keys.leases, {name: 2**45})
            client.xadd(
                keys.dead, {"d": name, "t": name, "reason": name, "entry": "0-1", "stream": "2", "deliveries": "1"}
            )
            client.xadd(keys.control, {"d": name})
        client.close()
        yield server.url


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--interval", "1"),
        ("models", "list"),
        ("dead", "list", "--pool", "p"),
        ("models", "unload", "m", "--pool", "p", "--timeout", "1"),
    ],
)
def test_what_stands_in_redis_steers_no_operators_terminal(arguments: tuple[str, ...], polluted: str) -> None:
    done = CliRunner().invoke(cli, [*arguments, "--broker", polluted], obj=None, standalone_mode=False, color=False)

    assert done.exception is None or isinstance(done.exception, (InferenceError, click.exceptions.Exit)), done.exception
    for line in done.output.split("\n"):
        assert line == visible(line), line


def test_what_stands_in_redis_is_read_by_admin_and_dead_letters(polluted: str) -> None:
    client = connect(polluted)

    assert len(Admin(client).snapshot(["p"]).pools[0].tenants) >= len(NAMES) - 2
    assert len(list(DeadLetters(client, "p").find(Filter()))) == len(NAMES)
    client.close()


# -- files and folders ------------------------------------------------------------------------------------------------


@hostile
def test_a_declaration_with_it_is_refused(name: str) -> None:
    def declare(model: str = "m", version: str = "1", more: str = "") -> object:
        text = f'backend = "python"\n{more}\n[python]\ncode = "m.py:M"'
        return parse_toml(text, "model.toml", model, version, Path())

    quoted = json.dumps(name).replace("\\ud", "\\uFFFD") if name.isprintable() else json.dumps(name, ensure_ascii=True)
    refused(lambda: declare(model=name), ConfigError)
    refused(lambda: declare(version=name), ConfigError)
    refused(lambda: declare(more=f"pool = {quoted}"), ConfigError)
    refused(lambda: declare(more=f"aliases = [{quoted}]"), ConfigError)
    refused(lambda: declare(more=f'inputs = [{{name = {quoted}, dtype = "INT8", shape = []}}]'), ConfigError)


@hostile
def test_a_repositorys_folder_with_it_is_refused(name: str, tmp_path: Path) -> None:
    if not name or "/" in name or "\0" in name or name in ("..",) or len(name) > 255:
        return  # No folder can be called so.
    folder = tmp_path / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text('backend = "python"\n[python]\ncode = "m.py:M"\n')

    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    # The path itself is this host's; whoever prints it makes it visible.
    assert is_harmless(visible(str(caught.value)))


@pytest.mark.parametrize(
    "path",
    [
        "", "..", "../x", "a/../x", "/etc/passwd", "a//b", "./a", "a\\..\\b", "a\0b", "a\nb", "\x1b[2J", "a\u202eb",
        ".ssh/id", "a/.git/config", "__pycache__/m.pyc", "x" * 300, "/".join("abcdefghijklmnopqrs"), "x/" * 600 + "y",
        "models.index.json",
    ],
)  # fmt: skip
def test_an_index_that_names_it_is_refused(path: str) -> None:
    text = json.dumps({"version": 1, "files": [{"path": path, "size": 1, "blake2b_256": "0" * 64}]})

    refused(lambda: parse_index(text.encode(), "models.index.json"), ConfigError)


@hostile
def test_routes_and_ensembles_with_it_are_refused(name: str) -> None:
    quoted = json.dumps(name, ensure_ascii=not name.isprintable())
    refused(lambda: parse_routes(f"[[route]]\nmodel = 'm'\npool = {quoted}"), ConfigError)
    if name not in ("*", "..", ".ssh", "--help"):  # a glob is no name: it matches names, and enters nothing
        refused(lambda: parse_routes(f"[[route]]\nmodel = {quoted}\npool = 'p'"), ConfigError)
        refused(lambda: parse_routes(f"[[route]]\ntenant = {quoted}\npool = 'p'"), ConfigError)
    step = f"[[ensemble.e.step]]\nname = 's'\nmodel = {quoted}\ninputs = {{x = 'x'}}"
    refused(lambda: parse_ensembles(f"[ensemble.e]\ninputs = ['x']\noutputs = {{y = 's.y'}}\n{step}"), ConfigError)


# -- the command line -------------------------------------------------------------------------------------------------


@hostile
@pytest.mark.parametrize(
    "arguments",
    [
        ("infer", "NAME", "--pool", "p", "--json", "1"),
        ("infer", "m", "--pool", "NAME", "--json", "1"),
        ("status", "--pool", "NAME"),
        ("routes", "explain", "NAME"),
        ("models", "load", "NAME", "--pool", "p"),
        ("models", "unload", "m:NAME", "--pool", "p"),
        ("models", "alias", "m", "NAME=1", "--pool", "p", "--force"),
        ("models", "alias", "m", "a=NAME", "--pool", "p", "--force"),
        ("models", "split", "m", "NAME=1", "--pool", "p", "--force"),
        ("dead", "show", "NAME", "--pool", "p"),
        ("dead", "list", "--pool", "NAME"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_a_command_refuses_it(arguments: tuple[str, ...], name: str, redis_url: str, tmp_path: Path) -> None:
    if name in ("", "--help") or "\0" in name or "\udc80" in name:
        return  # Nothing was named, help was asked for, or no argument can hold it.
    broker = ["--broker", redis_url] if arguments[0] not in ("routes",) else ["--routes", str(_routes(tmp_path))]
    words = [word.replace("NAME", name) for word in arguments]
    done = CliRunner().invoke(cli, [*words, *broker], standalone_mode=False)

    assert isinstance(done.exception, (InferenceError, click.UsageError)), (done.exception, done.output)
    assert is_harmless(visible(str(done.exception))), str(done.exception)


def _routes(folder: Path) -> Path:
    path = folder / "routes.toml"
    path.write_text("default = 'p'\n")
    return path


# -- logs -------------------------------------------------------------------------------------------------------------


@hostile
def test_no_message_begins_a_log_line_of_its_own(name: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(FORMAT))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("what came: %s", name)
    try:
        raise ValueError(name)
    except ValueError:
        logger.exception("it failed")

    first, *rest = stream.getvalue().removesuffix("\n").split("\n")
    assert first.endswith(f"what came: {visible(name)}")
    assert rest[0].endswith("it failed")
    assert all(line.startswith("    ") for line in rest[1:])
    assert all(line == visible(line) for line in (first, *rest))


@hostile
def test_an_event_is_one_line_of_the_workers_output(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    EventLines()(BrokerLost("p", name))

    line = capsys.readouterr().err.removesuffix("\n")
    assert line == visible(line)


def test_a_clients_own_ids_and_inbox_are_sound() -> None:
    composer = Composer(Routes())

    assert check_id(composer.new_id())
    assert check_name("client", composer.client_id)


@hostile
def test_an_operators_order_is_checked_before_it_is_given(name: str, redis_client: redis.Redis) -> None:
    refused(lambda: Manager(redis_client).give("p", "load", name, None))
    refused(lambda: Manager(redis_client).give(name, "load", "m", None))
