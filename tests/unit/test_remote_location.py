"""A repository's URL: what is taken, what it shows, and which files it names."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from inference_worker.remote.location import is_url, parse


@pytest.mark.parametrize("place", ["s3://bucket/models", "https://host", "memory://", "file:///models"])
def test_a_url_is_told_from_a_path(place: str) -> None:
    assert is_url(place)
    assert not is_url(place.replace("://", "/"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host:8443/models/", "https://host:8443/models"),
        ("https://host/models?sig=secret&until=9", "https://host/models"),
        ("https://secret@host/models", "https://host/models"),
        ("s3://bucket/team@2/models", "s3://bucket/team@2/models"),
    ],
)
def test_it_is_shown_without_its_secrets(url: str, shown: str) -> None:
    location = parse(url)

    assert location.shown == shown
    assert "secret" not in location.redact(f"GET {location.file('m/1/w.bin')} failed")


def test_files_of_a_web_server_are_escaped_and_keep_the_query() -> None:
    assert parse("https://host/models?sig=1").file("m/1/a b#c.bin") == "https://host/models/m/1/a%20b%23c.bin?sig=1"
    assert parse("s3://bucket/models").file("m/1/a b#c.bin") == "s3://bucket/models/m/1/a b#c.bin"


def test_its_last_parts_name_a_model_and_its_version() -> None:
    location = parse("https://me:secret@host/models/m/1")

    assert location.parts[-2:] == ("m", "1")
    above = location.parent()
    assert above is not None
    assert (above.shown, above.base) == ("https://host/models/m", "https://me:secret@host/models/m")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:secret@host/a b", "it holds spaces or control characters"),
        ("https://me:secret@host/a/../b", "its path must not hold the parts '.' and '..'"),
        ("https://me:secret@host/a/%2e%2e/b", "its path must not hold the parts '.' and '..'"),
        ("https://me:secret@host:port/a", "cannot be used"),
        ("https://me:sec/secret@host/a", "cannot be used"),
        ("https:///models", "the host or bucket is missing"),
        ("simplecache::s3://bucket", "chains of file systems"),
        ("s3://secret:secret@bucket/models", "credentials of this store go into its own environment variables"),
        ("s3://bucket/models?key=secret", "means nothing to this store"),
        ("https://me:secret@host/mymodel.py", "it names a Python file; a URL names a folder"),
    ],
)
def test_what_cannot_be_a_repository_is_refused_and_no_secret_is_told(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(url)

    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
