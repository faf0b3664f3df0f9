"""Keys and tenants: what is kept, who is let in, and what he may do."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from common.errors import ConfigError, PermissionDenied, Unauthenticated
from gateway.access.apikey import new_key, split_key
from gateway.access.keyring import key_entry, read_keyring, tenant_entry
from gateway.access.store import FileStore
from gateway.access.tenant import Tenant, with_pools
from gateway.routing import Route, Routes


def test_a_key_is_kept_as_a_salted_hash_that_only_it_matches() -> None:
    first, second = new_key("acme", 0), new_key("acme", 0)
    id, secret = split_key(first.text) or ("", "")

    assert first.record.id == id
    assert first.record.matches(secret)
    assert not second.record.matches(secret)
    assert secret not in json.dumps(key_entry(first.record))


def test_a_known_key_leads_to_its_tenant() -> None:
    made = new_key("acme", 0)
    ring = read_keyring(dict([key_entry(made.record), tenant_entry(Tenant("acme", models=("mini*",)))]))

    assert ring.identify(made.text, 1).models == ("mini*",)


@pytest.mark.parametrize("text", [None, "", "iw_0_0", "Bearer x", new_key("acme", 0).text])
def test_any_other_key_is_refused(text: str | None) -> None:
    ring = read_keyring(dict([key_entry(new_key("acme", 0).record)]))

    with pytest.raises(Unauthenticated):
        ring.identify(text, 1)


def test_an_expired_key_is_refused() -> None:
    made = new_key("acme", 0, expires_s=100)
    ring = read_keyring(dict([key_entry(made.record)]))

    assert ring.identify(made.text, 99).name == "acme"
    with pytest.raises(Unauthenticated, match="expired"):
        ring.identify(made.text, 100)


def test_one_bad_record_locks_nobody_else_out(caplog: pytest.LogCaptureFixture) -> None:
    made = new_key("acme", 0)

    ring = read_keyring(
        dict([key_entry(made.record), ("key/x", "{"), ("tenant/y", '{"name": "y", "priority": "now"}')])
    )

    assert ring.identify(made.text, 1).name == "acme"
    assert len(caplog.records) == 2


def test_a_tenant_may_do_what_is_said_and_no_more() -> None:
    tenant = Tenant("acme", models=("mini*",), priority="normal")

    tenant.check_model("minilm")
    with pytest.raises(PermissionDenied, match="may not use model 'llama'"):
        tenant.check_model("llama")
    with pytest.raises(PermissionDenied, match="--operator"):
        tenant.check_operator("load models")
    assert [tenant.priority_of(asked) for asked in ("high", "normal", "low")] == ["normal", "normal", "low"]


def test_a_tenants_pool_stands_behind_the_files_rules() -> None:
    rules = with_pools(Routes([Route("gpu", model="big")]), [Tenant("acme", pool="acme-pool")])

    assert [rules.pool(model, None, "acme") for model in ("big", "small")] == ["gpu", "acme-pool"]
    assert rules.pool("small", None, "other") == "default-pool"


def test_a_file_of_keys_is_for_its_user_alone(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "keys.json")
    store.put("key/a", "{}")
    store.put("key/b", "{}")

    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert (store.remove("key/a"), store.remove("key/a")) == (True, False)
    assert store.read() == {"key/b": "{}"}
    (tmp_path / "keys.json").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.read()
