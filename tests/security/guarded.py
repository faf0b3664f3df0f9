"""A server with the users of deploy/redis/users.acl, that very file with passwords in it, and one who may do all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common.connect import connect
from common.embedded import EmbeddedRedis

if TYPE_CHECKING:
    import redis

USERS = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
#: The pool that the file is written for.
POOL = "gpu-pool-a"
_PLACEHOLDER = re.compile(r"#SHA256-OF-([A-Z-]+)")


class Guarded:
    """Its URLs by user, and a connection of its administrator, who is not in the file."""

    def __init__(self, socket: str, admin: redis.Redis) -> None:
        self.socket = socket
        self.admin = admin

    def url(self, user: str) -> str:
        return f"unix://{user}:{password(user)}@{self.socket}"

    @contextmanager
    def client(self, user: str) -> Iterator[redis.Redis]:
        with closing(connect(self.url(user))) as client:
            yield client

    def refused(self) -> list[str]:
        """What users were refused since the last call: user, what for, command or key.

        Without CLIENT, by which a driver tells its own name: it lives with a refusal.
        """
        entries = [dict(zip(one[::2], one[1::2], strict=True)) for one in self.admin.execute_command("ACL", "LOG")]
        self.admin.execute_command("ACL", "LOG", "RESET")
        told = [tuple(one[name].decode() for name in (b"username", b"reason", b"object")) for one in entries]
        return [" ".join(one) for one in told if one[1:] != ("command", "client")]


def password(user: str) -> str:
    return f"secret-of-{user}"


def users_file(text: str) -> str:
    """The file as docs/security.md says to make it: each placeholder replaced by its password's digest."""

    def digest(found: re.Match[str]) -> str:
        return f"#{hashlib.sha256(password(found[1].lower()).encode()).hexdigest()}"

    return _PLACEHOLDER.sub(digest, text)


@contextmanager
def guarded() -> Iterator[Guarded]:
    """A server of its own, while the block lasts."""
    with TemporaryDirectory() as folder:
        # Empty until the server answers the one who waits for it, which is nobody in the file.
        acl = Path(folder) / "users.acl"
        acl.touch()
        with EmbeddedRedis(config=[f'aclfile "{acl}"']) as server:
            socket = server.url.removeprefix("unix://")
            acl.write_text(f"{users_file(USERS.read_text())}user root on >{password('root')} ~* &* +@all\n")
            with closing(connect(server.url)) as first:
                first.execute_command("ACL", "LOAD")
            with closing(connect(f"unix://root:{password('root')}@{socket}")) as admin:
                yield Guarded(socket, admin)
