"""Backups: all or nothing, incremental, with hashes; restored onto an empty home only."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import time
from pathlib import Path

import orjson
import pytest
from polars.testing import assert_frame_equal
from pydantic import SecretStr
from sqlalchemy import select, text
from typer.testing import CliRunner

from aiops_assets.backup.capture import Options, back_up
from aiops_assets.backup.operations import export, load
from aiops_assets.backup.restore import check_backup, restore
from aiops_assets.backup.store import BackupProblem, Store
from aiops_assets.cli import app
from aiops_assets.hours import MICROS_PER_HOUR
from aiops_assets.landing.reader import gaps, numbers
from aiops_assets.landing.segment import OPEN, SEALED, Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.operations.database import HEAD, UnknownSchema, changing, connect, upgrade
from aiops_assets.operations.models import AUDIT, INCIDENTS
from aiops_assets.settings import Settings
from tests.home import document, drain, fill, home, points, send
from tests.unit.test_operations_database import postgres  # noqa: F401 - a fixture

HOUR = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 3 * MICROS_PER_HOUR


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An installation with points, incidents, quarantine, keys and a configuration; one segment waits."""
    settings = home(tmp_path_factory.mktemp("origin") / "home")
    (settings.paths.config).write_text("rules: [{name: high, metric: app.load, value: 3}]\n")
    (settings.paths.keys / "keys.json").write_text('{"secret": "s"}')
    (settings.paths.keys / "keys.json").chmod(0o600)
    fill(settings, HOUR, 70)
    send(settings, [document("web-1", HOUR + 71 * 60_000_000, 9.0)])
    send(settings, [document("web-1", HOUR + 40 * MICROS_PER_HOUR, 9.0)], at=HOUR)
    drain(settings)
    send(settings, [document("web-1", HOUR + 72 * 60_000_000, 9.0)])
    return settings


