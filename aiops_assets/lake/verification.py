"""Is the lake what its log and its receipts say? Every file, row and hash, looked at once and again when asked.

What belongs here: findings, what they mean and what to do next, and the memory of what was found whole, so that a
nightly look reads only what is new. What does not: bringing anything back (``live.rebuild``) and the landing zone.

Looked at: commits and checkpoints of every log, files that the log names (there, of the size it says, with a footer,
unchanged since they were first seen), rows against the statistics, keys, partitions, and the hashes that the receipts
of closed hours hold. One partition is in memory at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl
import xxhash
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from aiops_assets.hours import HOUR_FORMAT
from aiops_assets.lake.actions import actions_of
from aiops_assets.lake.digest import digest
from aiops_assets.lake.files import FileInfo, TableFiles
from aiops_assets.lake.log import inspect
from aiops_assets.lake.retention import first_kept
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import TABLES, Table

#: the question that a finding answers with no, in the words of the asset checks
Check = Literal[
    "logs_whole",
    "files_whole",
    "statistics_true",
    "keys_unique",
    "rows_in_their_partition",
    "closed_hours_unchanged",
]
CHECKS: Mapping[Check, str] = {
    "logs_whole": "No commit of a Delta log is missing, empty or torn, and the log is not behind the checkpoints.",
    "files_whole": "Every file that a log names is there, of the size it says, readable and unchanged.",
    "statistics_true": "Rows, smallest and largest values of every file are those that the log promises to readers.",
    "keys_unique": "No two rows of a table have the same key.",
    "rows_in_their_partition": "Every row lies in the partition of its own timestamp.",
    "closed_hours_unchanged": "Inputs and results of closed hours have the hashes that their newest receipts hold.",
}
#: a mismatch in a partition that was written this recently is looked at again next time: its receipt may be on its way
SETTLE_SECONDS = 300.0
_MEMORY_VERSION = 1
_DAY_FORMAT = "%Y-%m-%d"
#: hash of a receipt → (table it is of, key that orders the rows, column that names the revision or version)
_RESULTS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, str] | None]] = {
    "anomalies_hash": ("anomalies", ("series_id", "ts"), None),
    "decisions_hash": ("alert_decisions", ("alert_id", "revision"), ("receipt_revision", "revision")),
    "baseline_hash": ("baselines", ("series_id",), ("baseline_version", "baseline_version")),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, what, and what to do next."""

    table: str
    check: Check
    what: str
    next_step: str
    partition: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class TableVerified:
    """What was looked at of one table. ``read`` files were read now, the others were found whole before."""

    table: str
    version: int
    files: int
    read: int
    rows: int
    size: int
    findings: int


@dataclass(slots=True)
class Verification:
    """The outcome. ``expired`` counts receipts whose inputs have passed their retention."""

    full: bool
    findings: list[Finding] = field(default_factory=list)
    tables: list[TableVerified] = field(default_factory=list)
    hours_compared: int = 0
    expired: int = 0
    deferred: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.findings

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {"clean": self.clean, **asdict(self)}


@dataclass(slots=True)
class _Memory:
    """What was found whole: files with size and checksum, and the state in which a partition was compared."""

    log: int = -1
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    compared: dict[str, str] = field(default_factory=dict)


