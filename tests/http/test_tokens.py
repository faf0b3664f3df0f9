"""Tokens of another issuer at the door: who is let in as which tenant, while keys and rules change."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.command import command_line
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import gateway
from tests.support.http import ask
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.waiting import wait_until

BODY = {"x": [1.0]}


@contextmanager
def served(answer: list[bytes]) -> Iterator[str]:
    """The last of `answer`, at a URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer[-1])

        def log_message(self, *args: object) -> None:
            """Nothing: the test's output is the test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/jwks"
        server.shutdown()


def test_a_token_is_its_tenants_and_follows_rules_and_keys(redis_url: str, worker: EchoWorker, tmp_path: Path) -> None:
    old, new = SigningKey("RSA", "k1"), SigningKey("EC", "k2")
    keys = ("--keys", str(tmp_path / "keys.json"))
    with command_line(tmp_path) as shell, served(told := [jwks(old)]) as url:
        mapped = shell.run("keys", "map", "groups=lab", "acme", "--model", "echo", "--priority", "low", *keys)
        assert mapped.code == 0, mapped.err
        issuer = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwks", url)
        with gateway(redis_url, worker.broker.pool, tmp_path, *keys, *issuer) as door:

            def status(token: str, model: str = "echo") -> int:
                return ask(door.address, "POST", f"/models/{model}", BODY, authorization=f"Bearer {token}").status

            # Given a rule for a group: who is in it is let in as its tenant, and others are not
            assert status(old.sign("RS256", groups=["lab"])) == 200
            assert (worker.seen[-1].tenant, worker.seen[-1].model) == ("acme", "echo")
            assert status(old.sign("RS256", groups=["lab"]), "upper") == 403
            assert status(old.sign("RS256", groups=["others"])) == 403
            assert status(old.sign("RS256", groups=["lab"], aud="another")) == 401
            # When the issuer changes its keys, Then the new ones are fetched
            told.append(jwks(new))
            wait_until(lambda: status(new.sign("ES256", groups=["lab"])) == 200, "the new key is known", 15)
            assert status(old.sign("RS256", groups=["lab"])) == 401
            # And keys of ours go on to work beside them
            ours = shell.run("keys", "create", "other", *keys).out.strip()
            wait_until(lambda: status(ours) == 200, "our own key is known")
            # When the rule is taken back
            assert shell.run("keys", "unmap", "groups=lab", *keys).code == 0
            wait_until(lambda: status(new.sign("ES256", groups=["lab"])) == 403, "the rule holds no more")


def test_a_door_that_takes_tokens_may_be_open_to_others_and_needs_all_that_they_are_checked_by(tmp_path: Path) -> None:
    with command_line(tmp_path) as shell:
        (tmp_path / "jwks.json").write_bytes(b"no keys")
        lacking = [
            shell.run(*command, "--http", "127.0.0.1:0", "--jwt-issuer", ISSUER)
            for command in (["gateway"], ["up", "."])
        ]
        wrong = shell.run(
            "gateway", "--http", "0.0.0.0:0", "--broker", "redis://127.0.0.1:1", "--jwt-issuer", ISSUER,
            "--jwt-audience", AUDIENCE, "--jwks", "jwks.json",
        )  # fmt: skip

    assert [(one.code, "--jwks" in one.error) for one in lacking] == [(78, True)] * 2
    assert (wrong.code, "is no JWKS" in wrong.err) == (78, True)
