"""Files of golden incidents: rows a second written and read by format, on one core, beside the usual libraries."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl
import polars.selectors as cs

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiops_assets.synthetic.golden.config import default_config
from aiops_assets.synthetic.golden.exports import write
from aiops_assets.synthetic.golden.generate import stream
from aiops_assets.synthetic.golden.imports import read
from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.work_notes import as_json

NAMES = ("a.parquet", "a.csv", "a.csv.gz", "a.jsonl", "a.json", "a.xlsx")


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; ``quick`` uses small sizes."""
    count = 2_000 if quick else 40_000
    frames = list(stream(default_config(), count=count, seed=1))
    few = pl.concat(frames).head(min(count, 4_000))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bare = references(few, Path(folder))
        for name in NAMES:
            path = Path(folder) / name
            seconds = timed(lambda path=path: write(frames, path))  # type: ignore[misc]
            what, rate = bare.get(name, ("", 0.0))
            rows.append(row(f"writing {name[2:]}", count / seconds, "rows/s", what, rate))
            rows.append(row(f"size of {name[2:]}", path.stat().st_size / count, "By/row", "", 0.0))
            seconds = timed(lambda path=path: read(path))  # type: ignore[misc]
            what, rate = bare.get(f"{name} read", ("", 0.0))
            rows.append(row(f"reading {name[2:]}", count / seconds, "rows/s", what, rate))
        rows.append(memory(Path(folder), 5_000 if quick else 10_000))
    return rows


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def references(frame: pl.DataFrame, folder: Path) -> dict[str, tuple[str, float]]:
    """What others make of the same rows: name, rows a second."""
    import pandas as pd

    flat = frame.with_columns(as_json(pl.col("work_notes")).alias("work_notes"))
    table = pd.DataFrame(flat.to_dict(as_series=False))
    count = frame.height
    lines: dict[str, Any] = {"orient": "records", "lines": True, "date_format": "iso"}
    rates = {
        "a.csv": ("pandas to_csv", lambda: table.to_csv(folder / "r.csv", index=False)),
        "a.jsonl": ("pandas to_json", lambda: table.to_json(folder / "r.jsonl", **lines)),
        "a.parquet": ("pandas to_parquet", lambda: table.to_parquet(folder / "r.parquet", compression="zstd")),
        "a.xlsx": ("openpyxl, write_only", lambda: written_by_openpyxl(flat, folder / "r.xlsx")),
        "a.xlsx read": ("openpyxl, read_only", lambda: read_by_openpyxl(folder / "r.xlsx")),
        "a.csv read": ("pandas read_csv", lambda: pd.read_csv(folder / "r.csv")),
    }  # fmt: skip
    return {name: (what, count / timed(work)) for name, (what, work) in rates.items()}


def written_by_openpyxl(flat: pl.DataFrame, path: Path) -> None:
    """The same cells by the other library that streams workbooks; of the quoting of formulas it has none."""
    import openpyxl

    zoneless = flat.with_columns(cs.datetime().dt.replace_time_zone(None))
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("incidents")
    sheet.append(list(SCHEMA))
    for cells in zoneless.iter_rows():
        sheet.append(cells)
    book.save(path)


def read_by_openpyxl(path: Path) -> int:
    """The number of rows that the usual reader of workbooks finds."""
    import openpyxl

    return sum(1 for _ in openpyxl.load_workbook(path, read_only=True)["incidents"].values)


def memory(folder: Path, piece: int) -> dict[str, Any]:
    """What ten times the rows add to the peak of resident memory."""
    import resource

    (frame,) = stream(default_config(), count=piece, seed=2, chunk=piece)
    pieces = [frame.slice(start, 5_000) for start in range(0, piece, 5_000)]

    def peak(times: int) -> float:
        for name in ("m.xlsx", "m.json", "m.csv", "m.parquet"):
            write((part for _ in range(times) for part in pieces), folder / name)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    first = peak(1)
    return row(f"memory: {10 * piece:,} rows after {piece:,}, every format", peak(10) - first, "MiB", "", 0.0)


def row(name: str, value: float, unit: str, reference: str, reference_value: float) -> dict[str, Any]:
    """One line of the result."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_value": reference_value or None,
        "ratio": value / reference_value if reference_value else None,
        "bar": None,
        "ok": None,
    }


if __name__ == "__main__":
    for entry in run("--quick" in sys.argv):
        print(entry)
