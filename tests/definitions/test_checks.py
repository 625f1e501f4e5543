"""Asset checks as the Dagster UI runs them, on a small lake with faults planted in it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from aiops_assets.definitions.live import build_definitions
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.landing.quarantine import Quarantine, QuarantineEntry
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.progress import Progress, SourceProgress, write_progress
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS

NOW = datetime.now(UTC)
HOUR = NOW.strftime("%Y-%m-%dT%H")


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    return settings


def points(count: int = 10, *, hour: str = HOUR, writer_seq: int = 1) -> pl.DataFrame:
    start = NOW.replace(minute=0, second=0, microsecond=0)
    return pl.DataFrame(
        {
            "ts": [start + timedelta(seconds=number) for number in range(count)],
            "series_id": list(range(count)),
            "value": 1.0,
            "host": "web-1",
            "metric": "system.cpu.utilization",
            "unit": "1",
            "source": "telegraf",
            "received_at": NOW,
            "writer": "gateway",
            "seq": writer_seq,
            "hour": hour,
        }
    ).cast(METRIC_POINTS.schema)


def store(platform: Settings, *frames: pl.DataFrame, taken: int = 1) -> None:
    writer = TableWriter(Lake(platform.paths.lake), METRIC_POINTS)
    for number, frame in enumerate(frames):
        writer.append(frame, {"gateway": taken} if number == 0 else {})


def run(platform: Settings, *checks: tuple[str, str]) -> dict[str, dg.AssetCheckEvaluation]:
    definitions = build_definitions(platform)
    keys = [dg.AssetCheckKey(dg.AssetKey(asset.split("/")), name) for asset, name in checks]
    selection = dg.AssetSelection.checks(*keys)
    resolved = dg.Definitions.merge(
        definitions, dg.Definitions(jobs=[dg.define_asset_job("only_these_checks", selection=selection)])
    )
    job = resolved.resolve_job_def("only_these_checks")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def failed(found: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    return {name for name, evaluation in found.items() if not evaluation.passed}


POINT_CHECKS: Sequence[tuple[str, str]] = [
    ("metric_points", name)
    for name in (
        "schema_as_declared",
        "key_is_unique",
        "required_values_present",
        "rows_in_their_partition",
        "positions_recorded",
    )
]


def test_a_sound_table_passes_and_so_does_one_that_does_not_exist_yet(platform: Settings) -> None:
    assert failed(run(platform, *POINT_CHECKS)) == set()
    store(platform, points())
    assert failed(run(platform, *POINT_CHECKS)) == set()


def test_a_row_that_is_stored_twice_is_found(platform: Settings) -> None:
    store(platform, points(), points(3))
    found = run(platform, *POINT_CHECKS)
    assert failed(found) == {"key_is_unique"}
    assert found["key_is_unique"].metadata["duplicates"].value == 3


def test_missing_values_are_found_null_or_not_a_number(platform: Settings) -> None:
    frame = points().with_columns(
        value=pl.when(pl.col("series_id") == 1)
        .then(float("nan"))
        .when(pl.col("series_id") == 2)
        .then(None)
        .otherwise("value")
    )
    store(platform, frame)
    found = run(platform, *POINT_CHECKS)
    assert failed(found) == {"required_values_present"}
    assert found["required_values_present"].metadata["value"].value == 2


def test_a_row_in_the_wrong_hour_is_found(platform: Settings) -> None:
    earlier = (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H")
    store(platform, points(hour=earlier))
    assert failed(run(platform, *POINT_CHECKS)) == {"rows_in_their_partition"}


def test_rows_beyond_the_recorded_position_are_found(platform: Settings) -> None:
    store(platform, points(writer_seq=5), taken=4)
    assert failed(run(platform, *POINT_CHECKS)) == {"positions_recorded"}


def test_a_missing_segment_is_found(platform: Settings) -> None:
    with SegmentWriter(platform.paths.landing, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        for number in range(4):
            writer.append_deliveries([Delivery(f"d{number}", 1, "generic", "application/json", b"{}")])
    (platform.paths.landing / "gateway" / "000000000002.seg").unlink()
    found = run(platform, ("quarantine", "segments_contiguous"))
    assert failed(found) == {"segments_contiguous"}
    assert found["segments_contiguous"].metadata["gateway"].value == "2"


def test_new_quarantine_entries_warn_and_old_ones_do_not(platform: Settings) -> None:
    def entry(age_seconds: float) -> QuarantineEntry:
        received = int((time.time() - age_seconds) * 1e6)
        return QuarantineEntry(
            "telegraf", "NaN", b"x", f"d{age_seconds}", received, "text/plain", "telegraf", "gateway", 1, 0
        )

    quarantine = Quarantine(platform.paths.quarantine)
    quarantine.record([entry(7200)])
    assert failed(run(platform, ("quarantine", "not_growing"))) == set()
    quarantine.record([entry(7200), entry(10)])
    found = run(platform, ("quarantine", "not_growing"))
    assert failed(found) == {"not_growing"}
    assert found["not_growing"].severity == dg.AssetCheckSeverity.WARN


def test_a_late_source_warns_and_one_that_never_came_does_not(platform: Settings) -> None:
    late = int((time.time() - 86_400) * 1e6)
    write_progress(platform.paths.live, Progress(sources={"telegraf": SourceProgress(last_received_at=late)}))
    assert failed(run(platform, ("drops/telegraf", "arrives_in_time"))) == {"arrives_in_time"}
    assert failed(run(platform, ("drops/generic", "arrives_in_time"))) == set()


def test_refused_series_warn_with_the_source(platform: Settings) -> None:
    write_progress(platform.paths.live, Progress(sources={"telegraf": SourceProgress(refused_series=12)}))
    found = run(platform, ("series", "series_within_cap"))
    assert failed(found) == {"series_within_cap"}
    assert found["series_within_cap"].metadata["telegraf"].value == 12


def test_slow_failing_and_skipped_devices_are_named(platform: Settings) -> None:
    devices = {
        "good": {"ok": True, "slow": False, "skipped": 0, "source": "snmp"},
        "slow": {"ok": True, "slow": True, "skipped": 0, "source": "snmp"},
        "dead": {"ok": False, "error": "no reply", "slow": False, "skipped": 3, "source": "snmp"},
    }
    (platform.paths.collector / "status.json").write_text(json.dumps({"updated_at": 1, "devices": devices}))
    found = run(platform, ("drops/snmp", "no_laggards"))
    assert failed(found) == {"no_laggards"}
    assert set(found["no_laggards"].metadata) >= {"slow", "dead"}
    assert "good" not in found["no_laggards"].metadata


def test_the_quarantine_asset_counts_by_reason(platform: Settings) -> None:
    Quarantine(platform.paths.quarantine).record(
        [QuarantineEntry("telegraf", "a|b <script>", b"x", "d", 1, "text/plain", "telegraf", "gateway", 1, 0)]
    )
    definitions = build_definitions(platform)
    result = dg.materialize(
        [definitions.resolve_assets_def("quarantine")],
        instance=dg.DagsterInstance.ephemeral(),
    )
    (event,) = result.asset_materializations_for_node("quarantine")
    assert event.metadata["dagster/row_count"].value == 1
    assert "<script>" not in str(event.metadata["reasons"].value)


def test_checks_that_look_for_silence_run_without_a_session(platform: Settings) -> None:
    graph = build_definitions(platform).resolve_asset_graph()
    by_themselves = {key.name for key in graph.asset_check_keys if graph.get(key).automation_condition is not None}
    assert by_themselves == {
        "arrives_in_time",
        "no_laggards",
        "series_within_cap",
        "not_growing",
        "segments_contiguous",
        "every_closed_hour_has_a_receipt",
        "no_hours_amended_lately",
    }
