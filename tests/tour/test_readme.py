"""The README, run: its model, its Python, its shell line and its routes, against one `up`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from common.keys import DEFAULT_POOL, PoolKeys
from common.protocol import decode_request
from tests.support.command import ROOT, CommandLine, command_line
from tests.tour.pages import printed

if TYPE_CHECKING:
    import redis

README = (ROOT / "README.md").read_text("utf-8")


def block(language: str, holding: str) -> str:
    """The README's code block in `language` that holds this text."""
    [found] = [one for one in re.findall(rf"```{language}\n(.*?)```", README, re.S) if holding in one]
    return str(found)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A shell in which `up mymodel.py` runs."""
    with command_line(tmp_path_factory.mktemp("readme")) as it:
        (it.folder / "mymodel.py").write_text(block("python", "@model"))
        with it.running("up", "mymodel.py") as up:
            up.wait_for(" serves ")
            yield it
            assert up.stop() == 0, up.printed


def test_the_python_example_prints_the_answer(shell: CommandLine) -> None:
    assert printed(shell, block("python", "with Client()")) == ("HELLO\n", "")


def test_the_shell_example_enqueues_a_request(redis_url: str, redis_client: redis.Redis, redis_cli: str) -> None:
    # Given the line, and the server that the tests have
    [enqueue] = re.findall(r"^    (printf .*?\n      \| redis-cli -x XADD .*?)$", README, re.S | re.M)
    socket = redis_url.removeprefix("unix://")
    # When it is run
    command = enqueue.replace("redis-cli", f"{redis_cli} -s {socket}")
    subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=30)
    # Then its entry is the request that the text says, and its reply would be where the next line looks
    stream = PoolKeys(DEFAULT_POOL).streams[1]
    [(_, fields)] = redis_client.xrange(stream)
    redis_client.delete(stream)
    request = decode_request(fields[b"d"])
    assert (request.id, request.model, request.inputs["text"].data) == ("r1", "shout", ["hi"])
    assert f"redis-cli GET '{PoolKeys(DEFAULT_POOL).reply('r1')}'" in README


def test_the_routes_example_explains_itself(shell: CommandLine) -> None:
    (shell.folder / "routes.toml").write_text(block("toml", "[[route]]"))
    done = shell.run("routes", "explain", "gpt-large", "--version", "4", "--routes", "routes.toml")
    assert done.code == 0
    assert "gpu-pool-a" in done.out


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
