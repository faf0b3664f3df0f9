"""Three hosts and a network: Redis and the models' files on one, workers on those that are told to serve."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import numpy as np

from common.connect import connect
from common.embedded import find_server
from gateway import Client
from inference_worker.models.weights import INDEX_FILE
from inference_worker.remote.index import index_folder, print_index
from tests.hosts.network import Namespace, Network
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
POOL = "hosts"
FACTOR = 3
#: Requests under way at a time: enough for three workers to hold one batch and the next.
WINDOW = 64
LEASE_S = 2
FILES_PORT = 8080
#: Nothing that is waited for takes so long, but on a machine that is very busy.
WITHIN_S = 60.0

CODE = """
import socket
import time

import numpy as np
from inference_worker import Model

class Where(Model):
    \"\"\"Multiplies `n` by its weight, and tells on which host.\"\"\"

    def load(self, context):
        self.factor = np.load(context.path("weights.npy"))[0]
        self.host = socket.gethostname()

    def infer(self, batch):
        time.sleep(0.02)  # What a device would take: the hosts share this machine's cores.
        return {"value": self.factor * batch["n"], "host": np.full(len(batch["n"]), self.host, dtype=object)}
"""
MANIFEST = f"""
backend = "python"
pool = "{POOL}"

[python]
code = "model.py:Where"

[batch]
rows = 8

[[inputs]]
name = "n"
dtype = "INT64"
shape = []

[[outputs]]
name = "value"
dtype = "INT64"
shape = []

[[outputs]]
name = "host"
dtype = "BYTES"
shape = []
"""


class Answer(NamedTuple):
    """Which host answered the request of this number, and when by the monotonic clock."""

    at_s: float
    number: int
    host: str


class Reader:
    """Goes through a list that grows."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers
        self._seen = 0

    def fresh(self) -> list[Answer]:
        """What has come since the last call."""
        found = self._answers[self._seen :]
        self._seen += len(found)
        return found


