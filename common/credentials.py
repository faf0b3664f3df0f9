"""The password of a broker URL from a file: `?password_file=/run/secrets/redis`.

So the URL holds no secret wherever it is written down, and a password that is changed is read with the next
connection: nobody need be started again.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import AccessDenied

#: The option of the URL.
PASSWORD_FILE = "password_file"
MAX_PASSWORD = 4096

#: As the driver wants it: the password, or the user and the password.
Credentials = tuple[str] | tuple[str, str]


class FromFile:
    """What the driver asks with each connection: by its interface, redis.credentials.CredentialProvider."""

    def __init__(self, user: str | None, path: str) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> Credentials:
        password = read_password(self._path)
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> Credentials:
        return self.get_credentials()

    def __repr__(self) -> str:
        return f"FromFile({self._user!r}, {self._path!r})"


def read_password(path: str) -> str:
    """The file's text without the newline at its end. Raises AccessDenied: a file that changes may be whole again."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_PASSWORD + 1).rstrip("\r\n")
    except OSError as error:
        raise AccessDenied(f"the broker URL's {PASSWORD_FILE} '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        # Its own text shows what stands there.
        raise AccessDenied(f"the broker URL's {PASSWORD_FILE} '{path}' is not UTF-8") from None
    if not 1 <= len(text) <= MAX_PASSWORD:
        raise AccessDenied(f"the broker URL's {PASSWORD_FILE} '{path}' must hold 1 to {MAX_PASSWORD} characters")
    return text
