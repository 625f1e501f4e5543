"""A home that the first version wrote is opened, continued, compacted, verified and backed up by the version of today.

Everything the first version wrote stands here as it was then: schemas, table properties, the segment's bytes, the
first revision of the operations database. None of it follows the code when that changes.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xxhash
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from polars.testing import assert_frame_equal

from aiops_assets.backup.capture import back_up
from aiops_assets.backup.restore import restore
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.live.rebuild import rebuild_hours
from aiops_assets.live.upkeep import compact_closed, verify_all
from aiops_assets.operations.database import HEAD, connect, reading, schema_revision
from aiops_assets.settings import Settings
from aiops_assets.tables import INCIDENTS, TABLES
from tests.home import document, drain, points, send

UTC_TIME = pl.Datetime("us", "UTC")
TEXT, WHOLE, SHORT, FLOAT, TEXTS = pl.String(), pl.Int64(), pl.Int32(), pl.Float64(), pl.List(pl.String())
POSITION = {"received_at": UTC_TIME, "writer": TEXT, "seq": WHOLE}
#: the tables of the first version: columns in order, the partition column last
FIRST: dict[str, tuple[str | None, dict[str, Any]]] = {
    "metric_points": (
        "hour",
        {"ts": UTC_TIME, "series_id": WHOLE, "value": FLOAT, "host": TEXT, "metric": TEXT, "unit": TEXT, "source": TEXT}
        | POSITION,
    ),
    "series": (
        None,
        {"series_id": WHOLE, "host": TEXT, "metric": TEXT, "unit": TEXT, "labels": TEXT, "kind": TEXT, "source": TEXT}
        | {"first_seen": UTC_TIME},
    ),
    "baselines": (
        "hour",
        {"series_id": WHOLE, "hour_start": UTC_TIME, "baseline_version": SHORT, "count": WHOLE, "mean": FLOAT}
        | {"m2": FLOAT, "min": FLOAT, "max": FLOAT, "quantiles": pl.List(pl.Float64())},
    ),
    "anomalies": (
        "hour",
        {"ts": UTC_TIME, "series_id": WHOLE, "host": TEXT, "metric": TEXT, "value": FLOAT, "expected": FLOAT}
        | {"lower": FLOAT, "upper": FLOAT, "score": FLOAT, "detector": TEXT, "detector_version": TEXT}
        | {"evidence": TEXT, "opens_event": pl.Boolean()}
        | POSITION,
    ),
    "alerts": (
        "hour",
        {"alert_id": TEXT, "revision": SHORT, "fingerprint": TEXT, "kind": TEXT, "name": TEXT, "state": TEXT}
        | {"severity_number": SHORT, "host": TEXT, "metric": TEXT, "series_id": WHOLE, "labels": TEXT}
        | {"starts_at": UTC_TIME, "ends_at": UTC_TIME, "changed_at": UTC_TIME, "title": TEXT, "value": FLOAT}
        | {"threshold": FLOAT, "evidence": TEXT, "suppressed_by": TEXT, "amended_by": TEXT}
        | POSITION,
    ),
    "incidents": (
        "day",
        {"snapshot_at": UTC_TIME, "incident_id": TEXT, "title": TEXT, "state": TEXT, "priority": SHORT}
        | {"impact": SHORT, "urgency": SHORT, "assignee": TEXT, "hosts": TEXTS, "alert_ids": TEXTS}
        | {"started_at": UTC_TIME, "opened_at": UTC_TIME, "acknowledged_at": UTC_TIME, "resolved_at": UTC_TIME},
    ),
}
FIRST_PROPERTIES = {
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
    "delta.checkpointInterval": "100",
    "delta.enableExpiredLogCleanup": "true",
}
HOUR = datetime.fromtimestamp(time.time() // 3600 * 3600, UTC) - timedelta(hours=4)
MICROS = int(HOUR.timestamp()) * 1_000_000


def write(root: Path, name: str, rows: list[dict[str, Any]], segments: int = 0) -> None:
    """Append rows as the first version did."""
    partition, schema = FIRST[name]
    schema = schema | ({partition: TEXT} if partition else {})
    frame = pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema)
    write_deltalake(
        str(root / name),
        frame,
        mode="append",
        partition_by=partition,
        configuration=FIRST_PROPERTIES,
        writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
        commit_properties=CommitProperties(
            app_transactions=[Transaction("landing/gateway", segments)] if segments else None
        ),
    )


def segment(folder: Path, seq: int, rows: list[dict[str, Any]], at: int) -> None:
    """A sealed segment of the first version, byte by byte."""
    header = json.dumps(
        {"id": f"d{seq}", "at": at, "src": "test", "ct": "application/json", "h": {"format": "collected"}}
    ).encode()
    body = json.dumps(rows).encode()
    checksum = xxhash.xxh3_64_intdigest(header + body)
    record = struct.pack("<IIQ", len(header), len(body), checksum) + header + body
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seq:012d}.seg").write_bytes(b"AIOPSEG1" + record)


def series_id(host: str) -> int:
    number = xxhash.xxh3_64_intdigest(f"{host}\0app.load\0{{}}".encode())
    return number - (1 << 64) if number >= 1 << 63 else number


@pytest.fixture
def first_home(tmp_path: Path) -> Settings:
    """Two closed hours and an open one, in segments and in tables, an alert, an incident; the last segment waits."""
    root = tmp_path / "home"
    hosts = ["web-1", "web-2"]
    at = MICROS
    seq = 0
    for minute in range(0, 150, 5):
        seq += 1
        ts = MICROS + minute * 60_000_000
        at = ts + 1_000_000
        segment(root / "landing" / "gateway", seq, [document(host, ts, 0.25) for host in hosts], at)
        instant = HOUR + timedelta(minutes=minute)
        if minute < 145:
            rows = [
                {"ts": instant, "series_id": series_id(host), "value": 0.25, "host": host, "metric": "app.load"}
                | {"unit": "1", "source": "test", "received_at": instant + timedelta(seconds=1), "writer": "gateway"}
                | {"seq": seq, "hour": f"{instant:%Y-%m-%dT%H}"}
                for host in hosts
            ]
            write(root / "lake", "metric_points", rows, seq)
    write(
        root / "lake",
        "series",
        [
            {"series_id": series_id(host), "host": host, "metric": "app.load", "unit": "1", "labels": "{}"}
            | {"kind": "gauge", "source": "test", "first_seen": HOUR}
            for host in hosts
        ],
    )
    for number in range(2):
        start = HOUR + timedelta(hours=number)
        write(
            root / "lake",
            "baselines",
            [
                {"series_id": series_id(host), "hour_start": start, "baseline_version": 1, "count": 12, "mean": 0.25}
                | {"m2": 0.0, "min": 0.25, "max": 0.25, "quantiles": [0.25] * 7, "hour": f"{start:%Y-%m-%dT%H}"}
                for host in hosts
            ],
        )
    alert = {"alert_id": "a1", "revision": 0, "fingerprint": "rule/old/1", "kind": "rule", "name": "old"} | {
        "state": "resolved", "severity_number": 17, "host": "web-1", "metric": "app.load", "labels": "{}",
        "series_id": series_id("web-1"), "starts_at": HOUR, "ends_at": HOUR + timedelta(minutes=5),
        "changed_at": HOUR + timedelta(minutes=5), "title": "an alert of the first version", "evidence": "{}",
        "received_at": HOUR, "writer": "gateway", "seq": 1, "hour": f"{HOUR:%Y-%m-%dT%H}",
    }  # fmt: skip
    write(root / "lake", "alerts", [alert])
    snapshot = {"snapshot_at": HOUR, "incident_id": "INC-1", "title": "old", "state": "resolved", "priority": 3} | {
        "impact": 2, "urgency": 2, "hosts": ["web-1"], "alert_ids": ["a1"], "started_at": HOUR, "opened_at": HOUR,
        "resolved_at": HOUR + timedelta(minutes=10), "day": f"{HOUR:%Y-%m-%d}",
    }  # fmt: skip
    write(root / "lake", "incidents", [snapshot])
    first_operations(root / "operations.db")
    state = root / "live" / "state"
    state.mkdir(parents=True)
    old = json.dumps({"version": 1, "positions": {"gateway": seq - 1}}).encode()
    np.savez(state / "000000000001.npz", allow_pickle=False, __document__=np.frombuffer(old, np.uint8))
    (root / "live" / "progress.json").write_text(
        json.dumps({"version": 1, "session": "old", "taken": {"gateway": seq - 1}, "watermark": at, "hours_closed": 2})
    )
    settings = Settings(home=root)
    settings.paths.create()
    return settings


def first_operations(path: Path) -> None:
    """The operations database of the first version, with one incident."""
    from importlib import resources

    from alembic import command
    from alembic.config import Config

    url = f"sqlite:///{path}"
    config = Config()
    config.set_main_option("script_location", str(resources.files("aiops_assets.operations").joinpath("migrations")))
    engine = connect(url)
    with engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    names = (
        "incident_id", "title", "state", "priority", "impact", "urgency", "started_at", "last_symptom_at", "opened_at",
        "resolved_at", "touched", "held_open", "assessment", "updated_at", "change_number",
    )  # fmt: skip
    row = ("INC-1", "old", "resolved", 3, 2, 2, MICROS, MICROS, MICROS, MICROS + 1, 0, 0, "{}", MICROS, 1)
    with sqlite3.connect(path) as database:
        database.execute(f"INSERT INTO incidents ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", row)  # noqa: S608
    database.close()


def test_the_first_version_is_taken_over_and_continued(first_home: Settings) -> None:
    before = points(first_home)
    drain(first_home)
    after = points(first_home)
    assert_frame_equal(after.filter(pl.col("seq") < 30), before)
    assert after.height == before.height + 2, "the segment that waited is taken, once"
    for number in range(3):
        ts = MICROS + (150 + 40 * number) * 60_000_000
        send(first_home, [document("web-1", ts, 0.3), document("web-2", ts, 0.3)])
        drain(first_home)
    assert points(first_home).height == before.height + 8
    receipts = Lake(first_home.paths.lake).read("hour_receipts")
    assert not receipts.is_empty(), "hours close with receipts from now on"
    assert Lake(first_home.paths.lake).read("alerts").filter(alert_id="a1").height == 1


def test_its_hours_are_verified_compacted_and_can_be_rebuilt(first_home: Settings) -> None:
    before = points(first_home)
    now = HOUR + timedelta(hours=4, minutes=30)
    assert verify_all(first_home, full=False, now=now).clean
    done = {table.table: table for table in compact_closed(first_home, dry_run=False, now=now)}
    assert done["metric_points"].partitions == 2
    assert_frame_equal(points(first_home), before)
    assert {hour.outcome for hour in rebuild_hours(first_home, None).hours} == {"same"}
    path = next(Path(first_home.paths.lake, "metric_points").rglob("*.zstd.parquet"))
    used = {Path(uri) for uri in DeltaTable(str(Path(first_home.paths.lake) / "metric_points")).file_uris()}
    path = sorted(used)[0]
    path.write_bytes(b"")
    assert not verify_all(first_home, full=False, now=now).clean
    rebuild_hours(first_home, None)
    assert_frame_equal(points(first_home), before)
    assert verify_all(first_home, full=True, now=now).clean


def test_its_tables_get_the_properties_and_columns_of_today(first_home: Settings) -> None:
    lake = Lake(first_home.paths.lake)
    drain(first_home)
    handle = lake.open("metric_points")
    assert handle is not None
    assert handle.metadata().configuration["delta.logRetentionDuration"] == "interval 10 minutes"
    old = lake.read("incidents")
    assert old.schema == INCIDENTS.schema
    assert old["reopened"].to_list() == [None]
    day = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    fresh = old.with_columns(pl.lit(1).cast(pl.Int32).alias("reopened"), pl.lit(day).alias("day"))
    TableWriter(lake, INCIDENTS).replace(fresh, day)
    assert sorted(lake.read("incidents")["reopened"].to_list(), key=str) == [1, None]
    for name in TABLES:
        lake.read(name)


def test_its_operations_database_is_migrated_and_keeps_what_people_did(first_home: Settings) -> None:
    drain(first_home)
    engine = connect(first_home.paths.operations_url)
    with reading(engine) as connection:
        assert schema_revision(connection) == HEAD
    engine.dispose()
    store = IncidentStore(first_home.paths.operations_url)
    try:
        assert [incident.incident_id for incident in store.list()] == ["INC-1"]
    finally:
        store.close()


def test_it_can_be_backed_up_before_the_upgrade_and_restored_after_it(first_home: Settings, tmp_path: Path) -> None:
    taken = back_up(first_home, tmp_path / "backups")
    assert taken.manifest.operations["revision"] == "0001"
    copy = Settings(home=tmp_path / "copy")
    assert restore(tmp_path / "backups", copy, verify=True).clean
    drain(first_home)
    drain(copy)
    assert_frame_equal(points(copy), points(first_home))