def verify(
    lake: Lake,
    memory: Path | None = None,
    *,
    full: bool = False,
    tables: Sequence[str] | None = None,
    keep_days: Mapping[str, float | None] | None = None,
    now: datetime | None = None,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Verification:
    """Verify tables (all of them unless named).

    Args:
        lake: the lake; it may be written to meanwhile, each table is read at one version.
        memory: folder that remembers what was found whole; without one, everything is read and nothing remembered.
        full: read everything, whatever is remembered, and compare files with their remembered checksums.
        keep_days: the retention of tables, by which lost inputs are told from expired ones.
        now: aware; needed with ``keep_days``.
        tell: hears (table, partitions done, partitions to do).
    """
    started = time.monotonic()
    outcome = Verification(full)
    for name in tables or TABLES:
        known = _recall(memory, name)
        _verify_table(lake, TABLES[name], known, outcome, full=full, tell=tell)
        if memory is not None:
            _remember(memory, name, known)
    if tables is None or "hour_receipts" in tables:
        known = _recall(memory, "receipts")
        _compare_receipts(lake, known, outcome, full=full, keep_days=keep_days or {}, now=now, tell=tell)
        if memory is not None:
            _remember(memory, "receipts", known)
    outcome.seconds = time.monotonic() - started
    return outcome


def known_clean(memory: Path) -> dict[str, int]:
    """Landing writer → last segment of which the rows were read back without a finding; empty before there was one."""
    try:
        return {str(k): int(v) for k, v in orjson.loads((memory / "positions.json").read_bytes()).items()}
    except (FileNotFoundError, orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        return {}


def remember_clean(memory: Path, positions: Mapping[str, int]) -> None:
    """Store what ``known_clean`` gives."""
    _write(memory / "positions.json", orjson.dumps(dict(positions)))


def _verify_table(
    lake: Lake,
    table: Table,
    known: _Memory,
    outcome: Verification,
    *,
    full: bool,
    tell: Callable[[str, int, int], None],
) -> None:
    files = TableFiles(lake, table.name)
    found: list[Finding] = []
    log = inspect(files, -1 if full else known.log)
    if log.version < 0 and not log.problems:
        return
    for problem in log.problems:
        found.append(
            Finding(
                table.name, "logs_whole", f"commit {problem.version}: {problem.what}", _next_for_log(table), None,
                f"_delta_log/{problem.file}",
            )
        )  # fmt: skip
    try:
        handle = lake.open(table.name)
    except (DeltaError, OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        if not found:
            found.append(
                Finding(table.name, "logs_whole", f"cannot be opened: {first_line}", _next_for_log(table))
            )  # fmt: skip
        handle = None
    if handle is None:
        outcome.findings += found
        outcome.tables.append(TableVerified(table.name, log.version, 0, 0, 0, 0, len(found)))
        return
    actions = actions_of(handle, table)
    present = files.data()
    remembered = known.files
    known.files = {}
    read = rows = size = 0
    groups = actions.sort("partition", "path").partition_by("partition", as_dict=True, maintain_order=True)
    for number, ((partition,), group) in enumerate(groups.items()):
        tell(table.name, number, len(groups))
        key = None if partition is None else str(partition)
        wrong, fresh = _look_at_files(files, present, table, key, group, remembered, known.files, full)
        read += len(fresh)
        if fresh and not wrong:
            wrong = list(_look_at_rows(lake, handle, table, key, group))
            if wrong:
                for path in fresh:
                    known.files.pop(path, None)
        found += wrong
        rows += int(group["num_records"].sum() or 0)
        size += int(group["size_bytes"].sum())
    tell(table.name, len(groups), len(groups))
    known.log = known.log if log.problems else log.version
    outcome.findings += found
    outcome.tables.append(
        TableVerified(table.name, handle.version(), actions.height, read, rows, size, len(found))
    )  # fmt: skip


def _look_at_files(
    files: TableFiles,
    present: Mapping[str, FileInfo],
    table: Table,
    partition: str | None,
    group: pl.DataFrame,
    remembered: Mapping[str, tuple[int, str]],
    whole: dict[str, tuple[int, str]],
    full: bool,
) -> tuple[list[Finding], list[str]]:
    """Findings about the files of one partition, and those among them that were read now."""
    found: list[Finding] = []
    fresh = []
    for path, size, records in group.select("path", "size_bytes", "num_records").iter_rows():
        info = present.get(path)
        before = remembered.get(path)
        what = None
        if info is None:
            what = "lost: the log names it and it is not there"
        elif info.size != size:
            what = f"torn: {info.size:,} bytes, the log says {size:,}"
        elif before is not None and not full:
            whole[path] = before
            continue
        else:
            fresh.append(path)
            checksum, what = _read(files, path, records)
            if what is None and before is not None and before[1] != checksum:
                what = "altered: its bytes differ from those that were found whole before"
            if what is None:
                whole[path] = (size, checksum)
        if what is not None:
            found.append(Finding(table.name, "files_whole", what, _next_for_rows(table, partition), partition, path))
    return found, fresh


def _read(files: TableFiles, path: str, records: int | None) -> tuple[str, str | None]:
    """(checksum of the bytes, what is wrong with the file or ``None``)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    state = xxhash.xxh3_128()
    try:
        for chunk in files.chunks(path):
            state.update(chunk)
        with files.open(path) as file:
            footer = pq.read_metadata(file)
    except FileNotFoundError:
        return "", "lost: the log names it and it is not there"
    except (pa.ArrowException, OSError) as error:
        return "", f"torn: {str(error).partition(chr(10))[0]}"
    if records is not None and footer.num_rows != records:
        return "", f"its footer says {footer.num_rows:,} rows, the log {records:,}"
    return state.hexdigest(), None


def _look_at_rows(
    lake: Lake, handle: DeltaTable, table: Table, partition: str | None, group: pl.DataFrame
) -> Iterator[Finding]:
    """Findings about the rows of one partition, of which all files are whole."""
    stated = [column.name for column in table.columns if f"min.{column.name}" in group.columns]
    ranged = [name for name in stated if table.schema[name].is_numeric() or table.schema[name].is_temporal()]
    wanted = {*table.key, *ranged, *([table.time_column] if table.time_column in table.schema else [])}
    columns = [name for name in table.schema if name in wanted]
    try:
        frame = lake.scan_at(handle, table.name, None if partition is None else [partition]).select(columns).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        yield Finding(
            table.name, "files_whole", f"cannot be read: {first_line}", _next_for_rows(table, partition), partition
        )
        return
    promised = int(group["num_records"].sum() or 0)
    if frame.height != promised:
        yield Finding(
            table.name, "statistics_true", f"{frame.height:,} rows, the log promises {promised:,}",
            _next_for_rows(table, partition), partition,
        )  # fmt: skip
    for name in ranged:
        if (outside := _outside(frame[name], group, name)) is not None:
            yield Finding(
                table.name, "statistics_true", f"{name}: {outside}", _next_for_rows(table, partition), partition
            )
    key = list(table.key)
    repeated = frame.height - frame.select(key).n_unique() if frame.height else 0
    if repeated:
        sample = frame.filter(frame.select(key).is_duplicated()).select(key).row(0)
        shown = ", ".join(f"{name}={value}" for name, value in zip(key, sample, strict=True))
        yield Finding(
            table.name, "keys_unique", f"{repeated:,} rows repeat a key, for example {shown}",
            _next_for_rows(table, partition), partition,
        )  # fmt: skip
    if partition is not None and table.placed_by_time and table.time_column in frame.columns:
        form = HOUR_FORMAT if table.partition == "hour" else _DAY_FORMAT
        elsewhere = int((frame[table.time_column].dt.strftime(form) != partition).sum())
        if elsewhere:
            yield Finding(
                table.name, "rows_in_their_partition", f"{elsewhere:,} rows belong to another {table.partition}",
                _next_for_rows(table, partition), partition,
            )  # fmt: skip


def _outside(values: pl.Series, group: pl.DataFrame, name: str) -> str | None:
    """What lies outside of the range that the log promises, by which readers skip files; ``None`` when nothing does."""
    least, most = group[f"min.{name}"], group[f"max.{name}"]
    if values.null_count() == len(values) or least.null_count() or most.null_count():
        return None
    smallest: Any = values.min()
    largest: Any = values.max()
    low: Any = least.min()
    high: Any = most.max()
    if isinstance(values.dtype, pl.Datetime):
        # Statistics of timestamps are cut to milliseconds.
        smallest, largest = smallest.timestamp(), largest.timestamp() - 0.001
        low, high = low.timestamp(), high.timestamp()
    if smallest < low or largest > high:
        return f"{smallest} to {largest}, the log promises {low} to {high}"
    return None


def _compare_receipts(
    lake: Lake,
    known: _Memory,
    outcome: Verification,
    *,
    full: bool,
    keep_days: Mapping[str, float | None],
    now: datetime | None,
    tell: Callable[[str, int, int], None],
) -> None:
    """Compare the inputs and results of every closed hour with its newest receipt."""
    unreadable = {f.table for f in outcome.findings if f.check == "logs_whole" and f.partition is None}
    torn = {(f.table, f.partition) for f in outcome.findings if f.check == "files_whole"}
    names = ("hour_receipts", "metric_points", *(table for table, _, _ in _RESULTS.values()))
    handles: dict[str, DeltaTable | None] = {}
    for name in names:
        try:
            handles[name] = lake.open(name)
        except (DeltaError, OSError, ValueError):
            # Told already, as a log that is not whole.
            unreadable.add(name)
            handles[name] = None
    if handles["hour_receipts"] is None or "metric_points" in unreadable:
        return
    states = {name: _states(handle, TABLES[name]) for name, handle in handles.items() if handle is not None}
    compared = known.compared
    known.compared = {}
    readable = [hour for hour in states["hour_receipts"] if ("hour_receipts", hour) not in torn]
    try:
        receipts = _newest_receipts(lake, handles["hour_receipts"], readable)
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        next_step = "aiops lake verify --full, which says where"
        outcome.findings.append(Finding("hour_receipts", "files_whole", f"cannot be read: {first_line}", next_step))
        return
    for number, receipt in enumerate(receipts):
        tell("hour_receipts", number, len(receipts))
        hour = str(receipt["hour"])
        state = _state_of(hour, receipt, states)
        if any((name, hour) in torn for name in names):
            continue
        if not full and compared.get(hour) == state:
            known.compared[hour] = state
            continue
        points_gone = states.get("metric_points", {}).get(hour) is None
        kept = keep_days.get("metric_points")
        passed = kept is not None and now is not None and hour < first_kept(TABLES["metric_points"], kept, now)
        if points_gone and passed:
            outcome.expired += 1
            continue
        found = list(_compare_hour(lake, handles, hour, receipt, keep_days, now))
        outcome.hours_compared += 1
        if not found:
            known.compared[hour] = state
        elif _written_lately(hour, states):
            outcome.deferred.append(hour)
        else:
            outcome.findings += found


def _newest_receipts(lake: Lake, handle: DeltaTable | None, hours: Sequence[str]) -> list[dict[str, Any]]:
    if not hours:
        return []
    frame = lake.scan_at(handle, "hour_receipts", hours).filter(pl.col("table") == "metric_points").collect()
    return frame.sort("revision").unique("hour", keep="last", maintain_order=True).sort("hour").to_dicts()


def _states(handle: DeltaTable, table: Table) -> dict[str, tuple[str, float]]:
    """Partition → (hash of its files' names, modification time of the newest)."""
    actions = actions_of(handle, table).sort("path")
    summary = actions.group_by("partition").agg(pl.col("path").sort(), pl.col("modified").max())
    return {
        str(partition): (xxhash.xxh3_64_hexdigest("\0".join(paths).encode()), float(modified))
        for partition, paths, modified in summary.iter_rows()
    }


def _state_of(hour: str, receipt: Mapping[str, Any], states: Mapping[str, Mapping[str, tuple[str, float]]]) -> str:
    parts = [str(receipt["revision"]), str(receipt["input_hash"])]
    parts += [f"{name}={partitions[hour][0] if hour in partitions else ''}" for name, partitions in states.items()]
    return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())


def _written_lately(hour: str, states: Mapping[str, Mapping[str, tuple[str, float]]]) -> bool:
    newest = max((partitions[hour][1] for partitions in states.values() if hour in partitions), default=0.0)
    return time.time() - newest < SETTLE_SECONDS


def _compare_hour(
    lake: Lake,
    handles: Mapping[str, DeltaTable | None],
    hour: str,
    receipt: Mapping[str, Any],
    keep_days: Mapping[str, float | None],
    now: datetime | None,
) -> Iterator[Finding]:
    revision = f"receipt {receipt['revision']} ({receipt['reason']})"
    try:
        rows = input_rows(lake, handles["metric_points"], hour, orjson.loads(receipt["positions"]))
        if digest(rows, ("series_id", "ts")) != receipt["input_hash"]:
            yield Finding(
                "metric_points", "closed_hours_unchanged",
                f"{rows.height:,} rows, {revision} was derived from {receipt['rows']:,}"
                + ("" if rows.height != receipt["rows"] else " that differ"),
                _next_for_rows(TABLES["metric_points"], hour), hour,
            )  # fmt: skip
        del rows
        for column, (name, by, version) in _RESULTS.items():
            kept = keep_days.get(name)
            if kept is not None and now is not None and hour < first_kept(TABLES[name], kept, now):
                continue
            frame = lake.scan_at(handles[name], name, [hour])
            if version is not None:
                frame = frame.filter(pl.col(version[0]) == receipt[version[1]])
            result = frame.select(pl.exclude("hour", "receipt_revision")).collect()
            if digest(result, by) != receipt[column]:
                yield Finding(
                    name, "closed_hours_unchanged", f"{result.height:,} rows differ from those of {revision}",
                    _next_for_rows(TABLES[name], hour), hour,
                )  # fmt: skip
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        yield Finding(
            "metric_points", "files_whole", f"cannot be read: {first_line}",
            _next_for_rows(TABLES["metric_points"], hour), hour,
        )  # fmt: skip


def input_rows(lake: Lake, handle: DeltaTable | None, hour: str, positions: Mapping[str, int]) -> pl.DataFrame:
    """The rows of ``metric_points`` that an hour was derived from: those up to ingest positions, without ``hour``."""
    reached = pl.col("writer").replace_strict(dict(positions) or {"": 0}, default=-1, return_dtype=pl.Int64)
    return (
        lake.scan_at(handle, "metric_points", [hour])
        .filter(pl.col("seq") <= reached)
        .select(pl.exclude("hour"))
        .collect()
    )


def _next_for_log(table: Table) -> str:
    if table.name == "metric_points":
        return "aiops lake rebuild --all  (mends the log, takes what is missing from the landing zone)"
    return "aiops lake rebuild --all, then aiops backfill over the days concerned, or aiops restore"


def _next_for_rows(table: Table, partition: str | None) -> str:
    if table.name == "metric_points":
        return f"aiops lake rebuild {partition}"
    if table.partition == "hour":
        return f"aiops backfill {partition} {partition}, or aiops restore"
    return "aiops restore from the newest backup"


def _recall(memory: Path | None, name: str) -> _Memory:
    if memory is None:
        return _Memory()
    try:
        document = orjson.loads((memory / f"{name}.json").read_bytes())
        if document["version"] != _MEMORY_VERSION:
            return _Memory()
        files = {str(path): (int(size), str(checksum)) for path, (size, checksum) in document["files"].items()}
        return _Memory(int(document["log"]), files, dict(document["compared"]))
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        # Forgotten or unreadable: everything is looked at again, nothing is lost.
        return _Memory()


def _remember(memory: Path, name: str, known: _Memory) -> None:
    document = {"version": _MEMORY_VERSION, "log": known.log, "files": known.files, "compared": known.compared}
    _write(memory / f"{name}.json", orjson.dumps(document))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
