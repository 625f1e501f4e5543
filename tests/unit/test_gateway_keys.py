"""Keys: stored hashed, private, revocable, and in force without a restart."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aiops_assets.gateway import keys as module
from aiops_assets.gateway.keys import (
    KeysDamaged,
    KeyStore,
    Role,
    UnknownKey,
    create_key,
    ensure_admin_key,
    list_keys,
    revoke_key,
)
from aiops_assets.gateway.sessions import LIFETIME_SECONDS, Sessions


@pytest.fixture
def immediate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0.0)


def test_the_clear_key_is_kept_nowhere(tmp_path: Path) -> None:
    key, clear = create_key(tmp_path, "telegraf on web-1", sources=["telegraf"])
    secret = clear.split("_", 2)[2]
    content = "".join(path.read_text() for path in tmp_path.iterdir())
    assert clear.startswith(f"aiops_{key.id}_")
    assert secret not in content
    assert key.digest not in repr(key)


def test_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ensure_admin_key(folder)
    Sessions(folder, KeyStore(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("admin.key", "keys.json", "session.secret", ".keys.lock"), 0o600)


def test_the_first_key_may_do_everything_and_is_made_once(tmp_path: Path) -> None:
    path = ensure_admin_key(tmp_path)
    clear = path.read_text()
    assert ensure_admin_key(tmp_path).read_text() == clear
    principal = KeyStore(tmp_path).verify(clear.strip().encode())
    assert principal is not None
    assert principal.may_operate
    assert principal.may_send("anything")
    path.unlink()
    assert not ensure_admin_key(tmp_path).exists()


def test_a_crash_between_the_two_files_of_the_first_key_is_repaired(tmp_path: Path) -> None:
    ensure_admin_key(tmp_path)
    (tmp_path / "keys.json").unlink()
    clear = ensure_admin_key(tmp_path).read_text().strip()
    assert KeyStore(tmp_path).verify(clear.encode()) is not None


@pytest.mark.parametrize(
    ("role", "sources", "may_read", "may_operate"),
    [("send", ["telegraf"], False, False), ("read", ["telegraf"], True, False), ("operate", ["telegraf"], True, True)],
)
def test_roles_and_sources(tmp_path: Path, role: Role, sources: list[str], may_read: bool, may_operate: bool) -> None:
    _, clear = create_key(tmp_path, "kim", sources=sources, role=role)
    principal = KeyStore(tmp_path).verify(clear.encode())
    assert principal is not None
    assert (principal.may_read, principal.may_operate) == (may_read, may_operate)
    assert principal.may_send("telegraf")
    assert not principal.may_send("generic")
    assert principal.only_source == "telegraf"
    assert principal.name == "kim"


@pytest.mark.parametrize("arguments", [{"name": ""}, {"name": "a\nb"}, {"sources": ["../x"]}, {"role": "god"}])
def test_illegal_keys_are_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        create_key(tmp_path, **({"name": "kim"} | arguments))  # type: ignore[arg-type]
    assert list_keys(tmp_path) == ()


@given(st.binary(max_size=300))
def test_no_other_bytes_are_a_key(tmp_path_factory: pytest.TempPathFactory, other: bytes) -> None:
    folder = tmp_path_factory.mktemp("keys")
    key, clear = create_key(folder, "kim")
    store = KeyStore(folder)
    assert store.verify(other) is None
    assert store.verify(f"aiops_{key.id}_".encode() + other) is None
    assert store.verify(clear.encode() + other[:20]) is None or not other
    assert store.verify(clear.encode()) is not None


@pytest.mark.usefixtures("immediate")
def test_a_running_store_sees_new_and_revoked_keys(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, clear = create_key(tmp_path, "kim")
    assert store.verify(clear.encode()) is not None
    revoked = revoke_key(tmp_path, key.id)
    assert store.verify(clear.encode()) is None
    assert store.principal(key.id) is None
    assert revoke_key(tmp_path, key.id) == revoked
    assert list_keys(tmp_path) == (revoked,)
    with pytest.raises(UnknownKey):
        revoke_key(tmp_path, "absent")


@pytest.mark.usefixtures("immediate")
def test_damaged_keys_stop_a_start_but_not_a_running_store(tmp_path: Path) -> None:
    _, clear = create_key(tmp_path, "kim")
    store = KeyStore(tmp_path)
    (tmp_path / "keys.json").write_text('{"version": 1, "keys": [{"id":')
    assert store.verify(clear.encode()) is not None
    with pytest.raises(KeysDamaged):
        KeyStore(tmp_path)


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create_key(tmp_path, f"key {number}")[0].id, range(24)))
    assert {key.id for key in list_keys(tmp_path)} == set(made)
    assert json.loads((tmp_path / "keys.json").read_text())["version"] == 1


@pytest.mark.usefixtures("immediate")
def test_a_session_ends_by_time_by_revocation_and_by_forgery(tmp_path: Path) -> None:
    key, clear = create_key(tmp_path, "kim", role="operate")
    store = KeyStore(tmp_path)
    sessions = Sessions(tmp_path, store)
    principal = store.verify(clear.encode())
    assert principal is not None
    cookie = sessions.issue(principal, now=1000.0)
    found = sessions.principal(cookie, now=1001.0)
    assert found is not None
    assert found.name == "kim"
    assert sessions.principal(cookie, now=1000.0 + LIFETIME_SECONDS) is None
    identity, _, signature = cookie.split(".")
    assert sessions.principal(f"{identity}.99999999999.{signature}", now=1001.0) is None
    assert sessions.principal("", now=1001.0) is None
    assert sessions.principal("ä.ö.ü", now=1001.0) is None
    assert Sessions(tmp_path, store).principal(cookie, now=1001.0) is not None, "the secret outlives a restart"
    revoke_key(tmp_path, key.id)
    assert sessions.principal(cookie, now=1001.0) is None
