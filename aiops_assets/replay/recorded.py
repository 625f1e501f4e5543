"""``--as-recorded``: closed hours derived again from their pinned inputs, and compared with all that is stored of them.

What belongs here: which derivations a range needs, in which order, and naming what differs. What does not: deriving
(``detection``) and putting anything right (``restate``, ``live.rebuild``). Nothing is written.

Of every hour the newest revision is derived, and of earlier revisions those whose state enters it. A difference in one
hour is not carried into the next: later hours start from the recorded state where it is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from aiops_assets.config import Retention
from aiops_assets.detection.amendments import WITHDRAWN, Row, by_alert, newest_told, plain, same_content
from aiops_assets.detection.baselines import close
from aiops_assets.detection.derive import baseline_hash, decisions_hash, derive, input_hash
from aiops_assets.detection.handover import HandOver, Shelf
from aiops_assets.detection.judge import Judge
from aiops_assets.detection.receipts import (
    Receipt,
    Reference,
    code_version,
    libraries,
    newest,
    pinned_judgements,
    read_judgements,
    read_receipts,
    up_to,
)
from aiops_assets.detection.restoring import InputsExpired, Past
from aiops_assets.hours import MICROS_PER_HOUR, hour_expr, hour_key, hour_start, instant
from aiops_assets.lake.retention import first_kept
from aiops_assets.lake.tables import Lake
from aiops_assets.replay.reading import MissingBaselines, Snapshot, ahead, lessons_of
from aiops_assets.tables import ANOMALIES, BASELINES, METRIC_POINTS, Table
from aiops_assets.telemetry.series import SeriesDirectory

#: tables may change while they are compared: what differs is looked at so often
ATTEMPTS = 3
_OURS = ("rule", "anomaly", "absence")
Progress = Callable[[int, int], None]


def _quiet(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as recorded. ``row`` shows the first row that differs, or says what else is known."""

    hour: str
    revision: int
    what: str
    expected: str
    found: str
    row: str = ""