@pytest.fixture
def platform(origin: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(origin.paths.root, tmp_path / "home")
    return Settings(home=tmp_path / "home")


def test_a_restored_home_has_everything_and_goes_on(platform: Settings, tmp_path: Path) -> None:
    taken = back_up(platform, tmp_path / "backups")
    assert taken.manifest.positions == {"gateway": 72}
    assert taken.manifest.operations["rows"]["incidents"] >= 1
    copy = Settings(home=tmp_path / "copy")
    restored = restore(tmp_path / "backups", copy, verify=True)
    assert restored.clean, restored.verification
    assert_frame_equal(points(copy), points(platform))
    assert copy.paths.config.read_text() == platform.paths.config.read_text()
    assert stat.S_IMODE((copy.paths.keys / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.paths.keys.stat().st_mode) == 0o700
    assert export(copy.paths.operations_url) == export(platform.paths.operations_url)
    assert [path.name for path in copy.paths.quarantine.rglob("*.jsonl")] == [
        path.name for path in platform.paths.quarantine.rglob("*.jsonl")
    ]
    assert numbers(copy.paths.landing / "gateway", SEALED) == [73]
    for settings in (platform, copy):
        send(settings, [document("web-2", HOUR + 73 * 60_000_000, 1.0)])
        drain(settings)
    assert_frame_equal(points(copy), points(platform))


def test_a_second_backup_adds_only_what_is_new(platform: Settings, tmp_path: Path) -> None:
    first = back_up(platform, tmp_path / "backups")
    second = back_up(platform, tmp_path / "backups")
    # The SQLite copy differs in its header's change counter at most.
    assert second.added <= 2 < first.added
    drain(platform)
    third = back_up(platform, tmp_path / "backups")
    assert third.added < first.added
    assert [m.backup_id for m in Store.open(tmp_path / "backups").backups()] == [
        taken.manifest.backup_id for taken in (first, second, third)
    ]


def test_each_backup_restores_its_own_moment(platform: Settings, tmp_path: Path) -> None:
    before = points(platform)
    first = back_up(platform, tmp_path / "backups")
    drain(platform)
    assert points(platform).height == before.height + 1
    back_up(platform, tmp_path / "backups")
    restore(tmp_path / "backups", Settings(home=tmp_path / "then"), first.manifest.backup_id)
    restore(tmp_path / "backups", Settings(home=tmp_path / "now"))
    assert_frame_equal(points(Settings(home=tmp_path / "then")), before)
    assert_frame_equal(points(Settings(home=tmp_path / "now")), points(platform))


def test_a_backup_that_was_cut_is_none_and_its_contents_are_used_again(
    platform: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Store, "commit", lambda self, manifest: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            back_up(platform, tmp_path / "backups")
    with pytest.raises(BackupProblem, match="no whole backup"):
        Store.open(tmp_path / "backups").manifest()
    assert back_up(platform, tmp_path / "backups").added <= 2


def test_the_folder_and_its_files_are_for_their_owner_alone(platform: Settings, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backups")
    for path in [tmp_path / "backups", *(tmp_path / "backups").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_keys_can_be_left_out(platform: Settings, tmp_path: Path) -> None:
    taken = back_up(platform, tmp_path / "backups", Options(without_keys=True))
    assert not taken.manifest.keys
    restore(tmp_path / "backups", Settings(home=tmp_path / "copy"))
    assert list((tmp_path / "copy" / "keys").iterdir()) == []


@pytest.mark.parametrize("which", ["lake", "landing"])
def test_damage_in_a_backup_is_found_before_anything_is_restored(
    platform: Settings, tmp_path: Path, which: str
) -> None:
    taken = back_up(platform, tmp_path / "backups")
    store = Store.open(tmp_path / "backups")
    assert check_backup(store, taken.manifest) == []
    entry = next(entry for entry in taken.manifest.entries if entry.path.startswith(which))
    path = store.object(entry.sha256)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert len(check_backup(store, taken.manifest)) == 1
    for verify in (True, False):
        with pytest.raises(BackupProblem, match="damaged"):
            restore(tmp_path / "backups", Settings(home=tmp_path / "copy"), verify=verify)
        assert not (tmp_path / "copy").exists()
    assert [path.name for path in tmp_path.glob(".copy*")] == []


def test_a_manifest_that_was_changed_is_refused(platform: Settings, tmp_path: Path) -> None:
    taken = back_up(platform, tmp_path / "backups")
    path = tmp_path / "backups" / "backups" / f"{taken.manifest.backup_id}.json"
    path.write_bytes(path.read_bytes().replace(b"lake/", b"lak3/", 1))
    with pytest.raises(BackupProblem, match="checksum"):
        Store.open(tmp_path / "backups").manifest(taken.manifest.backup_id)
    with pytest.raises(BackupProblem):
        restore(tmp_path / "backups", Settings(home=tmp_path / "copy"))


def test_a_home_that_is_not_empty_is_left_alone(platform: Settings, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backups")
    before = sorted(str(path) for path in platform.paths.root.rglob("*"))
    with pytest.raises(BackupProblem, match="not empty"):
        restore(tmp_path / "backups", platform)
    assert sorted(str(path) for path in platform.paths.root.rglob("*")) == before
    (tmp_path / "copy").mkdir()
    restore(tmp_path / "backups", Settings(home=tmp_path / "copy"))


def test_a_folder_with_other_things_is_no_backup_folder(platform: Settings, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(BackupProblem, match="neither empty nor a backup folder"):
        back_up(platform, tmp_path / "other")
    with pytest.raises(BackupProblem, match="no backup folder"):
        Store.open(tmp_path / "nowhere")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "aiops-backup.json").write_text('{"format": 99}')
    with pytest.raises(BackupProblem, match="format 99"):
        Store.open(tmp_path / "newer")


def test_only_the_newest_are_kept_when_that_is_asked_for(platform: Settings, tmp_path: Path) -> None:
    back_up(platform, tmp_path / "backups")
    drain(platform)
    (platform.paths.config).write_text("rules: []\n")
    last = back_up(platform, tmp_path / "backups", keep=1)
    assert last.forgotten == 1
    assert last.freed > 0
    store = Store.open(tmp_path / "backups")
    assert [manifest.backup_id for manifest in store.backups()] == [last.manifest.backup_id]
    assert check_backup(store, last.manifest) == []
    assert {path.name for path in (tmp_path / "backups" / "objects").glob("*/*")} == {
        entry.sha256 for entry in last.manifest.entries
    }


def test_lake_files_can_share_their_place_with_the_backup(platform: Settings, tmp_path: Path) -> None:
    taken = back_up(platform, tmp_path / "backups", Options(link=True))
    store = Store.open(tmp_path / "backups")
    entry = next(e for e in taken.manifest.entries if e.path.endswith(".zstd.parquet"))
    assert store.object(entry.sha256).samefile(platform.paths.root / entry.path)
    restored = restore(tmp_path / "backups", Settings(home=tmp_path / "copy"), verify=True)
    assert restored.clean


def test_acknowledged_deliveries_that_are_not_sealed_are_in_it(platform: Settings, tmp_path: Path) -> None:
    body = orjson.dumps([document("web-7", HOUR + 74 * 60_000_000, 5.0)])
    delivery = Delivery("open", HOUR + 75 * 60_000_000, "test", "application/json", body, {"format": "collected"})
    with SegmentWriter(platform.paths.landing, "gateway", max_bytes=1 << 20, max_age_seconds=60) as writer:
        writer.append_deliveries([delivery])
        assert numbers(writer.folder, OPEN)
        back_up(platform, tmp_path / "backups")
    copy = Settings(home=tmp_path / "copy")
    restore(tmp_path / "backups", copy)
    fill(copy, HOUR + 76 * 60_000_000, 1)
    drain(copy)
    assert gaps(copy.paths.landing / "gateway") == []
    assert points(copy).filter(host="web-7").height == 1


def test_a_lake_in_an_object_store_is_refused_with_the_reason(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", lake="s3://bucket/lake")
    settings.paths.root.mkdir()
    with pytest.raises(BackupProblem, match="object stores are saved by their own"):
        back_up(settings, tmp_path / "backups")


def test_two_backups_into_one_folder_at_a_time_are_refused(platform: Settings, tmp_path: Path) -> None:
    with (
        Store.create(tmp_path / "backups").writing(),
        pytest.raises(BackupProblem, match="another backup"),
    ):
        back_up(platform, tmp_path / "backups")


def database(path: Path) -> str:
    url = f"sqlite:///{path}"
    upgrade(url)
    engine = connect(url)
    columns = {column.name: "x" if not column.nullable else None for column in INCIDENTS.columns}
    numbers_ = {c.name: 1 for c in INCIDENTS.columns if not c.nullable and c.type.python_type is int}
    flags = {c.name: False for c in INCIDENTS.columns if not c.nullable and c.type.python_type is bool}
    with changing(engine) as change:
        for name, into in (("A", None), ("B", None), ("C", "A")):
            row = {**columns, **numbers_, **flags, "incident_id": name, "merged_into": into}
            change.connection.execute(INCIDENTS.insert(), row)
        for number in range(3):
            change.connection.execute(
                AUDIT.insert(), {"at": number, "who": "kim", "action": "a", "target": "t", "details": "{}"}
            )
        change.mark()
    engine.dispose()
    return url


def test_rows_of_the_operations_database_go_into_an_empty_one(tmp_path: Path) -> None:
    url = database(tmp_path / "a.db")
    content, about = export(url)
    assert about["revision"] == HEAD
    assert about["rows"]["incidents"] == 3
    other = f"sqlite:///{tmp_path / 'b.db'}"
    assert load(other, content) == about["rows"]
    assert export(other) == (content, about)
    engine = connect(other)
    with changing(engine) as change:
        change.connection.execute(
            AUDIT.insert(), {"at": 9, "who": "kim", "action": "a", "target": "t", "details": "{}"}
        )
        assert change.connection.execute(select(AUDIT.c.audit_id)).scalars().all() == [1, 2, 3, 4]
    engine.dispose()
    with pytest.raises(ValueError, match="not empty"):
        load(other, content)


def test_rows_go_from_sqlite_to_postgres_and_back(tmp_path: Path, postgres: str) -> None:  # noqa: F811
    content, about = export(database(tmp_path / "a.db"))
    assert load(postgres, content) == about["rows"]
    there, counted = export(postgres)
    assert counted == about
    engine = connect(postgres)
    with changing(engine) as change:
        change.connection.execute(
            AUDIT.insert(), {"at": 9, "who": "kim", "action": "a", "target": "t", "details": "{}"}
        )
        assert change.connection.execute(select(AUDIT.c.audit_id)).scalars().all() == [1, 2, 3, 4]
    engine.dispose()
    with pytest.raises(ValueError, match="not empty"):
        load(postgres, content)
    back = f"sqlite:///{tmp_path / 'back.db'}"
    assert load(back, there) == about["rows"]
    assert export(back) == (content, about)


def test_an_installation_on_postgres_can_come_back_on_sqlite(
    platform: Settings,
    tmp_path: Path,
    postgres: str,  # noqa: F811
) -> None:
    rows, about = export(platform.paths.operations_url)
    engine = connect(postgres)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    load(postgres, rows)
    grown = Settings(home=platform.home, operations_url=SecretStr(postgres))
    taken = back_up(grown, tmp_path / "backups")
    assert taken.manifest.operations["kind"] == "postgresql"
    copy = Settings(home=tmp_path / "copy")
    restored = restore(tmp_path / "backups", copy, verify=True)
    assert restored.operations == about["rows"]
    drain(copy)
    with pytest.raises(BackupProblem, match="not empty"):
        restore(tmp_path / "backups", Settings(home=tmp_path / "other", operations_url=SecretStr(postgres)))
    assert not (tmp_path / "other").exists()


def test_an_export_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    content, _ = export(database(tmp_path / "a.db"))
    with pytest.raises(UnknownSchema, match="9999"):
        load(f"sqlite:///{tmp_path / 'b.db'}", content.replace(HEAD.encode(), b"9999", 1))


def test_an_export_of_an_older_schema_is_migrated(tmp_path: Path) -> None:
    lines = [orjson.dumps({"revision": "0001"})]
    row = {"audit_id": 7, "at": 1, "who": "k", "action": "a", "target": "t", "details": "{}"}
    lines.append(orjson.dumps({"table": "audit", "row": row}))
    lines.append(orjson.dumps({"table": "counters", "row": {"name": "changes", "value": 41}}))
    url = f"sqlite:///{tmp_path / 'b.db'}"
    load(url, b"\n".join(lines))
    _, about = export(url)
    assert about["revision"] == HEAD
    assert about["rows"]["audit"] == 1


runner = CliRunner()


def test_the_commands_speak_json_and_tell_exit_codes(
    platform: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOPS_HOME", str(platform.paths.root))
    folder = str(tmp_path / "backups")
    done = runner.invoke(app, ["backup", folder, "--json", "--verify"])
    assert done.exit_code == 0, done.output
    taken = json.loads(done.stdout)
    assert taken["keys"] is True and taken["damaged"] == []
    listed = json.loads(runner.invoke(app, ["backup", folder, "--list", "--json"]).stdout)
    assert [entry["backup_id"] for entry in listed["backups"]] == [taken["backup_id"]]
    copy = str(tmp_path / "copy")
    done = runner.invoke(app, ["restore", folder, "--home", copy, "--verify", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["clean"] is True
    again = runner.invoke(app, ["restore", folder, "--home", copy])
    assert again.exit_code == 1
    assert "not empty" in again.output
    shown = runner.invoke(app, ["backup", folder])
    assert "keys" in shown.output and shown.exit_code == 0
    assert sqlite3.connect(f"{copy}/operations.db").execute("select count(*) from incidents").fetchone()[0] >= 1
