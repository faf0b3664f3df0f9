"""An issuer of tokens for tests: real keys, as a JWKS and to sign with."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://login.example.com/"
AUDIENCE = "inference"


class SigningKey:
    """`kind` is RSA, EC or OKP; `told` is what stands in the JWKS beside the key itself."""

    def __init__(self, kind: str, id: str, **told: str) -> None:
        self.id = id
        self.private: Any = {
            "RSA": lambda: rsa.generate_private_key(65537, 2048),
            "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
            "OKP": ed25519.Ed25519PrivateKey.generate,
        }[kind]()
        to_jwk: Any = {
            "RSA": jwt.algorithms.RSAAlgorithm, "EC": jwt.algorithms.ECAlgorithm, "OKP": jwt.algorithms.OKPAlgorithm
        }[kind].to_jwk  # fmt: skip
        self.jwk: dict[str, Any] = {**json.loads(to_jwk(self.private.public_key())), "kid": id, **told}

    def sign(self, algorithm: str, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good for a minute, but for what `claims` say; a claim that is None is left out."""
        told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "exp": int(time.time()) + 60, **claims}
        whole = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(whole, self.private, algorithm, headers={"kid": self.id, **(headers or {})})


def jwks(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [one.jwk for one in keys]}).encode()