@dataclass(slots=True)
class Verification:
    """What came out. ``hours`` and ``rows`` count what was derived and compared."""

    first: str
    last: str
    hours: int = 0
    derivations: int = 0
    rows: int = 0
    anomalies: int = 0
    decisions: int = 0
    alerts: int = 0
    differences: list[Difference] = field(default_factory=list)
    #: hour → why it cannot be derived again
    expired: dict[str, str] = field(default_factory=dict)
    #: hours with rows that have no receipt: still open, or closed before there were receipts
    without_receipt: list[str] = field(default_factory=list)
    code: str = ""
    #: code versions (and libraries) that derived the hours, when they are not those of now
    derived_by_other: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether nothing that could be compared differs."""
        return not self.differences

    def document(self) -> dict[str, Any]:
        """JSON-able values."""
        return {"identical": self.identical, **asdict(self)}


def verify(
    lake: Lake,
    shelf: Shelf,
    first: str,
    last: str,
    *,
    retention: Retention,
    now: datetime,
    progress: Progress = _quiet,
) -> Verification:
    """Derive the hours from ``first`` to ``last`` (partition keys, inclusive) again and compare.

    Args:
        shelf: states that are kept.
        retention: what may be gone by now.
        now: aware; what has expired is judged by it.
        progress: called with derivations done and to do.
    """
    before = _versions(lake)
    result = _Pass(lake, shelf, first, last, retention, now).run(progress)
    for _ in range(1, ATTEMPTS):
        again = sorted({entry.hour for entry in result.differences})
        after = _versions(lake)
        if not again or after == before:
            break
        # A session wrote meanwhile and may have amended an hour between two reads: what really differs still does.
        before = after
        result.differences = _Pass(lake, shelf, first, last, retention, now, only=again).run(_quiet).differences
    return result


def _versions(lake: Lake) -> list[int | None]:
    handles = (lake.open(name) for name in ("hour_receipts", "alerts", "alert_decisions", "anomalies", "baselines"))
    return [handle.version() if handle is not None else None for handle in handles]


class _Pass:
    """One reading of the range. ``only``: hours to compare, when not all."""

    def __init__(
        self,
        lake: Lake,
        shelf: Shelf,
        first: str,
        last: str,
        retention: Retention,
        now: datetime,
        only: Sequence[str] | None = None,
    ) -> None:
        self._lake, self._first, self._last = lake, first, last
        self._tables = Snapshot(lake)
        self._kept_from = _kept_from(METRIC_POINTS, retention, now)
        self._baselines_from = _kept_from(BASELINES, retention, now)
        for table in ("metric_points", "baselines", "anomalies", "alert_decisions"):
            self._tables.partitions(table)
        receipts = read_receipts(lake)
        self._past_hours = {receipt.hour for receipt in receipts}
        self._newest = newest(receipts)
        self._past = Past(lake, shelf, SeriesDirectory(), read_judgements(lake), receipts)
        self._past.directory.load(lake.read("series"))
        wanted = [key for key in sorted(self._newest) if first <= key <= last and (only is None or key in set(only))]
        self._order = _order(self._past.receipts, [self._newest[key].reference for key in wanted], first)
        self._wanted = {self._newest[key].reference for key in wanted}
        self._uses = Counter(entry for reference in self._order for entry in self._past.receipts[reference].state_in)
        self._judge: tuple[Reference, Judge] | None = None
        self._partial = only is not None
        self.result = Verification(first, last, code=code_version())

    def run(self, progress: Progress) -> Verification:
        """All derivations, then the alerts."""
        result = self.result
        if not self._partial:
            stored = self._tables.partitions("metric_points")
            result.without_receipt = [
                key for key in stored if self._first <= key <= self._last and key not in self._newest
            ]
        self._name_other_code()
        receipts = [self._past.receipts[reference] for reference in self._order]
        for done, (receipt, inputs) in enumerate(ahead(receipts, self._inputs), 1):
            self._compare(receipt, *inputs)
            self._release(receipt)
            progress(done, len(receipts))
        self._compare_alerts()
        result.differences.sort(key=lambda entry: (entry.hour, entry.revision))
        return result

    def _name_other_code(self) -> None:
        versions = {(self._past.receipts[r].code_version, self._libraries_of(r)) for r in self._wanted}
        ours = (code_version(), "")
        self.result.derived_by_other = sorted(" ".join(entry).strip() for entry in versions - {ours})

    def _libraries_of(self, reference: Reference) -> str:
        theirs, ours = self._past.receipts[reference].libraries, libraries()
        return ", ".join(f"{name} {version}" for name, version in sorted(theirs.items()) if ours.get(name) != version)

    def _inputs(self, receipt: Receipt) -> tuple[pl.DataFrame, str, pl.DataFrame | None]:
        """Pinned rows, their hash, and the baselines computed from them."""
        rows = up_to(self._tables.read("metric_points", receipt.hour), receipt.positions)
        if rows.height != receipt.rows:
            return rows, "", None
        return rows, input_hash(rows), _baselines(receipt, rows)

    # -- one hour -----------------------------------------------------------------------------------------------------

    def _compare(self, receipt: Receipt, rows: pl.DataFrame, found_hash: str, baselines: pl.DataFrame | None) -> None:
        differ = _Differences(receipt, self.result.differences)
        if receipt.rows and rows.is_empty() and receipt.hour < self._kept_from:
            self._expire(receipt, f"its {receipt.rows:,} rows have passed the retention of metric_points")
            return
        if rows.height != receipt.rows:
            differ.add(
                "rows", f"{receipt.rows:,}", f"{rows.height:,}", "rows up to the ingest positions of the receipt"
            )
        elif found_hash != receipt.input_hash:
            stored = "the stored rows are not those it was derived from (`aiops lake verify` compares with segments)"
            differ.add("input hash", receipt.input_hash, found_hash, stored)
        try:
            segments = pinned_judgements(self._past.judgements, receipt.config)
            lessons = lessons_of(self._tables, receipt.baselines)
            judge = self._judge_before(receipt, segments[0][1])
        except MissingBaselines as error:
            if error.hour < self._baselines_from:
                self._expire(receipt, str(error))
            else:
                differ.add("baselines learnt", "stored", "not stored", str(error))
            return
        except InputsExpired as error:
            if error.hour is None or error.hour < self._kept_from or error.hour not in self._past_hours:
                self._expire(receipt, str(error))
            else:
                differ.add("state handed over", receipt.state_in_hash, "cannot be derived", str(error))
            return
        except (LookupError, ValueError) as error:
            differ.add("inputs", "readable", "not readable", str(error.args[0] if error.args else error))
            return
        state_in = judge.export().digest()
        if state_in != receipt.state_in_hash:
            if not receipt.state_in:
                self._expire(receipt, "it began with detectors warmed up on hours that have no receipts")
                return
            names = ", ".join(f"{hour} revision {revision}" for hour, revision in receipt.state_in)
            differ.add("state handed over", receipt.state_in_hash, state_in, f"from {names}")
        derived = derive(judge, receipt.start, rows, lessons, segments)
        state = judge.export()
        self._keep(receipt, judge, state)
        result = self.result
        result.derivations += 1
        stored_decisions = self._stored_decisions(receipt)
        if derived.decisions_hash != receipt.decisions_hash:
            row = first_difference(stored_decisions, derived.decisions, ("alert_id", "revision"))
            differ.add("decisions hash", receipt.decisions_hash, derived.decisions_hash, row)
        if decisions_hash(stored_decisions) != derived.decisions_hash:
            row = first_difference(stored_decisions, derived.decisions, ("alert_id", "revision"))
            differ.add(
                "alert_decisions", f"{derived.decisions.height} rows", f"{stored_decisions.height} rows stored", row
            )
        if derived.anomalies_hash != receipt.anomalies_hash:
            differ.add("anomalies hash", receipt.anomalies_hash, derived.anomalies_hash)
        if state.digest() != receipt.state_out_hash:
            differ.add("state at its end", receipt.state_out_hash, state.digest())
        if baselines is not None:
            self._compare_baselines(receipt, baselines, differ)
        if receipt.reference in self._wanted:
            self._compare_anomalies(receipt, derived.anomalies, differ)
            result.hours += 1
            result.rows += rows.height
            result.anomalies += derived.anomalies.height
            result.decisions += derived.decisions.height

    def _stored_decisions(self, receipt: Receipt) -> pl.DataFrame:
        stored = self._tables.read("alert_decisions", receipt.hour)
        return stored.filter(pl.col("receipt_revision") == receipt.revision).drop("receipt_revision")

    def _compare_anomalies(self, receipt: Receipt, derived: pl.DataFrame, differ: _Differences) -> None:
        stored = self._tables.read("anomalies", receipt.hour).select(list(ANOMALIES.schema)).sort("series_id", "ts")
        if not stored.equals(derived):
            row = first_difference(stored, derived, ("series_id", "ts"))
            differ.add("anomalies", f"{derived.height} rows", f"{stored.height} rows stored", row)

    def _compare_baselines(self, receipt: Receipt, computed: pl.DataFrame, differ: _Differences) -> None:
        if computed.is_empty() and not receipt.baseline_version:
            return
        found = baseline_hash(computed)
        if found != receipt.baseline_hash:
            differ.add("baseline hash", receipt.baseline_hash, found)
        stored = self._tables.read("baselines", receipt.hour).filter(
            pl.col("baseline_version") == receipt.baseline_version
        )
        stored = stored.select(list(BASELINES.schema)).sort("series_id")
        if baseline_hash(stored) != found:
            row = first_difference(stored, computed, ("series_id",))
            what = f"baselines version {receipt.baseline_version}"
            differ.add(what, f"{computed.height} rows", f"{stored.height} rows stored", row)

    # -- states -------------------------------------------------------------------------------------------------------

    def _judge_before(self, receipt: Receipt, otherwise: Any) -> Judge:
        """A judge with the state handed over to an hour; the one that derived the hour before goes on where it can."""
        if self._judge is not None and receipt.state_in == [self._judge[0]]:
            judge = self._judge[1]
            self._judge = None
            return judge
        return self._past.judge(self._past.handed_over(receipt.state_in), otherwise)

    def _keep(self, receipt: Receipt, judge: Judge, state: HandOver) -> None:
        """Remember how an hour ended. Where that is not as recorded, the recorded state if it is kept."""
        if not self._uses[receipt.reference]:
            return
        if state.digest() != receipt.state_out_hash:
            recorded = self._past.shelf.get(*receipt.reference)
            if recorded is not None and recorded.digest() == receipt.state_out_hash:
                self._past.known[receipt.reference] = recorded
                return
        self._past.known[receipt.reference] = state
        self._judge = receipt.reference, judge

    def _release(self, receipt: Receipt) -> None:
        for reference in receipt.state_in:
            self._uses[reference] -= 1
        self._past.known = {entry: state for entry, state in self._past.known.items() if self._uses[entry] > 0}

    def _expire(self, receipt: Receipt, why: str) -> None:
        if receipt.reference in self._wanted:
            self.result.expired[receipt.hour] = why

    # -- alerts -------------------------------------------------------------------------------------------------------

    def _compare_alerts(self) -> None:
        """The newest told row of each alert that started in the hours compared, against the newest decisions."""
        hours = {hour for hour, _ in self._wanted} - set(self.result.expired)
        if not hours:
            return
        told = self._told(hours)
        closed = hour_start(max(self._newest)) + MICROS_PER_HOUR
        decided = self._decided(hours, told)
        self.result.alerts = len(set(told) | set(decided))
        for alert in sorted(set(told) | set(decided)):
            row, rows = told.get(alert), decided.get(alert, [])
            hour = hour_key((row or rows[0])["starts_at"])
            differ = _Differences(self._newest[hour], self.result.differences)
            named = f"alert {alert}"
            if row is None:
                differ.add(named, _said(rows[-1]), "never told", rows[-1]["title"])
            elif row["amended_by"] is None and row["changed_at"] < closed:
                if not rows:
                    differ.add(named, "no decision about it", _said(row), row["title"])
                elif not same_content(row, rows[-1]):
                    differ.add(named, _said(rows[-1]), _said(row), _fields(rows[-1], row))
            elif row["state"] == WITHDRAWN and any(entry["state"] != "resolved" for entry in rows):
                differ.add(named, _said(rows[-1]), f"withdrawn: {row['amended_by']}", row["title"])

    def _told(self, hours: Iterable[str]) -> dict[str, Row]:
        rows = self._lake.scan("alerts", sorted(hours)).filter(pl.col("kind").is_in(_OURS)).collect()
        return newest_told(rows)

    def _decided(self, hours: set[str], told: Mapping[str, Row]) -> dict[str, list[Row]]:
        """alert_id → rows of ``alert_decisions`` of the newest revisions, of alerts that started in ``hours``."""
        revisions = pl.DataFrame(
            [(receipt.hour, receipt.revision) for receipt in self._newest.values() if receipt.hour >= min(hours)],
            schema={"hour": pl.String, "receipt_revision": pl.Int32},
            orient="row",
        )
        starts = hour_expr("starts_at")
        rows = (
            self._lake.scan("alert_decisions")
            .filter((pl.col("hour") >= min(hours)) & starts.is_in(sorted(hours)))
            .join(revisions.lazy(), on=["hour", "receipt_revision"], how="semi")
            .collect()
            .sort("changed_at", "alert_id", "revision")
        )
        return by_alert(plain(rows))


class _Differences:
    """Collects what differs in one hour."""

    def __init__(self, receipt: Receipt, into: list[Difference]) -> None:
        self._receipt, self._into = receipt, into

    def add(self, what: str, expected: str, found: str, row: str = "") -> None:
        self._into.append(Difference(self._receipt.hour, self._receipt.revision, what, expected, found, row))


def _order(receipts: Mapping[Reference, Receipt], wanted: Iterable[Reference], first: str) -> list[Reference]:
    """The wanted revisions and those of hours from ``first`` on whose state enters them, each after what it needs."""
    order: dict[Reference, None] = {}
    for reference in wanted:
        waiting = [reference]
        while waiting:
            now = waiting[-1]
            receipt = receipts.get(now)
            if now in order or receipt is None or now[0] < first:
                waiting.pop()
                continue
            lacking = [
                entry for entry in receipt.state_in if entry not in order and entry in receipts and entry[0] >= first
            ]
            if not lacking:
                order[waiting.pop()] = None
            waiting += lacking
    return list(order)


def _kept_from(table: Table, retention: Retention, now: datetime) -> str:
    kept = retention.days[table.name]
    return first_kept(table, kept, now) if kept is not None else ""


def _baselines(receipt: Receipt, rows: pl.DataFrame) -> pl.DataFrame:
    """The version of the baselines that a receipt names, computed from its rows."""
    return (
        close(rows)
        .with_columns(
            pl.lit(instant(receipt.start)).alias("hour_start"),
            pl.lit(receipt.hour).alias("hour"),
            pl.lit(receipt.baseline_version).alias("baseline_version"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in BASELINES.schema.items())
    )


def first_difference(stored: pl.DataFrame, derived: pl.DataFrame, key: Sequence[str]) -> str:
    """The first row, in order of a key, that only one of two frames has or in which they differ; empty: none."""
    columns = [name for name in derived.columns if name in stored.columns]
    rest = [name for name in columns if name not in key]
    both = (
        derived.select(columns)
        .with_columns(pl.lit(True).alias("derived"))
        .join(
            stored.select(columns).with_columns(pl.lit(True).alias("stored")),
            on=list(key),
            how="full",
            suffix=" stored",
            coalesce=True,
        )
        .sort(key)
    )
    same = pl.all_horizontal(
        pl.col("derived").is_not_null(),
        pl.col("stored").is_not_null(),
        *(pl.col(name).eq_missing(pl.col(f"{name} stored")) for name in rest),
    )
    wrong = both.filter(~same).head(1)
    for row in wrong.iter_rows(named=True):
        named = ", ".join(f"{name} {row[name]}" for name in key)
        if row["stored"] is None:
            return f"{named}: not stored"
        if row["derived"] is None:
            return f"{named}: stored, and not derived"
        fields = [name for name in rest if row[name] != row[f"{name} stored"]]
        return f"{named}: " + "; ".join(
            f"{name} {row[f'{name} stored']} stored, {row[name]} derived" for name in fields
        )
    return ""


def _said(row: Row) -> str:
    """What a row says about an alert, in one line."""
    if row["state"] in {"resolved", WITHDRAWN}:
        ended = instant(row["ends_at"]).isoformat() if row["ends_at"] is not None else "?"
        return f"{row['state']} at {ended}, severity {row['severity_number']}"
    return f"open, severity {row['severity_number']}"


def _fields(expected: Row, found: Row) -> str:
    names = ("starts_at", "ends_at", "severity_number", "title", "value", "threshold", "evidence")
    changed = [name for name in names if expected[name] != found[name]]
    return "; ".join(f"{name}: {expected[name]} decided, {found[name]} told" for name in changed)
