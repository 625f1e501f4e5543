"""Why an alert or an incident came to be: every number that led to it, and whether it comes out the same today.

What belongs here: putting together what tables and receipts say of an alert, deriving the hours that decided about it
once more, and naming every difference. What does not: deriving (``narrow``, ``detection``) and showing it (``cli``,
``incidents``). Everything blocks on files: servers call it in a thread, with a limit of time.

An alert is **decided** in the hours that have rows of it in ``alert_decisions``. Each of them is derived again from its
newest receipt, for the series of the alert alone (for absence: all series of the host), beginning with the nearest
state that is kept. What comes out is compared with what is stored, byte for byte: the decisions and the anomalies. The
rows of a deciding hour are compared with the receipt by their hash, those of the hours on the way by their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import orjson
import polars as pl

from aiops_assets.config import Config, ConfigError, Rule, load_config
from aiops_assets.detection import statistics
from aiops_assets.detection.amendments import newest_told, same_content
from aiops_assets.detection.derive import Derived, decisions_hash
from aiops_assets.detection.handover import HandOver
from aiops_assets.detection.judgement import Judgement, read_timeline
from aiops_assets.detection.receipts import (
    Receipt,
    Reference,
    code_version,
    has_inputs,
    libraries,
    newest,
    pinned_rows,
    read_judgements,
    read_receipts,
)
from aiops_assets.detection.restoring import InputsExpired
from aiops_assets.hours import EPOCH, MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, hour_start, instant
from aiops_assets.incidents.documents import time_text
from aiops_assets.lake.tables import Lake, labels
from aiops_assets.live.progress import read_progress
from aiops_assets.replay.narrow import PastOfSeries, TooSlow
from aiops_assets.settings import Settings

#: rows shown before, in and after what decided, of each series
BEFORE, WITHIN, AFTER = 15, 30, 8
#: series of an absent host whose rows are shown
MOST_SERIES = 8
#: alerts of an incident that are derived again; the others are listed
MOST_ALERTS = 100

#: ``same``: byte for byte. ``open``: the hour is not closed, and what is known so far says the same
Verdict = Literal["same", "different", "open", "expired", "other code", "too slow", "not derived"]
_WORDS: dict[Verdict, str] = {
    "same": "it came out the same",
    "different": "it comes out differently",
    "open": "the hour is still open; judged by what came so far, it comes out the same",
    "expired": "inputs expired",
    "other code": "this code cannot derive it",
    "too slow": "it was not derived in the time given",
    "not derived": "another system raised it: its words are kept as they came",
}
_SAME: Mapping[Verdict, bool] = {"same": True, "open": True, "different": False}
#: the worst of several comes first
_WORST: tuple[Verdict, ...] = ("different", "other code", "expired", "too slow", "open", "same", "not derived")
_DERIVED_KINDS = ("rule", "anomaly", "absence")
_SLOTS_OF_WEEK = 168


class NotFound(LookupError):
    """There is no such alert, or its id is not given far enough."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Something that the receipt records, beside what there is now; ``same`` is ``None`` where that says nothing."""

    what: str
    recorded: str
    now: str
    same: bool | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a row that comes out otherwise; ``None`` on a side that does not have the row."""

    row: str
    column: str
    recorded: Any
    derived: Any


@dataclass(slots=True)
class Hour:
    """An hour that decided. ``receipts``: all its revisions, the newest last; ``pins`` are of the newest."""

    hour: str
    verdict: Verdict = "not derived"
    why: str = ""
    receipts: list[dict[str, Any]] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    #: baselines learnt at its start: hour, version replaced, version
    baselines: list[tuple[str, int | None, int]] = field(default_factory=list)
    #: (hour, revision) whose final states were handed over
    state_in: list[Reference] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    anomalies: list[dict[str, Any]] = field(default_factory=list)
    seasonal: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class AlertExplained:
    """Rows are dictionaries with the columns of their tables; instants are RFC 3339 in UTC, series_id is a text."""

    alert_id: str
    title: str
    kind: str
    name: str
    host: str
    metric: str | None
    series_id: str | None
    labels: dict[str, str]
    state: str
    verdict: Verdict
    verdict_text: str
    revisions: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    #: why it was corrected or withdrawn
    amendments: list[dict[str, Any]]
    hours: list[Hour]
    #: the rule as it was in force, or the settings and thresholds of the statistics
    judged_by: dict[str, Any]
    #: fields of the rule or settings that are otherwise now: name, then, now
    judged_by_now: list[Difference]
    points: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    #: kept states that the derivation began with, and the hours derived on the way
    started_from: list[Reference]
    hours_derived: int
    seconds: float

    def document(self) -> dict[str, Any]:
        """JSON-able; ``same`` is ``None`` where nothing could be compared."""
        return {"same": _SAME.get(self.verdict), **asdict(self)}


@dataclass(slots=True)
class IncidentExplained:
    """An incident: why its priority is what it is, and each of its alerts. ``left_out``: alerts not derived again."""

    incident_id: str
    title: str
    state: str
    priority: int
    impact: int
    impact_reason: str
    urgency: int
    urgency_reason: str
    verdict: Verdict
    verdict_text: str
    alerts: list[AlertExplained]
    left_out: list[str]
    #: alerts that the tables do not have any more
    gone: list[str]
    amendments: list[dict[str, Any]]
    seconds: float

    def document(self) -> dict[str, Any]:
        """JSON-able; ``same`` is ``None`` where nothing could be compared."""
        return {"same": _SAME.get(self.verdict), **asdict(self)}


def explain_alert(settings: Settings, alert_id: str, *, seconds: float | None = None) -> AlertExplained:
    """Explain one alert and derive it again.

    Args:
        alert_id: its id, or the beginning of it.
        seconds: how long deriving may take; beyond it the verdict is "too slow" and the rest is told all the same.

    Raises:
        NotFound: there is no such alert, or several.
    """
    began = time.monotonic()
    lake = Lake(settings.paths.lake)
    rows = lake.scan("alerts").filter(pl.col("alert_id").str.starts_with(alert_id)).collect()
    found = rows["alert_id"].unique().sort().to_list()
    if not alert_id or not found:
        raise NotFound(f"there is no alert {alert_id!r}; `aiops alerts --all` lists them")
    if len(found) > 1:
        raise NotFound(f"{alert_id!r} begins {len(found)} alerts: {', '.join(found[:5])}{' …' if found[5:] else ''}")
    (explained,) = _Investigation(settings, lake, rows, _until(began, seconds)).explain()
    explained.seconds = time.monotonic() - began
    return explained


def explain_incident(settings: Settings, incident_id: str, *, seconds: float | None = None) -> IncidentExplained:
    """Explain an incident: each of its alerts (the first ``MOST_ALERTS``) as ``explain_alert`` does.

    Raises:
        aiops_assets.incidents.lifecycle.IncidentNotFound: there is no such incident.
    """
    from aiops_assets.incidents.store import IncidentStore

    began = time.monotonic()
    store = IncidentStore(settings.paths.operations_url)
    try:
        incident = store.get(incident_id)
    finally:
        store.close()
    lake = Lake(settings.paths.lake)
    members = sorted((*incident.members, *incident.suppressed), key=lambda member: member.alert.starts_at)
    ids = [member.alert.alert_id for member in members]
    hours = sorted({hour_key(member.alert.starts_at) for member in members})
    rows = lake.scan("alerts", hours).filter(pl.col("alert_id").is_in(ids)).collect()
    stored = set(rows["alert_id"])
    chosen = [alert for alert in ids if alert in stored][:MOST_ALERTS]
    rows = rows.filter(pl.col("alert_id").is_in(chosen))
    alerts = _Investigation(settings, lake, rows, _until(began, seconds)).explain()
    alerts.sort(key=lambda alert: ids.index(alert.alert_id))
    verdict, text = _joined([(alert.verdict, alert.verdict_text) for alert in alerts])
    told = [event for event in incident.events if event.amendment is not None]
    return IncidentExplained(
        incident.incident_id,
        incident.title,
        incident.state,
        incident.priority,
        incident.impact,
        incident.impact_text,
        incident.urgency,
        incident.urgency_text,
        verdict,
        text if len(alerts) < 2 else _counted(alerts, verdict),
        alerts,
        [alert for alert in ids if alert in stored][MOST_ALERTS:],
        [alert for alert in ids if alert not in stored],
        [
            {"at": time_text(event.at), "alert_id": event.alert_id, "kind": event.amendment, "text": event.text}
            for event in told
        ],
        time.monotonic() - began,
    )


def _until(began: float, seconds: float | None) -> Callable[[], bool]:
    return lambda: seconds is None or time.monotonic() - began < seconds


class _Investigation:
    """Some alerts of one lake, explained together: hours that several of them need are derived once."""

    def __init__(self, settings: Settings, lake: Lake, told: pl.DataFrame, keep_going: Callable[[], bool]) -> None:
        self._settings, self._lake, self._keep_going = settings, lake, keep_going
        self._told = {
            str(alert): rows.sort("revision")
            for (alert,), rows in told.sort("alert_id").group_by("alert_id", maintain_order=True)
        }
        self._judgements = read_judgements(lake)
        self._config, self._config_problem = _config_now(settings)
        self._closed = [part.partition for part in lake.partitions("hour_receipts")]
        self._stored_hours = [part.partition for part in lake.partitions("metric_points")]
        self._decisions = self._read_decisions()
        self._series = self._read_series()
        self._hours: dict[str, tuple[Hour, Derived | None]] = {}

    def explain(self) -> list[AlertExplained]:
        """Every alert, in order of its id."""
        if not self._told:
            return []
        self._derive()
        return [self._one(alert, rows) for alert, rows in self._told.items()]

    # -- what is stored -----------------------------------------------------------------------------------------------

    def _read_decisions(self) -> pl.DataFrame:
        """All decisions about the alerts, of every revision of a receipt."""
        frame = self._lake.scan("alert_decisions")
        if not self._told:
            return frame.clear().collect()
        first = min(int(rows["starts_at"].dt.epoch("us").sort()[0]) for rows in self._told.values())
        wanted = (pl.col("hour") >= hour_key(first)) & pl.col("alert_id").is_in(list(self._told))
        return frame.filter(wanted).collect().sort("hour", "receipt_revision", "alert_id", "revision")

    def _read_series(self) -> pl.DataFrame:
        """Rows of ``series`` that the alerts depend on: their own, and all of a host for absence."""
        ids = {row["series_id"][0] for row in self._told.values()} - {None}
        ids |= set(self._decisions["series_id"].drop_nulls())
        absent = {rows["host"][0] for rows in self._told.values() if rows["kind"][0] == "absence"}
        wanted = pl.col("series_id").is_in(list(ids)) | pl.col("host").is_in(list(absent))
        return self._lake.scan("series").filter(wanted).collect()

    def _deciding_hours(self, alert: str) -> list[str]:
        rows = self._told[alert]
        if rows["kind"][0] not in _DERIVED_KINDS:
            return []
        decided = self._decisions.filter(pl.col("alert_id") == alert)["hour"].unique().to_list()
        # What the live stream told, and no closed hour confirms, was decided by what its hour knew then.
        told = [hour_key(int(at)) for at in rows.filter(pl.col("amended_by").is_null())["changed_at"].dt.epoch("us")]
        known = set(decided) or {min(told, default=hour_key(int(rows["starts_at"].dt.epoch("us")[0])))}
        still_open = {hour for hour in told if hour not in self._closed and hour > max(self._closed, default="")}
        return sorted(known | still_open)

    # -- deriving again -----------------------------------------------------------------------------------------------

    def _derive(self) -> None:
        wanted = sorted({hour for alert in self._told for hour in self._deciding_hours(alert)})
        absence = any(rows["kind"][0] == "absence" for rows in self._told.values())
        judgements = dict(self._judgements)
        if self._config is not None:
            judgements.setdefault(Judgement.of(self._config).digest, Judgement.of(self._config))
        self._past = PastOfSeries(
            self._lake,
            self._settings.paths.live / "handover",
            self._series,
            judgements,
            coverage=absence,
            keep_going=self._keep_going,
        )
        for key in wanted:
            hour = Hour(key)
            receipts = read_receipts(self._lake, key, key) if key in self._closed else []
            hour.receipts = [_receipt_line(receipt) for receipt in receipts]
            receipt = newest(receipts).get(key)
            derived: Derived | None = None
            try:
                derived = self._again(hour, receipt) if receipt is not None else self._so_far(hour)
            except InputsExpired as error:
                hour.verdict, hour.why = "expired", str(error)
            except TooSlow as error:
                hour.verdict, hour.why = "too slow", str(error)
            except ValueError as error:
                hour.verdict, hour.why = "other code", str(error)
            self._hours[key] = hour, derived

    def _again(self, hour: Hour, receipt: Receipt) -> Derived:
        stored = pinned_rows(self._lake, receipt)
        whole = has_inputs(receipt, stored)
        hour.pins = self._pins(receipt, stored.height, whole)
        hour.baselines, hour.state_in = list(receipt.baselines), list(receipt.state_in)
        del stored
        if not whole:
            raise InputsExpired(
                f"hour {receipt.hour}, revision {receipt.revision}: the {receipt.rows} rows that were its input are "
                "not (all) stored any more"
            )
        before = self._past.handed_over(receipt.state_in)
        derived, state = self._past.again(receipt)
        self._past.known[receipt.reference] = state
        hour.seasonal = _seasonal(before, self._series, receipt.start)
        hour.verdict = "same"
        return derived

    def _so_far(self, hour: Hour) -> Derived:
        if hour.hour not in self._stored_hours:
            raise InputsExpired(f"hour {hour.hour} has no receipt and no points")
        if hour.hour <= max(self._closed, default=""):
            raise InputsExpired(f"hour {hour.hour} was closed without a receipt")
        end = max(self._closed, default="")
        open_hours = [key for key in self._stored_hours if end < key <= hour.hour]
        since = hour_start(end) + MICROS_PER_HOUR if end else 0
        timeline = [(at, entry) for at, entry in read_timeline(self._settings.paths.live / "handover") if at >= since]
        otherwise = Judgement.of(self._config or Config())
        self._past.judgements = {**self._past.judgements, **{entry.digest: entry for _, entry in timeline}}
        watermark = read_progress(self._settings.paths.live).watermark
        derived, before = self._past.so_far(hour.hour, open_hours, timeline, otherwise, watermark)
        hour.seasonal = _seasonal(before, self._series, hour_start(hour.hour))
        hour.verdict = "open"
        return derived

    def _pins(self, receipt: Receipt, stored: int, whole: bool) -> list[Pin]:
        ours = Judgement.of(self._config).digest if self._config is not None else ""
        judged = ", then ".join(digest for _, digest in receipt.config)
        used = libraries()
        differing = [name for name, version in receipt.libraries.items() if used.get(name) != version]
        states = set(self._past.shelf.kept())
        versions = self._lake.read("baselines", [receipt.hour], ["baseline_version"])["baseline_version"]
        latest = int(versions.sort()[-1]) if len(versions) else None
        return [
            Pin(
                "input rows",
                f"{receipt.rows} rows, hash {receipt.input_hash}",
                "the same rows are stored" if whole else f"{stored} rows of those positions are stored",
                whole,
            ),
            Pin("ingest positions", _listed(f"{writer} {seq}" for writer, seq in receipt.positions.items()), "", None),
            Pin(
                "rules and settings",
                judged,
                self._config_problem or ("the same" if {d for _, d in receipt.config} == {ours} else f"{ours}"),
                None if self._config is None else {digest for _, digest in receipt.config} == {ours},
            ),
            Pin(
                "baselines learnt",
                _listed(f"{key} version {version}" for key, _, version in receipt.baselines) or "none",
                "",
                None,
            ),
            Pin(
                "baselines computed",
                f"version {receipt.baseline_version}",
                f"version {latest} is the newest" if latest is not None else "not stored any more",
                latest == receipt.baseline_version,
            ),
            Pin(
                "state handed over",
                _listed(f"{key}, revision {revision}" for key, revision in receipt.state_in) or "none: the first hour",
                "kept" if set(receipt.state_in) <= states else "derived again from an earlier one",
                None,
            ),
            Pin("detector", receipt.detector_version, *_now(receipt.detector_version, statistics.DETECTOR_VERSION)),
            Pin("code", receipt.code_version, *_now(receipt.code_version, code_version())),
            Pin(
                "libraries",
                _listed(f"{name} {version}" for name, version in receipt.libraries.items()),
                _listed(f"{name} {used.get(name, 'gone')}" for name in differing) or "the same",
                not differing,
            ),
        ]

    # -- one alert ----------------------------------------------------------------------------------------------------

    def _one(self, alert: str, told: pl.DataFrame) -> AlertExplained:
        present = told.row(-1, named=True)
        hours = []
        for key in self._deciding_hours(alert):
            shared, derived = self._hours[key]
            mine = Hour(
                shared.hour, shared.verdict, shared.why, shared.receipts, shared.pins, shared.baselines, shared.state_in
            )
            mine.seasonal = [entry for entry in shared.seasonal if entry["series_id"] == str(present["series_id"])]
            self._compare(alert, present, mine, derived)
            hours.append(mine)
        verdict, text = _joined([(hour.verdict, hour.why) for hour in hours])
        judgement = self._judgement(hours, told)
        judged_by, differs = self._judged_by(present, judgement)
        decisions = self._decisions.filter(pl.col("alert_id") == alert)
        amended = [row for row in told.iter_rows(named=True) if row["amended_by"]]
        return AlertExplained(
            alert,
            present["title"],
            present["kind"],
            present["name"],
            present["host"],
            present["metric"],
            None if present["series_id"] is None else str(present["series_id"]),
            labels(present["labels"]),
            present["state"],
            verdict,
            text,
            [_row(row) for row in told.drop("hour").iter_rows(named=True)],
            [_row(row) for row in decisions.iter_rows(named=True)],
            [{"revision": row["revision"], "state": row["state"], "why": row["amended_by"]} for row in amended],
            hours,
            judged_by,
            differs,
            self._points(present, told, judgement),
            self._baselines(present, hours),
            list(self._past.started_from),
            len(self._past.derived),
            0.0,
        )

    def _compare(self, alert: str, present: Mapping[str, Any], hour: Hour, derived: Derived | None) -> None:
        stored = self._stored_anomalies(present, hour.hour)
        hour.anomalies = [_row(row) for row in stored.iter_rows(named=True)]
        if derived is None:
            return
        again = derived.decisions.filter(pl.col("alert_id") == alert)
        if hour.verdict == "open":
            before = newest_told(pl.DataFrame([present], schema=self._told[alert].schema))[alert]
            rows = again.sort("revision").with_columns(
                pl.col(name).dt.epoch("us") for name in ("starts_at", "ends_at", "changed_at", "received_at")
            )
            if rows.height and same_content(before, rows.row(-1, named=True)):
                return
            if not rows.height and before["changed_at"] < hour_start(hour.hour):
                return
            hour.differences = _differences(
                "what was told", pl.DataFrame([present]), again.sort("revision").tail(1), _TOLD, key=()
            )
        else:
            revision = int(hour.receipts[-1]["revision"])
            recorded = self._decisions.filter(
                (pl.col("alert_id") == alert) & (pl.col("hour") == hour.hour) & (pl.col("receipt_revision") == revision)
            )
            if decisions_hash(recorded) != decisions_hash(again):
                columns = [name for name in again.columns if name != "hour"]
                hour.differences = _differences("decision, revision", recorded, again, columns, key=("revision",))
            if present["kind"] != "absence":
                found = derived.anomalies.filter(pl.col("series_id") == present["series_id"])
                columns = [name for name in found.columns if name != "hour"]
                hour.differences += _differences("anomaly", stored, found, columns, key=("ts",))
        if hour.differences:
            hour.verdict = "different"
            hour.why = _listed(f"{d.row}: {d.column} {d.recorded} → {d.derived}" for d in hour.differences)

    def _stored_anomalies(self, present: Mapping[str, Any], hour: str) -> pl.DataFrame:
        frame = self._lake.scan("anomalies", [hour]).filter(pl.col("series_id") == present["series_id"])
        return frame.sort("ts").collect()

    def _judgement(self, hours: Sequence[Hour], told: pl.DataFrame) -> Judgement | None:
        """What was in force when it was first decided."""
        first = int(told["changed_at"].dt.epoch("us")[0])
        for hour in hours:
            receipt = (
                self._past.receipts.get((hour.hour, int(hour.receipts[-1]["revision"]))) if hour.receipts else None
            )
            if receipt is None and hour.receipts:
                receipt = newest(read_receipts(self._lake, hour.hour, hour.hour))[hour.hour]
            if receipt is not None:
                digest = [digest for at, digest in receipt.config if at is None or at <= first][-1]
                return self._judgements.get(digest)
        return Judgement.of(self._config) if self._config is not None else None

    def _judged_by(
        self, present: Mapping[str, Any], judgement: Judgement | None
    ) -> tuple[dict[str, Any], list[Difference]]:
        """The rule or the settings as they were in force, and what of them is otherwise now."""
        if judgement is None:
            return {"problem": "what was in force then is not stored"}, []
        if present["kind"] == "anomaly":
            told: dict[str, Any] = {
                "detector": present["name"],
                "detector_version": statistics.DETECTOR_VERSION,
                "settings": judgement.statistics.model_dump(mode="json"),
                "opens_at_ratio": statistics.OPEN,
                "calm_below_ratio": statistics.CALM,
                "certain_from_ratio": statistics.CERTAIN,
                "times_while_in_doubt": statistics.DOUBT,
                "silent_for_first_points": statistics.WARM_UP_POINTS,
                "silent_for_first_seconds": statistics.WARM_UP_SECONDS,
            }
            ours = self._config.statistics.model_dump(mode="json") if self._config is not None else told["settings"]
            return told, _fields("settings", told["settings"], ours)
        if present["kind"] not in _DERIVED_KINDS:
            return {"raised_by": f"another system; landing segment {present['writer']}/{present['seq']} holds it"}, []
        rule = next((rule for rule in judgement.rules if rule.name == present["name"]), None)
        if rule is None:
            return {"problem": f"no rule {present['name']!r} was in force"}, []
        now = (
            None
            if self._config is None
            else next((rule for rule in self._config.active_rules if rule.name == present["name"]), None)
        )
        text = _rule(rule)
        if self._config is None:
            return text, []
        return text, _fields("rule", text, _rule(now) if now is not None else {})

    def _points(
        self, present: Mapping[str, Any], told: pl.DataFrame, judgement: Judgement | None
    ) -> list[dict[str, Any]]:
        """The rows around what decided: some before it began, those up to the decision, some after it."""
        starts = int(told["starts_at"].dt.epoch("us")[0])
        decided = int(told["changed_at"].dt.epoch("us")[0])
        rule = next((r for r in judgement.rules if r.name == present["name"]), None) if judgement else None
        reach = round(max(rule.window, rule.hold) * MICROS_PER_SECOND) if rule is not None else 0
        first, last = starts - max(reach, MICROS_PER_HOUR // 2), decided + MICROS_PER_HOUR // 4
        mine = (
            self._series.filter(pl.col("host") == present["host"])["series_id"].to_list()
            if present["kind"] == "absence"
            else [present["series_id"]]
        )
        hours = [hour_key(at) for at in range(first - first % MICROS_PER_HOUR, last + 1, MICROS_PER_HOUR)]
        wanted = pl.col("series_id").is_in(mine[:MOST_SERIES]) & pl.col("ts").is_between(instant(first), instant(last))
        rows = self._lake.scan("metric_points", hours).filter(wanted).collect().sort("series_id", "ts")
        shown: list[dict[str, Any]] = []
        for _, group in rows.group_by("series_id", maintain_order=True):
            at = group["ts"].dt.epoch("us")
            early, late = group.filter(at < starts), group.filter(at > decided)
            within = group.filter((at >= starts) & (at <= decided))
            if within.height > WITHIN:
                within = pl.concat([within.head(WITHIN // 2), within.tail(WITHIN - WITHIN // 2)])
            fitting = early.filter(early["ts"].dt.epoch("us") >= starts - reach)
            before = fitting if BEFORE < fitting.height <= 4 * BEFORE else early.tail(BEFORE)
            for part, frame in (("before", before), ("decisive", within), ("after", late.head(AFTER))):
                for row in frame.iter_rows(named=True):
                    columns = ("ts", "series_id", "metric", "value", "received_at", "writer", "seq")
                    shown.append({"part": part, **_row({name: row[name] for name in columns})})
        return shown

    def _baselines(self, present: Mapping[str, Any], hours: Sequence[Hour]) -> list[dict[str, Any]]:
        """Statistics of the series: of the deciding hours, and of those learnt at their start."""
        if present["series_id"] is None:
            return []
        wanted = sorted({hour.hour for hour in hours} | {key for hour in hours for key, _, _ in hour.baselines})
        if not wanted:
            return []
        frame = self._lake.scan("baselines", wanted).filter(pl.col("series_id") == present["series_id"])
        rows = frame.sort("hour", "baseline_version").collect()
        learnt = {(key, version) for hour in hours for key, _, version in hour.baselines}
        return [
            _row({**row, "learnt": (row["hour"], row["baseline_version"]) in learnt})
            for row in rows.iter_rows(named=True)
        ]


_TOLD = ("starts_at", "ends_at", "severity_number", "title", "value", "threshold", "evidence")


def _config_now(settings: Settings) -> tuple[Config | None, str]:
    try:
        return load_config(settings.paths.config), ""
    except ConfigError as error:
        return None, f"aiops.yaml is wrong: {error}"


def _receipt_line(receipt: Receipt) -> dict[str, Any]:
    return {
        "revision": receipt.revision,
        "reason": receipt.reason,
        "derived_at": time_text(receipt.derived_at),
        "rows": receipt.rows,
        "late_rows": receipt.late_rows,
        "anomalies": receipt.anomalies,
        "decisions": receipt.decisions,
        "raised": receipt.raised,
        "amended": receipt.amended,
        "withdrawn": receipt.withdrawn,
        "code_version": receipt.code_version,
    }


def _now(recorded: str, present: str) -> tuple[str, bool]:
    return ("the same" if recorded == present else present), recorded == present


def _rule(rule: Rule) -> dict[str, Any]:
    return dict(rule.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def _fields(row: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    names = [*then, *(name for name in now if name not in then)]
    return [Difference(row, name, then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)]


def _seasonal(state: HandOver, series: pl.DataFrame, start: int) -> list[dict[str, Any]]:
    """What the seasonal profile expected of the hour that starts at ``start`` (µs), by series."""
    if "statistics" not in state.parts:
        return []
    part = state.parts["statistics"]
    at = EPOCH + (instant(start) - EPOCH)
    slot = at.weekday() * 24 + at.hour
    shown = []
    known = set(series["series_id"])
    for place, series_id in enumerate(part["series_id"].tolist()):
        if series_id not in known:
            continue
        weekly, daily = part["weekly"][place, slot % _SLOTS_OF_WEEK], part["daily"][place, slot % 24]
        shown.append(
            {
                "series_id": str(series_id),
                "hour_of_week": f"{at:%A} {at:%H}:00 UTC",
                "by_week": float(weekly[0]) if weekly[1] else None,
                "weeks": int(weekly[1]),
                "by_day": float(daily[0]) if daily[1] else None,
                "days": int(daily[1]),
            }
        )
    return shown


def _differences(
    what: str, recorded: pl.DataFrame, derived: pl.DataFrame, columns: Sequence[str], *, key: Sequence[str]
) -> list[Difference]:
    """Every field in which two frames differ, rows matched by ``key`` (none: by their place)."""

    def by_key(frame: pl.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
        rows = frame.iter_rows(named=True)
        return {tuple(_plain(row[name]) for name in key) if key else (place,): row for place, row in enumerate(rows)}

    then, now = by_key(recorded), by_key(derived)
    found = []
    for at in sorted({*then, *now}):
        name = f"{what} {', '.join(map(str, at))}" if key else what
        if at not in then or at not in now:
            present = "the row" if at in then else None
            found.append(Difference(name, "(row)", present, None if at in then else "the row"))
            continue
        found += [
            Difference(name, column, _plain(then[at][column]), _plain(now[at][column]))
            for column in columns
            if not _equal(then[at][column], now[at][column])
        ]
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return bool(one == other)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value, name) for name, value in row.items()}


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if name == "series_id" and value is not None:
        return str(value)
    if name == "evidence":
        return orjson.loads(value or "{}")
    return value


def _joined(parts: Sequence[tuple[Verdict, str]]) -> tuple[Verdict, str]:
    """The worst of several verdicts, in words."""
    if not parts:
        return "not derived", _WORDS["not derived"]
    worst = min((verdict for verdict, _ in parts), key=_WORST.index)
    reasons = _listed(dict.fromkeys(why for verdict, why in parts if verdict == worst and why))
    return worst, _WORDS[worst] + (f": {reasons}" if reasons else "")


def _counted(alerts: Sequence[AlertExplained], verdict: Verdict) -> str:
    counts = {word: sum(alert.verdict == word for alert in alerts) for word in _WORST}
    if counts["same"] == len(alerts):
        return f"all {len(alerts)} alerts came out the same"
    return _listed(f"{count} of {len(alerts)} alerts: {_WORDS[word]}" for word, count in counts.items() if count)


def _listed(texts: Iterable[str], most: int = 12) -> str:
    every = list(texts)
    return ", ".join(every[:most]) + (f" … ({len(every)} in all)" if len(every) > most else "")
