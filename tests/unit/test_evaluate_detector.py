"""The evaluation door: one output row a data row, in order, whatever is in the file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from aiops_assets.detection.evaluate import evaluate_detector


def write(folder: Path, name: str, rows: list[tuple[str, object]]) -> Path:
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("timestamp,value\n" + "".join(f"{ts},{value}\n" for ts, value in rows))
    return path


def series(count: int = 2500) -> list[tuple[str, object]]:
    rng = np.random.default_rng(0)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return [
        (f"{start + timedelta(minutes=5 * k):%Y-%m-%d %H:%M:%S}", v)
        for k, v in enumerate(rng.normal(10, 1, count).tolist())
    ]


def test_each_row_gets_a_score_and_only_raising_rows_an_alert(tmp_path: Path) -> None:
    rows = series()
    rows[2000:2003] = [(ts, 99.0) for ts, _ in rows[2000:2003]]
    write(tmp_path, "cloud/a.csv", rows)
    write(tmp_path, "other/b.csv", series())
    told: list[tuple[int, int]] = []
    summary = evaluate_detector(tmp_path, tmp_path / "out", lambda done, total: told.append((done, total)))
    result = pl.read_csv(tmp_path / "out" / "cloud" / "a.csv", infer_schema=False)
    assert result.columns == ["timestamp", "anomaly_score", "alert"]
    assert result["timestamp"].to_list() == [ts for ts, _ in rows]
    assert set(result["alert"]) <= {"0", "1"}
    assert result["alert"].to_list()[2000:2010] == ["1"] + ["0"] * 9
    assert result["anomaly_score"].cast(pl.Float64).is_between(0, 1).all()
    assert (summary["files"], summary["rows"]) == (2, 5000)
    assert summary["alerts"] >= 1
    assert orjson.loads((tmp_path / "out" / "summary.json").read_bytes()) == summary
    assert told[-1] == (5000, 5000)


def test_a_file_is_judged_alike_alone_and_among_others(tmp_path: Path) -> None:
    rows = series()
    rows[2000] = (rows[2000][0], 99.0)
    write(tmp_path / "one", "c/a.csv", rows)
    write(tmp_path / "two", "c/a.csv", rows)
    write(tmp_path / "two", "c/b.csv", series(1000))
    evaluate_detector(tmp_path / "one", tmp_path / "out1")
    evaluate_detector(tmp_path / "two", tmp_path / "out2")
    assert (tmp_path / "out1/c/a.csv").read_bytes() == (tmp_path / "out2/c/a.csv").read_bytes()


def test_the_future_changes_no_verdict_of_the_past(tmp_path: Path) -> None:
    rows = series()
    write(tmp_path / "short", "c/a.csv", rows[:2000])
    rows[2100] = (rows[2100][0], 1e9)
    write(tmp_path / "long", "c/a.csv", rows)
    evaluate_detector(tmp_path / "short", tmp_path / "out1")
    evaluate_detector(tmp_path / "long", tmp_path / "out2")
    short = (tmp_path / "out1/c/a.csv").read_text().splitlines()
    assert (tmp_path / "out2/c/a.csv").read_text().splitlines()[: len(short)] == short


def test_unreadable_repeated_and_unsorted_rows_keep_their_place(tmp_path: Path) -> None:
    rows = series(600)
    rows[10] = ("not a time", 1.0)
    rows[20] = (rows[20][0], "NaN")
    rows[30] = (rows[30][0], "")
    rows[40] = (rows[39][0], 5.0)
    rows[50], rows[60] = rows[60], rows[50]
    rows[70] = (rows[70][0], "inf")
    write(tmp_path, "c/a.csv", rows)
    evaluate_detector(tmp_path, tmp_path / "out")
    result = pl.read_csv(tmp_path / "out/c/a.csv")
    assert result["timestamp"].to_list() == [ts for ts, _ in rows]
    assert result["anomaly_score"].is_not_nan().all()


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M"])
def test_common_time_formats_are_read_alike(tmp_path: Path, form: str) -> None:
    rows = series()
    rows[2000] = (rows[2000][0], 99.0)
    write(tmp_path, "c/a.csv", [(f"{datetime.fromisoformat(ts):{form}}", value) for ts, value in rows])
    evaluate_detector(tmp_path, tmp_path / "out")
    assert pl.read_csv(tmp_path / "out/c/a.csv")["alert"][2000] == 1


def test_missing_files_and_columns_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no CSV"):
        evaluate_detector(tmp_path, tmp_path / "out")
    path = tmp_path / "data" / "c" / "a.csv"
    path.parent.mkdir(parents=True)
    path.write_text("time,value\n1,2\n")
    with pytest.raises(ValueError, match="missing column timestamp"):
        evaluate_detector(tmp_path, tmp_path / "out")
