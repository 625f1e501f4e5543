"""The book of alerts that other systems raise: one alert a sender's own key, ended when the sender says so.

What belongs here: what is open of external alerts, and which news changes it. What does not: reading senders' formats
(``formats``) and judging measurements (``alerts``, ``rules``). Nothing here reads a clock.

- The **fingerprint** follows from the source and the sender's own key; at most one alert of a fingerprint is open. The
  ``alert_id`` follows from fingerprint and ``starts_at``, so that a delivery that comes twice changes nothing.
- News that is older than what is known of its alert changes nothing, in whatever order deliveries come.
- What fires again within ``REOPEN_WITHIN`` of its end is the same alert, reopened by a further revision.
- A maintenance window or silence suppresses an external alert like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from aiops_assets.detection.alerts import (
    REOPEN_WITHIN,
    OpenAlert,
    Suppression,
    alert_id,
    covering,
    revision_row,
    revisions_frame,
)
from aiops_assets.detection.wording import printable
from aiops_assets.hours import micros

KIND = "external"
#: at most so many ended alerts are remembered
ENDED_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class _Ended:
    starts_at: int
    changed_at: int
    revision: int


def fingerprint(source: str, key: str) -> str:
    """Stable identity of what an external alert is about."""
    return hashlib.blake2b(orjson.dumps([KIND, source, key]), digest_size=10).hexdigest()


class ExternalBook:
    """The external alerts that are open. Methods return new revisions as rows of ``tables.ALERTS`` (with ``hour``)."""

    def __init__(self) -> None:
        self._open: dict[str, OpenAlert] = {}
        self._ended: dict[str, _Ended] = {}

    @property
    def open_count(self) -> int:
        """How many are open, suppressed ones included."""
        return len(self._open)

    def load(self, alerts: pl.DataFrame) -> None:
        """Take over what the table tells; rows of other kinds are left out."""
        newest = (
            alerts.filter(pl.col("kind") == KIND)
            .sort("changed_at", "revision")
            .unique("fingerprint", keep="last", maintain_order=True)
        )
        for row in newest.iter_rows(named=True):
            if row["state"] in {"firing", "suppressed"}:
                self._open[row["fingerprint"]] = _opened(row)
            else:
                ended = _Ended(micros(row["starts_at"]), micros(row["changed_at"]), row["revision"])
                self._ended[row["fingerprint"]] = ended

    def apply(self, news: pl.DataFrame, windows: Sequence[Suppression]) -> pl.DataFrame:
        """Take news in order of arrival.

        Args:
            news: columns of ``formats.batch.EXTERNAL_SCHEMA``, ``ts`` never null, and ``source``, ``received_at`` (µs),
                ``writer``, ``seq``. Without ``starts_at`` it is about what is open, or else begins at ``ts``.
            windows: maintenance windows and silences in force.
        """
        rows: list[dict[str, Any]] = []
        for told in news.iter_rows(named=True):
            key = fingerprint(told["source"], told["key"])
            position = (told["received_at"], told["writer"], told["seq"])
            if told["state"] == "resolved":
                self._end(key, told, position, rows)
            elif key not in self._open:
                self._start(key, told, windows, position, rows)
            elif told["starts_at"] is None or self._open[key].starts_at >= told["starts_at"]:
                self._change(self._open[key], told, position, rows)
            else:
                self._follow(key, told, windows, position, rows)
        return revisions_frame(rows)

    def recheck(self, watermark: int, windows: Sequence[Suppression]) -> pl.DataFrame:
        """Follow windows that began or ended meanwhile; ``watermark`` is microseconds since the epoch."""
        rows: list[dict[str, Any]] = []
        for alert in self._open.values():
            at = max(watermark, alert.changed_at)
            window = covering(windows, at, alert.host, alert.name, alert.labels)
            explanation = window.explanation if window else None
            if explanation == alert.suppressed_by:
                continue
            alert.state, alert.suppressed_by = ("suppressed" if window else "firing"), explanation
            alert.changed_at, alert.revision = at, alert.revision + 1
            rows.append(revision_row(alert, (at, "", 0)))
        return revisions_frame(rows)

    def _start(
        self,
        key: str,
        told: Mapping[str, Any],
        windows: Sequence[Suppression],
        position: tuple[int, str, int],
        rows: list[dict[str, Any]],
    ) -> None:
        ended = self._ended.get(key)
        starts_at, revision = told["starts_at"] if told["starts_at"] is not None else told["ts"], 0
        if ended is not None:
            if told["ts"] <= ended.changed_at:
                return
            if starts_at <= ended.starts_at or starts_at - ended.changed_at <= REOPEN_WITHIN:
                starts_at, revision = ended.starts_at, ended.revision + 1
            del self._ended[key]
        window = covering(windows, told["ts"], told["host"], told["name"], told["labels"])
        alert = OpenAlert(
            alert_id=alert_id(key, starts_at),
            fingerprint=key,
            kind=KIND,
            name=told["name"],
            host=told["host"],
            metric=told["metric"],
            series_id=None,
            labels=told["labels"],
            severity_number=told["severity_number"],
            starts_at=starts_at,
            changed_at=told["ts"],
            revision=revision,
            state="suppressed" if window else "firing",
            title=printable(told["title"], 240),
            value=told["value"],
            threshold=told["threshold"],
            evidence=_evidence(told),
            suppressed_by=window.explanation if window else None,
            suppressed_until=window.ends_at if window else None,
            reopened=0,
            started_at=starts_at,
            decided_at=told["ts"],
        )
        self._open[key] = alert
        rows.append(revision_row(alert, position))

    def _follow(
        self,
        key: str,
        told: Mapping[str, Any],
        windows: Sequence[Suppression],
        position: tuple[int, str, int],
        rows: list[dict[str, Any]],
    ) -> None:
        """It started anew and nobody said that the earlier one had ended: it ended when the new one began."""
        before = self._open.pop(key)
        before.state, before.revision = "resolved", before.revision + 1
        before.changed_at = max(before.changed_at, told["starts_at"])
        rows.append(revision_row(before, position, ends_at=told["starts_at"]))
        self._start(key, told, windows, position, rows)

    def _change(
        self, alert: OpenAlert, told: Mapping[str, Any], position: tuple[int, str, int], rows: list[dict[str, Any]]
    ) -> None:
        """A repetition; what is more severe, or newly worded at another severity, is a revision."""
        if told["ts"] < alert.decided_at or told["severity_number"] == alert.severity_number:
            return
        alert.severity_number, alert.title = told["severity_number"], printable(told["title"], 240)
        alert.value, alert.threshold, alert.evidence = told["value"], told["threshold"], _evidence(told)
        alert.decided_at = told["ts"]
        alert.changed_at, alert.revision = max(told["ts"], alert.changed_at), alert.revision + 1
        rows.append(revision_row(alert, position))

    def _end(
        self, key: str, told: Mapping[str, Any], position: tuple[int, str, int], rows: list[dict[str, Any]]
    ) -> None:
        alert = self._open.get(key)
        ends_at = told["ends_at"] if told["ends_at"] is not None else told["ts"]
        if alert is None or max(ends_at, told["ts"]) < alert.starts_at:
            return
        del self._open[key]
        alert.state, alert.revision = "resolved", alert.revision + 1
        ends_at = max(ends_at, alert.starts_at)
        alert.changed_at = max(told["ts"], ends_at, alert.changed_at)
        rows.append(revision_row(alert, position, ends_at=ends_at))
        self._ended[key] = _Ended(alert.starts_at, alert.changed_at, alert.revision)
        if len(self._ended) > ENDED_KEPT:
            oldest = sorted(self._ended, key=lambda name: (self._ended[name].changed_at, name))
            for name in oldest[: ENDED_KEPT // 10]:
                del self._ended[name]


def _evidence(told: Mapping[str, Any]) -> str:
    """The sender's own words, and whose they are."""
    return orjson.dumps(
        {"source": told["source"], "key": told["key"], "sent": orjson.Fragment(told["evidence"])}
    ).decode()


def _opened(row: Mapping[str, Any]) -> OpenAlert:
    fields = {name: row[name] for name in OpenAlert.__slots__ if name in row}
    fields["starts_at"], fields["changed_at"] = micros(row["starts_at"]), micros(row["changed_at"])
    return OpenAlert(
        **fields,
        suppressed_until=None,
        reopened=0,
        started_at=fields["starts_at"],
        decided_at=fields["changed_at"],
    )