class Scene:
    """`answers` and `failed` fill while a client asks."""

    def __init__(self, folder: Path, network: Network, after: ExitStack) -> None:
        self.network = network
        self.answers: list[Answer] = []
        self.failed: list[str] = []
        #: So many requests were asked so far.
        self.asked_for = 0
        self._folder = folder
        self._after = after
        write_repository(folder / "models")
        self.broker_host = network.host("redis")
        self.address = network.address(self.broker_host)
        #: The observer's own way to Redis, which no link is on.
        self.url = f"unix://{folder / 'redis.sock'}"
        self._start_redis()
        self._start_files()

    @property
    def shared(self) -> str:
        """The models as each host sees them that mounts the same folder, such as over NFS."""
        return str(self._folder / "models")

    @property
    def remote(self) -> str:
        """The models behind a web server on the first host."""
        return f"http://{self.address}:{FILES_PORT}/models"

    def serve(self, name: str, models: str) -> Namespace:
        """A new host, and on it the one command that makes it serve."""
        host = self.network.host(name)
        command = [
            sys.executable, "-m", "inference_worker.cli", "worker", "--broker", f"redis://{self.address}:6379",
            "--pool", POOL, "--device", "cpu", "--procs", "1", "--lease", str(LEASE_S), "--trust-code",
            "--cache", self._folder / f"cache-of-{name}", models,
        ]  # fmt: skip
        self._start(host, command)
        return host

    def ready(self, host: Namespace) -> bool:
        """What `inference-worker health` says on this host."""
        asked = [sys.executable, "-m", "inference_worker.cli", "health", "--pool", POOL]
        told = host.command(*asked, "--broker", f"redis://{self.address}:6379")
        return subprocess.run(told, cwd=ROOT, capture_output=True, check=False).returncode == 0

    def wait_for(self, host: Namespace, since_s: float = 0.0) -> float:
        """Until it has answered something after `since_s`; when it first has."""
        reader = Reader(self.answers)

        def first() -> Answer | None:
            return next((one for one in reader.fresh() if one.host == host.name and one.at_s > since_s), None)

        return wait_until(first, f"host '{host.name}' answers", WITHIN_S).at_s

    def wait_for_all(self, asked: int) -> float:
        """Until the first so many requests are answered; when the last of them was."""
        reader, waiting, last_s = Reader(self.answers), set(range(asked)), 0.0

        def all_there() -> bool:
            nonlocal last_s
            for one in reader.fresh():
                if one.number in waiting:
                    waiting.remove(one.number)
                    last_s = one.at_s
            return not waiting

        wait_until(all_there, f"the first {asked} requests are answered", WITHIN_S)
        return last_s

    def shares(self, since_s: float, for_s: float) -> dict[str, float]:
        """What share of the answers in that time came from which host; waits until that time is over."""
        wait_until(lambda: time.monotonic() > since_s + for_s, "the time to look at is over", for_s + 10)
        seen = [one.host for one in self.answers if since_s < one.at_s <= since_s + for_s]
        return {host: seen.count(host) / len(seen) for host in sorted(set(seen))}

    @contextmanager
    def asked(self) -> Iterator[None]:
        """A client asks for as long as the block lasts, and then waits for what is under way."""
        over = Event()
        thread = Thread(target=self._ask, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _ask(self, over: Event) -> None:
        with Client(self.url, pool=POOL, timeout_s=60) as client:
            for result in client.map("where", self._inputs(over), window=WINDOW, ordered=False, on_error="return"):
                if isinstance(result, Exception):
                    self.failed.append(str(result))
                else:
                    number = int(result["value"]) // FACTOR
                    self.answers.append(Answer(time.monotonic(), number, str(result["host"].item())))

    def _inputs(self, over: Event) -> Iterator[dict[str, int]]:
        while not over.is_set():
            self.asked_for += 1
            yield {"n": self.asked_for - 1}

    def _start_redis(self) -> None:
        lines = ["bind 0.0.0.0", "protected-mode no", f"dir {self._folder}", f"unixsocket {self._folder}/redis.sock"]
        file = self._folder / "redis.conf"
        file.write_text("\n".join([*lines, 'save ""', "maxmemory-policy noeviction"]) + "\n")
        self._start(self.broker_host, [find_server(), file])
        wait_until((self._folder / "redis.sock").exists, "Redis listens")
        client = connect(self.url)
        self._after.callback(client.close)
        wait_until(client.ping, "Redis answers")

    def _start_files(self) -> None:
        files = [sys.executable, "-m", "http.server", str(FILES_PORT), "--directory", self._folder]
        self._start(self.broker_host, files)

    def _start(self, host: Namespace, command: Sequence[str | Path]) -> None:
        with (self._folder / f"{host.name}.log").open("ab") as log:
            self._after.callback(_end, host.start(command, log, cwd=ROOT))

    def printed(self) -> str:
        """What the hosts said, for whoever looks for what went wrong."""
        return "\n".join(f"{log.stem} printed:\n{log.read_text()[-3000:]}" for log in self._folder.glob("*.log"))


@contextmanager
def scene() -> Iterator[Scene]:
    """Redis on its host. All is gone at the block's end; where that fails, what the hosts printed is shown."""
    # Not in pytest's folder: the path of a socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="iw-hosts-") as folder,
        Network() as network,
        ExitStack() as after,
    ):
        made = Scene(Path(folder), network, after)
        try:
            yield made
        except BaseException as error:
            error.add_note(made.printed())
            raise


def write_repository(models: Path) -> None:
    """The model, its weights, and the index that a web server needs."""
    version = models / "where" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(CODE)
    (version / "model.toml").write_text(MANIFEST)
    np.save(version / "weights.npy", np.array([FACTOR]))
    (models / INDEX_FILE).write_text(print_index(index_folder(models)))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
