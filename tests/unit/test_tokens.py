"""Tokens of an issuer: what is accepted, and what is not, with real keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import ConfigError, InvalidRequest, PermissionDenied, Unauthenticated
from gateway.access.claims import check_rule, tenant_name
from gateway.access.issuer import Issuer
from gateway.access.jwks import REFRESH_S, UNKNOWN_S, Jwks, read_jwks
from gateway.access.keyring import claim_entry, read_keyring, tenant_entry
from gateway.access.tenant import Tenant
from gateway.access.tokens import Tokens
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, jwks


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    return {"RSA": SigningKey("RSA", "r1"), "EC": SigningKey("EC", "e1"), "OKP": SigningKey("OKP", "o1")}


@pytest.fixture
def file(tmp_path: Path, keys: dict[str, SigningKey]) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(*keys.values()))
    return path


def tokens(file: Path) -> Tokens:
    issuer = Issuer(ISSUER, AUDIENCE, str(file))
    found = Tokens(issuer, Jwks(issuer))
    found.look()
    return found


@pytest.mark.parametrize(("kind", "algorithm"), [("RSA", "RS256"), ("RSA", "PS512"), ("EC", "ES256"), ("OKP", "EdDSA")])
def test_a_token_that_the_issuer_signed_is_good(
    file: Path, keys: dict[str, SigningKey], kind: str, algorithm: str
) -> None:
    assert tokens(file).verify(keys[kind].sign(algorithm, groups=["a"]))["groups"] == ["a"]


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"exp": None}, "exp"),
        ({"aud": "another"}, "udience"),
        ({"aud": None}, "aud"),
        ({"iss": "https://evil.example/"}, "ssuer"),
        ({"iss": None}, "iss"),
        ({"nbf": int(time.time()) + 3600}, "not yet valid"),
    ],
)
def test_a_token_for_another_time_or_place_is_refused(
    file: Path, keys: dict[str, SigningKey], claims: dict[str, Any], told: str
) -> None:
    with pytest.raises(Unauthenticated, match=told):
        tokens(file).verify(keys["RSA"].sign("RS256", **claims))


def test_clocks_may_differ_by_less_than_the_leeway(file: Path, keys: dict[str, SigningKey]) -> None:
    assert tokens(file).verify(keys["RSA"].sign("RS256", exp=int(time.time()) - 5))


def test_a_token_of_another_key_with_the_same_id_is_refused(file: Path) -> None:
    with pytest.raises(Unauthenticated, match="Signature verification failed"):
        tokens(file).verify(SigningKey("RSA", "r1").sign("RS256"))


def test_a_token_without_a_signature_is_refused(file: Path, keys: dict[str, SigningKey]) -> None:
    head, claims, _ = keys["RSA"].sign("RS256").split(".")
    unsigned = _part({"alg": "none", "kid": "r1"})

    for forged in (f"{unsigned}.{claims}.", f"{head}.{claims}."):
        with pytest.raises(Unauthenticated):
            tokens(file).verify(forged)


def test_the_public_key_is_no_secret_to_sign_with(file: Path, keys: dict[str, SigningKey]) -> None:
    """The oldest attack on JWT: HS256, with the text of the RSA key that everybody knows as its secret."""
    public = keys["RSA"].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = keys["RSA"].sign("RS256").split(".")[1]
    signed = f"{_part({'alg': 'HS256', 'kid': 'r1'})}.{claims}"
    forged = f"{signed}.{_base64(hmac.digest(public, signed.encode(), hashlib.sha256))}"

    with pytest.raises(Unauthenticated, match=r"alg must be one of RS256.*got 'HS256'"):
        tokens(file).verify(forged)


def test_a_key_verifies_the_algorithm_of_its_type_and_the_one_that_it_names(
    tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    file = tmp_path / "jwks.json"
    narrow = SigningKey("RSA", "r2", alg="RS256")
    file.write_bytes(jwks(narrow, keys["EC"]))

    assert tokens(file).verify(narrow.sign("RS256"))
    with pytest.raises(Unauthenticated, match="alg must be one of RS256 "):
        tokens(file).verify(narrow.sign("RS512"))
    with pytest.raises(Unauthenticated, match="alg must be one of ES256"):
        tokens(file).verify(narrow.sign("RS256", {"kid": "e1"}))


def test_keys_that_do_not_sign_are_passed_over(keys: dict[str, SigningKey]) -> None:
    told = [keys["RSA"].jwk | {"use": "enc"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, {"kty": "EC", "kid": "x"}]

    assert read_jwks("jwks.json", json.dumps({"keys": told}).encode()) == {}


@pytest.mark.parametrize("text", [b"", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b"<html>", b"[" * 100_000])
def test_what_is_no_jwks_is_said(text: bytes) -> None:
    with pytest.raises(ConfigError, match=r"jwks\.json.* is no JWKS"):
        read_jwks("jwks.json", text)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "iw", "é.é.é", "." * 20_000])
def test_what_is_no_token_is_refused(file: Path, text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens(file).verify(text)


def test_a_key_that_is_new_is_known_at_the_next_look_and_an_old_one_no_more(
    file: Path, keys: dict[str, SigningKey]
) -> None:
    # Given a token that was accepted, and so is remembered
    accepting, old, new = tokens(file), keys["RSA"], SigningKey("RSA", "r2")
    accepting.verify(old.sign("RS256"))
    with pytest.raises(Unauthenticated, match="'r2' is not among those"):
        accepting.verify(new.sign("RS256"))
    # When the issuer changes its keys
    file.write_bytes(jwks(new))
    accepting.look()
    # Then
    assert accepting.verify(new.sign("RS256"))
    with pytest.raises(Unauthenticated, match="'r1' is not among those"):
        accepting.verify(old.sign("RS256"))


def test_a_remembered_token_expires(file: Path, keys: dict[str, SigningKey]) -> None:
    # Given a token that is remembered, and a key that is known no more
    now, issuer = [time.time()], Issuer(ISSUER, AUDIENCE, str(file))
    found = Jwks(issuer)
    found.look()
    accepting, token = Tokens(issuer, found, lambda: now[0]), keys["RSA"].sign("RS256")
    accepting.verify(token)
    found.keys = {}
    assert accepting.verify(token)
    # When it has expired, Then it is verified anew
    now[0] += 60 + issuer.leeway_s
    with pytest.raises(Unauthenticated, match="not among those"):
        accepting.verify(token)


def test_a_token_that_expires_in_words_is_good_twice(file: Path, keys: dict[str, SigningKey]) -> None:
    accepting, token = tokens(file), keys["RSA"].sign("RS256", exp=str(int(time.time()) + 60))

    assert accepting.verify(token) == accepting.verify(token)


def test_a_url_is_asked_seldom_and_sooner_for_a_key_that_nobody_knows() -> None:
    now, asked = [0.0], []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return b'{"keys": []}'

    found = Jwks(Issuer(ISSUER, AUDIENCE, "https://login.example.com/jwks"), lambda: now[0], fetch)

    def looks_at(second: float) -> int:
        now[0] = second
        found.look()
        return len(asked)

    assert [looks_at(0), looks_at(REFRESH_S - 1), looks_at(REFRESH_S)] == [1, 1, 2]
    found.want()
    assert [looks_at(REFRESH_S + 1), looks_at(REFRESH_S + UNKNOWN_S), looks_at(REFRESH_S + 2 * UNKNOWN_S)] == [2, 3, 3]


def test_keys_are_not_fetched_in_the_open() -> None:
    with pytest.raises(ConfigError, match="https"):
        Issuer(ISSUER, AUDIENCE, "http://login.example.com/jwks")


# Claims


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("groups=research", True),
        ("groups=re", False),
        ("scope=infer", True),
        ("sub=somebody", True),
        ("realm_access.roles=admin", True),
        ("realm_access.roles=user", False),
        ("https://example.com/team=a", True),
        ("level=3", True),
        ("nothing=x", False),
    ],
)
def test_a_rule_holds_for_a_value_a_list_words_and_a_path(rule: str, holds: bool) -> None:
    claims = {
        "groups": ["research", "all"], "scope": "openid infer", "sub": "somebody", "level": 3,
        "realm_access": {"roles": ["admin"]}, "https://example.com/team": "a",
    }  # fmt: skip

    if holds:
        assert tenant_name(claims, {rule: "acme"}, None) == "acme"
    else:
        with pytest.raises(PermissionDenied, match="keys map"):
            tenant_name(claims, {rule: "acme"}, None)


def test_a_claim_names_the_tenant_where_no_rule_does() -> None:
    rules = {"b=1": "second", "a=1": "first"}

    assert tenant_name({"a": "1", "b": "1", "org": "x"}, rules, "org") == "first"
    assert tenant_name({"org": "x"}, rules, "org") == "x"
    with pytest.raises(PermissionDenied):
        tenant_name({"org": "no tenant's name!"}, rules, "org")


def test_a_rule_leads_to_what_its_tenant_may_do() -> None:
    ring = read_keyring(dict([tenant_entry(Tenant("acme", ("minilm*",), priority="low")), claim_entry("g=a", "acme")]))

    assert ring.of_claims({"g": "a"}, None) == Tenant("acme", ("minilm*",), priority="low")


@pytest.mark.parametrize("rule", ["", "=", "a", "a=", "=b", "a=" + "b" * 300])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(InvalidRequest, match="CLAIM=VALUE"):
        check_rule(rule)


def _part(value: dict[str, str]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
